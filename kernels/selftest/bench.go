package selftest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// Timing is the time of one case.
type Timing struct {
	Op, Shape string
	Median    time.Duration // of one launch
	Bytes     float64       // that one launch must move at least
	FLOPs     float64       // of one launch
}

// BytesPerSecond is the rate at which the case's least bytes move.
func (t Timing) BytesPerSecond() float64 { return t.Bytes / t.Median.Seconds() }

// FLOPsPerSecond is the rate of the case's arithmetic.
func (t Timing) FLOPsPerSecond() float64 { return t.FLOPs / t.Median.Seconds() }

// Bench times the bench cases on a device (it calls d.Do itself).
func Bench(d *gpu.Device, r kernels.Real, o Options) ([]Timing, error) {
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.Repeats == 0 {
		o.Repeats = 20
	}
	var timings []Timing
	err := onQueue(d, r, func(q *kernels.Queue) error {
		for _, op := range o.ops() {
			for _, c := range op.Bench {
				if c.Large && o.Short {
					continue
				}
				t, err := timeCase(d, q, op.Name, c, o)
				if err != nil {
					return fmt.Errorf("timing %s %s: %w", op.Name, c.Shape, err)
				}
				timings = append(timings, t)
				if o.Timed != nil {
					o.Timed(t)
				}
			}
		}
		return nil
	})
	return timings, err
}

func timeCase(d *gpu.Device, q *kernels.Queue, op string, c Case, o Options) (t Timing, err error) {
	b := &Builder{device: d, queue: q, rng: caseSeed(o.Seed, op, c.Shape), timing: true}
	defer func() { err = join(err, b.free()) }()
	c.Build(b)
	if b.err != nil {
		return t, b.err
	}
	t = Timing{Op: op, Shape: c.Shape, Bytes: c.Bytes * float64(q.Real().Size()) / 4, FLOPs: c.FLOPs}
	t.Median, err = medianTime(d, q, o.Repeats, b.launches)
	return t, err
}

// medianTime is the time of the launches between two events, after two runs that do not count.
func medianTime(d *gpu.Device, q *kernels.Queue, repeats int, launches []func(*kernels.Queue)) (median time.Duration, err error) {
	start, err := d.NewEvent()
	if err != nil {
		return 0, err
	}
	defer func() { err = join(err, start.Close()) }()
	end, err := d.NewEvent()
	if err != nil {
		return 0, err
	}
	defer func() { err = join(err, end.Close()) }()
	times := make([]time.Duration, 0, repeats)
	for i := range repeats + 2 {
		if err := q.Stream().Record(start); err != nil {
			return 0, err
		}
		for _, f := range launches {
			f(q)
		}
		if err := join(q.Err(), q.Stream().Record(end)); err != nil {
			return 0, err
		}
		if err := end.Sync(); err != nil {
			return 0, err
		}
		took, err := end.Since(start)
		if err != nil {
			return 0, err
		}
		if i >= 2 {
			times = append(times, took)
		}
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
