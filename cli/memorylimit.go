package main

import (
	"fmt"
	"strings"

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

// checkLimit is a *limitError when a plan exceeds a limit. It names what would fit with the same result to the bit.
func checkLimit(config diffusion.Config, devices int, planned diffusion.Memory, limit int64) error {
	if limit == 0 || planned.Total <= limit {
		return nil
	}
	e := &limitError{need: planned.Total, limit: limit, instead: "a smaller --batch, or a smaller network, needs less"}
	var fit []string
	try := func(config diffusion.Config, options string) bool {
		m, err := diffusion.PlanMemory(config, devices)
		if err != nil || m.Total > limit {
			return false
		}
		fit = append(fit, fmt.Sprintf("%s needs %s", options, humanize.IBytes(uint64(m.Total))))
		return true
	}
	tryMicroBatches := func(config diffusion.Config, options string) bool {
		for config.Train.MicroBatches *= 2; config.Validate() == nil; config.Train.MicroBatches *= 2 {
			if try(config, fmt.Sprintf("%s--micro-batches %d", options, config.Train.MicroBatches)) {
				return true
			}
		}
		return false
	}
	smaller := tryMicroBatches(config, "")
	if !config.Train.Recompute {
		config.Train.Recompute = true
		if !try(config, "--recompute") && !smaller {
			tryMicroBatches(config, "--recompute ")
		}
	}
	if len(fit) > 0 {
		e.instead = strings.Join(fit, ", ") + ", with the same result to the bit"
	}
	return e
}
