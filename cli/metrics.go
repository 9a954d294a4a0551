package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// metric is one line of metrics.jsonl, written after every optimiser step.
type metric struct {
	Step            int64    `json:"step"`
	Loss            float64  `json:"loss"`               // mean over the global batch
	ValLoss         *float64 `json:"val_loss,omitempty"` // on held-out images, at evaluation steps only
	GradNorm        float64  `json:"grad_norm"`          // before clipping
	LR              float64  `json:"lr"`
	ImagesPerSecond float64  `json:"images_per_second"`
}

// maxMetric bounds a line of the file, in bytes.
const maxMetric = 64 << 10

// metricsFile is an append-only metrics.jsonl and the points that it holds.
type metricsFile struct {
	file   *os.File
	points []metric
}

// openMetrics opens or creates the file at path for a training that continues after step. Lines past step, which the
// training will write again, and a last line that a kill cut short are dropped.
func openMetrics(path string, step int64) (*metricsFile, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening metrics: %w", err)
	}
	points, end, err := readMetrics(file, step)
	if stat, statErr := file.Stat(); err == nil && (statErr != nil || stat.Size() != end) {
		err = file.Truncate(end)
	}
	if err == nil {
		_, err = file.Seek(end, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("continuing %s after step %d: %w", path, step, err)
	}
	return &metricsFile{file, points}, nil
}

// readMetrics returns the lines up to and including step, and the offset at which they end. It does not look at what follows them: after a
// power cut that may be anything.
func readMetrics(r io.Reader, step int64) (points []metric, end int64, err error) {
	lines := bufio.NewReaderSize(r, maxMetric)
	for n, at := 1, int64(0); at < step; n++ {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF {
			return points, end, nil // what precedes it, if anything, is a line without its end
		}
		if err != nil { // among others bufio.ErrBufferFull: a line of more than maxMetric bytes
			return nil, 0, fmt.Errorf("line %d: %w", n, err)
		}
		var m metric
		if err := json.Unmarshal(line, &m); err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", n, err)
		}
		if m.Step > step {
			return points, end, nil
		}
		points = append(points, m)
		end += int64(len(line))
		at = m.Step
	}
	return points, end, nil
}

// Append writes one line with a single write, so that a kill leaves a line or none.
func (f *metricsFile) Append(m metric) error {
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("metrics of step %d: %w", m.Step, err)
	}
	if _, err := f.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing metrics of step %d: %w", m.Step, err)
	}
	f.points = append(f.points, m)
	return nil
}

// Sync makes the lines durable: called before a checkpoint of the same step becomes visible, so that a resumed run never
// lacks lines.
func (f *metricsFile) Sync() error { return f.file.Sync() }

func (f *metricsFile) Close() error { return f.file.Close() }
