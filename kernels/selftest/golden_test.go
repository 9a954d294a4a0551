package selftest_test

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"ddgpu/diffusion/safetensors"
	"ddgpu/gpu"
	"ddgpu/kernels"
	. "ddgpu/kernels/selftest"
)

// golden is one case of testdata/golden/ops.safetensors, made by PyTorch in float64.
type golden struct {
	t     *testing.T
	file  *safetensors.File
	name  string
	attrs struct {
		Op            string
		Stride        int
		PadTop        int `json:"pad_top"`
		PadLeft       int `json:"pad_left"`
		Padding       int
		OutputPadding int `json:"output_padding"`
		Groups        int
		Eps           float64
		SiLU          bool
		Heads         int
		HeadDim       int `json:"head_dim"`
		Rescale       float64
	}
}

func (g *golden) has(array string) bool { return g.file.Has(g.name + "." + array) }

func (g *golden) read(array string) (values []float64, shape []int) {
	g.t.Helper()
	tensor, err := g.file.Read(g.name + "." + array)
	if err != nil {
		g.t.Fatal(err)
	}
	if values, err = tensor.Float64s(); err != nil {
		g.t.Fatal(err)
	}
	return values, tensor.Shape
}

func (g *golden) values(array string) []float64 {
	v, _ := g.read(array)
	return v
}

// permute is v of a shape with its axes in another order.
func permute(v []float64, shape []int, order ...int) []float64 {
	strides := make([]int, len(shape))
	for i, n := len(shape)-1, 1; i >= 0; i-- {
		strides[i] = n
		n *= shape[i]
	}
	out := make([]float64, 0, len(v))
	var walk func(axis, at int)
	walk = func(axis, at int) {
		if axis == len(order) {
			out = append(out, v[at])
			return
		}
		for i := range shape[order[axis]] {
			walk(axis+1, at+i*strides[order[axis]])
		}
	}
	walk(0, 0)
	return out
}

// image reads an array as NHWC.
func (g *golden) image(array string) []float64 {
	v, shape := g.read(array)
	return permute(v, shape, 0, 2, 3, 1)
}

// weights reads an array as [KH][KW][Cin][Cout]: of OIHW, of a transposed convolution's IOHW, whose Conv has the channels in exchange, or of a
// linear layer's [out, in].
func (g *golden) weights(array string) []float64 {
	v, shape := g.read(array)
	if len(shape) == 2 {
		return permute(v, shape, 1, 0)
	}
	return permute(v, shape, 2, 3, 1, 0)
}

// runners make the case of an operation.
var runners = map[string]func(g *golden) func(b *Builder){
	"conv":             goldenConv,
	"linear":           goldenConv,
	"conv_transpose":   goldenTranspose,
	"group_norm":       goldenNorm,
	"silu":             goldenSiLU,
	"upsample_nearest": goldenUpsample,
	"avg_pool":         goldenPool,
	"attention":        goldenAttention,
	"attention_block":  goldenAttentionBlock,
}

// elsewhere are the operations whose golden vectors another test reads.
var elsewhere = map[string]string{
	"timestep_embedding": "../embedding_test.go",
	"adam":               "../optimizer_test.go",
}

func TestGoldenVectors(t *testing.T) {
	file, err := safetensors.Open("../../testdata/golden/ops.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}()
	var ops []Op
	used := map[string]bool{}
	for name, text := range file.Metadata {
		g := &golden{t: t, file: file, name: name}
		if !strings.HasPrefix(text, "{") || json.Unmarshal([]byte(text), &g.attrs) != nil || g.attrs.Op == "" {
			continue
		}
		run := runners[g.attrs.Op]
		if run == nil {
			source, err := os.ReadFile(elsewhere[g.attrs.Op])
			if err != nil || !strings.Contains(string(source), `"`+g.attrs.Op+`"`) {
				t.Errorf("nobody runs the golden vectors of %s (%s)", name, g.attrs.Op)
			}
			continue
		}
		used[g.attrs.Op] = true
		ops = append(ops, Op{Name: "golden " + name, Cases: []Case{{Shape: g.attrs.Op, Build: run(g)}}})
	}
	for op := range runners {
		if !used[op] {
			t.Errorf("there are no golden vectors of %s", op)
		}
	}
	slices.SortFunc(ops, func(a, b Op) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range []struct {
		spec string
		real kernels.Precision
	}{{"host", kernels.FP32}, {"host,tiles=gpu", kernels.FP32}, {"host,tiles=gpu", kernels.FP64}} {
		for i := range ops {
			ops[i].Cases[0].Bound = 1e-5
			if c.real == kernels.FP64 {
				ops[i].Cases[0].Bound = 1e-12 // PyTorch's sums are in another order
			}
		}
		m, err := gpu.Open(c.spec)
		if err != nil {
			t.Fatal(err)
		}
		results, err := Run(m.Devices[0], c.real, Options{Ops: ops})
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
		}
		if len(results) != len(ops) {
			t.Errorf("%s: %d results of %d cases", c.spec, len(results), len(ops))
		}
		for _, r := range results {
			if !r.Pass() {
				t.Errorf("%s %v: %v", c.spec, c.real, r)
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// sumRows adds up rows of c values, `rows` for each of n images, in a bias's gradient.
func sumRows(q *kernels.Queue, n, rows, c int, out, perImage, dy gpu.Ptr) {
	q.PixelSum(n, rows, c, kernels.Rows{At: perImage, Stride: c}, 0, dy)
	q.ShardSum(kernels.Shards{Count: 1, Size: n}, n, c, out, int64(c), kernels.Rows{At: perImage, Stride: c})
}

func goldenConv(g *golden) func(b *Builder) {
	xv, xs := g.read("x")
	_, ws := g.read("w")
	dyv, ys := g.read("dy")
	c := kernels.Linear(xs[0], ws[1], ws[0])
	image := g.values
	if g.attrs.Op == "conv" {
		c = kernels.Conv{N: xs[0], H: xs[2], W: xs[3], Cin: ws[1], Cout: ws[0], KH: ws[2], KW: ws[3], Stride: g.attrs.Stride,
			PadTop: g.attrs.PadTop, PadLeft: g.attrs.PadLeft, OH: ys[2], OW: ys[3]}
		image = g.image
		xv, dyv = g.image("x"), g.image("dy")
	}
	return func(b *Builder) {
		y, dx, dw, db := b.Out("y", image("y")), b.Out("dx", image("dx")), b.Out("dw", g.weights("dw")), b.Out("db", g.values("db"))
		x, w, bias, dy, perImage := b.In(xv), b.In(g.weights("w")), b.In(g.values("b")), b.In(dyv), b.Scratch(c.N*c.Cout)
		b.Launch(func(q *kernels.Queue) {
			q.ConvForward(c, y, x, w, kernels.Epilogue{Bias: bias})
			q.ConvBackwardData(c, dx, dy, w, kernels.Epilogue{})
			q.ConvBackwardWeight(c, kernels.Shards{Count: 1, Size: c.N}, kernels.Segments{}, dw, 0, 0, dy, x)
			sumRows(q, c.N, c.OH*c.OW, c.Cout, db, perImage, dy)
		})
	}
}

// goldenTranspose: the transposed convolution from x to y is the data gradient of the convolution from y to x.
func goldenTranspose(g *golden) func(b *Builder) {
	_, xs := g.read("x")
	_, ws := g.read("w")
	_, ys := g.read("y")
	c := kernels.Conv{N: xs[0], H: ys[2], W: ys[3], Cin: ws[1], Cout: ws[0], KH: ws[2], KW: ws[3], Stride: g.attrs.Stride,
		PadTop: g.attrs.Padding, PadLeft: g.attrs.Padding, OH: xs[2], OW: xs[3]}
	return func(b *Builder) {
		var e kernels.Epilogue
		y, dx, dw := b.Out("y", g.image("y")), b.Out("dx", g.image("dx")), b.Out("dw", g.weights("dw"))
		x, w, dy, perImage := b.In(g.image("x")), b.In(g.weights("w")), b.In(g.image("dy")), b.Scratch(c.N*c.Cin)
		if g.has("b") {
			e.Bias = b.In(g.values("b"))
			db := b.Out("db", g.values("db"))
			b.Launch(func(q *kernels.Queue) { sumRows(q, c.N, c.H*c.W, c.Cin, db, perImage, dy) })
		}
		b.Launch(func(q *kernels.Queue) {
			q.ConvBackwardData(c, y, x, w, e)
			q.ConvForward(c, dx, dy, w, kernels.Epilogue{})
			q.ConvBackwardWeight(c, kernels.Shards{Count: 1, Size: c.N}, kernels.Segments{}, dw, 0, 0, x, dy)
		})
	}
}

func goldenNorm(g *golden) func(b *Builder) {
	_, s := g.read("x")
	n := kernels.Norm{N: s[0], HW: s[2] * s[3], C: s[1], Groups: g.attrs.Groups, Eps: g.attrs.Eps, SiLU: g.attrs.SiLU}
	// rows is a and b as rows [a C][b C].
	rows := func(a, b []float64) []float64 {
		var v []float64
		for i := 0; i < len(a); i += n.C {
			v = append(append(v, a[i:i+n.C]...), b[i:i+n.C]...)
		}
		return v
	}
	return func(b *Builder) {
		y, dx := b.Out("y", g.image("y")), b.Out("dx", g.image("dx"))
		dGammaBeta := b.Out("dγ, dβ", rows(g.values("dgamma"), g.values("dbeta")))
		x, dy, gamma, beta := b.In(g.image("x")), b.In(g.image("dy")), b.In(g.values("gamma")), b.In(g.values("beta"))
		stats, perImage := b.Scratch(2*n.N*n.Groups), b.Scratch(2*n.N*n.C)
		var scaleShift, dScaleShift gpu.Ptr
		if g.has("scale") {
			scaleShift = b.In(rows(g.values("scale"), g.values("shift")))
			dScaleShift = b.Out("dscale, dshift", rows(g.values("dscale"), g.values("dshift")))
		}
		b.Launch(func(q *kernels.Queue) {
			q.GroupNormForward(n, kernels.Dropout{}, y, stats, x, gamma, beta, scaleShift, 2*n.C, 0, 0)
			q.GroupNormBackward(n, kernels.Dropout{}, dx, kernels.Rows{At: perImage, Stride: 2 * n.C}, dScaleShift, kernels.PixelSums{}, dy, x, gamma, beta, scaleShift, 2*n.C, stats)
			q.ShardSum(kernels.Shards{Count: 1, Size: n.N}, n.N, 2*n.C, dGammaBeta, 0, kernels.Rows{At: perImage, Stride: 2 * n.C})
		})
	}
}

func goldenSiLU(g *golden) func(b *Builder) {
	return func(b *Builder) {
		y, dx, x, dy := b.Out("y", g.values("y")), b.Out("dx", g.values("dinput")), b.In(g.values("input")), b.In(g.values("dy"))
		n := int64(len(g.values("y")))
		b.Launch(func(q *kernels.Queue) {
			q.SiLUForward(n, y, x)
			q.SiLUBackward(n, dx, dy, x)
		})
	}
}

func goldenResample(g *golden, forward, backward func(q *kernels.Queue, n, h, w, c int, out, in gpu.Ptr)) func(b *Builder) {
	_, s := g.read("x")
	return func(b *Builder) {
		y, dx, x, dy := b.Out("y", g.image("y")), b.Out("dx", g.image("dx")), b.In(g.image("x")), b.In(g.image("dy"))
		b.Launch(func(q *kernels.Queue) {
			forward(q, s[0], s[2], s[3], s[1], y, x)
			backward(q, s[0], s[2], s[3], s[1], dx, dy)
		})
	}
}

func goldenUpsample(g *golden) func(b *Builder) {
	return goldenResample(g, (*kernels.Queue).Upsample2Forward, (*kernels.Queue).Upsample2Backward)
}

func goldenPool(g *golden) func(b *Builder) {
	return goldenResample(g, (*kernels.Queue).AvgPool2Forward, (*kernels.Queue).AvgPool2Backward)
}

func goldenAttention(g *golden) func(b *Builder) {
	_, s := g.read("q")
	a := kernels.Attention{N: s[0], L: s[1], Heads: g.attrs.Heads, Dim: g.attrs.HeadDim, Scale: 1 / math.Sqrt(float64(g.attrs.HeadDim))}
	return func(b *Builder) {
		y, dq, dk, dv := b.Out("y", g.values("y")), b.Out("dq", g.values("dq")), b.Out("dk", g.values("dk")), b.Out("dv", g.values("dv"))
		queries, keys, values, dy := b.In(g.values("q")), b.In(g.values("k")), b.In(g.values("v")), b.In(g.values("dy"))
		lse, delta := b.Scratch(a.N*a.Heads*a.L), b.Scratch(a.N*a.Heads*a.L)
		b.Launch(func(q *kernels.Queue) {
			q.AttentionForward(a, y, lse, queries, keys, values)
			q.AttentionBackward(a, dq, dk, dv, delta, dy, y, lse, queries, keys, values)
		})
	}
}

// goldenAttentionBlock is diffusers' block: y = (attention(norm(x)) · to_out + x)/rescale.
func goldenAttentionBlock(g *golden) func(b *Builder) {
	_, s := g.read("x")
	n, l, c := s[0], s[2]*s[3], s[1]
	linear := kernels.Linear(n*l, c, c)
	norm := kernels.Norm{N: n, HW: l, C: c, Groups: g.attrs.Groups, Eps: g.attrs.Eps}
	a := kernels.Attention{N: n, L: l, Heads: g.attrs.Heads, Dim: g.attrs.HeadDim, Scale: 1 / math.Sqrt(float64(g.attrs.HeadDim))}
	dy := g.image("dy")
	for i := range dy {
		dy[i] /= g.attrs.Rescale
	}
	return func(b *Builder) {
		tensor := func() gpu.Ptr { return b.Scratch(n * l * c) }
		y, dx := b.Out("y", g.image("y")), b.Out("dx", g.image("dx"))
		dGammaBeta := b.Out("dγ, dβ", append(g.values("d.group_norm.weight"), g.values("d.group_norm.bias")...))
		x, dyp, gamma, beta := b.In(g.image("x")), b.In(dy), b.In(g.values("group_norm.weight")), b.In(g.values("group_norm.bias"))
		names := []string{"to_q", "to_k", "to_v", "to_out.0"}
		var w, bias, dw, db [4]gpu.Ptr
		for i, name := range names {
			w[i], bias[i] = b.In(g.weights(name+".weight")), b.In(g.values(name+".bias"))
			dw[i] = b.Out("d."+name+".weight", g.weights("d."+name+".weight"))
			if name == "to_k" { // 0 but for rounding
				db[i] = b.Scratch(c)
			} else {
				db[i] = b.Out("d."+name+".bias", g.values("d."+name+".bias"))
			}
		}
		stats, lse, delta := b.Scratch(2*n*norm.Groups), b.Scratch(n*a.Heads*l), b.Scratch(n*a.Heads*l)
		normed, attended, dAttended := tensor(), tensor(), tensor()
		var projected, dProjected [3]gpu.Ptr
		var dNormed [4]gpu.Ptr // running sums; the last is the gradient through the norm alone
		for i := range projected {
			projected[i], dProjected[i], dNormed[i] = tensor(), tensor(), tensor()
		}
		dNormed[3] = tensor()
		perImage, perImageNorm := b.Scratch(n*c), b.Scratch(2*n*c)
		b.Launch(func(q *kernels.Queue) {
			all := kernels.Shards{Count: 1, Size: n * l}
			q.GroupNormForward(norm, kernels.Dropout{}, normed, stats, x, gamma, beta, 0, 0, 0, 0)
			for i := range projected {
				q.ConvForward(linear, projected[i], normed, w[i], kernels.Epilogue{Bias: bias[i]})
			}
			q.AttentionForward(a, attended, lse, projected[0], projected[1], projected[2])
			q.ConvForward(linear, y, attended, w[3], kernels.Epilogue{Bias: bias[3], Residual: x, Scale: 1 / g.attrs.Rescale})

			q.ConvBackwardData(linear, dAttended, dyp, w[3], kernels.Epilogue{})
			q.ConvBackwardWeight(linear, all, kernels.Segments{}, dw[3], 0, 0, dyp, attended)
			sumRows(q, n, l, c, db[3], perImage, dyp)
			q.AttentionBackward(a, dProjected[0], dProjected[1], dProjected[2], delta, dAttended, attended, lse, projected[0], projected[1], projected[2])
			var sum gpu.Ptr
			for i := range projected {
				q.ConvBackwardData(linear, dNormed[i], dProjected[i], w[i], kernels.Epilogue{Residual: sum})
				q.ConvBackwardWeight(linear, all, kernels.Segments{}, dw[i], 0, 0, dProjected[i], normed)
				sumRows(q, n, l, c, db[i], perImage, dProjected[i])
				sum = dNormed[i]
			}
			q.GroupNormBackward(norm, kernels.Dropout{}, dNormed[3], kernels.Rows{At: perImageNorm, Stride: 2 * c}, 0, kernels.PixelSums{}, sum, x, gamma, beta, 0, 0, stats)
			q.ShardSum(kernels.Shards{Count: 1, Size: n}, n, 2*c, dGammaBeta, 0, kernels.Rows{At: perImageNorm, Stride: 2 * c})
			q.Add(int64(n*l*c), dx, dNormed[3], dyp)
		})
	}
}
