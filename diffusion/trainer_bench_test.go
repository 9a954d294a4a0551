package diffusion

import (
	"context"
	"testing"

	"ddgpu/diffusion/data"
	"ddgpu/gpu"
	"ddgpu/layers"
)

// quickstart is the network of the preset of that name.
func quickstart() Config {
	c := DefaultConfig()
	heads := 32
	c.Model = layers.DefaultUNet2DConfig()
	c.Model.SampleSize = layers.SampleSize{H: 28, W: 28}
	c.Model.InChannels, c.Model.OutChannels = 1, 1
	c.Model.BlockOutChannels = []int{32, 32, 64}
	c.Model.DownBlockTypes = []string{"DownBlock2D", "DownBlock2D", "AttnDownBlock2D"}
	c.Model.UpBlockTypes = []string{"AttnUpBlock2D", "UpBlock2D", "UpBlock2D"}
	c.Model.LayersPerBlock = 1
	c.Model.NormNumGroups = 8
	c.Model.AttentionHeadDim = &heads
	c.Data.Path = "noise"
	c.Train.Batch = 32
	c.Sampler.Name, c.Sampler.Steps = "ddim", 10
	return c
}

// noisy is a data set of images without a pattern.
type noisy struct{ shape data.Shape }

func (s noisy) Len() int          { return 1000 }
func (s noisy) Shape() data.Shape { return s.shape }
func (s noisy) Classes() int      { return 0 }
func (s noisy) At(i int, dst []byte) (int32, error) {
	for k := range dst {
		dst[k] = byte(k * (i + 1))
	}
	return 0, nil
}

// benchTrainer runs f with a trainer of c on the host device.
func benchTrainer(b *testing.B, c Config, f func(t *Trainer)) {
	m, err := gpu.Open("host")
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	t, err := NewTrainer(m, c, noisy{c.imageShape()}, nil)
	if err != nil {
		b.Fatal(err)
	}
	f(t)
	if err := t.Close(); err != nil {
		b.Fatal(err)
	}
}

func benchStep(b *testing.B, c Config) {
	benchTrainer(b, c, func(t *Trainer) {
		for b.Loop() {
			if _, err := t.Step(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(c.Train.Batch)*float64(b.N)/b.Elapsed().Seconds(), "images/s")
	})
}

func BenchmarkTrainStepQuickstart(b *testing.B) { benchStep(b, quickstart()) }

// BenchmarkRecompute is the price of computing activations again.
func BenchmarkRecompute(b *testing.B) {
	c := quickstart()
	c.Train.Recompute = true
	benchStep(b, c)
}

// One training step of the 35.7M-parameter network of Ho et al. 2020.
func BenchmarkTrainStepCIFAR10(b *testing.B) {
	c := quickstart()
	c.Model = layers.CIFAR10DDPM()
	c.Train.Batch, c.Train.Shards = 2, 2
	benchStep(b, c)
}

func BenchmarkSampleStepQuickstart(b *testing.B) {
	c := quickstart()
	benchTrainer(b, c, func(t *Trainer) {
		for b.Loop() {
			if _, err := t.Sample(context.Background(), SampleRequest{N: c.Train.Batch, Seed: 1}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(c.Train.Batch*c.Sampler.Steps)*float64(b.N)/b.Elapsed().Seconds(), "images/s")
	})
}
