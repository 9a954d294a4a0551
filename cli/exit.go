package main

import (
	"errors"
	"fmt"
	"syscall"

	"ddgpu/cli/pytorch"
	"ddgpu/diffusion"
	"ddgpu/diffusion/checkpoint"
	"ddgpu/diffusion/data"
	"ddgpu/diffusion/safetensors"
	"ddgpu/gpu"
	"ddgpu/gpu/driver"
)

// The exit codes that a launcher or a script can act on.
const (
	exitDone        = 0
	exitError       = 1
	exitUsage       = 2  // the command line or the configuration is wrong
	exitPreempted   = 75 // stopped on request, saved, and resumable
	exitDiverged    = 76 // the loss or the gradient is not finite
	exitOutOfMemory = 77 // of a device
	exitBadData     = 78 // images, checkpoints or arrays that cannot be read
	exitDeviceFault = 79
	exitHang        = 80
)

// usageError is a mistake in the command line or in a configuration file.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// preemptedError is a training that was asked to stop and can go on.
type preemptedError struct {
	step       int64
	checkpoint string
}

func (e *preemptedError) Error() string {
	return fmt.Sprintf("stopped after step %d and saved %s: the same command continues", e.step, e.checkpoint)
}

// exitRules is the one place where errors become exit codes. The first rule that matches counts.
var exitRules = []struct {
	code  int
	match func(error) bool
}{
	{exitUsage, is[usageError]},
	{exitUsage, is[*diffusion.ConfigError]},
	{exitUsage, is[*pytorch.StartError]},
	{exitError, func(err error) bool { return errors.Is(err, syscall.ENOSPC) }}, // whatever was being written
	{exitPreempted, is[*preemptedError]},
	{exitHang, is[*hangError]},
	{exitDiverged, is[*diffusion.DivergedError]},
	{exitBadData, is[*data.Error]},
	{exitBadData, is[*checkpoint.Error]},
	{exitBadData, is[*safetensors.FormatError]},
	{exitBadData, is[npyError]},
	{exitOutOfMemory, is[*limitError]},
	{exitOutOfMemory, func(err error) bool { return errors.Is(err, driver.OutOfMemory) }},
	{exitDeviceFault, is[*gpu.Error]},
	{exitDeviceFault, is[*driver.OpenError]},
	{exitDeviceFault, is[driver.Result]},
}

func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	for _, rule := range exitRules {
		if rule.match(err) {
			return rule.code
		}
	}
	return exitError
}

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}
