package kernels

import (
	"testing"

	"ddgpu/gpu"
)

// TestNormShared: a block of a group norm has no more shared memory than the smallest GPU of its precision, and keeps its part where there is room.
func TestNormShared(t *testing.T) {
	for _, p := range []Precision{FP32, TF32, BF16} {
		OnDevice(t, "host,tiles=gpu", p, func(_ *gpu.Device, q *Queue) error {
			staged := 0
			for _, pixels := range []int{1, 49, 64, 256, 784, 1024, 4096} {
				for _, c := range []int{32, 64, 96, 128, 256, 384, 512, 1024} {
					for sums, k := range []declaration{groupNormForward, groupNormBackward} {
						l := Norm{N: 1, HW: pixels, C: c, Groups: 32}.launchOf(q.geometry(k), sums+1, p)
						if l.shared > mostShared(p) {
							t.Errorf("%v, %d pixels, %d channels, %s: %d bytes", p, pixels, c, k.name, l.shared)
						}
						if l.staged {
							staged++
						}
					}
				}
			}
			if staged == 0 {
				t.Errorf("%v: no block keeps its part of the tensors", p)
			}
			return nil
		})
	}
}
