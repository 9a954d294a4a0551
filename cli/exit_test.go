package main

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"ddgpu/diffusion"
	"ddgpu/diffusion/checkpoint"
	"ddgpu/diffusion/data"
	"ddgpu/diffusion/safetensors"
	"ddgpu/gpu"
	"ddgpu/gpu/driver"
)

func TestExitCodes(t *testing.T) {
	full := &data.Error{Path: "x", Err: syscall.ENOSPC}
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("something"), 1},
		{syscall.ENOSPC, 1},
		{full, 1},
		{usagef("no such option"), 2},
		{&diffusion.ConfigError{Key: "train.steps", Reason: "is 0"}, 2},
		{&preemptedError{12, "runs/x/checkpoints/step-00000012"}, 75},
		{&diffusion.DivergedError{Step: 3, What: "loss"}, 76},
		{&gpu.MemoryError{What: "activations", Bytes: 1 << 30}, 77},
		{&limitError{need: 2, limit: 1}, 77},
		{&gpu.Error{Op: "allocating pinned memory", Err: driver.OutOfMemory}, 77},
		{&data.Error{Path: "x.png", Err: errors.New("truncated")}, 78},
		{&checkpoint.Error{Path: "x", Err: errors.New("damaged")}, 78},
		{&safetensors.FormatError{Reason: "a hole"}, 78},
		{npyError{"x.npy", errors.New("not a .npy file")}, 78},
		{&gpu.Error{Op: "waiting for a stream", Err: driver.LaunchFailed}, 79},
		{&driver.OpenError{Code: driver.NoDevice, Message: "no GPU"}, 79},
		{driver.ECCUncorrectable, 79},
		{&hangError{time.Minute, "step 3 runs"}, 80},
	} {
		if got := exitCode(test.err); got != test.want {
			t.Errorf("%v: exit code %d, want %d", test.err, got, test.want)
		}
		if test.err != nil && exitCode(fmt.Errorf("step 3: %w", test.err)) != test.want {
			t.Errorf("%v: another exit code once it is wrapped", test.err)
		}
	}
}
