package kernels

import (
	"errors"
	"math/rand/v2"
	"testing"

	"ddgpu/gpu"
)

// A convolution and a sum over pixels give the same bits on fibers, in every order of the threads and blocks.
func TestOrdersAgree(t *testing.T) {
	run := func(spec string) (y, sum []float32) {
		g := Conv{N: 3, H: 9, W: 7, Cin: 13, Cout: 37, KH: 3, KW: 3, Stride: 1, PadTop: 1, PadLeft: 1, OH: 9, OW: 7}
		rng := rand.New(rand.NewPCG(1, 2))
		x, w := make([]float32, 3*63*13), make([]float32, 9*13*37)
		for _, v := range [][]float32{x, w} {
			for i := range v {
				v[i] = float32(rng.NormFloat64())
			}
		}
		y, sum = make([]float32, 3*63*37), make([]float32, 3*37)
		OnDevice(t, spec, FP32, func(d *gpu.Device, q *Queue) error {
			var p [4]gpu.Ptr
			for i, v := range [][]float32{x, w, y, sum} {
				var err error
				if p[i], err = d.Alloc("test", int64(4*len(v))); err != nil {
					return err
				}
				if i < 2 {
					if err := d.Write(p[i], gpu.Bytes(v)); err != nil {
						return err
					}
				}
			}
			q.ConvForward(g, p[2], p[0], p[1], Epilogue{})
			q.PixelSum(3, 63, 37, Rows{p[3], 37}, 0, p[2])
			return errors.Join(q.Err(), q.Stream().Sync(), d.Read(gpu.Bytes(y), p[2]), d.Read(gpu.Bytes(sum), p[3]))
		})
		return y, sum
	}
	wantY, wantSum := run("host,tiles=gpu")
	hostY, _ := run("host")
	for i := range wantY {
		if hostY[i] != wantY[i] {
			t.Fatalf("host tiles: y[%d] = %v, want %v", i, hostY[i], wantY[i])
		}
	}
	for _, order := range []string{"reverse", "ahead", "random:1", "random:77"} {
		y, sum := run("host,tiles=gpu,order=" + order)
		for i := range y {
			if y[i] != wantY[i] {
				t.Fatalf("%s: y[%d] = %v, want %v", order, i, y[i], wantY[i])
			}
		}
		for i := range sum {
			if sum[i] != wantSum[i] {
				t.Fatalf("%s: sum[%d] = %v, want %v", order, i, sum[i], wantSum[i])
			}
		}
	}
}
