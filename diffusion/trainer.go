package diffusion

import (
	"context"
	"errors"
	"fmt"
	"math"

	"ddgpu/diffusion/data"
	"ddgpu/diffusion/schedule"
	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

// Trainer trains one network on all devices of a machine.
//
// Each device holds a copy of the weights and computes the gradient of its shards of every batch. The gradients of all shards are added in
// one fixed tree and every device makes the same update, so that the weights have the same bits on any number of devices, with any number
// of micro-batches, resumed or not.
type Trainer struct {
	config   Config
	machine  *gpu.Machine
	graph    *layers.Graph
	replicas []*replica
	drawers  []*drawer // share the replicas' averaged weights
	train    data.Dataset
	heldOut  data.Dataset
	loader   *data.Loader
	step     int64 // updates queued
	steps    stepping
	rates    [StepsAhead]float64 // learning rates of the pending steps, by slot
}

// readAhead is how many batches are read in advance.
const readAhead = 4

// NewTrainer puts a freshly initialised network on every device of m. heldOut may be nil.
func NewTrainer(m *gpu.Machine, c Config, train, heldOut data.Dataset) (*Trainer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := c.Train.checkDevices(len(m.Devices)); err != nil {
		return nil, err
	}
	if err := CheckPrecision(c.precision(), m); err != nil {
		return nil, &ConfigError{Key: "precision", Reason: err.Error()}
	}
	if err := c.checkData(train); err != nil {
		return nil, err
	}
	if heldOut != nil && heldOut.Len() > 0 {
		if err := c.checkData(heldOut); err != nil {
			return nil, err
		}
	}
	graph, err := layers.NewUNet2D(c.Model)
	if err != nil {
		return nil, &ConfigError{Key: "model", Reason: err.Error()}
	}
	noise, err := schedule.New(c.Schedule)
	if err != nil {
		return nil, &ConfigError{Key: "schedule", Reason: err.Error()}
	}
	c.ResolvePrecision(m)
	t := &Trainer{config: c, machine: m, graph: graph, train: train, heldOut: heldOut}
	if err := t.build(noise); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	t.buildSteps()
	t.startLoader()
	return t, nil
}

// build allocates the devices' memory, which says whether there is room for the network, and then draws its weights.
func (t *Trainer) build(noise *schedule.Schedule) error {
	devices := len(t.machine.Devices)
	t.replicas, t.drawers = make([]*replica, devices), make([]*drawer, devices)
	err := t.machine.Each(func(d *gpu.Device) (err error) {
		t.replicas[d.Index], err = newReplica(d, &t.config, t.graph, noise, devices)
		return err
	})
	if err != nil {
		return err
	}
	weights := t.graph.InitWeights(t.config.Seed)
	return t.machine.Each(func(d *gpu.Device) (err error) {
		r := t.replicas[d.Index]
		if err := r.setWeights(weights); err != nil {
			return err
		}
		t.drawers[d.Index], err = newDrawer(r.library, t.graph, noise, &t.config, r.ema, t.drawBatch())
		return err
	})
}

// drawBatch is how many images a device validates or samples at once: as many as it trains on.
func (t *Trainer) drawBatch() int { return t.config.Train.cut(len(t.machine.Devices), 0, 0).Count }

// checkData says whether a network can be shown the images of a set.
func (c *Config) checkData(set data.Dataset) error {
	if set.Len() < 1 {
		return &ConfigError{Key: "data.path", Reason: "has no images"}
	}
	if classes := c.Model.NumClassEmbeds; classes != nil {
		reason := ""
		switch n := set.Classes(); {
		case n == 0:
			reason = fmt.Sprintf("is %d, but the images have no classes: set it to null", *classes)
		case n > *classes:
			reason = fmt.Sprintf("is %d, but the images have %d classes", *classes, n)
		}
		if reason != "" {
			return &ConfigError{Key: "model.num_class_embeds", Reason: reason}
		}
	}
	if want := c.imageShape(); set.Shape() != want {
		return &ConfigError{Key: "data.path", Reason: fmt.Sprintf("has images of %v, the network is made for %v", set.Shape(), want)}
	}
	return nil
}

func (t *Trainer) startLoader() {
	if t.loader != nil {
		t.loader.Close()
	}
	order := data.NewOrder(t.config.Seed, t.train.Len())
	t.loader = data.NewLoader(t.train, order, t.config.Train.Batch, int(t.step), readAhead)
}

// Graph is the network.
func (t *Trainer) Graph() *layers.Graph { return t.graph }

// stepState is what the kernels of update k = 1, 2, … read.
func (t *Trainer) stepState(k int64) kernels.StepState {
	o := t.config.Optimizer
	return kernels.StepState{
		Seed: t.config.Seed, Step: uint64(k),
		LearningRate: t.config.LearningRateAt(int(k)), EMADecay: t.config.EMADecayAt(int(k)),
		Correction1: 1 - math.Pow(o.Beta1, float64(k)), Correction2: 1 - math.Pow(o.Beta2, float64(k)),
	}
}

// Sample draws images with the averaged weights and the configuration's sampler, [N][H][W][C] in [−1, 1].
func (t *Trainer) Sample(ctx context.Context, r SampleRequest) ([]float32, error) {
	if err := t.settle(); err != nil {
		return nil, err
	}
	return draw(ctx, t.machine, t.drawers, r)
}

// Close frees what the trainer holds on the devices.
func (t *Trainer) Close() error {
	if t.loader != nil {
		t.loader.Close()
	}
	// The copies of one device read the memory of others: all have ended before any is freed. What fails here fails again below.
	_ = t.machine.Each(func(d *gpu.Device) error {
		if r := t.replicas[d.Index]; r != nil && r.copies != nil {
			return r.settle()
		}
		return nil
	})
	return t.machine.Each(func(d *gpu.Device) error {
		var errs []error
		if w := t.drawers[d.Index]; w != nil {
			errs = append(errs, w.close())
		}
		if r := t.replicas[d.Index]; r != nil {
			errs = append(errs, r.close())
		}
		return errors.Join(errs...)
	})
}
