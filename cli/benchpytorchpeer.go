package main

import (
	"fmt"

	"ddgpu/cli/pytorch"
)

// peerRow is the row that --peer adds.
const peerRow = "peer_train_step"

// peerSubject is our training step beside that of denoising-diffusion-pytorch: another network of the same base width, multipliers and image
// size, so that only the rates are held against each other.
func (v *versus) peerSubject() (subject, error) {
	c := v.config
	widths := c.Model.BlockOutChannels
	var mults []int
	for _, w := range widths {
		if w%widths[0] != 0 {
			return subject{}, usagef("--peer %s: its Unet has widths that are multiples of the first, here they are %v", lucidrains, widths)
		}
		mults = append(mults, w/widths[0])
	}
	if c.Train.Batch < 16 {
		return subject{}, usagef("--peer %s: its Trainer wants a batch of at least 16, here it is %d", lucidrains, c.Train.Batch)
	}
	size := c.Model.SampleSize
	if side := 1 << (len(widths) - 1); size.H%side != 0 || size.W%side != 0 {
		return subject{}, usagef("--peer %s: its Unet wants images of a multiple of %d pixels, here they are %d×%d", lucidrains, side, size.H, size.W)
	}
	params := map[string]any{"dim": widths[0], "mults": mults, "channels": c.Model.InChannels, "size": []int{size.H, size.W}, "batch": c.Train.Batch,
		"steps": c.Schedule.Steps, "lr": c.Optimizer.LearningRate, "flip": c.Data.Flip}
	return subject{
		name: peerRow, kind: "ddp_train_step", images: c.Train.Batch, modes: []string{pytorch.Eager}, slice: networkSlice,
		shape:  fmt.Sprintf("%s, another network of this size, batch %d, parameters: ours %d", lucidrains, c.Train.Batch, v.graph.Parameters),
		params: func() map[string]any { return params },
		build: func(v *versus) (contender, error) {
			t, err := newTraining(v)
			return unchecked{t}, err
		},
	}, nil
}

// unchecked is a contender whose numbers are not comparable.
type unchecked struct{ contender }

func (unchecked) files() (inputs, reference string) { return "", "" }
