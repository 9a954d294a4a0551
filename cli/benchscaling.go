package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"ddgpu/diffusion"
	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

func benchScalingCommand() *cli.Command {
	return &cli.Command{
		Name:  "scaling",
		Usage: "show how the speed and the memory of a training step grow with batch, image size and width",
		Description: `Trains the preset's network on random images for a moment at each batch of --batches; at each image size of --sizes and each number of base
channels of --channels, there with --batch images. It prints a row for each and writes scaling.json and scaling.png to --out.

   GFLOP/s    three times the products of a forward pass, per second
   planned    device memory by the plan that "ddgpu train --dry-run" prints
   allocated  what the device's free memory fell by as the trainer was made, without its kernels' code

Examples:
   ddgpu bench scaling
   ddgpu bench scaling --devices cuda:0 --preset cifar10-ddpm --batches 32,64,128,256,512 --sizes 32,64 --channels 64,128 --batch 64`,
		Flags: []cli.Flag{
			devicesFlag(),
			memoryLimitFlag(),
			&cli.StringFlag{Name: "preset", Value: "quickstart", Usage: "network"},
			&cli.IntFlag{Name: "batch", Value: 16, Usage: "`IMAGES` of a step where size and channels vary"},
			&cli.StringFlag{Name: "batches", Value: "1,2,4,8,16,32,64,128,256", Usage: "images of a step, `N,N,…`"},
			&cli.StringFlag{Name: "sizes", Value: "16,24,32,48,64", Usage: "heights and widths of an image, `N,N,…`"},
			&cli.StringFlag{Name: "channels", Value: "32,64,96,128", Usage: "widths of the first level, the others in proportion, `N,N,…`"},
			&cli.DurationFlag{Name: "time", Value: 3 * time.Second, Usage: "measure each for this `TIME`, and at least three steps"},
			&cli.StringFlag{Name: "out", Usage: "`FOLDER` for scaling.json and scaling.png", DefaultText: "runs/scaling-PRESET-PRECISION"},
			precisionFlag(),
			jsonFlag("print a list of rows"),
			hangFlag(),
		},
		Action: benchScaling,
	}
}

// scalingRow is one measurement as --json prints it.
type scalingRow struct {
	Axis            string  `json:"axis"` // what varies: batch, size or channels
	Batch           int     `json:"batch"`
	Size            int     `json:"size"`     // height and width of an image
	Channels        int     `json:"channels"` // of the first level
	Parameters      int64   `json:"parameters"`
	ImagesPerSecond float64 `json:"images_per_second"` // of the median step
	Spread          float64 `json:"spread"`            // half the distance between the quartiles
	Steps           int     `json:"steps"`             // that were measured
	GFLOPsPerSecond float64 `json:"gflop_per_second"`
	PlannedBytes    int64   `json:"planned_bytes"`
	AllocatedBytes  int64   `json:"allocated_bytes"`
	Network         string  `json:"network"`
	Device          string  `json:"device"`
	Precision       string  `json:"precision"`
}

// value is where the row lies on its axis.
func (r scalingRow) value() float64 {
	return float64(map[string]int{"batch": r.Batch, "size": r.Size, "channels": r.Channels}[r.Axis])
}

// scaling is the work of "ddgpu bench scaling".
type scaling struct {
	machine *gpu.Machine // of one device
	config  diffusion.Config
	time    time.Duration
	alive   func(string)
}

func benchScaling(c *cli.Context) error {
	p, err := precisionOf(c)
	if err != nil {
		return err
	}
	s := &scaling{time: c.Duration("time")}
	if s.config, err = benchConfig(c); err != nil {
		return err
	}
	if size := s.config.Model.SampleSize; size.H != size.W {
		return usagef("--preset %s: its images are %d×%d, want squares", c.String("preset"), size.H, size.W)
	}
	configs, err := s.configs(c)
	if err != nil {
		return err
	}
	out := c.String("out")
	if out == "" {
		out = filepath.Join("runs", fmt.Sprintf("scaling-%s-%s", s.config.Name, s.config.Precision))
	}
	m, err := openMachine(c)
	if err != nil {
		return err
	}
	s.machine = &gpu.Machine{Devices: m.Devices[:1], Host: m.Host}
	var rows []scalingRow
	status := c.App.ErrWriter
	if !c.Bool("json") {
		status = c.App.Writer
	}
	err = guard(c.Duration("hang-timeout"), func(alive func(string)) error {
		s.alive = alive
		err := checkPrecision(p, s.machine)
		if err == nil {
			fmt.Fprintln(status, scalingHead)
		}
		for _, point := range configs {
			if err != nil {
				break
			}
			var row scalingRow
			if row, err = s.measure(point); err == nil {
				rows = append(rows, row)
				fmt.Fprintln(status, row)
			}
		}
		return join(err, m.Close())
	})
	if err != nil {
		return err
	}
	if err := writeScaling(out, rows); err != nil {
		return err
	}
	fmt.Fprintf(c.App.ErrWriter, "%s and .png\n", filepath.Join(out, "scaling.json"))
	if c.Bool("json") {
		return writeJSON(c.App.Writer, rows)
	}
	return nil
}

// scalingPoint is a configuration and what it is one of.
type scalingPoint struct {
	axis   string
	config diffusion.Config
}

// configs are all that is measured.
func (s *scaling) configs(c *cli.Context) (points []scalingPoint, err error) {
	batch := c.Int("batch")
	for _, axis := range []struct {
		name, flag string
		set        func(config *diffusion.Config, n int)
	}{
		{"batch", "batches", func(config *diffusion.Config, n int) { config.Train.Batch = n }},
		{"size", "sizes", func(config *diffusion.Config, n int) {
			config.Train.Batch, config.Model.SampleSize = batch, layers.SampleSize{H: n, W: n}
		}},
		{"channels", "channels", func(config *diffusion.Config, n int) {
			config.Train.Batch, config.Model.BlockOutChannels = batch, slices.Clone(config.Model.BlockOutChannels)
			widths := config.Model.BlockOutChannels
			for i := len(widths) - 1; i >= 0; i-- {
				widths[i] = widths[i] * n / widths[0]
			}
		}},
	} {
		values, err := numbers(c, axis.flag)
		if err != nil {
			return nil, err
		}
		for _, n := range values {
			config := s.config
			axis.set(&config, n)
			if err := config.Validate(); err != nil {
				return nil, fmt.Errorf("--%s %d: %w", axis.flag, n, err)
			}
			if _, err := layers.NewUNet2D(config.Model); err != nil {
				return nil, usagef("--%s %d: %v", axis.flag, n, err)
			}
			points = append(points, scalingPoint{axis.name, config})
		}
	}
	return points, nil
}

// numbers are the values of an option N,N,….
func numbers(c *cli.Context, name string) (values []int, err error) {
	for _, word := range strings.Split(c.String(name), ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return nil, usagef("--%s %s: want whole numbers with commas between", name, c.String(name))
		}
		values = append(values, n)
	}
	return values, nil
}

// measure trains one configuration for a while.
func (s *scaling) measure(point scalingPoint) (row scalingRow, err error) {
	config := point.config
	row = scalingRow{Axis: point.axis, Batch: config.Train.Batch, Size: config.Model.SampleSize.H, Channels: config.Model.BlockOutChannels[0],
		Network: config.Name, Device: s.machine.Devices[0].Name, Precision: config.Precision}
	s.alive(fmt.Sprintf("measuring %s %g", row.Axis, row.value()))
	planned, err := diffusion.PlanMemory(config, 1)
	if err != nil {
		return row, err
	}
	code, err := s.codeBytes(config)
	if err != nil {
		return row, err
	}
	b := benching{machine: s.machine, config: config}
	var trainer *diffusion.Trainer
	allocated, err := memoryTaken(s.machine.Devices[0], func() (err error) {
		trainer, err = b.trainer()
		return err
	})
	if err != nil {
		return row, err
	}
	defer func() { err = join(err, trainer.Close()) }()
	row.Parameters, row.PlannedBytes, row.AllocatedBytes = planned.Parameters, planned.Total, allocated-code
	rates, err := s.rates(trainer, config.Train.Batch)
	if err != nil {
		return row, err
	}
	row.Steps = len(rates)
	row.ImagesPerSecond, row.Spread = medianAndSpread(rates)
	row.GFLOPsPerSecond = 3 * trainer.Graph().FLOPs() * row.ImagesPerSecond / 1e9
	return row, nil
}

// rates are the images per second of whole steps, without that of the first.
func (s *scaling) rates(t *diffusion.Trainer, batch int) (rates []float64, err error) {
	var start time.Time
	for i := 0; i < 4 || time.Since(start) < s.time; i++ {
		if i == 1 {
			start = time.Now()
		}
		began := time.Now()
		if _, err := t.Step(context.Background()); err != nil {
			return nil, err
		}
		if i > 0 {
			rates = append(rates, float64(batch)/time.Since(began).Seconds())
		}
		s.alive("a step runs")
	}
	return rates, nil
}

// memoryTaken is how much of a device's memory f takes.
func memoryTaken(d *gpu.Device, f func() error) (int64, error) {
	var before, after int64
	free := func(to *int64) error {
		return d.Do(func() (err error) {
			*to, _, err = d.MemInfo()
			return err
		})
	}
	err := free(&before)
	if err == nil {
		err = f()
	}
	if err == nil {
		err = free(&after)
	}
	return before - after, err
}

// codeBytes is what the kernels themselves take of a device's memory.
func (s *scaling) codeBytes(config diffusion.Config) (int64, error) {
	p, err := kernels.ParsePrecision(config.Precision)
	if err != nil {
		return 0, err
	}
	d := s.machine.Devices[0]
	var l *kernels.Library
	code, err := memoryTaken(d, func() error {
		return d.Do(func() (err error) {
			l, err = kernels.Load(d, p)
			return err
		})
	})
	if l != nil {
		err = join(err, d.Do(l.Close))
	}
	return code, err
}

const scalingFormat = "%-9s %6s %6s %8s %12s %20s %10s %12s %12s %8s"

var scalingHead = fmt.Sprintf(scalingFormat, "axis", "batch", "size", "channels", "parameters", "images/s", "GFLOP/s", "planned", "allocated", "of plan")

func (r scalingRow) String() string {
	return fmt.Sprintf(scalingFormat, r.Axis, strconv.Itoa(r.Batch), strconv.Itoa(r.Size), strconv.Itoa(r.Channels), humanize.Comma(r.Parameters),
		fmt.Sprintf("%.1f ± %.1f", r.ImagesPerSecond, r.Spread), fmt.Sprintf("%.0f", r.GFLOPsPerSecond), humanize.IBytes(uint64(r.PlannedBytes)),
		humanize.IBytes(uint64(max(0, r.AllocatedBytes))), fmt.Sprintf("%.2f%%", 100*float64(r.AllocatedBytes)/float64(r.PlannedBytes)))
}

// writeScaling writes the rows and the picture into a folder.
func writeScaling(folder string, rows []scalingRow) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("creating the folder of the measurement: %w", err)
	}
	if err := writeFile(filepath.Join(folder, "scaling.json"), func(w io.Writer) error { return writeJSON(w, rows) }); err != nil {
		return err
	}
	return writeFile(filepath.Join(folder, "scaling.png"), func(w io.Writer) error { return scalingChart(w, rows) })
}

// onAxis are the rows of an axis, sorted, that can be drawn on logarithmic scales.
func onAxis(rows []scalingRow, axis string) (of []scalingRow) {
	for _, r := range rows {
		if r.Axis == axis && r.ImagesPerSecond > 0 && !math.IsInf(r.ImagesPerSecond, 0) {
			of = append(of, r)
		}
	}
	slices.SortFunc(of, func(a, b scalingRow) int { return int(a.value() - b.value()) })
	return of
}
