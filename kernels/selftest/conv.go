package selftest

import (
	"fmt"

	"ddgpu/kernels"
)

// output is the size of a convolution's output along one axis.
func output(size, kernel, stride, before, after int) int {
	return (size+before+after-kernel)/stride + 1
}

// conv is a convolution with the padding (top, left, bottom, right).
func conv(n, h, w, cin, cout, kh, kw, stride int, pad [4]int) kernels.Conv {
	return kernels.Conv{N: n, H: h, W: w, Cin: cin, Cout: cout, KH: kh, KW: kw, Stride: stride, PadTop: pad[0], PadLeft: pad[1],
		OH: output(h, kh, stride, pad[0], pad[2]), OW: output(w, kw, stride, pad[1], pad[3])}
}

func convShape(g kernels.Conv) string {
	return fmt.Sprintf("%d×%d×%d×%d→%d×%d×%d k%d×%d s%d p%d,%d", g.N, g.H, g.W, g.Cin, g.OH, g.OW, g.Cout, g.KH, g.KW, g.Stride, g.PadTop, g.PadLeft)
}

func xSize(g kernels.Conv) int { return g.N * g.H * g.W * g.Cin }
func ySize(g kernels.Conv) int { return g.N * g.OH * g.OW * g.Cout }
func wSize(g kernels.Conv) int { return g.KH * g.KW * g.Cin * g.Cout }

// eachTap calls f for every pair of an output pixel and an input pixel that it sees, with the tap between them.
func eachTap(g kernels.Conv, f func(y, x, tap int)) {
	for n := range g.N {
		for p := range g.OH {
			for q := range g.OW {
				for a := range g.KH {
					for b := range g.KW {
						h, w := p*g.Stride-g.PadTop+a, q*g.Stride-g.PadLeft+b
						if h >= 0 && h < g.H && w >= 0 && w < g.W {
							f((n*g.OH+p)*g.OW+q, (n*g.H+h)*g.W+w, a*g.KW+b)
						}
					}
				}
			}
		}
	}
}

func convForward(g kernels.Conv, x, w []float64) []float64 {
	y := make([]float64, ySize(g))
	eachTap(g, func(yi, xi, tap int) {
		for c := range g.Cin {
			for o := range g.Cout {
				y[yi*g.Cout+o] += x[xi*g.Cin+c] * w[(tap*g.Cin+c)*g.Cout+o]
			}
		}
	})
	return y
}

func convForwardCase(g kernels.Conv) Case {
	return Case{Shape: convShape(g), Bytes: 4 * float64(xSize(g)+ySize(g)+wSize(g)), FLOPs: g.FLOPs(), Build: func(b *Builder) {
		x, w := b.Normal(xSize(g)), b.Normal(wSize(g))
		y := b.Out("y", b.Want(ySize(g), func() []float64 { return convForward(g, x, w) }))
		xp, wp := b.In(x), b.In(w)
		b.Launch(func(q *kernels.Queue) { q.ConvForward(g, y, xp, wp, kernels.Epilogue{}) })
	}}
}

func convOps() []Op {
	same := [4]int{1, 1, 1, 1}
	return []Op{{
		Name:  "conv_forward",
		Cases: []Case{convForwardCase(conv(2, 9, 7, 5, 6, 3, 3, 1, same))},
	}}
}
