package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checkParts are all parts, in the order in which they run.
var checkParts = []checkPart{
	{"selftest", "Selftest: every kernel against float64 references", 4 * time.Minute, (*gpuCheck).selftest},
	{"train", "Training: the quickstart, its loss, and the other precisions beside fp32", 2 * time.Minute, (*gpuCheck).train},
	{"same", "The same bits on one and on several devices", time.Minute, (*gpuCheck).same},
	{"sanitizer", "compute-sanitizer", 90 * time.Second, (*gpuCheck).sanitizer},
	{"bench", "Speed", 2 * time.Minute, (*gpuCheck).bench},
	{"pytorch", "Speed beside PyTorch", 5 * time.Minute, (*gpuCheck).pytorch},
}

func partNames() (names []string) {
	for _, p := range checkParts {
		names = append(names, p.name)
	}
	return names
}

// tensorCores is the compute capability from which on a GPU has tf32 and bf16.
const tensorCores = 8

// precisions are those that all devices have.
func (g *gpuCheck) precisions() []string {
	for _, d := range g.report.Devices {
		major, _, _ := strings.Cut(d.ComputeCapability, ".")
		if n, err := strconv.Atoi(major); !g.host() && (err != nil || n < tensorCores) {
			return []string{"fp32"}
		}
	}
	return []string{"fp32", "tf32", "bf16"}
}

// each runs f for each precision; all are run, the first error counts.
func (g *gpuCheck) each(f func(precision string) (line, text string, err error)) (section, error) {
	var s section
	var lines []string
	var errs []error
	for _, p := range g.precisions() {
		line, text, err := f(p)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p, err))
		}
		if line != "" {
			lines = append(lines, p+": "+line)
		}
		s.text += text
	}
	s.line = strings.Join(lines, "; ")
	return s, errors.Join(errs...)
}

// selftest also runs the host device in a GPU's configuration, which is what a GPU runs.
func (g *gpuCheck) selftest(ctx context.Context) (section, error) {
	specs := []string{g.devices}
	if g.host() {
		specs = []string{"host", "host,tiles=gpu"}
	}
	worst := map[string]map[string]caseRow{} // by operation and precision
	var operations []string
	var wrong strings.Builder
	s, err := g.each(func(precision string) (string, string, error) {
		cases, bad := 0, 0
		var errs []error
		for _, spec := range specs {
			var reports []selftestReport
			err := g.ddgpuJSON(ctx, &reports, "selftest", "--devices", spec, "--precision", precision, "--json")
			errs = append(errs, err)
			for _, r := range reports {
				cases, bad = cases+len(r.Cases), bad+r.Failed
				for _, c := range r.Cases {
					if !c.Pass {
						fmt.Fprintf(&wrong, "| %s | %s | %s | %s | %.2g | %.0e | %s (seed %d) |\n", precision, r.Device, c.Op, c.Shape, c.Error, c.Bound,
							strings.TrimSpace(c.Output+" "+c.Problem), r.Seed)
					}
					of := worst[c.Op]
					if of == nil {
						of = map[string]caseRow{}
						worst[c.Op] = of
						operations = append(operations, c.Op)
					}
					if w, known := of[precision]; !known || c.Error/c.Bound > w.Error/w.Bound {
						of[precision] = c
					}
				}
			}
			if err == nil && len(reports) == 0 {
				errs = append(errs, errors.New("no device was tested"))
			}
		}
		return fmt.Sprintf("%d cases, %d failed", cases, bad), "", errors.Join(errs...)
	})
	head, rule := "| operation |", "|---|"
	for _, p := range g.precisions() {
		head, rule = head+" "+p+" |", rule+"---|"
	}
	text := "The greatest error of each operation, ‖Δ‖/‖reference‖, and what is allowed.\n\n" + head + "\n" + rule + "\n"
	for _, op := range operations {
		text += "| " + op + " |"
		for _, p := range g.precisions() {
			if w, known := worst[op][p]; known {
				text += fmt.Sprintf(" %.1e of %.0e |", w.Error, w.Bound)
			} else {
				text += " |"
			}
		}
		text += "\n"
	}
	if wrong.Len() > 0 {
		text += "\n| precision | device | operation | shape | error | bound | wrong |\n|---|---|---|---|---|---|---|\n" + wrong.String()
	}
	s.text = text
	return s, err
}

// trained is a training of the quickstart: its losses and the hash of its last checkpoint.
type trained struct {
	losses []float64
	rate   float64 // images/s, median of the second half
	hash   string
}

func (g *gpuCheck) trainQuickstart(ctx context.Context, name, devices, precision string, steps int) (trained, error) {
	folder := filepath.Join(g.folder, name)
	out, err := g.ddgpu(ctx, "train", "--preset", "quickstart", "--devices", devices, "--precision", precision, "--steps", strconv.Itoa(steps),
		"--out", folder, "--resume", "never", "--sample-every", "0", "--save-every", "0", "--eval-every", "0", "--json")
	if err != nil {
		return trained{}, err
	}
	var t trained
	for line := range bytes.Lines(out) {
		var last struct{ Hash string }
		if json.Unmarshal(line, &last) == nil && last.Hash != "" {
			t.hash = last.Hash
		}
	}
	file, err := os.Open(filepath.Join(folder, "metrics.jsonl"))
	if err != nil {
		return t, err
	}
	defer file.Close()
	points, _, err := readMetrics(file, int64(steps))
	var rates []float64
	for _, p := range points {
		t.losses = append(t.losses, p.Loss)
		rates = append(rates, p.ImagesPerSecond)
	}
	if err != nil || len(points) != steps || t.hash == "" {
		return t, errors.Join(err, fmt.Errorf("a training of %d steps left %d in its metrics, and the hash %q", steps, len(points), t.hash))
	}
	rates = rates[steps/2:]
	slices.Sort(rates)
	t.rate = rates[len(rates)/2]
	return t, nil
}

func mean(v []float64) (sum float64) {
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// What the loss must come down to: with the learning rate of so few steps, a run here ended at 0.09 after 60 and 0.06 after 300.
const (
	hostSteps, hostLoss = 60, 0.25
	gpuSteps, gpuLoss   = 300, 0.12
	// lossTail is how many steps at the end are averaged; lossHead, and lossSlack, how near the others stay to fp32 over the first steps.
	lossTail, lossHead, lossSlack = 20, 100, 0.02
)

func (g *gpuCheck) train(ctx context.Context) (section, error) {
	steps, bound := gpuSteps, gpuLoss
	if g.host() {
		steps, bound = hostSteps, hostLoss
	}
	one, _, _ := g.deviceSets()
	var reference float64
	s, err := g.each(func(precision string) (string, string, error) {
		t, err := g.trainQuickstart(ctx, "train-"+precision, one, precision, steps)
		if err != nil {
			return "", "", err
		}
		head, tail := mean(t.losses[:min(lossHead, steps)]), mean(t.losses[steps-lossTail:])
		if precision == "fp32" {
			reference = head
		}
		off := 0.0
		if reference > 0 {
			off = head/reference - 1
		}
		switch {
		case !(tail <= bound):
			err = fmt.Errorf("the loss of the last %d of %d steps is %.4f, at most %.2f expected", lossTail, steps, tail, bound)
		case !(math.Abs(off) <= lossSlack):
			err = fmt.Errorf("the loss of the first steps is %.4f, %.1f%% from fp32's", head, 100*off)
		}
		text := fmt.Sprintf("| %s | %d | %.4f | %+.2f%% | %.4f | %.0f |\n", precision, steps, head, 100*off, tail, t.rate)
		return fmt.Sprintf("loss %.4f, %.0f images/s", tail, t.rate), text, err
	})
	s.text = fmt.Sprintf("Loss: the mean of the first %d steps, which may be %.0f%% from fp32's, and of the last %d, at most %.2f.\n\n",
		min(lossHead, steps), 100*lossSlack, lossTail, bound) + "| precision | steps | first | from fp32 | last | images/s |\n|---|---|---|---|---|---|\n" + s.text
	return s, err
}

// sameSteps is how many steps are compared bit by bit.
const sameSteps = 10

// deviceSets are one device, and the most that a batch divides over.
func (g *gpuCheck) deviceSets() (one, several string, n int) {
	if g.host() {
		return "host:1", "host:2", 2
	}
	var numbers []string
	for _, d := range g.report.Devices {
		numbers = append(numbers, strconv.Itoa(d.Index))
	}
	for n = 1; 2*n <= min(len(numbers), 8); n *= 2 {
	}
	if list, ok := strings.CutPrefix(g.devices, "cuda:"); ok {
		numbers = strings.Split(list, ",")
	}
	return "cuda:" + numbers[0], "cuda:" + strings.Join(numbers[:n], ","), n
}

func (g *gpuCheck) same(ctx context.Context) (section, error) {
	one, several, n := g.deviceSets()
	if n < 2 {
		return section{}, errNotHere("one GPU")
	}
	s, err := g.each(func(precision string) (string, string, error) {
		a, err := g.trainQuickstart(ctx, "one-"+precision, one, precision, sameSteps)
		if err != nil {
			return "", "", err
		}
		b, err := g.trainQuickstart(ctx, "several-"+precision, several, precision, sameSteps)
		if err != nil {
			return "", "", err
		}
		line := "the same"
		if a.hash != b.hash {
			line = "different"
			err = fmt.Errorf("the weights after %d steps differ between %s and %s", sameSteps, one, several)
		}
		return line, fmt.Sprintf("| %s | `%s` | `%s` |\n", precision, a.hash, b.hash), err
	})
	s.text = fmt.Sprintf("Hash of the checkpoint after %d steps of the quickstart.\n\n", sameSteps) +
		fmt.Sprintf("| precision | %s | %s |\n|---|---|---|\n", one, several) + s.text
	return s, err
}

// sanitized are the operations that the sanitizer sees: what has tiles, shared memory and barriers.
var sanitized = []string{
	"conv_forward", "conv_backward_data", "conv_backward_weight", "attention_forward", "attention_backward", "groupnorm_forward", "groupnorm_backward",
	"pixel_sum",
}

func (g *gpuCheck) sanitizer(ctx context.Context) (section, error) {
	if g.host() {
		return section{}, errNotHere("the host device has its own sanitizers: ./build.sh test sanitizers")
	}
	tool, err := exec.LookPath("compute-sanitizer")
	if err != nil {
		if tool, err = exec.LookPath("/usr/local/cuda/bin/compute-sanitizer"); err != nil {
			return section{}, errNotHere("compute-sanitizer is not installed")
		}
	}
	one, _, _ := g.deviceSets()
	s, err := g.each(func(precision string) (string, string, error) {
		args := []string{"--tool", "memcheck", "--error-exitcode", "99", g.self, "selftest", "--devices", one, "--precision", precision, "--short"}
		for _, op := range sanitized {
			args = append(args, "--op", op)
		}
		out, err := g.command(ctx, tool, args...)
		line := "no error"
		if err != nil {
			line = "errors"
		}
		return line, fmt.Sprintf("memcheck, %s:\n\n```\n%s\n```\n\n", precision, tailOf(string(out), lastLines)), err
	})
	return s, err
}

// tailOf is the last n lines of a text.
func tailOf(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (g *gpuCheck) bench(ctx context.Context) (section, error) {
	one, devices, _ := g.deviceSets()
	preset := "cifar10-ddpm"
	if g.host() {
		preset, devices = "quickstart", one
	}
	all := "| precision | operation | shape | time or rate | ± | GB/s | GFLOP/s | of peak |\n|---|---|---|---|---|---|---|---|\n"
	s, err := g.each(func(precision string) (string, string, error) {
		args := []string{"bench", "--devices", devices, "--precision", precision, "--preset", preset, "--json"}
		if g.host() {
			args = append(args, "--repeats", "5", "--op", trainStep, "--op", sampleStep)
		} else {
			args = append(args, "--repeats", "7")
		}
		var rows []benchRow
		err := g.ddgpuJSON(ctx, &rows, args...)
		var text strings.Builder
		var line []string
		for _, r := range rows {
			fmt.Fprintf(&text, "| %s | %s | %s | %.4g %s | %.2g | %s | %s | %s |\n", precision, r.Name, r.Shape, r.Value, r.Unit, r.Spread,
				rateText(r.GBPerSecond), rateText(r.GFLOPsPerSecond), shareText(r.OfPeak))
			if r.Name == trainStep || r.Name == sampleStep {
				line = append(line, fmt.Sprintf("%s %.0f images/s", r.Name, r.Value))
			}
		}
		return strings.Join(line, ", "), text.String(), err
	})
	s.text = "Steps of " + preset + " on " + devices + ".\n\n" + all + s.text
	return s, err
}

// torchVersion prints what the comparison needs to be there.
const torchVersion = "import torch, diffusers, safetensors; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"

func (g *gpuCheck) pytorch(ctx context.Context) (section, error) {
	out, err := g.command(ctx, "python3", "-c", torchVersion)
	version := strings.Fields(string(out))
	switch {
	case err != nil || len(version) != 3:
		return section{}, errNotHere("python3 has no torch with diffusers and safetensors")
	case !g.host() && version[2] != "True":
		return section{}, errNotHere("the torch of python3 finds no GPU")
	}
	one, _, _ := g.deviceSets()
	// One precision, since torch.compile takes its time: on a GPU the one that a training there would take.
	preset, precision := "quickstart", "fp32"
	if !g.host() {
		preset, precision = "cifar10-ddpm", g.precisions()[len(g.precisions())-1]
	}
	var rows []versusRow
	err = g.ddgpuJSON(ctx, &rows, "bench", "--pytorch", "python3", "--devices", one, "--precision", precision, "--preset", preset, "--repeats", "3",
		"--compile-limit", "40s", "--op", trainStep, "--op", sampleStep, "--out", filepath.Join(g.folder, "pytorch"), "--json")
	s := section{text: fmt.Sprintf("torch %s for CUDA %s, the best of its modes; %s in %s.\n\n", version[0], version[1], preset, precision) +
		"| row | ddgpu | PyTorch | ratio |\n|---|---|---|---|\n"}
	var line []string
	for _, r := range rows {
		s.text += fmt.Sprintf("| %s | %.4g %s | %.4g | %.2f |\n", r.Name, r.Ours, r.Unit, r.Theirs, r.Ratio)
		line = append(line, fmt.Sprintf("%s %.2f×", r.Name, r.Ratio))
	}
	s.line = strings.Join(line, ", ")
	return s, err
}
