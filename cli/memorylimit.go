package main

import (
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"ddgpu/diffusion"
)

func memoryLimitFlag() cli.Flag {
	return &cli.StringFlag{Name: "memory-limit", EnvVars: []string{"DDGPU_MEMORY_LIMIT"}, DefaultText: "all that is free",
		Usage: "allocate at most `SIZE` of each device's memory, such as 8GiB"}
}

// memoryLimit is the value of --memory-limit in bytes, 0 without it.
func memoryLimit(c *cli.Context) (int64, error) {
	text := c.String("memory-limit")
	if text == "" {
		return 0, nil
	}
	bytes, err := humanize.ParseBytes(text)
	if err != nil || bytes == 0 || bytes > 1<<50 {
		return 0, usagef("--memory-limit %s: want a size such as 8GiB or 500MB", text)
	}
	return int64(bytes), nil
}

// limitError is a training that needs more of a device's memory than --memory-limit leaves it.
type limitError struct {
	need, limit int64
	instead     string // what would fit
}

func (e *limitError) Error() string {
	return fmt.Sprintf("the training needs %s of each device's memory, the limit is %s: %s", humanize.IBytes(uint64(e.need)),
		humanize.IBytes(uint64(e.limit)), e.instead)
}

// checkLimit is a *limitError when a plan exceeds a limit. It names the fewest micro-batches that would not.
func checkLimit(config diffusion.Config, devices int, planned diffusion.Memory, limit int64) error {
	if limit == 0 || planned.Total <= limit {
		return nil
	}
	e := &limitError{need: planned.Total, limit: limit, instead: "a smaller --batch, or a smaller network, needs less"}
	for {
		config.Train.MicroBatches *= 2
		if config.Validate() != nil {
			return e
		}
		smaller, err := diffusion.PlanMemory(config, devices)
		if err != nil {
			return e
		}
		if smaller.Total <= limit {
			e.instead = fmt.Sprintf("--micro-batches %d, with the same result to the bit, needs %s", config.Train.MicroBatches,
				humanize.IBytes(uint64(smaller.Total)))
			return e
		}
	}
}
