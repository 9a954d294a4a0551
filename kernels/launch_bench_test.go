package kernels

import (
	"testing"

	"ddgpu/gpu"
)

// BenchmarkLaunch measures what a launch costs beside its work: 300 of a kernel that has next to none, as a training step has, queued one
// by one or replayed as a graph, with the work for one thread of the host device or for both.
func BenchmarkLaunch(b *testing.B) {
	const launches = 300
	for _, mode := range []struct {
		name    string
		blocks  int
		capture bool
	}{
		{"queue/blocks=1", 1, false}, {"queue/blocks=2", 2, false}, {"graph/blocks=1", 1, true}, {"graph/blocks=2", 2, true},
	} {
		b.Run(mode.name, func(b *testing.B) {
			OnDevice(b, "host,threads=2", FP32, func(d *gpu.Device, q *Queue) error {
				s := q.Stream()
				n := int64(4096*(mode.blocks-1) + 1)
				x, err := d.Alloc("benchmark", 4*n)
				if err != nil {
					return err
				}
				step := func() error {
					for range launches {
						q.Add(n, x, x, x)
					}
					return q.Err()
				}
				if mode.capture {
					g, err := s.Capture(step)
					if err != nil {
						return err
					}
					defer g.Close()
					step = func() error { return g.Launch(s) }
				}
				for b.Loop() {
					if err := step(); err != nil {
						return err
					}
					if err := s.Sync(); err != nil {
						return err
					}
				}
				b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*launches), "us/launch")
				return nil
			})
		})
	}
}
