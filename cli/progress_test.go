package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestJSONLines(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b, false, 5, 2) // a buffer is no terminal
	val := 0.25
	p.Note("resumed", fields{"step": 0})
	for step := int64(1); step <= 5; step++ {
		m := metric{Step: step, Loss: 0.5, GradNorm: 2, LR: 1e-3, ImagesPerSecond: 100}
		if step == 4 {
			m.ValLoss = &val
		}
		p.Step(m, 1<<20)
	}
	p.Close()
	var steps []float64
	for _, line := range strings.Split(strings.TrimSpace(b.String()), "\n") {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if event["message"] == "resumed" {
			continue
		}
		steps = append(steps, event["step"].(float64))
		for key, want := range map[string]any{"loss": 0.5, "grad_norm": 2.0, "lr": 1e-3, "images_per_second": 100.0, "memory_bytes": 1048576.0, "steps": 5.0, "level": "info"} {
			if event[key] != want {
				t.Errorf("%s: %s is %v, want %v", line, key, event[key], want)
			}
		}
		if _, ok := event["val_loss"]; ok != (event["step"] == 4.0) {
			t.Errorf("%s: val_loss present is %v", line, ok)
		}
	}
	if len(steps) != 3 || steps[0] != 2 || steps[1] != 4 || steps[2] != 5 {
		t.Errorf("lines of steps %v, want 2, 4 and the last, 5", steps)
	}
}

func TestBar(t *testing.T) {
	var b bytes.Buffer
	p := newBar(&b, 10)
	p.columns = func() int { return 100 }
	p.Step(metric{Step: 10, Loss: 0.0512, GradNorm: 0.25, LR: 2e-4, ImagesPerSecond: 77}, 3<<20)
	p.Note("saved", fields{"step": 10, "checkpoint": "x"})
	p.Close()
	for _, want := range []string{"loss 0.0512", "grad 0.250", "lr 2.0e-04", "77 img/s", "3.0 MiB", "10/10", "saved  checkpoint=x  step=10\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the terminal shows %q, without %q", b.String(), want)
		}
	}
}

// No line is longer than the terminal is wide, apart from the ten columns of the bar, which the library takes away on a terminal.
func TestBarOnNarrowTerminals(t *testing.T) {
	for _, columns := range []int{40, 60, 79, 80, 120} {
		var b bytes.Buffer
		p := newBar(&b, 123456)
		p.columns = func() int { return columns }
		p.rate = rate{time.Now().Add(-time.Hour), 1}
		p.Step(metric{Step: 23456, Loss: 0.0512, GradNorm: 12.25, LR: 2e-4, ImagesPerSecond: 1077}, 300<<20)
		p.Close()
		for _, line := range strings.FieldsFunc(b.String(), func(r rune) bool { return r == '\r' || r == '\n' }) {
			line = strings.NewReplacer("\033[0K", "", "\033[2K", "").Replace(line)
			if n := len([]rune(line)); n > columns+10 {
				t.Errorf("%d columns: a line of %d: %q", columns, n, line)
			}
		}
		if columns == 120 && !strings.Contains(b.String(), "300 MiB") || !strings.Contains(b.String(), "loss 0.0512") {
			t.Errorf("%d columns: %q", columns, b.String())
		}
	}
}

func TestTimeLeft(t *testing.T) {
	var r rate
	start := time.Now()
	if left := r.left(start, 401, 600); left != 0 {
		t.Errorf("after one step %v are left, want none said", left)
	}
	if left := r.left(start.Add(10*time.Second), 411, 600); left != 189*time.Second {
		t.Errorf("a step takes 1 s and 189 are left: %v", left)
	}
}
