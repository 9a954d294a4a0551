package kernels

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"ddgpu/gpu"
)

// square is a convolution of square images, padded so that stride 1 keeps their size.
func square(n, size, cin, cout, kernel, stride int) Conv {
	out := (size + stride - 1) / stride
	pad := kernel / 2
	return Conv{N: n, H: size, W: size, Cin: cin, Cout: cout, KH: kernel, KW: kernel, Stride: stride, PadTop: pad, PadLeft: pad, OH: out, OW: out}
}

// The convolutions of the quickstart's network at batch 32, and of the cifar10-ddpm one at batch 8.
var convShapes = []struct {
	network string
	shapes  []Conv
}{
	{"quickstart", []Conv{
		square(32, 28, 1, 32, 3, 1), square(32, 28, 32, 32, 3, 1), square(32, 28, 64, 32, 3, 1), square(32, 28, 64, 32, 1, 1),
		square(32, 28, 32, 1, 3, 1), square(32, 28, 32, 32, 3, 2), square(32, 14, 32, 32, 3, 1), square(32, 14, 96, 32, 3, 1),
		square(32, 14, 64, 64, 3, 1), square(32, 7, 32, 64, 3, 1), square(32, 7, 64, 64, 3, 1), square(32, 7, 128, 64, 3, 1),
		square(32, 7, 64, 64, 1, 1), Linear(32, 128, 32),
	}},
	{"cifar10", []Conv{
		square(8, 32, 3, 128, 3, 1), square(8, 32, 128, 128, 3, 1), square(8, 32, 256, 128, 1, 1), square(8, 16, 256, 256, 3, 1),
		square(8, 8, 512, 256, 3, 1), square(8, 4, 512, 256, 3, 1), square(8, 32, 128, 3, 3, 1),
	}},
}

// BenchmarkConv measures each convolution forward and backward on one thread of the host device and on two, in GFLOP/s.
func BenchmarkConv(b *testing.B) {
	for _, threads := range []int{1, 2} {
		for _, network := range convShapes {
			for _, g := range network.shapes {
				name := fmt.Sprintf("threads=%d/%s/%dx%d_%d-%d_%dx%d_stride%d", threads, network.network, g.H, g.W, g.Cin, g.Cout, g.KH, g.KW, g.Stride)
				for _, pass := range []string{"forward", "data", "weight"} {
					b.Run(name+"/"+pass, func(b *testing.B) { benchmarkConv(b, fmt.Sprintf("host,threads=%d", threads), g, pass) })
				}
			}
		}
	}
}

func benchmarkConv(b *testing.B, spec string, g Conv, pass string) {
	OnDevice(b, spec, FP32, func(d *gpu.Device, q *Queue) error {
		shards := Shards{Count: 8, Size: (g.N + 7) / 8}
		nx, ny, nw := g.N*g.H*g.W*g.Cin, g.N*g.OH*g.OW*g.Cout, g.KH*g.KW*g.Cin*g.Cout
		var p [4]gpu.Ptr // x, y, w, partial
		for i, n := range []int{nx, ny, nw, nw * shards.Count} {
			v := make([]float32, n)
			for j := range v {
				v[j] = rand.Float32()*2 - 1
			}
			var err error
			if p[i], err = d.Alloc("benchmark", int64(4*n)); err != nil {
				return err
			}
			if err := d.Write(p[i], gpu.Bytes(v)); err != nil {
				return err
			}
		}
		x, y, w, partial := p[0], p[1], p[2], p[3]
		launch := map[string]func(){
			"forward": func() { q.ConvForward(g, y, x, w, Epilogue{}) },
			"data":    func() { q.ConvBackwardData(g, x, y, w, Epilogue{}) },
			"weight":  func() { q.ConvBackwardWeight(g, shards, Segments{}, partial, int64(nw), 0, y, x) },
		}[pass]
		launch()
		if err := q.Stream().Sync(); err != nil {
			return err
		}
		for b.Loop() {
			launch()
			if err := q.Stream().Sync(); err != nil {
				return err
			}
		}
		b.ReportMetric(g.FLOPs()*float64(b.N)/b.Elapsed().Seconds()*1e-9, "GFLOP/s")
		return q.Err()
	})
}
