package layers

import (
	"testing"

	"ddgpu/kernels"
)

func shards(count, size int) kernels.Shards { return kernels.Shards{Count: count, Size: size} }

// everything is a small network with all kinds of nodes.
func everything() UNet2DConfig {
	c := DefaultUNet2DConfig()
	five, four := 5, 4
	c.SampleSize, c.BlockOutChannels, c.NormNumGroups, c.LayersPerBlock = SampleSize{8, 12}, []int{4, 8, 12}, 2, 1
	c.DownBlockTypes = []string{"DownBlock2D", "ResnetDownsampleBlock2D", "AttnDownBlock2D"}
	c.UpBlockTypes = []string{"AttnUpBlock2D", "ResnetUpsampleBlock2D", "UpBlock2D"}
	c.NumClassEmbeds, c.AttentionHeadDim, c.Dropout = &five, &four, 0.3
	c.MidBlockScaleFactor, c.ResnetOutScaleFactor = 1.25, 1.5
	return c
}

// TestPlanOverlap checks the offsets pair by pair: what is in use at the same time lies apart and within the memory.
func TestPlanOverlap(t *testing.T) {
	for _, c := range []UNet2DConfig{everything(), CIFAR10DDPM()} {
		g, err := NewUNet2D(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []PlanOptions{
			{Batch: 3}, {Batch: 1, Train: true}, {Batch: 4, Train: true, Dropout: true, InputGradient: true, Shards: shards(2, 2)},
			{Batch: 2, Train: true, NoOverlap: true, Precision: kernels.FP64}, {Batch: 3, Train: true, Dropout: true, Recompute: true},
		} {
			p, err := g.Plan(o)
			if err != nil {
				t.Fatal(err)
			}
			apart, shared := int64(0), 0
			for i, a := range p.storages {
				end := p.Activations
				if a.workspace {
					end = p.Workspace
				}
				if a.bytes <= 0 || a.offset < 0 || a.offset%memoryAlign != 0 || a.offset+a.bytes > end || a.last < a.first {
					t.Errorf("%+v: %s has %d bytes at %d of %d, steps %d to %d", o, a.name, a.bytes, a.offset, end, a.first, a.last)
				}
				apart += roundUp(a.bytes, memoryAlign)
				for _, b := range p.storages[:i] {
					sameTime := a.first <= b.last && b.first <= a.last
					samePlace := a.workspace == b.workspace && a.offset < b.offset+b.bytes && b.offset < a.offset+a.bytes
					if samePlace && (sameTime || o.NoOverlap) {
						t.Errorf("%+v: %s and %s lie in the same place at the same time", o, a.name, b.name)
					}
					if samePlace {
						shared++
					}
				}
			}
			if o.NoOverlap && p.Total() != apart || !o.NoOverlap && (p.Total() >= apart || shared == 0) {
				t.Errorf("%+v: %d bytes, %d without overlap", o, p.Total(), apart)
			}
		}
	}
}

// TestPlanNearLeast compares the memory with the most that is in use at one step: no packing is below it.
func TestPlanNearLeast(t *testing.T) {
	g, err := NewUNet2D(CIFAR10DDPM())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []PlanOptions{{Batch: 16}, {Batch: 16, Train: true}, {Batch: 16, Train: true, Recompute: true}} {
		p, err := g.Plan(o)
		if err != nil {
			t.Fatal(err)
		}
		least := int64(0)
		for step := range p.steps + 1 {
			used := int64(0)
			for _, s := range p.storages {
				if !s.workspace && s.first <= step && step <= s.last {
					used += roundUp(s.bytes, memoryAlign)
				}
			}
			least = max(least, used)
		}
		t.Logf("train %v, recompute %v: %d bytes, %.4f of the least", o.Train, o.Recompute, p.Activations, float64(p.Activations)/float64(least))
		if float64(p.Activations) > 1.05*float64(least) {
			t.Errorf("train %v: %d bytes of activations, at most %d are in use at a time", o.Train, p.Activations, least)
		}
	}
}
