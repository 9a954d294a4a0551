package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strings"

	"ddgpu/cli/pytorch"
)

// versusRow is one comparison with PyTorch as --json prints it.
type versusRow struct {
	Name  string `json:"name"`
	Shape string `json:"shape"`
	Unit  string `json:"unit"` // of ours, theirs, spreads and modes: us or images/s

	Ours   float64 `json:"ours"`   // median of the rounds
	Theirs float64 `json:"theirs"` // the same of PyTorch's best mode
	Ratio  float64 `json:"ratio"`  // our speed over theirs
	// Half the distances between the quartiles of the rounds.
	Spread       float64 `json:"spread"`
	SpreadTheirs float64 `json:"spread_theirs"`

	// ‖Δ‖/‖reference‖ against PyTorch in float64 on the same inputs; null where the two compute different things.
	ErrorOurs   *float64 `json:"error_ours"`
	ErrorTheirs *float64 `json:"error_theirs"`

	PeakBytesOurs   int64 `json:"peak_bytes_ours"`   // device memory that the operation has allocated
	PeakBytesTheirs int64 `json:"peak_bytes_theirs"` // the most that PyTorch allocated; on a CPU what its process grew by

	Mode     string             `json:"mode"`               // PyTorch's best
	Modes    map[string]float64 `json:"modes"`              // all that ran, in Unit
	Failures map[string]string  `json:"failures,omitempty"` // those that did not, and why

	Batch     int               `json:"batch"`
	Rounds    int               `json:"rounds"`
	Precision string            `json:"precision"`
	Device    string            `json:"device"`
	Threads   int               `json:"threads"`
	Machine   string            `json:"machine"`
	Versions  map[string]string `json:"versions"`
	Seed      uint64            `json:"seed"` // of the inputs
}

func (v *versus) newRow(s subject) versusRow {
	versions := maps.Clone(v.peer.Facts.Versions)
	versions["ddgpu"], versions["go"] = version(), runtime.Version()
	return versusRow{
		Name: s.name, Shape: s.shape, Unit: "us", Batch: v.config.Train.Batch, Rounds: v.rounds, Precision: v.config.Precision,
		Device: v.device.Name, Threads: v.threads, Machine: v.machineLine(), Versions: versions, Seed: v.seed,
		Modes: map[string]float64{}, Failures: map[string]string{},
	}
}

// fill takes the seconds of a run in each round: ours, then those of the modes that are ready.
func (r *versusRow) fill(s subject, bytes int64, ready []pytorch.Mode, times [][]float64) {
	value := func(seconds float64) float64 { return seconds * 1e6 }
	if s.images > 0 {
		r.Unit, r.Batch = "images/s", s.images
		value = func(seconds float64) float64 { return float64(s.images) / seconds }
	}
	summary := func(seconds []float64) (median, spread float64) {
		values := make([]float64, len(seconds))
		for i, t := range seconds {
			values[i] = value(t)
		}
		return medianAndSpread(values)
	}
	r.Ours, r.Spread = summary(times[0])
	r.PeakBytesOurs = bytes
	for i, m := range ready {
		median, spread := summary(times[i+1])
		r.Modes[m.Mode] = median
		ratio := median / r.Ours
		if s.images > 0 {
			ratio = 1 / ratio
		}
		if i > 0 && ratio >= r.Ratio {
			continue
		}
		r.Mode, r.Ratio, r.Theirs, r.SpreadTheirs, r.PeakBytesTheirs = m.Mode, ratio, median, spread, m.PeakBytes
		if r.ErrorOurs != nil {
			r.ErrorTheirs = &m.Error
		}
		if m.Parameters > 0 {
			r.Shape = fmt.Sprintf("%s, theirs %d", r.Shape, m.Parameters)
		}
	}
}

// machineLine says what the two ran on.
func (v *versus) machineLine() string {
	line := fmt.Sprintf("%s, %d threads of %d", processor(), v.threads, runtime.NumCPU())
	if !v.machine.Host {
		line = v.device.Name + ", " + line
	}
	return line
}

// processor is the name of the CPU.
func processor() string {
	name := runtime.GOARCH
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return name
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if key, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return name
}
