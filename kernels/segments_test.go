package kernels

import (
	"math/rand/v2"
	"testing"
)

// same is a 3×3 convolution that keeps the image's size.
func same(side, cin, cout int) Conv {
	return Conv{H: side, W: side, Cin: cin, Cout: cout, KH: 3, KW: 3, Stride: 1, PadTop: 1, PadLeft: 1, OH: side, OW: side}
}

func TestWeightSegments(t *testing.T) {
	pointwise := same(16, 256, 256)
	pointwise.KH, pointwise.KW, pointwise.PadTop, pointwise.PadLeft = 1, 1, 0, 0
	for _, x := range []struct {
		g    Conv
		size int
		p    Precision
		want Segments
	}{
		{same(32, 3, 128), 16, BF16, Segments{0, 16, 1024}},
		{same(32, 128, 3), 16, BF16, Segments{0, 14, 1184}},
		{same(32, 128, 128), 16, TF32, Segments{0, 3, 5472}},
		{same(32, 256, 128), 16, BF16, Segments{13 * 128, 4, 4096}},
		{same(32, 384, 128), 16, BF16, Segments{16 * 128, 4, 4096}},
		{same(16, 256, 256), 16, BF16, Segments{16 * 128, 4, 1024}},
		{same(16, 384, 256), 16, BF16, Segments{24 * 128, 2, 2048}},
		{same(16, 512, 256), 16, BF16, Segments{32 * 128, 2, 2048}},
		{same(16, 1024, 256), 16, BF16, Segments{}},
		{same(16, 256, 256), 8, BF16, Segments{}}, // of too few pixels
		{same(8, 256, 256), 16, BF16, Segments{}},
		{same(32, 3, 128), 4, BF16, Segments{0, 4, 1024}},
		{pointwise, 64, BF16, Segments{}},
		{same(32, 128, 128), 16, FP32, Segments{}},
		{same(32, 128, 128), 16, FP64, Segments{}},
	} {
		if got := x.g.WeightSegments(x.size, x.p); got != x.want {
			t.Errorf("%+v, shards of %d, %v: %+v, want %+v", x.g, x.size, x.p, got, x.want)
		}
	}
	if got, want := (Segments{128, 3, 64}).Work(same(8, 32, 40), 4), int64(4*3*(9*32-128)*40); got != want {
		t.Errorf("a workspace of %d sums, want %d", got, want)
	}
}

// TestWeightSegmentsCover: every segment has pixels, together they have all of the shard in whole steps, and some rows are cut.
func TestWeightSegmentsCover(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	cuts := 0
	for range 10_000 {
		g := same(1+r.IntN(70), 1+r.IntN(600), 1+r.IntN(300))
		size := 1 + r.IntN(40)
		s, pixels := g.WeightSegments(size, BF16), size*g.OH*g.OW
		if s.Count == 0 {
			if s != (Segments{}) || s.Work(g, 8) != 0 {
				t.Fatalf("seed %d: %+v, shards of %d: %+v", seed, g, size, s)
			}
			continue
		}
		cuts++
		if s.Count < 2 || s.Length%stepPixels != 0 || s.Count*s.Length < pixels || (s.Count-1)*s.Length >= pixels || s.Row%tileRows != 0 || s.Row >= 9*g.Cin {
			t.Fatalf("seed %d: %+v, shards of %d: %+v", seed, g, size, s)
		}
	}
	if cuts < 1000 {
		t.Errorf("seed %d: %d of 10,000 convolutions are cut", seed, cuts)
	}
}
