package diffusion

import (
	"errors"

	"ddgpu/diffusion/data"
	"ddgpu/gpu"
	"ddgpu/kernels"
)

// StepsAhead is how many steps of a Trainer can be under way: one that the devices compute, and one queued behind it.
const StepsAhead = 2

// slot is what a step under way has of its own on one device, so that the next one's images are copied while it computes. Its input lies in
// pinned memory, and likewise on the device, as the state of the step, the labels and the images.
type slot struct {
	host   []byte
	input  gpu.Ptr
	result []byte // pinned: sum of the losses, gradient norm

	labelsAt, imagesAt int64 // within the input, bytes
	images             int   // of the global batch, on this device

	// copied: the input is on the device. done: the result is on the host, and nothing of the step is under way on this device.
	copied, done *gpu.Event
	// gradient computes the device's gradient; update changes the weights with that of all devices and fetches the result. On a single device
	// gradient is both.
	gradient, update *gpu.Graph
}

// inputAlign is what the parts of an input begin at multiples of, in bytes.
const inputAlign = 256

// layout places the labels and the images of an input and gives its size.
func (s *slot) layout(images, imageBytes int) (bytes int64) {
	align := func(n int64) int64 { return (n + inputAlign - 1) / inputAlign * inputAlign }
	s.images, s.labelsAt = images, kernels.StepStateSize
	s.imagesAt = align(s.labelsAt + int64(images)*4)
	return s.imagesAt + int64(images)*int64(imageBytes)
}

func (s *slot) build(p *pool, images, imageBytes int) (err error) {
	bytes := s.layout(images, imageBytes)
	if s.input, err = p.bytes("images", bytes); err != nil {
		return err
	}
	if s.host, err = p.host("images", bytes); err != nil {
		return err
	}
	if s.result, err = p.host("a step's result", resultValues*p.precision.AccSize()); err != nil {
		return err
	}
	if s.copied, err = p.device.NewMarker(); err != nil {
		return err
	}
	s.done, err = p.device.NewMarker()
	return err
}

func (s *slot) state() gpu.Ptr              { return s.input }
func (s *slot) labels(first int) gpu.Ptr    { return s.input.Offset(s.labelsAt + int64(first)*4) }
func (s *slot) image(firstByte int) gpu.Ptr { return s.input.Offset(s.imagesAt + int64(firstByte)) }

// fill writes the device's part of a batch, which begins with image first, and the state of the step.
func (s *slot) fill(batch data.Batch, first, imageBytes int, state kernels.StepState) {
	gpu.Values[kernels.StepState](s.host[:kernels.StepStateSize])[0] = state
	copy(gpu.Values[int32](s.host[s.labelsAt:s.labelsAt+int64(s.images)*4]), batch.Labels[first:])
	copy(s.host[s.imagesAt:], batch.Images[first*imageBytes:])
}

func (s *slot) close() error {
	var errs []error
	for _, g := range []*gpu.Graph{s.gradient, s.update} {
		if g != nil {
			errs = append(errs, g.Close())
		}
	}
	for _, e := range []*gpu.Event{s.copied, s.done} {
		if e != nil {
			errs = append(errs, e.Close())
		}
	}
	return errors.Join(errs...)
}
