package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"ddgpu/diffusion"
	"ddgpu/diffusion/data"
	"ddgpu/gpu"
)

func trainCommand() *cli.Command {
	return &cli.Command{
		Name:  "train",
		Usage: "train a network and leave a run folder with checkpoints, samples and metrics",
		Description: `The configuration is a preset, a YAML file, or a preset with a file on top; options override both. The run folder (--out) gets

   config.yaml      the resolved configuration
   metrics.jsonl    one line for each step: step, loss, val_loss, grad_norm, lr, images_per_second
   loss.png         both losses over the steps
   samples/         grids drawn on the way, always from the same noise
   checkpoints/     complete or absent, the newest --keep of them

Ctrl-C and SIGTERM finish the step, save, and exit with code 75; a second one ends at once. The same command then continues, as it does
after a kill, and ends with the same weights to the bit. On a terminal there is a progress bar, otherwise a JSON line every --log-every steps.

Examples:
   ddgpu train --preset quickstart
   ddgpu train --preset quickstart --data photos --steps 5000 --out runs/photos
   ddgpu train --config mine.yaml --devices cuda:0,1 --dry-run
   ddgpu train --out runs/photos                      continues with the configuration that the folder holds`,
		Flags: append(configFlags(),
			devicesFlag(),
			memoryLimitFlag(),
			&cli.StringFlag{Name: "out", Usage: "run `FOLDER` (default: runs/NAME, with the configuration's name)"},
			&cli.StringFlag{Name: "resume", Value: "auto",
				Usage: "auto: from the run folder's newest checkpoint, unless that has more steps than --steps; never: start over (an earlier run is kept under another name); or the `PATH` of a checkpoint"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print the resolved configuration and the memory plan, and open no device"},
			jsonFlag("JSON lines on stdout, also on a terminal"),
			hangFlag(),
		),
		Action: train,
	}
}

func train(c *cli.Context) error {
	runConfig := ""
	if c.IsSet("out") {
		runConfig = filepath.Join(c.String("out"), configName)
	}
	config, err := resolve(c, runConfig)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return dryRun(c, config)
	}
	out := c.String("out")
	if out == "" {
		if config.Name == "" || config.Name != filepath.Base(config.Name) {
			return usagef("the configuration's name %q cannot name a folder: choose one with --out", config.Name)
		}
		out = filepath.Join("runs", config.Name)
	}
	if _, err := deviceSpec(c); err != nil {
		return err
	}
	trainSet, heldOut, err := data.Open(config.Data, imageShape(config))
	if err != nil {
		return err
	}
	if _, _, err := plan(c, config); err != nil { // what cannot be trained at all is found before anything is written
		return err
	}
	m, err := openMachine(c)
	if err != nil {
		return err
	}
	config.ResolvePrecision(m)
	if err := withinLimit(c, config, len(m.Devices)); err != nil {
		return join(err, m.Close())
	}
	folder, from, notice, err := openRunFor(out, c.String("resume"), config)
	if err != nil {
		return join(err, m.Close())
	}
	defer folder.Close()
	if notice != "" {
		fmt.Fprintln(c.App.ErrWriter, "ddgpu: "+notice)
	}
	show := newProgress(c.App.Writer, c.Bool("json"), int64(config.Train.Steps), int64(config.Train.LogEvery))
	noteCompilations(m, show)
	ctx, release := interruptible(func() {
		fmt.Fprintln(c.App.ErrWriter, "ddgpu: finishing the step, then saving; once more to end at once")
	})
	defer release()
	defer show.Close()
	return guard(c.Duration("hang-timeout"), func(alive func(string)) error {
		s := &session{config: config, folder: folder, show: show, machine: m, alive: alive}
		err := s.open(trainSet, heldOut, from)
		if err == nil {
			err = s.run(ctx)
		}
		return join(err, s.close())
	})
}

// withinLimit refuses what needs more memory than --memory-limit leaves, and shows, unless lines of JSON are asked for, what the memory is for.
func withinLimit(c *cli.Context, config diffusion.Config, devices int) error {
	limit, err := memoryLimit(c)
	if err != nil {
		return err
	}
	memory, err := diffusion.PlanMemory(config, devices)
	if err != nil {
		return err
	}
	err = checkLimit(config, devices, memory, limit)
	if err != nil && !c.Bool("json") {
		return join(err, writePlan(c.App.Writer, config, devices, memory, limit))
	}
	return err
}

// dryRun prints what would be trained, as a configuration file with the memory plan in comments, or as one JSON object.
func dryRun(c *cli.Context, config diffusion.Config) error {
	devices, memory, err := plan(c, config)
	if err != nil {
		return err
	}
	limit, err := memoryLimit(c)
	if err != nil {
		return err
	}
	exceeded := checkLimit(config, devices, memory, limit)
	if c.Bool("json") {
		return join(exceeded, writeJSON(c.App.Writer, map[string]any{"config": config, "devices": devices, "memory": memory, "memory_limit": limit}))
	}
	text, err := configYAML(config)
	if err != nil {
		return err
	}
	if _, err := c.App.Writer.Write(text); err != nil {
		return err
	}
	return join(exceeded, writePlan(c.App.Writer, config, devices, memory, limit))
}

// plan works out the memory of each device of --devices without opening one; how many "auto" and "cuda" stand for is not known then: one.
func plan(c *cli.Context, config diffusion.Config) (devices int, memory diffusion.Memory, err error) {
	spec, err := deviceSpec(c)
	if err != nil {
		return 0, memory, err
	}
	devices = max(1, spec.Devices, len(spec.Ordinals))
	memory, err = diffusion.PlanMemory(config, devices)
	return devices, memory, err
}

// machineMemory is the bytes in use on the first device, 0 when it does not say.
func machineMemory(m *gpu.Machine) (used int64) {
	d := m.Devices[0]
	err := d.Do(func() error {
		free, total, err := d.MemInfo()
		used = total - free
		return err
	})
	if err != nil {
		return 0
	}
	return used
}
