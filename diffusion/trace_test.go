package diffusion

import (
	"context"
	"testing"

	"ddgpu/gpu"
)

// TestTraceIsAStep: a traced step has the bits of any other, and its spans name every layer of the network, one after another on each stream.
func TestTraceIsAStep(t *testing.T) {
	for _, spec := range []string{"host:1", "host:2", "host:2,lazy"} {
		c := tiny()
		c.Train.MicroBatches, c.Train.Recompute = 2, true
		want := train(t, "host:1", c, 0)
		onMachine(t, spec, func(m *gpu.Machine) {
			ctx := context.Background()
			images, heldOut := sets(c)
			trainer := must(NewTrainer(m, c, images, heldOut))(t)
			must(trainer.Step(ctx))(t)
			spans := must(trainer.Trace(ctx))(t)
			for trainer.Steps() < int64(c.Train.Steps) {
				must(trainer.Step(ctx))(t)
			}
			if _, hash, err := trainer.Save(t.TempDir(), 0); err != nil || hash != want.hash {
				t.Errorf("%s: a traced step leaves other weights: %v", spec, err)
			}
			checkSpans(t, spans, len(m.Devices), []string{"noise", "loss", "tree", "norm", "update", "result", "input", "labels"}, []string{"forward", "backward", "again"})
			if got := count(spans, func(s Span) bool { return s.Layer == "exchange" }); got != 2*len(m.Devices) && len(m.Devices) > 1 {
				t.Errorf("%s: %d spans of the exchange", spec, got)
			}
			ok(t, trainer.Close())
		})
	}
}

func TestTraceOfSampling(t *testing.T) {
	onMachine(t, "host:2", func(m *gpu.Machine) {
		g := must(NewGenerator(m, must(NewModel(tiny()))(t), 4))(t)
		checkSpans(t, must(g.Trace())(t), 2, []string{"time", "update", "labels"}, []string{"forward"})
		labels := []int32{0, 1, 2, 0, 1, 2, 0}
		first := must(g.Sample(context.Background(), SampleRequest{N: 7, Labels: labels}))(t)
		must(g.Trace())(t)
		again := must(g.Sample(context.Background(), SampleRequest{N: 7, Labels: labels}))(t)
		for i := range first {
			if first[i] != again[i] {
				t.Fatal("a trace changes what is drawn")
			}
		}
		ok(t, g.Close())
	})
}

func count(spans []Span, f func(s Span) bool) (n int) {
	for _, s := range spans {
		if f(s) {
			n++
		}
	}
	return n
}

func checkSpans(t *testing.T, spans []Span, devices int, others, passes []string) {
	t.Helper()
	type stream struct {
		device int
		name   string
	}
	ends := map[stream]Span{}
	for _, s := range spans {
		at := stream{s.Device, s.Stream}
		last, ok := ends[at]
		// Elapsed times are float32 milliseconds: neighbours can seem to overlap by their rounding.
		if s.Duration < 0 || ok && s.Start < last.Start+last.Duration-2000 {
			t.Errorf("%+v after %+v", s, last)
		}
		ends[at] = s
	}
	for d := range devices {
		for _, what := range others {
			if count(spans, func(s Span) bool { return s.Device == d && s.Layer == what && s.Kind == "" }) == 0 {
				t.Errorf("device %d: nothing of %s", d, what)
			}
		}
		for _, pass := range passes {
			for _, layer := range []string{"down_blocks.0.resnets.0.norm1", "mid_block.resnets.1.norm2"} {
				if count(spans, func(s Span) bool {
					return s.Device == d && s.Layer == layer && s.Pass == pass && s.Kind == "group norm"
				}) == 0 {
					t.Errorf("device %d: nothing of %s %s", d, layer, pass)
				}
			}
		}
	}
}
