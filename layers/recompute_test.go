package layers

import (
	"testing"

	"ddgpu/kernels"
)

// TestRecomputeKeepsBits: outputs and gradients, with dropout, have the same bits where activations are computed again.
func TestRecomputeKeepsBits(t *testing.T) {
	r := seeded(t)
	onHost(t, kernels.FP32, func(m *machine) {
		for _, g := range unets(t) {
			d := randomData(r, g, 3)
			for _, o := range []PlanOptions{{Train: true}, {Train: true, Dropout: true, InputGradient: true, Shards: shards(2, 2)}} {
				kept := newTrial(m, g, d, o)
				o.Recompute = true
				again := newTrial(m, g, d, o)
				if kept.plan.Activations <= again.plan.Activations {
					t.Errorf("%+v: %d bytes of activations, %d without", o, again.plan.Activations, kept.plan.Activations)
				}
				if !sameBits(kept.forward(), again.forward()) {
					t.Errorf("%+v: the output has other bits", o)
				}
				want, wantDX := kept.backward()
				got, gotDX := again.backward()
				for s := range want {
					for i := range want[s] {
						if hasNaN(want[s][i].Values) || !sameBits(want[s][i].Values, got[s][i].Values) {
							t.Errorf("%+v: shard %d of the gradient of %s has other bits", o, s, want[s][i].Name)
						}
					}
				}
				if !sameBits(wantDX, gotDX) {
					t.Errorf("%+v: the gradient of the input has other bits", o)
				}
				kept.close()
				again.close()
			}
		}
	})
}

// TestRecomputeSaves says how much memory recomputation saves, and how many nodes run again.
func TestRecomputeSaves(t *testing.T) {
	for name, c := range map[string]struct {
		config UNet2DConfig
		most   float64 // of the activations without
	}{"cifar10-ddpm": {CIFAR10DDPM(), 0.6}, "everything": {everything(), 0.8}} {
		g, err := NewUNet2D(c.config)
		if err != nil {
			t.Fatal(err)
		}
		plan := func(recompute bool) *Plan {
			p, err := g.Plan(PlanOptions{Batch: 16, Train: true, Dropout: true, Recompute: recompute})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		kept, again := plan(false), plan(true)
		nodes := 0
		for _, r := range again.again {
			nodes += len(r.nodes)
		}
		share := float64(again.Activations) / float64(kept.Activations)
		t.Logf("%s: %.1f MiB of activations for each image, %.1f MiB without; %d of %d nodes run again", name, float64(again.Activations)/16/(1<<20),
			float64(kept.Activations)/16/(1<<20), nodes, len(g.nodes))
		if share > c.most || nodes == 0 {
			t.Errorf("%s: %.2f of the activations are left, want at most %.2f; %d nodes run again", name, share, c.most, nodes)
		}
	}
}
