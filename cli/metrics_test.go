package main

import (
	"bytes"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMetricsContinueAfterAStep(t *testing.T) {
	line := func(step string) string {
		return `{"step":` + step + `,"loss":0.5,"grad_norm":1,"lr":0.001,"images_per_second":9}` + "\n"
	}
	for _, test := range []struct {
		name, before string
		resume       int64
		after        string
	}{
		{"new file", "", 0, ""},
		{"lines past the checkpoint go", line("1") + line("2") + line("3"), 2, line("1") + line("2")},
		{"all stay", line("1") + line("2"), 2, line("1") + line("2")},
		{"training from the start drops all", line("1") + line("2"), 0, ""},
		{"a line cut short goes", line("1") + line("2")[:20], 2, line("1")},
		{"blocks of zeros past the checkpoint go", line("1") + strings.Repeat("\x00", 100_000) + "\n" + line("2"), 1, line("1")},
		{"zeros before the first step go", strings.Repeat("\x00", 100_000), 0, ""},
		{"a line cut short past the checkpoint goes", line("1") + line("2")[:20], 1, line("1")},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metrics.jsonl")
			if test.before != "" {
				if err := os.WriteFile(path, []byte(test.before), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			m, err := openMetrics(path, test.resume)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(test.after, "\n"); len(m.points) != got {
				t.Errorf("%d points, want %d", len(m.points), got)
			}
			if err := m.Append(metric{Step: test.resume + 1, Loss: 0.25}); err != nil {
				t.Fatal(err)
			}
			m.Close()
			want := test.after + `{"step":` + string(rune('1'+test.resume)) + `,"loss":0.25,"grad_norm":0,"lr":0,"images_per_second":0}` + "\n"
			if got, _ := os.ReadFile(path); string(got) != want {
				t.Errorf("file:\n%swant:\n%s", got, want)
			}
		})
	}
}

func TestMetricsRefuseForeignLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	if err := os.WriteFile(path, []byte("{\"step\":1}\nnot JSON\n{\"step\":2}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openMetrics(path, 5); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("error %v does not name line 2", err)
	}
}

func TestLossCurve(t *testing.T) {
	var points []metric
	for step := int64(1); step <= 1000; step++ {
		m := metric{Step: step, Loss: 1 / math.Sqrt(float64(step))}
		if step%100 == 0 {
			val := m.Loss
			m.ValLoss = &val
		}
		points = append(points, m)
	}
	train, val := curves(points)
	if len(train) != 250 || len(val) != 10 {
		t.Fatalf("%d training and %d validation points, want 250 and 10", len(train), len(val))
	}
	// The first bin holds steps 1 to 4.
	if want := (1 + 1/math.Sqrt2 + 1/math.Sqrt(3) + 0.5) / 4; math.Abs(train[0].Y-want) > 1e-15 || train[0].X != 2.5 {
		t.Errorf("first point %v, want (2.5, %v)", train[0], want)
	}
	path := filepath.Join(t.TempDir(), "loss.png")
	if err := writeLossCurve(path, "quickstart", points); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(file)); err != nil {
		t.Error(err)
	}
}

func TestLossCurveOfOddRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loss.png")
	for name, points := range map[string][]metric{
		"one step":     {{Step: 1, Loss: 0.5}},
		"constant":     {{Step: 1, Loss: 0.5}, {Step: 2, Loss: 0.5}},
		"zero":         {{Step: 1, Loss: 1}, {Step: 2, Loss: 0}},
		"not a number": {{Step: 1, Loss: math.NaN()}, {Step: 2, Loss: 1}},
		"empty":        nil,
	} {
		if err := writeLossCurve(path, name, points); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzMetrics(f *testing.F) {
	f.Add([]byte(`{"step":1,"loss":0.5,"val_loss":0.25,"grad_norm":1,"lr":0.001,"images_per_second":9}`+"\n"), int64(1))
	f.Add([]byte(`{"step":1`), int64(3))
	f.Fuzz(func(t *testing.T, text []byte, step int64) {
		points, end, err := readMetrics(bytes.NewReader(text), step)
		if err != nil {
			return
		}
		again, same, err := readMetrics(bytes.NewReader(text[:end]), step)
		if err != nil || same != end || len(again) != len(points) {
			t.Errorf("the %d bytes that are kept read as %d lines of %d bytes, %v; before %d lines", end, len(again), same, err, len(points))
		}
	})
}
