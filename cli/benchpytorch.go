package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"ddgpu/cli/pytorch"
	"ddgpu/diffusion"
	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

// lucidrains is the other program that --peer names.
const lucidrains = "denoising-diffusion-pytorch"

// How long a contender runs in a round, and how long all rest before it: a program's threads may spin for a while after their work.
const (
	operationSlice = 60 * time.Millisecond
	networkSlice   = 1200 * time.Millisecond
	rest           = 15 * time.Millisecond
)

func pytorchFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "pytorch", Usage: "compare with PyTorch: the `PYTHON` that has torch, diffusers and safetensors"},
		&cli.StringFlag{Name: "peer", Usage: "with --pytorch: also the training loop of " + lucidrains + ", another network of the same size"},
		&cli.StringFlag{Name: "out", Usage: "with --pytorch: `FOLDER` for comparison.json, comparison.png and comparison.html", DefaultText: "runs/pytorch-PRESET-PRECISION"},
		&cli.DurationFlag{Name: "compile-limit", Value: 5 * time.Minute, Usage: "with --pytorch: `TIME` that torch.compile may take for a row"},
	}
}

// versus is the work of "ddgpu bench --pytorch".
type versus struct {
	ctx       context.Context
	machine   *gpu.Machine // of one device
	device    *gpu.Device
	precision kernels.Precision
	config    diffusion.Config
	graph     *layers.Graph
	model     *diffusion.Model
	peer      *pytorch.Peer
	folder    string // for the arrays
	rounds    int
	limit     time.Duration
	threads   int
	// sampling is how many images are drawn at once: the preset's grid of samples, or --batch.
	sampling int
	random   *rand.Rand
	seed     uint64
	alive    func(string)
	show     *versusProgress
	rows     []versusRow
}

// subject is what a row compares.
type subject struct {
	name, shape string
	kind        string // of operations.py
	params      func() map[string]any
	modes       []string
	network     bool // modes are those of networks
	images      int  // of one run: the row is in images/s; 0: in µs
	unit        int  // how many runs go together; 0 means 1
	bound       float64
	slice       time.Duration
	// build makes our side and the arrays that both get. Nil arrays: nothing to compare.
	build func(*versus) (contender, error)
}

// contender is our side of a subject.
type contender interface {
	// files are the arrays for PyTorch, and where it leaves the reference; empty where there is nothing to compare.
	files() (inputs, reference string)
	// check is our error against the reference.
	check() (float64, error)
	run(times int) (time.Duration, error)
	// bytes is the device memory that the subject takes.
	bytes() int64
	close() error
}

// benchPyTorch is bench with --pytorch.
func benchPyTorch(c *cli.Context) error {
	if peer := c.String("peer"); peer != "" && peer != lucidrains {
		return usagef("--peer %s: want %s", peer, lucidrains)
	}
	v := &versus{rounds: 7, limit: c.Duration("compile-limit"), seed: rand.Uint64()}
	v.random = rand.New(rand.NewPCG(v.seed, 0))
	var err error
	if c.IsSet("repeats") {
		if v.rounds, err = repeatsOf(c); err != nil {
			return err
		}
	}
	if v.precision, err = precisionOf(c); err != nil {
		return err
	}
	if v.precision == kernels.FP64 {
		return usagef("--pytorch compares speed: %s is for checks", c.String("precision"))
	}
	if v.config, err = benchConfig(c); err != nil {
		return err
	}
	if v.config.Model.ResnetOutScaleFactor != 0 {
		return usagef("--preset %s: diffusers' UNet2DModel has no resnet_out_scale_factor", c.String("preset"))
	}
	if v.sampling = v.config.Train.Samples; c.IsSet("batch") {
		v.sampling = v.config.Train.Batch
	}
	if v.model, err = diffusion.NewModel(v.config); err != nil {
		return err
	}
	v.graph = v.model.Graph
	subjects, err := v.subjects(c)
	if err != nil {
		return err
	}
	out := c.String("out")
	if out == "" {
		out = filepath.Join("runs", fmt.Sprintf("pytorch-%s-%s", v.config.Name, v.config.Precision))
	}
	ctx, release := interruptible(func() {})
	defer release()
	v.ctx = ctx
	m, err := openMachine(c)
	if err != nil {
		return err
	}
	v.device = m.Devices[0]
	v.machine = &gpu.Machine{Devices: m.Devices[:1], Host: m.Host}
	err = guard(c.Duration("hang-timeout"), func(alive func(string)) error {
		v.alive = alive
		return join(v.run(c, subjects), m.Close())
	})
	if ctx.Err() != nil {
		return errors.New("interrupted: no report is written")
	}
	if err != nil {
		return err
	}
	if err := writeVersus(out, v.config, v.rows); err != nil {
		return err
	}
	fmt.Fprintf(c.App.ErrWriter, "%s, .png and .html\n", filepath.Join(out, versusName+".json"))
	if c.Bool("json") {
		return writeJSON(c.App.Writer, v.rows)
	}
	return nil
}

// subjects are what --op selects, or everything; what --peer adds is always there.
func (v *versus) subjects(c *cli.Context) ([]subject, error) {
	all := v.operationSubjects()
	all = append(all, v.networkSubjects()...)
	if c.String("peer") != "" {
		s, err := v.peerSubject()
		if err != nil {
			return nil, err
		}
		all = slices.Insert(all, len(all)-2, s)
	}
	chosen := c.StringSlice("op")
	if len(chosen) == 0 {
		return all, nil
	}
	var known []string
	for _, s := range all {
		if !slices.Contains(known, s.name) {
			known = append(known, s.name)
		}
	}
	for _, name := range chosen {
		if !slices.Contains(known, name) {
			return nil, usagef("unknown operation %q%s; with --pytorch and this preset they are %s", name, suggest(name, known), strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(s subject) bool { return s.name != peerRow && !slices.Contains(chosen, s.name) }), nil
}

func (v *versus) run(c *cli.Context, subjects []subject) (err error) {
	if err := checkPrecision(v.precision, v.machine); err != nil {
		return err
	}
	spec, err := deviceSpec(c)
	if err != nil {
		return err
	}
	if v.threads = spec.Threads; v.threads == 0 {
		v.threads = max(1, runtime.NumCPU()/max(1, spec.Devices))
	}
	device := "cpu"
	if !v.machine.Host {
		device = fmt.Sprintf("cuda:%d", v.device.Ordinal)
	}
	if v.folder, err = os.MkdirTemp("", "ddgpu-bench-"); err != nil {
		return fmt.Errorf("making a folder for arrays: %w", err)
	}
	defer func() { err = join(err, os.RemoveAll(v.folder)) }()
	if err := v.writeWeights(); err != nil {
		return err
	}
	v.show = newVersusProgress(c, len(subjects))
	v.show.at("PyTorch starts", "")
	v.peer, err = pytorch.Start(v.ctx, pytorch.Options{
		Python: c.String("pytorch"), Device: device, Threads: v.threads, Precision: v.config.Precision,
		Note: func(mode string) { v.show.note(mode); v.alive("PyTorch prepares " + mode) },
	})
	if err != nil {
		v.show.close()
		return err
	}
	defer func() { err = join(err, v.peer.Close()) }()
	v.show.head(v.machineLine(), v.peer.Facts.Versions)
	defer v.show.close()
	for _, s := range subjects {
		v.show.at(s.name, s.shape)
		v.alive("comparing " + s.name + " " + s.shape)
		row, err := v.compare(s)
		if err != nil {
			return fmt.Errorf("%s %s: %w", s.name, s.shape, err)
		}
		v.rows = append(v.rows, row)
		v.show.row(row)
	}
	return nil
}

// compare prepares both sides, holds them against float64, and times them in turns.
func (v *versus) compare(s subject) (row versusRow, err error) {
	s.unit = max(s.unit, 1)
	ours, err := s.build(v)
	if err != nil {
		return row, err
	}
	defer func() { err = join(err, ours.close()) }()
	inputs, reference := ours.files()
	if s.network {
		s.modes = v.networkModes()
	}
	modes, err := v.peer.Prepare(v.ctx, pytorch.Work{Kind: s.kind, Params: s.params(), Inputs: inputs, Reference: reference, Modes: s.modes, Limit: v.limit})
	if err != nil {
		return row, err
	}
	row = v.newRow(s)
	var ready []pytorch.Mode
	for _, m := range modes {
		if m.Failure != "" {
			row.Failures[m.Mode] = m.Failure
			v.show.failed(s, m)
			continue
		}
		ready = append(ready, m)
	}
	if len(ready) == 0 {
		return row, fmt.Errorf("PyTorch ran it in no mode: %s", row.Failures[modes[0].Mode])
	}
	if reference != "" {
		e, err := ours.check()
		if err != nil {
			return row, err
		}
		if row.ErrorOurs = &e; !(e <= s.bound) {
			return row, fmt.Errorf("not the same work: our error against float64 is %.2g, allowed is %.0e (seed %d)", e, s.bound, v.seed)
		}
		for _, m := range ready {
			if !(m.Error <= 10*s.bound) {
				return row, fmt.Errorf("not the same work: the error of PyTorch (%s) against float64 is %.2g, allowed is %.0e (seed %d)", m.Mode, m.Error, 10*s.bound, v.seed)
			}
		}
	}
	contenders := []func(int) (time.Duration, error){ours.run}
	for _, m := range ready {
		contenders = append(contenders, func(times int) (time.Duration, error) { return v.peer.Run(v.ctx, m.Mode, times) })
	}
	times, err := v.alternate(s, contenders)
	if err != nil {
		return row, err
	}
	row.fill(s, ours.bytes(), ready, times)
	return row, nil
}

// alternate gives the seconds of one run of each contender in each round.
func (v *versus) alternate(s subject, contenders []func(int) (time.Duration, error)) ([][]float64, error) {
	counts := make([]int, len(contenders))
	for i, run := range contenders {
		if _, err := run(s.unit); err != nil { // the first is a warm-up
			return nil, err
		}
		took, err := run(s.unit)
		if err != nil {
			return nil, err
		}
		counts[i] = s.unit * max(1, min(1<<16, int(s.slice/max(took, 1))))
	}
	times := make([][]float64, len(contenders))
	for round := range v.rounds {
		for k := range contenders {
			i := (round + k) % len(contenders)
			if err := v.ctx.Err(); err != nil {
				return nil, err
			}
			time.Sleep(rest)
			if counts[i] > s.unit { // caches and clocks after the rest
				if _, err := contenders[i](s.unit); err != nil {
					return nil, err
				}
			}
			took, err := contenders[i](counts[i])
			if err != nil {
				return nil, err
			}
			times[i] = append(times[i], took.Seconds()/float64(counts[i]))
			v.alive("comparing " + s.name + " " + s.shape)
		}
	}
	return times, nil
}
