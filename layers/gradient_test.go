package layers

import (
	"math"
	"strings"
	"testing"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// nodeCases are small graphs for each kind of node, of odd shapes.
var nodeCases = []struct {
	name  string
	in    Shape
	build func(b *builder, x *value) *value
}{
	{"conv", Shape{5, 3, 3}, func(b *builder, x *value) *value {
		return b.conv("conv", x, 7, convOptions{kernel: 3, pad: same(3)})
	}},
	{"conv of stride 2, padded right and below", Shape{6, 5, 2}, func(b *builder, x *value) *value {
		return b.conv("conv", x, 3, convOptions{kernel: 3, stride: 2, pad: [4]int{0, 1, 0, 1}})
	}},
	{"conv of stride 2", Shape{5, 6, 3}, func(b *builder, x *value) *value {
		return b.conv("conv", x, 2, convOptions{kernel: 3, stride: 2, pad: same(3)})
	}},
	{"conv without bias, padding of four sizes", Shape{4, 5, 1}, func(b *builder, x *value) *value {
		return b.conv("conv", x, 3, convOptions{kernel: 4, stride: 3, pad: [4]int{3, 0, 1, 2}, noBias: true})
	}},
	{"conv with a vector for each image", Shape{3, 3, 2}, func(b *builder, x *value) *value {
		t := b.linear("t", b.timeEmbedding("time", 6, false, 1), 5, nil, 1)
		return b.conv("conv", x, 5, convOptions{kernel: 3, pad: same(3), perImage: t})
	}},
	{"conv without bias with a vector for each image", Shape{3, 3, 2}, func(b *builder, x *value) *value {
		t := b.linear("t", b.timeEmbedding("time", 4, true, 0), 5, nil, 1)
		return b.conv("conv", x, 5, convOptions{kernel: 3, pad: same(3), perImage: t, noBias: true})
	}},
	{"conv of one pixel with a vector for each image", Shape{1, 1, 3}, func(b *builder, x *value) *value {
		t := b.linear("t", b.timeEmbedding("time", 4, true, 0), 5, nil, 1)
		return b.conv("conv", x, 5, convOptions{perImage: t})
	}},
	{"conv with everything", Shape{3, 4, 2}, func(b *builder, x *value) *value {
		t := b.linear("t", b.timeEmbedding("time", 6, true, 0), 4, nil, 1)
		skip := b.conv("skip", x, 4, convOptions{})
		y := b.conv("conv", x, 4, convOptions{kernel: 3, pad: same(3), perImage: t, residual: skip, scale: 0.7})
		return b.silu("end", y)
	}},
	{"conv whose input is its residual", Shape{3, 3, 4}, func(b *builder, x *value) *value {
		x = b.silu("begin", x)
		return b.silu("end", b.conv("conv", x, 4, convOptions{kernel: 3, pad: same(3), residual: x, scale: 1.5}))
	}},
	{"linear", Shape{1, 1, 5}, func(b *builder, x *value) *value { return b.linear("linear", x, 3, nil, 1) }},
	{"linear on pixels with residual", Shape{3, 5, 4}, func(b *builder, x *value) *value {
		return b.silu("end", b.linear("linear", x, 4, b.silu("begin", x), 1))
	}},
	{"group norm", Shape{5, 3, 6}, func(b *builder, x *value) *value { return b.groupNorm("norm", x, 2, 1e-5, false, nil) }},
	{"group norm, silu, an odd count", Shape{3, 3, 9}, func(b *builder, x *value) *value {
		return b.groupNorm("norm", x, 3, 1e-6, true, nil)
	}},
	{"group norm with scale and shift", Shape{3, 2, 10}, func(b *builder, x *value) *value {
		t := b.linear("t", b.timeEmbedding("time", 6, false, 0), 20, nil, 1)
		return b.groupNorm("norm", x, 5, 1e-5, true, t)
	}},
	{"attention", Shape{5, 3, 4}, func(b *builder, x *value) *value {
		return b.attention("attention", b.linear("q", x, 6, nil, 1), b.linear("k", x, 6, nil, 1), b.linear("v", x, 6, nil, 1), 2, 0.6)
	}},
	{"attention of a value to itself", Shape{3, 3, 5}, func(b *builder, x *value) *value {
		x = b.silu("begin", x)
		return b.attention("attention", x, x, x, 1, 0.4)
	}},
	{"upsample", Shape{3, 5, 3}, func(b *builder, x *value) *value { return b.upsample("up", x) }},
	{"average pool", Shape{5, 7, 3}, func(b *builder, x *value) *value { return b.averagePool("down", x) }},
	{"concat", Shape{3, 5, 3}, func(b *builder, x *value) *value {
		return b.concat("concat", b.conv("a", x, 5, convOptions{}), b.conv("b", x, 2, convOptions{}))
	}},
	{"concat of a value with itself", Shape{3, 5, 3}, func(b *builder, x *value) *value { return b.concat("concat", x, x) }},
	{"silu", Shape{3, 5, 3}, func(b *builder, x *value) *value { return b.silu("silu", x) }},
	{"class embedding", Shape{1, 1, 5}, func(b *builder, x *value) *value {
		return b.silu("end", b.classEmbedding("class", x, 3))
	}},
	{"dropout", Shape{3, 5, 3}, func(b *builder, x *value) *value {
		x = b.groupNormDropout("first", x, 3, 1e-5, true, nil, 0.4)
		t := b.linear("t", b.timeEmbedding("time", 6, false, 0), 8, nil, 1)
		return b.groupNormDropout("second", b.conv("conv", x, 4, convOptions{}), 2, 1e-5, true, t, 0.2)
	}},
	{"fan-out to all kinds", Shape{4, 4, 4}, func(b *builder, x *value) *value {
		x = b.silu("begin", x)
		a := b.conv("a", x, 4, convOptions{kernel: 3, pad: same(3)}) // adds to the sum of those below
		n := b.groupNorm("norm", x, 2, 1e-5, false, nil)
		c := b.conv("c", x, 4, convOptions{residual: a})
		d := b.conv("d", n, 4, convOptions{residual: x})
		up := b.upsample("up", b.averagePool("down", x))
		return b.conv("end", b.concat("join", b.concat("left", c, d), b.concat("right", up, x)), 3, convOptions{})
	}},
}

// TestNodeGradients compares the gradient of each kind of node, for every element of its weights and input, with central differences in float64.
func TestNodeGradients(t *testing.T) {
	onHost(t, kernels.FP64, func(m *machine) {
		for _, c := range nodeCases {
			r := seeded(t)
			b := newBuilder(c.in)
			g, err := b.finish(c.build(b, b.g.x))
			m.check(err)
			// The last shard is short.
			tr := newTrial(m, g, randomData(r, g, 3), PlanOptions{Train: true, Dropout: true, InputGradient: true, Shards: shards(2, 2)})
			tr.forward()
			parts, dx := tr.backward()
			report := func(what string, analytic, numeric []float64, least float64) {
				difference := make([]float64, len(analytic))
				for i := range analytic {
					difference[i] = analytic[i] - numeric[i]
				}
				if e := norm(difference) / max(norm(numeric), least); !(e <= 1e-6) {
					t.Errorf("%s: the gradient of %s differs by %.2g from central differences", c.name, what, e)
				}
			}
			numeric := make([]float64, len(tr.x))
			direction := make([]float64, len(tr.x))
			for i := range tr.x {
				direction[i] = 1
				numeric[i] = tr.slope(tr.instance.X, tr.x, direction)
				direction[i] = 0
			}
			report("the input", dx, numeric, 0)
			scale := norm(numeric)
			for i, p := range g.Params {
				at := tr.weights[p.Offset : p.Offset+p.Elements]
				analytic, numeric, direction := make([]float64, p.Elements), make([]float64, p.Elements), make([]float64, p.Elements)
				for e := range at {
					direction[e] = 1
					numeric[e] = tr.slope(tr.w.Offset(p.Offset*8), at, direction)
					direction[e] = 0
				}
				for e := range analytic {
					analytic[e] = parts[0][i].Values[e] + parts[1][i].Values[e]
				}
				numeric = p.ToPublic(append(make([]float64, p.Offset), numeric...))
				least := 0.0
				if p.Name == "k.bias" {
					least = scale // 0 in exact arithmetic: a softmax ignores what is added to all keys
				}
				report(p.Name, analytic, numeric, least)
			}
			tr.close()
		}
	})
}

// TestUNetGradients compares a whole network's gradient along random directions, one for each tensor.
func TestUNetGradients(t *testing.T) {
	for _, shift := range []string{"default", "scale_shift"} {
		t.Run(shift, func(t *testing.T) {
			c := everything()
			c.SampleSize = SampleSize{4, 8}
			c.ResnetTimeScaleShift = shift
			g, err := NewUNet2D(c)
			if err != nil {
				t.Fatal(err)
			}
			r := seeded(t)
			onHost(t, kernels.FP64, func(m *machine) {
				tr := newTrial(m, g, randomData(r, g, 1), PlanOptions{Train: true, Dropout: true, InputGradient: true})
				tr.forward()
				parts, dx := tr.backward()
				check := func(name string, p gpu.Ptr, at, gradient []float64) {
					direction := normals(r, int64(len(at)))
					want, got := tr.slope(p, at, direction), 0.0
					for i, d := range direction {
						got += d * gradient[i]
					}
					scale := norm(direction) * norm(gradient)
					if strings.HasSuffix(name, "to_k.bias") {
						scale = norm(direction) * norm(dx)
					}
					if e := math.Abs(got-want) / scale; !(e <= 1e-6) {
						t.Errorf("the slope along %s is %g, by central differences %g", name, got, want)
					}
				}
				check("the input", tr.instance.X, tr.x, dx)
				arena, err := g.FromPublic(parts[0])
				m.check(err)
				for _, p := range g.Params {
					end := p.Offset + p.Elements
					check(p.Name, tr.w.Offset(p.Offset*8), tr.weights[p.Offset:end], arena[p.Offset:end])
				}
			})
		})
	}
}
