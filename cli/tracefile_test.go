package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"ddgpu/diffusion"
)

// TestTraceFile checks what a viewer reads: an array whose complete events lie on the thread of their stream, within the process of their device,
// the second step behind the first, nothing before the time 0.
func TestTraceFile(t *testing.T) {
	step := func() []diffusion.Span {
		return []diffusion.Span{
			{Device: 0, Stream: diffusion.CopiesStream, Layer: "input", Start: -1500 * time.Nanosecond, Duration: 2 * time.Microsecond},
			{Device: 1, Stream: diffusion.ComputeStream, Layer: `a "quoted" layer`, Kind: "conv", Pass: "backward", Start: time.Microsecond, Duration: 3 * time.Microsecond},
		}
	}
	spans := after(nil, step())
	spans = append(spans, after(spans, step())...)
	var text strings.Builder
	if err := writeTrace(&text, []string{"first", "second"}, spans); err != nil {
		t.Fatal(err)
	}
	var events []struct {
		Name, Cat, Ph string
		Ts, Dur       *float64
		Pid, Tid      int
		Args          map[string]string
	}
	if err := json.Unmarshal([]byte(text.String()), &events); err != nil {
		t.Fatalf("%v in %s", err, &text)
	}
	if len(events) != 4*2-2+4 {
		t.Fatalf("%d events: %s", len(events), &text)
	}
	complete := events[6:]
	for i, want := range []float64{0, 2.5, 1005.5, 1008} {
		e := complete[i]
		if e.Ph != "X" || e.Ts == nil || e.Dur == nil || *e.Ts != want || *e.Dur != float64(2+i%2) || e.Pid != i%2 || e.Tid != 1-i%2 {
			t.Errorf("event %d: %+v, want it at %g", i, e, want)
		}
	}
	if e := complete[1]; e.Name != `a "quoted" layer backward` || e.Cat != "backward" || e.Args["operation"] != "conv" {
		t.Errorf("%+v", e)
	}
	if events[0].Ph != "M" || events[0].Name != "process_name" || events[0].Args["name"] != "first" || events[3].Pid != 1 {
		t.Errorf("%+v", events[:6])
	}
}
