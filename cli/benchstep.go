package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"ddgpu/diffusion"
	"ddgpu/diffusion/data"
)

// noiseImages is a dataset of random images that costs nothing to read.
type noiseImages struct {
	shape   data.Shape
	classes int
}

// noiseImagesFor are images as a network wants them.
func noiseImagesFor(c diffusion.Config) noiseImages {
	return noiseImages{imageShape(c), c.Classes()}
}

// imageShape is the shape of the images that a network is trained on.
func imageShape(c diffusion.Config) data.Shape {
	return data.Shape{H: c.Model.SampleSize.H, W: c.Model.SampleSize.W, C: c.Model.InChannels}
}

func (n noiseImages) Len() int          { return 1 << 16 }
func (n noiseImages) Shape() data.Shape { return n.shape }
func (n noiseImages) Classes() int      { return n.classes }

func (n noiseImages) At(i int, dst []byte) (int32, error) {
	random := rand.NewPCG(uint64(i), 0)
	for j := range n.shape.Bytes() {
		dst[j] = byte(random.Uint64())
	}
	return int32(i % max(1, n.classes)), nil
}

// trainStep times whole steps: images to the devices, forward, backward, exchange, update.
func (b *benching) trainStep() error {
	t, err := b.trainer()
	if err != nil {
		return err
	}
	times, _, err := b.trainTimes(t)
	if err := join(err, t.Close()); err != nil {
		return err
	}
	b.images(trainStep, b.config.Train.Batch, times)
	return nil
}

// trainTimes makes steps as a training does, one queued ahead: how long each took after the one before, and how long the host was at queueing it.
func (b *benching) trainTimes(t *diffusion.Trainer) (whole, host []time.Duration, err error) {
	var last time.Time
	for i := range b.repeats + 3 { // the first two results warm up
		start := time.Now()
		if err := t.Queue(context.Background()); err != nil {
			return nil, nil, err
		}
		queued := time.Since(start)
		if t.Pending() < diffusion.StepsAhead {
			continue
		}
		if _, err := t.Result(); err != nil {
			return nil, nil, err
		}
		now := time.Now()
		if i >= 3 {
			whole, host = append(whole, now.Sub(last)), append(host, queued)
		}
		last = now
		b.alive("a whole step runs")
	}
	return whole, host, nil
}

// trainer trains the network on random images.
func (b *benching) trainer() (*diffusion.Trainer, error) {
	return diffusion.NewTrainer(b.machine, b.config, noiseImagesFor(b.config), nil)
}

// benchSamplingSteps is how many sampling steps one measurement averages over.
const benchSamplingSteps = 5

// sampleStep times sampling steps of a whole batch with fresh weights: the time does not depend on their values.
func (b *benching) sampleStep() error {
	g, err := b.generator()
	if err != nil {
		return err
	}
	times, err := b.sampleTimes(g)
	if err := join(err, g.Close()); err != nil {
		return err
	}
	b.images(sampleStep, b.config.Train.Batch, times)
	return nil
}

// generator draws with fresh weights.
func (b *benching) generator() (*diffusion.Generator, error) {
	c := b.config
	c.Sampler.Steps, c.Sampler.Spacing = benchSamplingSteps, "even"
	model, err := diffusion.NewModel(c)
	if err != nil {
		return nil, err
	}
	devices := len(b.machine.Devices)
	return diffusion.NewGenerator(b.machine, model, (c.Train.Batch+devices-1)/devices)
}

// sampleTimes is how long a step of a draw takes.
func (b *benching) sampleTimes(g *diffusion.Generator) ([]time.Duration, error) {
	c := b.config
	labels := roundRobin(c, 0, c.Train.Batch)
	times, err := b.times(func() error {
		_, err := g.Sample(context.Background(), diffusion.SampleRequest{N: c.Train.Batch, Labels: labels})
		return err
	})
	for i := range times {
		times[i] /= benchSamplingSteps
	}
	return times, err
}

// times runs f twice to warm up, then as often as is asked for.
func (b *benching) times(f func() error) ([]time.Duration, error) {
	var times []time.Duration
	for i := range b.repeats + 2 {
		start := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		if i >= 2 {
			times = append(times, time.Since(start))
		}
		b.alive("a whole step runs")
	}
	return times, nil
}

// images adds a row in images per second.
func (b *benching) images(name string, batch int, times []time.Duration) {
	rates := make([]float64, len(times))
	for i, t := range times {
		rates[i] = float64(batch) / t.Seconds()
	}
	median, spread := medianAndSpread(rates)
	b.add(benchRow{Name: name, Shape: fmt.Sprintf("%s, batch %d", b.config.Name, batch), Unit: "images/s", Value: median, Spread: spread, Batch: batch})
}
