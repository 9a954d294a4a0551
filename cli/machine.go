package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"ddgpu/gpu"
	"ddgpu/gpu/driver"
)

// devicesFlag chooses the devices that a command runs on.
func devicesFlag() cli.Flag {
	return &cli.StringFlag{Name: "devices", Value: "auto", EnvVars: []string{"DDGPU_DEVICES"},
		Usage: "`SPEC`: auto, cuda[:0,1], host[:N][,memory=64MiB][,threads=N], or ptx[:N], which interprets the kernels' PTX"}
}

// deviceSpec is the value of --devices, checked without opening anything.
func deviceSpec(c *cli.Context) (driver.Spec, error) {
	spec, err := driver.ParseSpec(c.String("devices"))
	if err != nil {
		return spec, usageError{err}
	}
	return spec, nil
}

// openMachine opens the devices of --devices, with the bound of --memory-limit, and passes on, on stderr, what the user should know about the choice.
func openMachine(c *cli.Context) (*gpu.Machine, error) {
	if _, err := deviceSpec(c); err != nil {
		return nil, err
	}
	limit, err := memoryLimit(c)
	if err != nil {
		return nil, err
	}
	m, err := gpu.Open(c.String("devices"))
	if err != nil {
		return nil, fmt.Errorf("opening devices: %w", err)
	}
	if err := m.LimitMemory(limit); err != nil {
		return nil, join(err, m.Close())
	}
	if m.Notice != "" {
		fmt.Fprintln(c.App.ErrWriter, "ddgpu: "+m.Notice)
	}
	m.OnCompile = func(told gpu.Compilation) { fmt.Fprintln(c.App.ErrWriter, "ddgpu: "+told.String()) }
	return m, nil
}

// noteCompilations puts what is compiled among the notes of a run instead of on stderr.
func noteCompilations(m *gpu.Machine, show progress) {
	m.OnCompile = func(told gpu.Compilation) {
		f := fields{"module": told.Module, "device": told.Device.Name, "chip": told.Chip(), "seconds": told.Took.Seconds(), "cached": told.Kept == nil}
		if told.Kept != nil {
			f["reason"] = told.Kept.Error()
		}
		show.Note("compiled kernels", f)
	}
}

// join is err, or what followed it where that alone failed: after an error, a failing clean-up says nothing new.
func join(err, after error) error {
	if err != nil {
		return err
	}
	return after
}
