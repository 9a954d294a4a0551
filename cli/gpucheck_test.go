package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fakeMachine answers as ddgpu on a machine with n GPUs would.
type fakeMachine struct {
	gpus       int
	capability string
	// what is different from a healthy machine
	selftestFails bool
	loss          map[string]float64 // by precision; 0.1 otherwise
	hash          func(devices, precision string) string
	ran           []string
}

func (f *fakeMachine) check(t *testing.T) *gpuCheck {
	g := &gpuCheck{devices: "auto", self: "ddgpu", folder: t.TempDir(), show: &bytes.Buffer{}, command: f.run}
	g.report.Driver = "cuda"
	for i := range f.gpus {
		g.report.Devices = append(g.report.Devices, deviceRow{Index: i, Name: "NVIDIA H100 80GB HBM3", ComputeCapability: f.capability})
	}
	return g
}

func option(args []string, name string) string {
	if i := slices.Index(args, name); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

func (f *fakeMachine) run(_ context.Context, name string, args ...string) ([]byte, error) {
	f.ran = append(f.ran, name+" "+strings.Join(args, " "))
	if name != "ddgpu" {
		return nil, errors.New("not found")
	}
	precision := option(args, "--precision")
	switch args[0] {
	case "selftest":
		if f.selftestFails && precision == "bf16" {
			return []byte(`[{"device":"NVIDIA A100","failed":1,"seed":7,"cases":[{"op":"add","shape":"3","error":0.5,"bound":0.01,"output":"y"}]}]`), errors.New("exit status 1")
		}
		return []byte(`[{"cases":[{"op":"add","shape":"3","error":1e-8,"bound":1e-5,"pass":true},{"op":"add","shape":"5","error":2e-8,"bound":1e-5,"pass":true}]}]`), nil
	case "train":
		steps, _ := strconv.Atoi(option(args, "--steps"))
		loss := 0.1
		if v, ok := f.loss[precision]; ok {
			loss = v
		}
		var metrics strings.Builder
		for i := range steps {
			fmt.Fprintf(&metrics, `{"step":%d,"loss":%v,"grad_norm":1,"lr":1,"images_per_second":1000}`+"\n", i+1, loss)
		}
		if err := os.MkdirAll(option(args, "--out"), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(option(args, "--out"), "metrics.jsonl"), []byte(metrics.String()), 0o644); err != nil {
			return nil, err
		}
		hash := "abc"
		if f.hash != nil {
			hash = f.hash(option(args, "--devices"), precision)
		}
		return []byte("{\"step\":1}\n{\"hash\":\"" + hash + "\"}\n"), nil
	case "bench":
		return []byte(`[{"name":"train_step","shape":"cifar10-ddpm, batch 128","unit":"images/s","value":4321,"spread":5}]`), nil
	}
	return nil, fmt.Errorf("ddgpu %v", args)
}

// find is the result of a part.
func find(t *testing.T, results []partResult, name string) partResult {
	t.Helper()
	for _, r := range results {
		if r.name == name {
			return r
		}
	}
	t.Fatalf("no part %s", name)
	return partResult{}
}

func TestCheckHealthy(t *testing.T) {
	f := &fakeMachine{gpus: 3, capability: "9.0"}
	g := f.check(t)
	results := g.runParts(context.Background(), checkParts)
	for name, want := range map[string]verdict{"selftest": passed, "train": passed, "same": passed, "sanitizer": notHere, "bench": passed, "pytorch": notHere} {
		if r := find(t, results, name); r.verdict != want {
			t.Errorf("%s: %s, %s expected: %s", name, r.verdict, want, r.problem)
		}
	}
	all := strings.Join(f.ran, "\n")
	for _, want := range []string{"selftest --devices auto --precision bf16 --json", "--devices cuda:0,1 --precision tf32 --steps 10", "--devices cuda:0 --precision fp32 --steps 10",
		"bench --devices cuda:0,1 --precision bf16 --preset cifar10-ddpm"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q was not run:\n%s", want, all)
		}
	}
	page := checkPage{report: g.report, results: results, start: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), took: time.Minute}
	if want := "nvidia-h100-80gb-hbm3-2026-01-02.md"; page.fileName() != want {
		t.Errorf("file %s, %s expected", page.fileName(), want)
	}
	var out bytes.Buffer
	if err := page.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# gpu-check on 3 × NVIDIA H100 80GB HBM3", "4 parts passed, 0 failed, 2 not here", "| bf16 | train_step | cifar10-ddpm, batch 128 | 4321 images/s |",
		"| operation | fp32 | tf32 | bf16 |", "| add | 2.0e-08 of 1e-05 |", "| tf32 | `abc` | `abc` |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, out.String())
		}
	}
}

// Whatever fails, the other parts run, and the page says what it was.
func TestCheckFailures(t *testing.T) {
	for _, c := range []struct {
		what    string
		machine fakeMachine
		part    string
		want    string // in the page
	}{
		{"a kernel is wrong", fakeMachine{gpus: 2, capability: "8.0", selftestFails: true}, "selftest", "| bf16 | NVIDIA A100 | add | 3 | 0.5 | 1e-02 | y (seed 7) |"},
		{"the loss stays", fakeMachine{gpus: 2, capability: "8.0", loss: map[string]float64{"fp32": 0.9, "tf32": 0.9, "bf16": 0.9}}, "train", "0.9000, at most 0.12 expected"},
		{"bf16 goes another way", fakeMachine{gpus: 2, capability: "8.0", loss: map[string]float64{"bf16": 0.103}}, "train", "bf16: the loss of the first steps is 0.1030, 3.0% from fp32's"},
		{"devices matter", fakeMachine{gpus: 2, capability: "8.0", hash: func(d, _ string) string { return "of " + d }}, "same", "differ between cuda:0 and cuda:0,1"},
	} {
		g := c.machine.check(t)
		results := g.runParts(context.Background(), checkParts)
		page := checkPage{report: g.report, results: results}
		var out bytes.Buffer
		if err := page.write(&out); err != nil {
			t.Fatal(err)
		}
		if bad := page.failed(); !slices.Equal(bad, []string{c.part}) || len(results) != len(checkParts) {
			t.Errorf("%s: %q failed of %d parts", c.what, bad, len(results))
		}
		if !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: the page lacks %q:\n%s", c.what, c.want, out.String())
		}
	}
}

func TestCheckSmallMachines(t *testing.T) {
	f := &fakeMachine{gpus: 1, capability: "7.5"}
	g := f.check(t)
	results := g.runParts(context.Background(), checkParts)
	if r := find(t, results, "same"); r.verdict != notHere {
		t.Errorf("one GPU compared with several: %s %s", r.verdict, r.problem)
	}
	if p := g.precisions(); !slices.Equal(p, []string{"fp32"}) {
		t.Errorf("precisions %v of a GPU without tensor cores for bf16", p)
	}
	g.report.Devices = make([]deviceRow, 6)
	if _, several, n := g.deviceSets(); n != 4 {
		t.Errorf("%s of 6 GPUs", several)
	}
	g.devices = "cuda:1,3,4"
	g.report.Devices = make([]deviceRow, 3)
	if one, several, n := g.deviceSets(); one != "cuda:1" || several != "cuda:1,3" || n != 2 {
		t.Errorf("%s and %s", one, several)
	}
}

// A part that takes too long is stopped and has failed; the next one runs.
func TestCheckLimit(t *testing.T) {
	g := &gpuCheck{show: &bytes.Buffer{}}
	parts := []checkPart{
		{"slow", "", 10 * time.Millisecond, func(_ *gpuCheck, ctx context.Context) (section, error) {
			<-ctx.Done()
			return section{}, errors.New("killed")
		}},
		{"next", "", time.Minute, func(*gpuCheck, context.Context) (section, error) { return section{line: "fine"}, nil }},
	}
	results := g.runParts(context.Background(), parts)
	if results[0].verdict != failed || !strings.Contains(results[0].problem, "not done after") || results[1].verdict != passed {
		t.Errorf("results %+v", results)
	}
}

// An interruption ends the part that runs, and no other begins.
func TestCheckInterrupted(t *testing.T) {
	g := &gpuCheck{show: &bytes.Buffer{}}
	ctx, cancel := context.WithCancel(context.Background())
	parts := []checkPart{
		{"first", "", time.Minute, func(_ *gpuCheck, ctx context.Context) (section, error) {
			cancel()
			return section{}, ctx.Err()
		}},
		{"next", "", time.Minute, func(*gpuCheck, context.Context) (section, error) { return section{line: "fine"}, nil }},
	}
	if results := g.runParts(ctx, parts); len(results) != 1 || results[0].problem != "interrupted" {
		t.Errorf("results %+v", results)
	}
}

func TestRunProgram(t *testing.T) {
	out, err := runProgram(context.Background(), "sh", "-c", "echo out; for i in $(seq 20); do echo line $i >&2; done; exit 3")
	if string(out) != "out\n" || err == nil || !strings.HasSuffix(err.Error(), "exit status 3\nline 9\nline 10\nline 11\nline 12\nline 13\nline 14\nline 15\nline 16\nline 17\nline 18\nline 19\nline 20") {
		t.Errorf("printed %q, error %v", out, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := runProgram(ctx, "sleep", "60"); err == nil || time.Since(start) > 30*time.Second {
		t.Errorf("error %v after %v", err, time.Since(start))
	}
}
