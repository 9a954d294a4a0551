package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"
)

// hangError is a device that does not come back.
type hangError struct {
	after time.Duration
	doing string
}

func (e *hangError) Error() string {
	return fmt.Sprintf("nothing has ended for %v while %s: the device hangs", e.after, e.doing)
}

// hangFlag is how long a command waits for a sign of life. The default is long because a step of a large network may take minutes on a CPU.
func hangFlag() cli.Flag {
	return &cli.DurationFlag{Name: "hang-timeout", Value: 30 * time.Minute,
		Usage: "exit with code 80 when nothing has ended for `TIME`, 0 for never"}
}

// guard runs work and gives its error, or a *hangError when work has not called alive for the time of limit. It then returns although work is
// still under way: a thread that waits for a device cannot be stopped, only left behind by the end of the process.
func guard(limit time.Duration, work func(alive func(doing string)) error) error {
	if limit <= 0 {
		return work(func(string) {})
	}
	var doing atomic.Value
	doing.Store("starting")
	signs, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		done <- work(func(what string) {
			doing.Store(what)
			select {
			case signs <- struct{}{}:
			default: // an earlier sign has not been taken yet
			}
		})
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-signs:
			timer.Reset(limit)
		case <-timer.C:
			return &hangError{limit, doing.Load().(string)}
		}
	}
}
