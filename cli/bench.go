package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"ddgpu/diffusion"
	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/kernels/selftest"
)

// The rows that time a whole network.
const (
	trainStep  = "train_step"
	sampleStep = "sample_step"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name:  "bench",
		Usage: "time every operation, and whole training and sampling steps",
		Description: `Each operation is launched until its time is known. The last rows are a whole training step and a whole sampling step of the network
of --preset, with random images, in images per second over all devices.

   time       median of one launch, ± half the distance between the quartiles
   GB/s       what the launch must read and write at least, per second
   GFLOP/s    its arithmetic per second
   of peak    how close the nearer of both comes to what the device was measured to give at most: the first two rows

Examples:
   ddgpu bench
   ddgpu bench --op conv_forward --json
   ddgpu bench --op train_step --op sample_step
   ddgpu bench --op train_step --preset cifar10-ddpm --batch 2 --repeats 3`,
		Flags: append([]cli.Flag{
			devicesFlag(),
			memoryLimitFlag(),
			&cli.StringSliceFlag{Name: "op", Usage: "only the operation `NAME`, " + trainStep + " or " + sampleStep + " (repeatable)"},
			&cli.StringFlag{Name: "preset", Value: "quickstart", Usage: "network, batch and sampler of " + trainStep + " and " + sampleStep},
			&cli.IntFlag{Name: "batch", Usage: "`IMAGES` of a step", DefaultText: "the preset's"},
			precisionFlag(),
			&cli.IntFlag{Name: "repeats", Value: 20, Usage: "measure `N` times, after a warm-up"},
			jsonFlag("print a list of rows"),
			hangFlag(),
		}, pytorchFlags()...),
		Action:      bench,
		Subcommands: []*cli.Command{benchStepCommand(), benchScalingCommand()},
	}
}

// benchRow is one measurement as --json prints it.
type benchRow struct {
	Name   string  `json:"name"`
	Shape  string  `json:"shape"`
	Unit   string  `json:"unit"` // of value: us, GB/s, GFLOP/s or images/s
	Value  float64 `json:"value"`
	Spread float64 `json:"spread"` // half the distance of the quartiles, in the same unit

	GBPerSecond     float64 `json:"gb_per_second,omitempty"`
	GFLOPsPerSecond float64 `json:"gflop_per_second,omitempty"`
	OfPeak          float64 `json:"of_peak,omitempty"` // 1: at the ceiling
	Batch           int     `json:"batch,omitempty"`
	Repeats         int     `json:"repeats"`
	Device          string  `json:"device"`
	Devices         int     `json:"devices"`
	Precision       string  `json:"precision"`
}

// benching is the work of "ddgpu bench".
type benching struct {
	machine   *gpu.Machine
	precision kernels.Precision
	config    diffusion.Config
	repeats   int
	match     func(string) bool
	alive     func(string)
	rows      []benchRow
	emit      func(benchRow)
}

func bench(c *cli.Context) error {
	if c.IsSet("pytorch") {
		return benchPyTorch(c)
	}
	for _, name := range []string{"peer", "out", "compile-limit"} {
		if c.IsSet(name) {
			return usagef("--%s goes with --pytorch PYTHON", name)
		}
	}
	p, err := precisionOf(c)
	if err != nil {
		return err
	}
	b := &benching{precision: p}
	if b.repeats, err = repeatsOf(c); err != nil {
		return err
	}
	if b.match, err = operations(c, trainStep, sampleStep); err != nil {
		return err
	}
	if b.config, err = benchConfig(c); err != nil {
		return err
	}
	b.emit = func(benchRow) {}
	if !c.Bool("json") {
		fmt.Fprintln(c.App.Writer, benchHead)
		b.emit = func(row benchRow) { row.write(c.App.Writer) }
	}
	if b.machine, err = openMachine(c); err != nil {
		return err
	}
	err = guard(c.Duration("hang-timeout"), func(alive func(string)) error {
		b.alive = alive
		return join(b.run(), b.machine.Close())
	})
	if err != nil || !c.Bool("json") {
		return err
	}
	return writeJSON(c.App.Writer, b.rows)
}

// repeatsOf is --repeats.
func repeatsOf(c *cli.Context) (int, error) {
	n := c.Int("repeats")
	if n < 1 {
		return 0, usagef("--repeats %d: want at least 1", n)
	}
	return n, nil
}

func benchConfig(c *cli.Context) (diffusion.Config, error) {
	config := emptyConfig()
	if err := overlayPreset(c.String("preset"), &config); err != nil {
		return config, err
	}
	if c.IsSet("batch") {
		config.Train.Batch = c.Int("batch")
	}
	config.Precision = c.String("precision")
	return config, config.Validate()
}

func (b *benching) run() error {
	if err := checkPrecision(b.precision, b.machine); err != nil {
		return err
	}
	if err := b.operations(); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		run  func() error
	}{{trainStep, b.trainStep}, {sampleStep, b.sampleStep}} {
		if b.match == nil || b.match(step.name) {
			b.alive(step.name + " runs")
			if err := step.run(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *benching) add(row benchRow) {
	row.Device, row.Devices, row.Repeats = b.machine.Devices[0].Name, len(b.machine.Devices), b.repeats
	row.Precision = b.config.Precision
	b.rows = append(b.rows, row)
	b.emit(row)
}

// operations times the kernels on the first device.
func (b *benching) operations() error {
	selected := func(op selftest.Op) bool { return b.match == nil || b.match(op.Name) }
	if !slices.ContainsFunc(selftest.All(), selected) {
		return nil
	}
	d := b.machine.Devices[0]
	_, err := selftest.Bench(d, b.precision, selftest.Options{Repeats: b.repeats, Match: b.match, Timed: func(t selftest.Timing) {
		b.alive("the operation after " + t.Op + " " + t.Shape + " runs")
		if len(b.rows) == 0 {
			b.add(benchRow{Name: "ceiling_bytes", Shape: "copies beyond any cache", Unit: "GB/s", Value: t.Ceilings.BytesPerSecond / 1e9})
			b.add(benchRow{Name: "ceiling_flops", Shape: "multiply-adds in registers", Unit: "GFLOP/s", Value: t.Ceilings.FLOPsPerSecond / 1e9})
		}
		b.add(benchRow{Name: t.Op, Shape: t.Shape, Unit: "us", Value: microseconds(t.Median), Spread: microseconds(t.Spread),
			GBPerSecond: t.BytesPerSecond() / 1e9, GFLOPsPerSecond: t.FLOPsPerSecond() / 1e9, OfPeak: t.Share()})
	}})
	return err
}

// medianAndSpread are the median of values and half the distance between their quartiles. It sorts them.
func medianAndSpread(values []float64) (median, spread float64) {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, (values[n-1-n/4] - values[n/4]) / 2
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

var benchHead = fmt.Sprintf("%-24s %-44s %22s %9s %9s %8s", "operation", "shape", "time", "GB/s", "GFLOP/s", "of peak")

func (r benchRow) write(w io.Writer) {
	value := fmt.Sprintf("%.1f ± %.1f %s", r.Value, r.Spread, r.Unit)
	fmt.Fprintf(w, "%-24s %-44s %22s %9s %9s %8s\n", r.Name, r.Shape, value, rateText(r.GBPerSecond), rateText(r.GFLOPsPerSecond), shareText(r.OfPeak))
}

func rateText(v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", v)
}

func shareText(v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f%%", 100*v)
}
