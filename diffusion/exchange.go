package diffusion

import (
	"errors"

	"ddgpu/gpu"
)

// exchange is what a device needs to add its gradient to those of the others: each device sums one slice of the arena over all devices, in
// the order of a tree, and collects the other slices from whoever summed them.
type exchange struct {
	slice  int64   // elements; the last slice may be shorter, or empty
	parts  gpu.Ptr // [devices][slice]
	ready  *gpu.Event
	summed *gpu.Event
}

// sliceMultiple keeps slices aligned for vector loads, in elements.
const sliceMultiple = 16

// sliceOf is the length of a slice of an arena, in elements.
func sliceOf(arena int64, devices int) int64 {
	perDevice := (arena + int64(devices) - 1) / int64(devices)
	return (perDevice + sliceMultiple - 1) / sliceMultiple * sliceMultiple
}

func (e *exchange) build(p *pool, arena int64, devices int) (err error) {
	if devices == 1 {
		return nil
	}
	e.slice = sliceOf(arena, devices)
	if e.parts, err = p.sums("the exchange of gradients", e.slice*int64(devices)); err != nil {
		return err
	}
	if e.ready, err = p.device.NewMarker(); err != nil {
		return err
	}
	e.summed, err = p.device.NewMarker()
	return err
}

func (e *exchange) close() error {
	var errs []error
	for _, event := range []*gpu.Event{e.ready, e.summed} {
		if event != nil {
			errs = append(errs, event.Close())
		}
	}
	return errors.Join(errs...)
}

// bounds gives slice i of an arena, in elements.
func (e *exchange) bounds(i int, arena int64) (first, n int64) {
	first = min(int64(i)*e.slice, arena)
	return first, min(e.slice, arena-first)
}

// The exchange leaves on every device the sum of all devices' gradients: each has recorded `ready`; then every one runs sumSlice, then
// collectSlices, after which no device needs anything of another any more but what it has brought.

// sumSlice brings the device's slice from all devices and adds it up in place. It waits for all devices first: one whose gradient is ready has
// collected what its peers summed in the step before, so that its parts may be replaced.
func (t *Trainer) sumSlice(r *replica) error {
	e, arena := &r.exchange, t.graph.ArenaElements
	first, n := e.bounds(r.device.Index, arena)
	for _, peer := range t.replicas {
		if err := r.stream.Wait(peer.exchange.ready); err != nil {
			return err
		}
	}
	r.beginOther("exchange")
	for i, peer := range t.replicas {
		if n == 0 {
			break
		}
		err := r.stream.CopyPeer(r.at(e.parts, int64(i)*e.slice), r.device, r.at(peer.gradientArena(), first), peer.device, n*r.precision.AccSize())
		if err != nil {
			return err
		}
	}
	if n > 0 {
		r.queue.TreeSum(len(t.replicas), n, r.at(e.parts, 0), e.parts, e.slice)
	}
	r.end()
	if err := r.queue.Err(); err != nil {
		return err
	}
	return r.stream.Record(e.summed)
}

// collectSlices brings every summed slice. It waits for all devices, so that none overwrites a gradient that another still reads.
func (t *Trainer) collectSlices(r *replica) error {
	for _, peer := range t.replicas {
		if err := r.stream.Wait(peer.exchange.summed); err != nil {
			return err
		}
	}
	r.beginOther("exchange")
	defer r.end()
	for i, peer := range t.replicas {
		first, n := r.exchange.bounds(i, t.graph.ArenaElements)
		if n == 0 {
			continue
		}
		if err := r.stream.CopyPeer(r.at(r.gradientArena(), first), r.device, peer.exchange.parts, peer.device, n*r.precision.AccSize()); err != nil {
			return err
		}
	}
	return nil
}
