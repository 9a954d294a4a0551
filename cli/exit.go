package main

import (
	"errors"
	"fmt"
	"syscall"

	"ddgpu/diffusion"
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

// exitRules is the one place where errors become exit codes. The first rule that matches counts.
var exitRules = []struct {
	code  int
	match func(error) bool
}{
	{exitUsage, is[usageError]},
	{exitUsage, is[*diffusion.ConfigError]},
	{exitError, func(err error) bool { return errors.Is(err, syscall.ENOSPC) }},
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
