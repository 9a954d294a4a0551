package gpu_test

import (
	"errors"
	"testing"

	"ddgpu/gpu"
)

func TestRoundRunsOnEveryDeviceEachTime(t *testing.T) {
	m := open(t, "host:3")
	counts := make([]int, len(m.Devices))
	wrong := errors.New("wrong")
	var fails int
	round := m.NewRound(func(d *gpu.Device) error {
		counts[d.Index]++
		if d.Index == fails {
			return wrong
		}
		return nil
	})
	if err := round.Run(); !errors.Is(err, wrong) {
		t.Errorf("one device failed: %v", err)
	}
	fails = -1
	if n := testing.AllocsPerRun(10, func() {
		if err := round.Run(); err != nil {
			t.Error(err)
		}
	}); n > 0 {
		t.Errorf("a round allocates %g times", n)
	}
	for i, n := range counts {
		if n != 12 { // AllocsPerRun warms up once
			t.Errorf("device %d ran %d times of 12", i, n)
		}
	}
}

// TestMarkerTellsWhetherItsWorkHasRun on a device that runs only what is waited for or asked for.
func TestMarkerTellsWhetherItsWorkHasRun(t *testing.T) {
	d := open(t, "host,lazy").Devices[0]
	do(t, d, func() error {
		s, err := d.NewStream()
		if err != nil {
			return err
		}
		p, err := d.Alloc("a test", 1<<20)
		if err != nil {
			return err
		}
		e, err := d.NewMarker()
		if err != nil {
			return err
		}
		if err := steps(func() error { return s.Zero(p, 1<<20) }, func() error { return s.Record(e) }); err != nil {
			return err
		}
		if done, err := e.Done(); done || err != nil {
			t.Errorf("work that nobody waited for: done %v, %v", done, err)
		}
		if err := e.Sync(); err != nil {
			return err
		}
		if done, err := e.Done(); !done || err != nil {
			t.Errorf("work that was waited for: done %v, %v", done, err)
		}
		return steps(e.Close, s.Close, func() error { return d.Free(p) })
	})
}
