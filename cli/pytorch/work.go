package pytorch

import (
	"context"
	"fmt"
	"math"
	"time"
)

// The modes that PyTorch runs an operation in.
const (
	Eager         = "eager"          // contiguous NCHW tensors
	ChannelsLast  = "channels_last"  // NHWC in memory
	Compile       = "compile"        // torch.compile of channels_last
	CompileGraphs = "compile_graphs" // the same, captured in CUDA graphs
)

// Work is an operation to prepare.
type Work struct {
	Kind      string         // a function of operations.py
	Params    map[string]any // its settings
	Inputs    string         // safetensors file, or empty
	Reference string         // where to write the outputs computed in float64, a safetensors file; empty: no comparison
	Modes     []string
	Limit     time.Duration // for each mode to become ready, compilation included
}

// Mode is a mode that is ready to run, or could not be made so.
type Mode struct {
	Mode       string  `json:"mode"`
	Error      float64 `json:"error"`      // ‖Δ‖/‖reference‖, of the worst output
	PeakBytes  int64   `json:"peak_bytes"` // of memory: a GPU's as PyTorch counts it, or the process's
	Parameters int64   `json:"parameters"` // of another network than ours
	Failure    string  `json:"failure"`    // empty: ready
}

// Prepare makes an operation ready in every mode; the one before it is forgotten.
func (p *Peer) Prepare(ctx context.Context, w Work) ([]Mode, error) {
	var result struct {
		Modes []Mode `json:"modes"`
	}
	limit := time.Duration(len(w.Modes))*w.Limit + p.options.Answer
	err := p.ask(ctx, limit, map[string]any{"do": "prepare", "kind": w.Kind, "params": w.Params, "inputs": w.Inputs, "reference": w.Reference,
		"modes": w.Modes, "limit": w.Limit.Seconds()}, &result)
	if err != nil {
		return nil, err
	}
	if len(result.Modes) != len(w.Modes) {
		return nil, p.failed("prepare", fmt.Errorf("%d modes in the answer, want %d", len(result.Modes), len(w.Modes)))
	}
	for i, m := range result.Modes {
		if m.Mode != w.Modes[i] {
			return nil, p.failed("prepare", fmt.Errorf("mode %q in the answer, want %q", m.Mode, w.Modes[i]))
		}
	}
	return result.Modes, nil
}

// Run runs a prepared mode so many times, and says how long all of it took.
func (p *Peer) Run(ctx context.Context, mode string, times int) (time.Duration, error) {
	var result struct {
		Seconds float64 `json:"seconds"`
	}
	if err := p.ask(ctx, p.options.Answer, map[string]any{"do": "run", "mode": mode, "times": times}, &result); err != nil {
		return 0, err
	}
	if !(result.Seconds > 0) || math.IsInf(result.Seconds, 0) {
		return 0, p.failed("run", fmt.Errorf("%d runs in %v s", times, result.Seconds))
	}
	return time.Duration(result.Seconds * float64(time.Second)), nil
}
