package diffusion

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ddgpu/gpu"
	"ddgpu/layers"
)

// Span is a part of a step: what one stream of one device did, and when.
type Span struct {
	Device int
	Stream string // compute or copies
	Layer  string // of the network, or what else the device does: noise, loss, tree, exchange, norm, update, input, result
	Kind   string // of operation, for a layer
	Pass   string // forward, backward or again for a layer
	// Start is from the beginning of the trace on this device.
	Start, Duration time.Duration
}

// The streams of a trace.
const (
	ComputeStream = "compute"
	CopiesStream  = "copies"
)

// tracing notes by events when what is queued between begin and end runs. On nil it only names the range for NVIDIA's profilers.
type tracing struct {
	device *gpu.Device
	base   *gpu.Event
	spans  []timedSpan
	err    error // the first
}

type timedSpan struct {
	Span
	stream     *gpu.Stream
	begin, end *gpu.Event
}

// startTrace begins a trace now, which is where the stream is.
func startTrace(d *gpu.Device, s *gpu.Stream) (*tracing, error) {
	t := &tracing{device: d}
	t.base = t.event(s)
	return t, t.err
}

// event records an event of its own.
func (t *tracing) event(s *gpu.Stream) *gpu.Event {
	if t.err != nil {
		return nil
	}
	e, err := t.device.NewEvent()
	if err == nil {
		err = s.Record(e)
	}
	t.err = err
	return e
}

// begin is called before something is queued.
func (t *tracing) begin(s *gpu.Stream, stream string, l layers.Launches) {
	name := l.Layer
	if l.Pass != "" {
		name += " " + string(l.Pass)
	}
	gpu.PushRange(name)
	if t != nil {
		t.spans = append(t.spans, timedSpan{Span{Device: t.device.Index, Stream: stream, Layer: l.Layer, Kind: l.Kind, Pass: string(l.Pass)}, s, t.event(s), nil})
	}
}

// end is called after it.
func (t *tracing) end() {
	gpu.PopRange()
	if t != nil {
		last := &t.spans[len(t.spans)-1]
		last.end = t.event(last.stream)
	}
}

// read gives the spans, whose work must have ended, and frees the events.
func (t *tracing) read() ([]Span, error) {
	err := t.err
	since := func(e, start *gpu.Event) (d time.Duration) {
		if err == nil {
			d, err = e.Since(start)
		}
		return d
	}
	var spans []Span
	for _, s := range t.spans {
		s.Start, s.Duration = since(s.begin, t.base), since(s.end, s.begin)
		spans = append(spans, s.Span)
	}
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return spans, t.close()
}

func (t *tracing) close() error {
	var errs []error
	for _, s := range append(t.spans, timedSpan{begin: t.base}) {
		for _, e := range []*gpu.Event{s.begin, s.end} {
			if e != nil {
				errs = append(errs, e.Close())
			}
		}
	}
	t.spans, t.base = nil, nil
	return errors.Join(errs...)
}

// Trace makes two steps, the first as any other, the second launch by launch with events around each layer, and gives what the devices did in the
// second. It is queued while the first runs, so that no device waits for the host.
func (t *Trainer) Trace(ctx context.Context) ([]Span, error) {
	for t.steps.pending > 0 {
		if _, err := t.Result(); err != nil {
			return nil, err
		}
	}
	each := func(f func(r *replica) error) error {
		return t.machine.Each(func(d *gpu.Device) error { return f(t.replicas[d.Index]) })
	}
	if err := t.Queue(ctx); err != nil {
		return nil, err
	}
	err := each(func(r *replica) (err error) {
		r.trace, err = startTrace(r.device, r.stream)
		return err
	})
	if err == nil {
		err = t.Queue(ctx)
	}
	for t.steps.pending > 0 && err == nil {
		_, err = t.Result()
	}
	spans := make([][]Span, len(t.replicas))
	err = errors.Join(err, each(func(r *replica) (err error) {
		trace := r.trace
		if r.trace = nil; trace != nil {
			spans[r.device.Index], err = trace.read()
		}
		return err
	}))
	return joinSpans(spans), wrapTrace(err)
}

func wrapTrace(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("tracing a step: %w", err)
}

func joinSpans(parts [][]Span) (all []Span) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Trace draws two sampling steps of a whole batch on every device and gives what the devices did in the second, as [Trainer.Trace] does.
func (g *Generator) Trace() ([]Span, error) {
	spans := make([][]Span, len(g.drawers))
	err := g.machine.Each(func(d *gpu.Device) (err error) {
		spans[d.Index], err = g.drawers[d.Index].traceStep()
		return err
	})
	return joinSpans(spans), wrapTrace(err)
}
