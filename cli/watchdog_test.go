package main

import (
	"errors"
	"testing"
	"time"
)

func TestGuard(t *testing.T) {
	broken := errors.New("broken")
	for _, limit := range []time.Duration{0, time.Minute} {
		if err := guard(limit, func(func(string)) error { return broken }); err != broken {
			t.Errorf("limit %v: the error of the work became %v", limit, err)
		}
	}
	forever := make(chan struct{})
	defer close(forever)
	err := guard(20*time.Millisecond, func(alive func(string)) error {
		alive("step 3")
		<-forever
		return nil
	})
	var hang *hangError
	if !errors.As(err, &hang) || hang.doing != "step 3" || exitCode(err) != exitHang {
		t.Errorf("work that never ends: %v, exit code %d", err, exitCode(err))
	}
}

// Work that goes on longer than the limit, but shows signs of life, is let be.
func TestGuardWaits(t *testing.T) {
	const limit = time.Second // the machine may be busy: a wait of a third must not take the whole
	err := guard(limit, func(alive func(string)) error {
		for range 4 {
			time.Sleep(limit / 3)
			alive("step")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
