package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"ddgpu/diffusion"
)

// traceEvent is an event of Chrome's trace format, which Perfetto reads: a complete one ("X") or a name ("M").
type traceEvent struct {
	Name     string            `json:"name"`
	Category string            `json:"cat,omitempty"`
	Phase    string            `json:"ph"`
	Start    *float64          `json:"ts,omitempty"`  // microseconds
	Duration *float64          `json:"dur,omitempty"` // microseconds
	Process  int               `json:"pid"`           // the device
	Thread   int               `json:"tid"`           // the stream
	Args     map[string]string `json:"args,omitempty"`
}

// writeTrace writes spans as a JSON array: per device a process, per stream a thread.
func writeTrace(w io.Writer, devices []string, spans []diffusion.Span) error {
	streams := []string{diffusion.ComputeStream, diffusion.CopiesStream}
	var events []traceEvent
	for d, name := range devices {
		events = append(events, traceEvent{Name: "process_name", Phase: "M", Process: d, Args: map[string]string{"name": name}})
		for i, stream := range streams {
			events = append(events, traceEvent{Name: "thread_name", Phase: "M", Process: d, Thread: i, Args: map[string]string{"name": stream}})
		}
	}
	for _, s := range spans {
		e := traceEvent{Name: s.Layer, Category: "step", Phase: "X", Process: s.Device}
		for i, stream := range streams {
			if s.Stream == stream {
				e.Thread = i
			}
		}
		if s.Pass != "" {
			e.Name += " " + s.Pass
			e.Category = s.Pass
			e.Args = map[string]string{"operation": s.Kind}
		}
		start, duration := traceTime(s.Start), traceTime(s.Duration)
		e.Start, e.Duration = &start, &duration
		events = append(events, e)
	}
	// One event a line.
	for i, e := range events {
		text, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("writing a trace: %w", err)
		}
		before := ",\n"
		if i == 0 {
			before = "["
		}
		if _, err := io.WriteString(w, before+string(text)); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "]\n")
	return err
}

// traceTime is a time in microseconds, to the nanosecond.
func traceTime(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
