package main

import (
	"io"
	"path/filepath"
	"testing"
)

// BenchmarkStepReport is what a training does after each step besides the trainer: a line of metrics.jsonl, and one of the log every so often.
func BenchmarkStepReport(b *testing.B) {
	metrics, err := openMetrics(filepath.Join(b.TempDir(), "metrics.jsonl"), 0)
	if err != nil {
		b.Fatal(err)
	}
	defer metrics.Close()
	show := newProgress(io.Discard, true, 1<<40, 10)
	b.ReportAllocs()
	step := int64(0)
	for b.Loop() {
		step++
		m := metric{Step: step, Loss: 1 / float64(step), GradNorm: 1.5, LR: 2e-4, ImagesPerSecond: 1234.5}
		if err := metrics.Append(m); err != nil {
			b.Fatal(err)
		}
		show.Step(m, 1<<30)
	}
}
