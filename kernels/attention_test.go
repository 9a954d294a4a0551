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
func attend(t *testing.T, spec string, g Attention, spoil func(q, k, v []float32)) (y, lse []float32) {
	t.Helper()
	rows := g.N * g.L * g.Heads * g.Dim
	rng := rand.New(rand.NewPCG(1, 2))
	in := [3][]float32{}
	for i := range in {
		in[i] = make([]float32, rows)
		for j := range in[i] {
			in[i][j] = float32(rng.NormFloat64())
		}
	}
	spoil(in[0], in[1], in[2])
	y, lse = make([]float32, rows), make([]float32, g.N*g.Heads*g.L)
	OnDevice(t, spec, FP32, func(d *gpu.Device, q *Queue) error {
		var p [5]gpu.Ptr
		for i, b := range [][]byte{gpu.Bytes(in[0]), gpu.Bytes(in[1]), gpu.Bytes(in[2]), gpu.Bytes(y), gpu.Bytes(lse)} {
			var err error
			if p[i], err = d.Alloc("attention", int64(len(b))); err != nil {
				return err
			}
			if err := d.Write(p[i], b); err != nil {
				return err
			}
		}
		q.AttentionForward(g, p[3], p[4], p[0], p[1], p[2])
		return errors.Join(q.Err(), q.Stream().Sync(), d.Read(gpu.Bytes(y), p[3]), d.Read(gpu.Bytes(lse), p[4]))
	})
	return y, lse
}

var attentionSpecs = []string{"host", "host,tiles=gpu"}

// A NaN in a query makes its row NaN, one in a key or value everything of its head; nothing else is touched.
func TestAttentionNotANumber(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	g := Attention{N: 2, L: 101, Heads: 2, Dim: 8, Scale: 0.5}
	c := g.Heads * g.Dim
	at := func(image, row, head int) int { return (image*g.L+row)*c + head*g.Dim }
	for _, test := range []struct {
		what  string
		spoil func(q, k, v []float32)
		nan   func(image, row, head int) bool
	}{
		{"query", func(q, _, _ []float32) { q[at(1, 70, 1)+3] = nan }, func(i, r, h int) bool { return i == 1 && r == 70 && h == 1 }},
		{"first key", func(_, k, _ []float32) { k[at(0, 0, 1)] = nan }, func(i, _, h int) bool { return i == 0 && h == 1 }},
		{"last key", func(_, k, _ []float32) { k[at(0, 100, 0)+7] = nan }, func(i, _, h int) bool { return i == 0 && h == 0 }},
		{"value", func(_, _, v []float32) {
			for d := range g.Dim {
				v[at(1, 5, 0)+d] = nan
			}
		}, func(i, _, h int) bool { return i == 1 && h == 0 }},
		{"infinite query", func(q, _, _ []float32) { q[at(0, 3, 0)] = inf }, func(i, r, h int) bool { return i == 0 && r == 3 && h == 0 }},
		// A score of -infinity is a key that is not seen; a row of them is 0/0.
		{"row of -infinity", func(q, k, _ []float32) {
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
	inf := float32(math.Inf(1))
	for _, spec := range attentionSpecs {
		y, lse := attend(t, spec, g, func(q, k, v []float32) {
			for r := range g.L {
				q[r*4] = 1
				k[r*4] = -inf
			}
			k[200*4] = 0
			copy(v[200*4:], []float32{1, 2, 3, 4})
		})
		for i, got := range y {
			if want := float32(i%4 + 1); got != want {
				t.Fatalf("%s: y[%d] is %v, want %v", spec, i, got, want)
			}
		}
		for i, got := range lse {
			if math.IsNaN(float64(got)) || math.IsInf(float64(got), 0) {
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
