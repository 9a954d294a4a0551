package gpu

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"ddgpu/gpu/driver"
)

// Stream is a queue of work that runs in order. Streams run beside each other, ordered only by events.
type Stream struct {
	device *Device
	cu     cu.Stream
}

// NewStream makes a stream that does not wait for the null stream.
func (d *Device) NewStream() (*Stream, error) {
	s, err := cu.MakeStream(cu.NonBlocking)
	if err != nil {
		return nil, failed("making a stream", d.Index, err)
	}
	return &Stream{d, s}, nil
}

// Device is the stream's device.
func (s *Stream) Device() *Device { return s.device }

// Close destroys the stream once its work has ended.
func (s *Stream) Close() error { return s.check("destroying a stream", s.cu.Destroy()) }

func (s *Stream) check(op string, err error) error {
	if err == nil {
		return nil
	}
	return failed(op, s.device.Index, err)
}

// Upload queues a copy of src, which must be pinned and stay as it is until the copy has run.
func (s *Stream) Upload(dst Ptr, src []byte) error {
	if len(src) == 0 || s.device.rehearsing {
		return nil
	}
	err := cu.MemcpyHtoDAsync(cu.DevicePtr(dst), unsafe.Pointer(unsafe.SliceData(src)), int64(len(src)), s.cu)
	return s.check("copying to the device", err)
}

// Download queues a copy to dst, which must be pinned.
func (s *Stream) Download(dst []byte, src Ptr) error {
	if len(dst) == 0 || s.device.rehearsing {
		return nil
	}
	err := cu.MemcpyDtoHAsync(unsafe.Pointer(unsafe.SliceData(dst)), cu.DevicePtr(src), int64(len(dst)), s.cu)
	return s.check("copying from the device", err)
}

// Copy queues a copy within the device.
func (s *Stream) Copy(dst, src Ptr, bytes int64) error {
	if bytes == 0 || s.device.rehearsing {
		return nil
	}
	return s.check("copying on the device", cu.MemcpyDtoDAsync(cu.DevicePtr(dst), cu.DevicePtr(src), bytes, s.cu))
}

// CopyPeer queues a copy between two devices, of which the stream's is one, or within that one.
func (s *Stream) CopyPeer(dst Ptr, to *Device, src Ptr, from *Device, bytes int64) error {
	if to == from {
		return s.Copy(dst, src, bytes)
	}
	if bytes == 0 || s.device.rehearsing {
		return nil
	}
	err := cu.MemcpyPeerAsync(cu.DevicePtr(dst), to.context, cu.DevicePtr(src), from.context, bytes, s.cu)
	if err != nil {
		return s.check(fmt.Sprintf("copying from device %d to device %d", from.Index, to.Index), err)
	}
	return nil
}

// Zero queues the clearing of memory.
func (s *Stream) Zero(dst Ptr, bytes int64) error {
	if bytes == 0 || s.device.rehearsing {
		return nil
	}
	return s.check("clearing memory", cu.MemsetD8Async(cu.DevicePtr(dst), 0, bytes, s.cu))
}

// Sync waits until all that was queued has run.
func (s *Stream) Sync() error { return s.check("waiting for a stream", s.cu.Synchronize()) }

// Event is a point in a stream.
type Event struct {
	device *Device
	cu     cu.Event
}

// NewEvent makes an event that also takes the time.
func (d *Device) NewEvent() (*Event, error) { return d.newEvent(cu.DefaultEvent) }

// NewMarker makes an event that only orders: it takes no time, and a thread that waits for it sleeps instead of asking again and again.
func (d *Device) NewMarker() (*Event, error) {
	return d.newEvent(cu.DisableTiming | cu.BlockingSyncEvent)
}

func (d *Device) newEvent(flags cu.EventFlags) (*Event, error) {
	e, err := cu.MakeEvent(flags)
	if err != nil {
		return nil, failed("making an event", d.Index, err)
	}
	return &Event{d, e}, nil
}

// Close destroys the event.
func (e *Event) Close() error {
	if err := cu.DestroyEvent(&e.cu); err != nil {
		return failed("destroying an event", e.device.Index, err)
	}
	return nil
}

// Record puts the event behind all that was queued so far; an earlier record is forgotten.
func (s *Stream) Record(e *Event) error {
	if s.device.rehearsing {
		return nil
	}
	return s.check("recording an event", e.cu.Record(s.cu))
}

// Wait makes what is queued from here on wait for the event's last record, also one of another device.
func (s *Stream) Wait(e *Event) error {
	if s.device.rehearsing {
		return nil
	}
	return s.check("waiting for an event", s.cu.Wait(e.cu, 0))
}

// Sync waits for the event's last record.
func (e *Event) Sync() error {
	if err := e.cu.Synchronize(); err != nil {
		return failed("waiting for an event", e.device.Index, err)
	}
	return nil
}

// Done says whether the event's last record has run, without waiting for it.
func (e *Event) Done() (bool, error) {
	err := e.cu.Query()
	if code, _ := driver.ResultOf(err); code == driver.NotReady {
		return false, nil
	}
	if err != nil {
		return false, failed("asking for an event", e.device.Index, err)
	}
	return true, nil
}

// Since is the time from start's record to e's; both must have run.
func (e *Event) Since(start *Event) (time.Duration, error) {
	ms, err := start.cu.Elapsed(e.cu)
	if err != nil {
		return 0, failed("reading events' times", e.device.Index, err)
	}
	return time.Duration(ms * float64(time.Millisecond)), nil
}

// Graph is captured work that one call launches.
type Graph struct {
	device *Device
	exec   driver.GraphExec
	// Nodes is the number of operations.
	Nodes int
}

// Capture records what f queues in the stream, and in streams that it forks to and joins, instead of running it. f must not allocate or
// synchronise on this thread.
//
// f is called twice. The first time is a rehearsal, in which nothing is queued: it is there for what a capture does not allow, the loading
// of modules.
func (s *Stream) Capture(f func() error) (*Graph, error) {
	if err := s.device.rehearse(f); err != nil {
		return nil, err
	}
	if err := driver.BeginCapture(s.cu, driver.CaptureThreadLocal); err != nil {
		return nil, s.check("beginning a capture", err)
	}
	err := f()
	captured, endErr := driver.EndCapture(s.cu)
	if err != nil || endErr != nil {
		if endErr == nil {
			endErr = captured.Destroy()
		}
		return nil, errors.Join(err, s.check("ending a capture", endErr))
	}
	g := &Graph{device: s.device}
	if g.Nodes, err = captured.Nodes(); err == nil {
		g.exec, err = captured.Instantiate()
	}
	if err := errors.Join(err, captured.Destroy()); err != nil {
		return nil, s.check("instantiating a graph", err)
	}
	return g, nil
}

func (d *Device) rehearse(f func() error) error {
	d.rehearsing = true
	defer func() { d.rehearsing = false }()
	return f()
}

// Rehearsing says whether a rehearsal of a capture is under way, in which streams of the device queue nothing.
func (s *Stream) Rehearsing() bool { return s.device.rehearsing }

// Launch queues the graph's work.
func (g *Graph) Launch(s *Stream) error { return s.check("launching a graph", g.exec.Launch(s.cu)) }

// Close frees the graph.
func (g *Graph) Close() error {
	if err := g.exec.Destroy(); err != nil {
		return failed("freeing a graph", g.device.Index, err)
	}
	return nil
}
