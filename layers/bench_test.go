package layers

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"ddgpu/kernels"
)

// quickstart is the network of cli's preset of that name.
func quickstart(b *testing.B) *Graph {
	text, err := os.ReadFile("../cli/presets/quickstart.yaml")
	if err != nil {
		b.Fatal(err)
	}
	preset := struct{ Model UNet2DConfig }{DefaultUNet2DConfig()}
	if err := yaml.Unmarshal(text, &preset); err != nil {
		b.Fatal(err)
	}
	g, err := NewUNet2D(preset.Model)
	if err != nil {
		b.Fatal(err)
	}
	return g
}

// BenchmarkQuickstart runs the quickstart network on the host device; the time of each kind of node is in percent of a pass in which every
// node is waited for.
func BenchmarkQuickstart(b *testing.B) {
	g := quickstart(b)
	b.Run("forward", func(b *testing.B) { benchmarkPass(b, g, 32, false) })
	b.Run("forward and backward", func(b *testing.B) { benchmarkPass(b, g, 32, true) })
}

// BenchmarkCIFAR10 is one training pass of the 35.7M-parameter network over two images.
func BenchmarkCIFAR10(b *testing.B) {
	g, err := NewUNet2D(CIFAR10DDPM())
	if err != nil {
		b.Fatal(err)
	}
	benchmarkPass(b, g, 2, true)
}

func benchmarkPass(b *testing.B, g *Graph, batch int, train bool) {
	r := rand.New(rand.NewPCG(1, 2))
	onHost(b, kernels.FP32, func(m *machine) {
		o := PlanOptions{Train: train}
		if train {
			o.Shards = shards(min(8, batch), batch/min(8, batch))
		}
		t := newTrial(m, g, randomData(r, g, batch), o)
		pass := func() {
			t.instance.Forward(m.queue, Weights{Arena: t.w}, t.state, 0)
			if train {
				t.instance.Backward(m.queue, Weights{Arena: t.w}, t.partial, t.state, 0)
			}
			m.sync()
		}
		pass()
		fastest := time.Hour
		for b.Loop() {
			start := time.Now()
			pass()
			fastest = min(fastest, time.Since(start))
		}
		b.ReportMetric(float64(batch)/fastest.Seconds(), "images/s")

		share := map[string]time.Duration{}
		start := time.Now()
		t.instance.after = func(k int, backward bool) {
			m.sync()
			unit := t.graph.nodes[k].op.kind()
			if backward {
				unit += " backward"
			}
			share[unit] += time.Since(start)
			start = time.Now()
		}
		pass()
		all := time.Duration(0)
		for _, d := range share {
			all += d
		}
		kinds := slices.SortedFunc(maps.Keys(share), func(a, b string) int { return cmp.Compare(share[b], share[a]) })
		table := ""
		for _, kind := range kinds {
			table += fmt.Sprintf(" %s %.1f%%", kind, 100*share[kind].Seconds()/all.Seconds())
		}
		b.Log("share of time:", table)
		t.close()
	})
}
