package layers

import (
	"cmp"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ddgpu/kernels"
)

func TestParamLayouts(t *testing.T) {
	for _, c := range []struct {
		param Param
		arena []float64 // of the public tensor 0, 1, 2, …, from Offset on
	}{
		{Param{Layout: AsPublic, Shape: []int{3}}, []float64{0, 1, 2}},
		{Param{Layout: AsPublic, Shape: []int{2, 2}}, []float64{0, 1, 2, 3}},
		{Param{Layout: Matrix, Shape: []int{2, 3}}, []float64{0, 3, 1, 4, 2, 5}},
		// [O 2][I 2][KH 1][KW 3] in the arena: for each column of the kernel, for each input channel, the output channels
		{Param{Layout: Convolution, Shape: []int{2, 2, 1, 3}}, []float64{0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11}},
		{Param{Layout: Convolution, Shape: []int{1, 2, 2, 1}}, []float64{0, 2, 1, 3}},
	} {
		p := c.param
		p.Offset, p.Elements = 2, int64(len(c.arena))
		public := make([]float64, p.Elements)
		for i := range public {
			public[i] = float64(i)
		}
		arena := make([]float64, p.Elements+3)
		arena[0], arena[1], arena[p.Elements+2] = -1, -1, -1
		p.FromPublic(arena, public)
		if want := append(append([]float64{-1, -1}, c.arena...), -1); !reflect.DeepEqual(arena, want) {
			t.Errorf("%v: %v in the arena, want %v", p.Shape, arena, want)
		}
		if back := p.ToPublic(arena); !reflect.DeepEqual(back, public) {
			t.Errorf("%v: back from the arena it is %v", p.Shape, back)
		}
	}
}

// TestPlacement checks that tensors lie apart in an arena, aligned as far as their sizes let kernels take several elements at a time, and those whose
// gradients are sums over images behind the others without gaps, γ before β.
func TestPlacement(t *testing.T) {
	for _, g := range unets(t) {
		params := slices.Clone(g.Params)
		slices.SortFunc(params, func(a, b Param) int { return cmp.Compare(a.Offset, b.Offset) })
		end, width, elements := int64(0), int64(0), int64(0)
		for i, p := range params {
			align := int64(tensorAlign)
			for p.sum && p.Elements%align != 0 {
				align /= 2
			}
			gap := int64(tensorAlign - 1)
			if i > 0 && params[i-1].sum {
				gap = 0
			}
			if p.Offset%align != 0 || p.Offset < end || p.Offset > end+gap {
				t.Errorf("%s of %d begins at %d, the tensor before it ends at %d", p.Name, p.Elements, p.Offset, end)
			}
			if p.sum != (p.Offset >= g.rows.first) {
				t.Errorf("%s: a column of the sums: %v, at %d, which begin at %d", p.Name, p.sum, p.Offset, g.rows.first)
			}
			norm := strings.Contains(p.Name, "norm")
			if norm && strings.HasSuffix(p.Name, ".bias") && params[i-1].Name != strings.TrimSuffix(p.Name, "bias")+"weight" {
				t.Errorf("%s lies behind %s", p.Name, params[i-1].Name)
			}
			if norm && !p.sum || p.sum && len(p.Shape) != 1 {
				t.Errorf("%s of shape %v: a column of the sums: %v", p.Name, p.Shape, p.sum)
			}
			if p.sum {
				width += p.Elements
			}
			end, elements = p.Offset+p.Elements, elements+p.Elements
		}
		if width != g.rows.width || end != g.rows.first+width || g.rows.stride != roundUp(width, tensorAlign) ||
			g.ArenaElements != g.rows.first+g.rows.stride+SpareElements || elements != g.Parameters {
			t.Errorf("rows %+v and an arena of %d elements for %d columns up to %d and %d parameters", g.rows, g.ArenaElements, width, end, elements)
		}
	}
}

func TestPublicTensors(t *testing.T) {
	g := unets(t)[0]
	weights := randomData(seeded(t), g, 1).weights
	tensors := g.ToPublic(weights)
	if again, err := g.FromPublic(tensors); err != nil || !sameBits(again, weights) {
		t.Errorf("an arena is another one after a conversion and back: %v", err)
	}
}

// TestInitWeights checks the distributions of PyTorch's defaults, and that each element is a function of seed, tensor and public index.
func TestInitWeights(t *testing.T) {
	c := CIFAR10DDPM()
	classes := 1000
	c.NumClassEmbeds = &classes
	g, err := NewUNet2D(c)
	if err != nil {
		t.Fatal(err)
	}
	const seed = 5
	kinds := map[string]int{}
	for i, p := range g.ToPublic(g.InitWeights(seed)) {
		param := g.Params[i]
		var sum, squares, most float64
		for _, v := range p.Values {
			sum += v
			squares += v * v
			most = max(most, math.Abs(v))
			if v != float64(float32(v)) {
				t.Fatalf("%s: %v is not exact in float32", p.Name, v)
			}
		}
		n := float64(len(p.Values))
		switch {
		case strings.Contains(p.Name, "norm"):
			want := 0.0
			if strings.HasSuffix(p.Name, "weight") {
				want = n
			}
			if sum != want || squares != want {
				t.Errorf("%s: the sum is %g, want %g", p.Name, sum, want)
			}
			kinds["norm"]++
		case p.Name == "class_embedding.weight":
			if math.Abs(sum/n) > 6/math.Sqrt(n) || math.Abs(squares/n-1) > 6*math.Sqrt(2/n) {
				t.Errorf("%s: mean %g, variance %g, want 0 and 1", p.Name, sum/n, squares/n)
			}
			kinds["table"]++
		default:
			// fan_in is that of the weight, also for the bias.
			fan := 1.0
			for _, d := range g.Params[i-strings.Count(p.Name, ".bias")].Shape[1:] {
				fan *= float64(d)
			}
			bound, variance := 1/math.Sqrt(fan), 1/(3*fan)
			if most > bound*(1+1e-7) || most < bound*(1-12/n) || math.Abs(sum/n) > 6*math.Sqrt(variance/n) || math.Abs(squares/n/variance-1) > 6*math.Sqrt(0.8/n) {
				t.Errorf("%s: within %g, mean %g, variance %g, want %g, 0, %g", p.Name, most, sum/n, squares/n, bound, variance)
			}
			r := kernels.Stream{Seed: seed, Purpose: kernels.DrawWeights, Image: uint64(i)}.Block(1)
			if want := bound * ((float64(r[2])+0.5)/(1<<31) - 1); n > 6 && p.Values[6] != float64(float32(want)) {
				t.Errorf("%s: element 6 is %g, want %g", p.Name, p.Values[6], want)
			}
			kinds["uniform"]++
		}
		if param.Name != p.Name {
			t.Errorf("tensor %d is %s and %s", i, p.Name, param.Name)
		}
	}
	if kinds["norm"] == 0 || kinds["table"] != 1 || kinds["uniform"] == 0 {
		t.Errorf("tensors of each kind: %v", kinds)
	}
	if sameBits(g.InitWeights(1), g.InitWeights(2)) {
		t.Error("two seeds give the same weights")
	}
}
