package diffusion

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"ddgpu/diffusion/checkpoint"
	"ddgpu/diffusion/data"
	"ddgpu/gpu"
	"ddgpu/layers"
)

// blobs is a data set of soft discs whose place depends on the class.
type blobs struct {
	n, classes int
	shape      data.Shape
}

func (b blobs) Len() int          { return b.n }
func (b blobs) Shape() data.Shape { return b.shape }
func (b blobs) Classes() int      { return b.classes }
func (b blobs) At(i int, dst []byte) (int32, error) {
	label := i % max(1, b.classes)
	for y := range b.shape.H {
		for x := range b.shape.W {
			d := math.Hypot(float64(y-2-label), float64(x-2-i%3))
			for c := range b.shape.C {
				dst[(y*b.shape.W+x)*b.shape.C+c] = byte(255 * math.Exp(-d*d/float64(2+c)))
			}
		}
	}
	return int32(label), nil
}

// tiny is a network with every kind of part, small enough for a test.
func tiny() Config {
	c := DefaultConfig()
	heads, classes := 8, 3
	c.Model = layers.DefaultUNet2DConfig()
	c.Model.SampleSize = layers.SampleSize{H: 8, W: 8}
	c.Model.InChannels, c.Model.OutChannels = 1, 1
	c.Model.BlockOutChannels = []int{8, 16}
	c.Model.DownBlockTypes = []string{"DownBlock2D", "AttnDownBlock2D"}
	c.Model.UpBlockTypes = []string{"AttnUpBlock2D", "UpBlock2D"}
	c.Model.LayersPerBlock = 1
	c.Model.NormNumGroups = 4
	c.Model.AttentionHeadDim = &heads
	c.Model.NumClassEmbeds = &classes
	c.Model.Dropout = 0.1
	c.Data.Flip = true
	c.Data.Path = "blobs"
	c.Train.Batch = 16
	c.Train.Steps = 6
	c.Train.EvalImages = 11
	c.Sampler.Name, c.Sampler.Steps, c.Sampler.Eta = "ddim", 5, 0.5
	c.Optimizer.LearningRate = 1e-3
	c.EMA.Decay = 0.9
	return c
}

func sets(c Config) (train, heldOut data.Dataset) {
	b := blobs{n: 50, classes: *c.Model.NumClassEmbeds, shape: c.imageShape()}
	return b, blobs{n: 11, classes: b.classes, shape: b.shape}
}

// onMachine opens the devices of a spec for f.
func onMachine(t *testing.T, spec string, f func(m *gpu.Machine)) {
	t.Helper()
	m, err := gpu.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	f(m)
}

// outcome is what a short run leaves.
type outcome struct {
	hash   string
	losses []float64
	val    float64
	images []float32
}

// train runs c on a device spec; at step `stop` it saves, starts anew and resumes.
func train(t *testing.T, spec string, c Config, stop int) (o outcome) {
	t.Helper()
	onMachine(t, spec, func(m *gpu.Machine) {
		ctx, dir := context.Background(), t.TempDir()
		images, heldOut := sets(c)
		trainer := must(NewTrainer(m, c, images, heldOut))(t)
		for trainer.Steps() < int64(c.Train.Steps) {
			if stop > 0 && trainer.Steps() == int64(stop) {
				path, _, err := trainer.Save(dir, 0)
				ok(t, err)
				ok(t, trainer.Close())
				trainer = must(NewTrainer(m, c, images, heldOut))(t)
				ok(t, trainer.Restore(path))
				stop = 0
			}
			r := must(trainer.Step(ctx))(t)
			o.losses = append(o.losses, r.Loss)
		}
		var err error
		_, o.hash, err = trainer.Save(dir, 0)
		ok(t, err)
		o.val = must(trainer.Evaluate(ctx))(t)
		o.images = must(trainer.Sample(ctx, SampleRequest{N: 7, Seed: 3, Labels: []int32{0, 1, 2, 0, 1, 2, 0}}))(t)
		ok(t, trainer.Close())
	})
	return o
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		ok(t, err)
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(a, b outcome) string {
	switch {
	case a.hash != b.hash:
		return fmt.Sprintf("checkpoints differ: %.12s and %.12s; losses %v and %v", a.hash, b.hash, a.losses, b.losses)
	case fmt.Sprint(a.losses) != fmt.Sprint(b.losses):
		return fmt.Sprintf("losses differ: %v and %v", a.losses, b.losses)
	case a.val != b.val:
		return fmt.Sprintf("validation losses differ: %v and %v", a.val, b.val)
	case fmt.Sprint(a.images) != fmt.Sprint(b.images):
		return "samples differ"
	}
	return ""
}

// Activations that are computed again, dropout's masks among them, change nothing but the memory.
func TestRecomputeIsTheSame(t *testing.T) {
	c := tiny()
	kept := must(PlanMemory(c, 1))(t)
	for _, precision := range []string{"fp32", "bf16"} {
		c := c
		c.Precision = precision
		want := train(t, "host:1", c, 0)
		for _, micro := range []int{1, 4} {
			again := c
			again.Train.Recompute, again.Train.MicroBatches = true, micro
			if diff := same(want, train(t, "host:2", again, 3)); diff != "" {
				t.Errorf("%s, %d micro-batches: %s", precision, micro, diff)
			}
		}
	}
	// The GPU's convolutions leave the statistics that group norm takes, also when it runs again.
	for _, precision := range []string{"tf32", "bf16"} {
		tensor := c
		tensor.Precision, tensor.Train.Steps, tensor.Model.BlockOutChannels = precision, 2, []int{16, 32}
		want := train(t, "host:1,tiles=gpu", tensor, 0)
		tensor.Train.Recompute = true
		if diff := same(want, train(t, "host:1,tiles=gpu", tensor, 0)); diff != "" {
			t.Errorf("%s on tensor cores: %s", precision, diff)
		}
	}
	c.Train.Recompute = true
	again := must(PlanMemory(c, 1))(t)
	if kept.Total-again.Total != kept.Recompute || kept.Recompute != again.Recompute || kept.Recompute < kept.Total/20 {
		t.Errorf("%d bytes, %d with recomputation; said to save %d and %d", kept.Total, again.Total, kept.Recompute, again.Recompute)
	}
}

// The promise of the product: the same bits however the work is divided, resumed or not. A batch of 13 leaves short and empty shards.
func TestSameBitsHoweverDivided(t *testing.T) {
	for _, of := range []struct {
		batch     int
		precision string
	}{{16, "fp32"}, {13, "fp32"}, {5, "fp32"}, {13, "bf16"}} {
		c := tiny()
		c.Train.Batch, c.Precision = of.batch, of.precision
		want := train(t, "host:1", c, 0)
		for _, variation := range []struct {
			spec  string
			micro int
			stop  int
		}{
			{"host:2", 1, 0}, {"host:4", 1, 0}, {"host:8", 1, 0}, {"host:1", 2, 0}, {"host:1", 8, 0}, {"host:2", 4, 0}, {"host:1,lazy", 1, 0},
			{"host:1,threads=3", 1, 0}, {"host:1", 1, 3}, {"host:4", 2, 2},
		} {
			d := c
			d.Train.MicroBatches = variation.micro
			if diff := same(want, train(t, variation.spec, d, variation.stop)); diff != "" {
				t.Errorf("batch %d, %s, %s, %d micro-batches, resumed at %d: %s", of.batch, of.precision, variation.spec, variation.micro, variation.stop, diff)
			}
		}
	}
}

func TestOtherSeedOrWeightsAreOtherBits(t *testing.T) {
	c := tiny()
	c.Train.Steps = 1
	want := train(t, "host", c, 0)
	c.Seed = 1
	if got := train(t, "host", c, 0); got.hash == want.hash || got.losses[0] == want.losses[0] {
		t.Error("another seed gives the same run")
	}
}

func TestLossFalls(t *testing.T) {
	c := tiny()
	c.Train.Steps, c.Model.Dropout, c.Optimizer.LearningRate = 150, 0, 4e-3
	o := train(t, "host", c, 0)
	first, last := 0.0, 0.0
	for i := range 10 {
		first += o.losses[i] / 10
		last += o.losses[len(o.losses)-1-i] / 10
	}
	if last > first/2 {
		t.Errorf("mean loss of the first ten steps %.3f, of the last ten %.3f", first, last)
	}
}

func TestDivergenceIsReported(t *testing.T) {
	c := tiny()
	c.Train.Steps, c.Optimizer.LearningRate, c.Optimizer.MaxGradNorm = 60, 0.999, 0
	c.Optimizer.Name = "adamw"
	c.Optimizer.WeightDecay = 1e30
	onMachine(t, "host", func(m *gpu.Machine) {
		images, heldOut := sets(c)
		trainer := must(NewTrainer(m, c, images, heldOut))(t)
		var diverged *DivergedError
		for i := 0; i < c.Train.Steps && diverged == nil; i++ {
			_, err := trainer.Step(context.Background())
			if err != nil && !errors.As(err, &diverged) {
				t.Fatal(err)
			}
		}
		if diverged == nil {
			t.Error("weights of 1e30 and no word of it")
		}
		ok(t, trainer.Close())
	})
}

func TestRestoreRefusesAnotherRun(t *testing.T) {
	onMachine(t, "host", func(m *gpu.Machine) {
		c, dir := tiny(), t.TempDir()
		images, heldOut := sets(c)
		trainer := must(NewTrainer(m, c, images, heldOut))(t)
		path, _, err := trainer.Save(dir, 0)
		ok(t, err)
		ok(t, trainer.Close())

		other := c
		other.Optimizer.LearningRate = 5e-4
		trainer = must(NewTrainer(m, other, images, heldOut))(t)
		var config *ConfigError
		if err := trainer.Restore(path); !errors.As(err, &config) {
			t.Errorf("another learning rate: %v", err)
		}
		var damaged *checkpoint.Error
		if err := trainer.Restore(filepath.Join(dir, "none")); !errors.As(err, &damaged) {
			t.Errorf("no checkpoint: %v", err)
		}
		ok(t, trainer.Close())
	})
}

func TestTrainerRefusesImagesThatItCannotUse(t *testing.T) {
	onMachine(t, "host", func(m *gpu.Machine) {
		c := tiny()
		good := blobs{n: 4, classes: 3, shape: c.imageShape()}
		for key, bad := range map[string]blobs{
			"data.path has no images": {n: 0, classes: 3, shape: good.shape},
			"data.path has images of": {n: 4, classes: 3, shape: data.Shape{H: 8, W: 4, C: 1}},
			"model.num_class_embeds":  {n: 4, classes: 9, shape: good.shape},
		} {
			sets := [][2]data.Dataset{{bad, good}, {good, bad}}
			if bad.n == 0 {
				sets = sets[:1] // nothing to validate on is no error
			}
			for _, pair := range sets {
				var config *ConfigError
				if _, err := NewTrainer(m, c, pair[0], pair[1]); !errors.As(err, &config) || !strings.Contains(err.Error(), key) {
					t.Errorf("%s: %v", key, err)
				}
			}
		}
	})
}

// A network beyond any memory is an error of the device, before its weights are drawn on the host.
func TestNoRoomForTheNetwork(t *testing.T) {
	onMachine(t, "host:2,memory=1MiB", func(m *gpu.Machine) {
		c := tiny()
		c.Model.BlockOutChannels = []int{1 << 16, 1 << 16}
		c.Train.Batch = 2
		images, heldOut := sets(c)
		var memory *gpu.MemoryError
		if _, err := NewTrainer(m, c, images, heldOut); !errors.As(err, &memory) || memory.Bytes < 1<<40 {
			t.Errorf("got %v", err)
		}
	})
}

func TestClassesMustFitTheNetwork(t *testing.T) {
	onMachine(t, "host", func(m *gpu.Machine) {
		c := tiny()
		for _, classes := range []int{0, *c.Model.NumClassEmbeds + 1} {
			images := blobs{n: 5, classes: classes, shape: c.imageShape()}
			var config *ConfigError
			if _, err := NewTrainer(m, c, images, nil); !errors.As(err, &config) || config.Key != "model.num_class_embeds" {
				t.Errorf("%d classes for a network of %d: %v", classes, *c.Model.NumClassEmbeds, err)
			}
		}
	})
}

func TestGeneratorEqualsTrainer(t *testing.T) {
	c, dir := tiny(), t.TempDir()
	c.Train.Steps = 2
	labels := []int32{2, 1, 0, 2, 1, 0, 2, 2, 2}
	var want []float32
	onMachine(t, "host", func(m *gpu.Machine) {
		images, heldOut := sets(c)
		trainer := must(NewTrainer(m, c, images, heldOut))(t)
		for range 2 {
			must(trainer.Step(context.Background()))(t)
		}
		_, _, err := trainer.Save(filepath.Join(dir, checkpointsFolder), 0)
		ok(t, err)
		want = must(trainer.Sample(context.Background(), SampleRequest{N: 9, Seed: 5, Labels: labels}))(t)
		ok(t, trainer.Close())
	})
	model := must(OpenModel(dir))(t)
	if model.Step != 2 {
		t.Errorf("step %d", model.Step)
	}
	for _, spec := range []string{"host", "host:2", "host:3"} {
		for _, batch := range []int{1, 4, 100} {
			onMachine(t, spec, func(m *gpu.Machine) {
				g := must(NewGenerator(m, model, batch))(t)
				steps := 0
				got := must(g.Sample(context.Background(), SampleRequest{N: 9, Seed: 5, Labels: labels, Progress: func(int, int) { steps++ }}))(t)
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s, batch %d: other images", spec, batch)
				}
				if steps == 0 {
					t.Error("no progress")
				}
				// Images 4 … 8 alone are the same images.
				tail := must(g.Sample(context.Background(), SampleRequest{N: 5, First: 4, Seed: 5, Labels: labels[4:]}))(t)
				if fmt.Sprint(tail) != fmt.Sprint(want[4*64:]) {
					t.Errorf("%s, batch %d: images from number 4 on differ", spec, batch)
				}
				ok(t, g.Close())
			})
		}
	}
}

func TestCancelledStepDoesNothing(t *testing.T) {
	onMachine(t, "host", func(m *gpu.Machine) {
		c := tiny()
		images, heldOut := sets(c)
		trainer := must(NewTrainer(m, c, images, heldOut))(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := trainer.Step(ctx); !errors.Is(err, context.Canceled) || trainer.Steps() != 0 {
			t.Errorf("%v, %d steps", err, trainer.Steps())
		}
		ok(t, trainer.Close())
	})
}

// What a plan promises is what is allocated, and what the devices then use but for the rounding of allocations.
func TestPlanMemoryIsWhatIsUsed(t *testing.T) {
	for _, devices := range []int{1, 2, 4} {
		c := tiny()
		c.Train.Recompute, c.Train.MicroBatches = devices == 4, max(1, 4/devices)
		plan := must(PlanMemory(c, devices))(t)
		onMachine(t, fmt.Sprintf("host:%d", devices), func(m *gpu.Machine) {
			used := func() (n int64) {
				ok(t, m.Devices[0].Do(func() error {
					free, total, err := m.Devices[0].MemInfo()
					n = total - free
					return err
				}))
				return n
			}
			images, heldOut := sets(c)
			before := used()
			trainer := must(NewTrainer(m, c, images, heldOut))(t)
			got := used() - before
			if math.Abs(float64(got-plan.Total)) > 0.02*float64(plan.Total) {
				t.Errorf("%d devices: planned %d bytes, used %d", devices, plan.Total, got)
			}
			if allocated := m.Devices[0].Allocated(); allocated != plan.Total {
				t.Errorf("%d devices: planned %d bytes, allocated %d", devices, plan.Total, allocated)
			}
			ok(t, trainer.Close())
			if left := used() - before; left > 4096 {
				t.Errorf("%d bytes are left after Close", left)
			}
		})
	}
}
