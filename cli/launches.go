package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"ddgpu/diffusion"
	"ddgpu/gpu"
	"ddgpu/gpu/driver"
)

func launchesCommand() *cli.Command {
	return &cli.Command{
		Name:  "launches",
		Usage: "list the kernels that a training step launches, without running any",
		Description: `Prepares the training of a preset on a dry host device, in the configuration of a GPU, makes one step, and prints each launch: kernel,
grid, threads of a block, dynamic shared memory in bytes, and arguments, where a pointer is 0 or 1. ./build.sh sass-report predicts times from them.

Examples:
   ddgpu launches --preset cifar10-ddpm
   ddgpu launches --preset quickstart --batch 64 --json`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "preset", Value: "quickstart", Usage: "network and batch of the step"},
			&cli.IntFlag{Name: "batch", Usage: "`IMAGES` of the step", DefaultText: "the preset's"},
			precisionFlag(),
			jsonFlag("print one JSON object"),
		},
		Action: launches,
	}
}

// dryDevice is a host device that runs no kernel, with memory for any network.
const dryDevice = "host,tiles=gpu,dry,memory=1TiB"

// launchReport is the launches of a step as --json prints them.
type launchReport struct {
	Preset    string        `json:"preset"`
	Precision string        `json:"precision"`
	Batch     int           `json:"batch"`
	Launches  []driver.Note `json:"launches"`
}

func launches(c *cli.Context) error {
	if _, err := precisionOf(c); err != nil {
		return err
	}
	config, err := benchConfig(c)
	if err != nil {
		return err
	}
	report := launchReport{Preset: config.Name, Precision: config.Precision, Batch: config.Train.Batch}
	if report.Launches, err = launchesOf(config); err != nil {
		return err
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, report)
	}
	return report.write(c.App.Writer)
}

// launchesOf makes one step on a dry device. What the step computes is never looked at.
func launchesOf(config diffusion.Config) (list []driver.Note, err error) {
	m, err := gpu.Open(dryDevice)
	if err != nil {
		return nil, err
	}
	defer func() { err = join(err, m.Close()) }()
	t, err := diffusion.NewTrainer(m, config, noiseImagesFor(config), nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = join(err, t.Close()) }()
	if _, err := driver.Noted(); err != nil { // what preparing launched
		return nil, err
	}
	if _, err := t.Step(context.Background()); err != nil && !is[*diffusion.DivergedError](err) {
		return nil, err
	}
	return driver.Noted()
}

func (r launchReport) write(w io.Writer) error {
	fmt.Fprintf(w, "%s, batch %d, %s: %d launches\n%-36s %-20s %7s %7s  %s\n", r.Preset, r.Batch, r.Precision, len(r.Launches),
		"kernel", "grid", "threads", "shared", "arguments")
	for _, l := range r.Launches {
		args := strings.Trim(fmt.Sprint(l.Args), "[]")
		if _, err := fmt.Fprintf(w, "%-36s %-20s %7d %7d  %s\n", l.Kernel, fmt.Sprint(l.Grid), l.Block, l.Shared, args); err != nil {
			return err
		}
	}
	return nil
}
