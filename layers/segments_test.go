package layers

import (
	"slices"
	"strings"
	"testing"

	"ddgpu/kernels"
)

// TestSegments: where weight gradients are summed in segments, a shard has the same gradient alone, with activations computed again, and with
// memory of its own for each tensor; an empty shard has none.
func TestSegments(t *testing.T) {
	c := DefaultUNet2DConfig()
	c.SampleSize, c.BlockOutChannels, c.NormNumGroups, c.LayersPerBlock = SampleSize{72, 57}, []int{8}, 2, 1
	c.DownBlockTypes, c.UpBlockTypes, c.AddAttention = []string{"DownBlock2D"}, []string{"UpBlock2D"}, false
	g, err := NewUNet2D(c)
	if err != nil {
		t.Fatal(err)
	}
	r := seeded(t)
	onDevice(t, "host,tiles=gpu", kernels.TF32, func(m *machine) {
		d := randomData(r, g, 3)
		options := PlanOptions{Train: true, Shards: shards(4, 1)}
		backward := func(d data, o PlanOptions) [][]Tensor {
			tr := newTrial(m, g, d, o)
			defer tr.close()
			if n := len(tr.plan.segmentStorages()); n < 5 {
				t.Errorf("%d convolutions are summed in segments, want at least 5", n)
			}
			tr.forward()
			parts, _ := tr.backward()
			return parts
		}
		want := backward(d, options)
		compare := func(what string, first int, got [][]Tensor) {
			for s := range got {
				for i, p := range got[s] {
					if hasNaN(p.Values) || !sameBits(p.Values, want[first+s][i].Values) {
						t.Errorf("%s: shard %d has another gradient of %s", what, first+s, p.Name)
					}
				}
			}
		}
		for s := range d.images {
			compare("alone", s, backward(d.part(s, s+1), PlanOptions{Train: true, Shards: shards(1, 1)}))
		}
		compare("two together", 1, backward(d.part(1, 3), PlanOptions{Train: true, Shards: shards(2, 1)}))
		again, apart := options, options
		again.Recompute, apart.NoOverlap = true, true
		compare("computed again", 0, backward(d, again))
		compare("without overlap", 0, backward(d, apart))
		for _, p := range want[3] {
			if slices.ContainsFunc(p.Values, func(x float64) bool { return x != 0 }) {
				t.Errorf("an empty shard has a gradient of %s", p.Name)
			}
		}
	})
}

func (p *Plan) segmentStorages() []storage {
	var found []storage
	for _, s := range p.storages {
		if strings.HasPrefix(s.name, "segments of ") {
			found = append(found, s)
		}
	}
	return found
}
