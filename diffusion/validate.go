package diffusion

import (
	"context"
	"errors"
	"fmt"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// validationSeed keys the noise of the validation loss. It is not the run's, so that the losses of different runs can be compared.
const validationSeed = 0x5eed_0f_7e57

// ErrNoHeldOut is an evaluation without images that were kept out of training.
var ErrNoHeldOut = errors.New("no images are held out: set data.holdout")

// Evaluate is the validation loss: the mean loss of held-out images with the averaged weights, each with the same step n and the same noise
// every time. It has the same bits on any number of devices.
func (t *Trainer) Evaluate(ctx context.Context) (float64, error) {
	if t.heldOut == nil || t.heldOut.Len() == 0 {
		return 0, ErrNoHeldOut
	}
	if err := t.settle(); err != nil {
		return 0, err
	}
	n := t.heldOut.Len()
	if most := t.config.Train.EvalImages; most > 0 {
		n = min(n, most)
	}
	losses := make([]float64, n)
	err := t.machine.Each(func(d *gpu.Device) error {
		w := t.drawers[d.Index]
		for first := d.Index * w.batch; first < n; first += len(t.drawers) * w.batch {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := t.validate(w, first, losses[first:min(first+w.batch, n)]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("validating: %w", err)
	}
	sum := 0.0
	for _, l := range losses {
		sum += l
	}
	return sum / float64(n), nil
}

// validate computes the losses of held-out images first … first+len(losses).
func (t *Trainer) validate(w *drawer, first int, losses []float64) error {
	size := t.heldOut.Shape().Bytes()
	labels := make([]int32, len(losses))
	for i := range losses {
		var err error
		if labels[i], err = t.heldOut.At(first+i, w.hostImages[i*size:(i+1)*size]); err != nil {
			return err
		}
	}
	gpu.Values[kernels.StepState](w.hostStates)[0] = kernels.StepState{Seed: validationSeed, First: uint64(first)}
	err := errors.Join(w.roundWeights(), w.putLabels(labels, 0), w.stream.Upload(w.images, w.hostImages), w.stream.Upload(w.state, w.hostStates[:kernels.StepStateSize]),
		w.validating.Launch(w.stream), w.stream.Download(w.hostLoss, w.lossOf), w.stream.Sync())
	copy(losses, w.precision.AccValues(w.hostLoss))
	return err
}
