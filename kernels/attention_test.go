package kernels

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"ddgpu/gpu"
)

// attend runs the forward pass on the host device and returns y and lse; before launches, spoil may change the inputs.
func attend(t *testing.T, on attentionSpec, g Attention, spoil func(q, k, v []float64)) (y, lse []float64) {
	t.Helper()
	rows := g.N * g.L * g.Heads * g.Dim
	rng := rand.New(rand.NewPCG(1, 2))
	in := [3][]float64{}
	for i := range in {
		in[i] = make([]float64, rows)
		for j := range in[i] {
			in[i][j] = rng.NormFloat64()
		}
	}
	spoil(in[0], in[1], in[2])
	bytes := on.precision.Bytes
	outY, outLse := bytes(make([]float64, rows)), on.precision.AccBytes(make([]float64, g.N*g.Heads*g.L))
	OnDevice(t, on.spec, on.precision, func(d *gpu.Device, q *Queue) error {
		var p [5]gpu.Ptr
		for i, b := range [][]byte{bytes(in[0]), bytes(in[1]), bytes(in[2]), outY, outLse} {
			var err error
			if p[i], err = d.Alloc("attention", int64(len(b))); err != nil {
				return err
			}
			if err := d.Write(p[i], b); err != nil {
				return err
			}
		}
		q.AttentionForward(g, p[3], p[4], p[0], p[1], p[2])
		return errors.Join(q.Err(), q.Stream().Sync(), d.Read(outY, p[3]), d.Read(outLse, p[4]))
	})
	return on.precision.Values(outY), on.precision.AccValues(outLse)
}

// attentionSpec is a configuration of the host device with a precision.
type attentionSpec struct {
	spec      string
	precision Precision
}

func (s attentionSpec) String() string { return s.precision.String() + " on " + s.spec }

var attentionSpecs = []attentionSpec{{"host", FP32}, {"host,tiles=gpu", FP32}, {"host", TF32}, {"host,tiles=gpu", TF32}, {"host", BF16}, {"host,tiles=gpu", BF16}}

// A NaN in a query makes its row NaN, one in a key or value everything of its head; nothing else is touched.
func TestAttentionNotANumber(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	g := Attention{N: 2, L: 101, Heads: 2, Dim: 8, Scale: 0.5}
	c := g.Heads * g.Dim
	at := func(image, row, head int) int { return (image*g.L+row)*c + head*g.Dim }
	for _, test := range []struct {
		what  string
		spoil func(q, k, v []float64)
		nan   func(image, row, head int) bool
	}{
		{"query", func(q, _, _ []float64) { q[at(1, 70, 1)+3] = nan }, func(i, r, h int) bool { return i == 1 && r == 70 && h == 1 }},
		{"first key", func(_, k, _ []float64) { k[at(0, 0, 1)] = nan }, func(i, _, h int) bool { return i == 0 && h == 1 }},
		{"last key", func(_, k, _ []float64) { k[at(0, 100, 0)+7] = nan }, func(i, _, h int) bool { return i == 0 && h == 0 }},
		{"value", func(_, _, v []float64) {
			for d := range g.Dim {
				v[at(1, 5, 0)+d] = nan
			}
		}, func(i, _, h int) bool { return i == 1 && h == 0 }},
		{"infinite query", func(q, _, _ []float64) { q[at(0, 3, 0)] = inf }, func(i, r, h int) bool { return i == 0 && r == 3 && h == 0 }},
		// A score of -infinity is a key that is not seen; a row of them is 0/0.
		{"row of -infinity", func(q, k, _ []float64) {
			for r := range g.L {
				k[at(0, r, 0)] = 1
			}
			q[at(0, 9, 0)] = -inf
		}, func(i, r, h int) bool { return i == 0 && r == 9 && h == 0 }},
	} {
		for _, spec := range attentionSpecs {
			y, lse := attend(t, spec, g, test.spoil)
			for i := range g.N {
				for r := range g.L {
					for h := range g.Heads {
						want := test.nan(i, r, h)
						for d := range g.Dim {
							if got := y[at(i, r, h)+d]; (got != got) != want {
								t.Fatalf("%s, %s: y of image %d, row %d, head %d is %v", spec, test.what, i, r, h, got)
							}
						}
						l := lse[(i*g.Heads+h)*g.L+r]
						if test.what != "value" && test.what != "row of -infinity" && (l != l) != want {
							t.Fatalf("%s, %s: lse of image %d, row %d, head %d is %v", spec, test.what, i, r, h, l)
						}
					}
				}
			}
		}
	}
}

// Keys behind scores of -infinity in whole tiles are as if they were not there.
func TestAttentionUnseenKeys(t *testing.T) {
	g := Attention{N: 1, L: 203, Heads: 1, Dim: 4, Scale: 1}
	inf := math.Inf(1)
	for _, spec := range attentionSpecs {
		y, lse := attend(t, spec, g, func(q, k, v []float64) {
			for r := range g.L {
				q[r*4] = 1
				k[r*4] = -inf
			}
			k[200*4] = 0
			copy(v[200*4:], []float64{1, 2, 3, 4})
		})
		for i, got := range y {
			// The largest score's exponent is 0 but for a rounding.
			if want := float64(i%4 + 1); math.Abs(got-want) > 1e-6*want {
				t.Fatalf("%s: y[%d] is %v, want %v", spec, i, got, want)
			}
		}
		for i, got := range lse {
			if math.IsNaN(got) || math.IsInf(got, 0) {
				t.Fatalf("%s: lse[%d] is %v", spec, i, got)
			}
		}
	}
}

func TestAttentionHeadSize(t *testing.T) {
	for _, dim := range []int{0, MaxHeadDim + 1} {
		OnDevice(t, "host", FP32, func(_ *gpu.Device, q *Queue) error {
			q.AttentionForward(Attention{N: 1, L: 1, Heads: 1, Dim: dim}, 0, 0, 0, 0, 0)
			if err := q.Err(); err == nil || !strings.Contains(err.Error(), "1 to 256") {
				t.Errorf("dim %d: %v", dim, err)
			}
			return nil
		})
	}
}
