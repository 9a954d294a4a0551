package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"ddgpu/diffusion"
)

func benchStepCommand() *cli.Command {
	return &cli.Command{
		Name:  "step",
		Usage: "show what a training step and a sampling step spend their time on, layer by layer",
		Description: `Steps are queued launch by launch with events around each layer, while the devices still compute the step before. The table has what
device 0 did in the fastest of them, the longest first; the sum of its rows is compared with the fastest step replayed as a graph, as
training does it. "again" is what --recompute computes a second time. The last line is what queueing a training step costs the host.

--trace writes when every stream of every device did what in those steps: open the file at https://ui.perfetto.dev or in
chrome://tracing. The clock of each device is set to 0 at the end of the step before, where they are together. Under Nsight Systems and
Nsight Compute the launches of this command carry the layers' names (NVTX).

Examples:
   ddgpu bench step
   ddgpu bench step --preset cifar10-ddpm --batch 4 --trace trace.json`,
		Flags: []cli.Flag{
			devicesFlag(),
			memoryLimitFlag(),
			&cli.StringFlag{Name: "trace", Usage: "write a trace of both steps to `FILE`"},
			&cli.StringFlag{Name: "preset", Value: "quickstart", Usage: "network, batch and sampler"},
			&cli.IntFlag{Name: "batch", Usage: "`IMAGES` of a step", DefaultText: "the preset's"},
			&cli.BoolFlag{Name: "recompute", Usage: "keep fewer activations and compute them again", DefaultText: "the preset's"},
			precisionFlag(),
			&cli.IntFlag{Name: "repeats", Value: 20, Usage: "replay, and trace, `N` steps"},
			jsonFlag("print a list of steps with their layers"),
			hangFlag(),
		},
		Action: benchStep,
	}
}

// stepReport is a step as --json prints it; times are in microseconds.
type stepReport struct {
	Name     string      `json:"name"` // train_step or sample_step
	Network  string      `json:"network"`
	Batch    int         `json:"batch"`
	Device   string      `json:"device"`
	Devices  int         `json:"devices"`
	Spans    int         `json:"spans"`                // of what device 0 computed
	Sum      float64     `json:"sum_us"`               // of their times
	Replayed float64     `json:"replayed_us"`          // a whole step, replayed as a graph, the fastest
	Host     float64     `json:"host_us,omitempty"`    // queueing it, the fastest
	Share    float64     `json:"host_share,omitempty"` // of the whole step
	Layers   []layerTime `json:"layers"`
}

type layerTime struct {
	Layer    string  `json:"layer"`
	Kind     string  `json:"operation,omitempty"`
	Forward  float64 `json:"forward_us,omitempty"`
	Backward float64 `json:"backward_us,omitempty"`
	Again    float64 `json:"again_us,omitempty"`
	Total    float64 `json:"total_us"`
}

func benchStep(c *cli.Context) error {
	p, err := precisionOf(c)
	if err != nil {
		return err
	}
	b := &benching{precision: p}
	if b.repeats, err = repeatsOf(c); err != nil {
		return err
	}
	if b.config, err = benchConfig(c); err != nil {
		return err
	}
	if c.IsSet("recompute") {
		b.config.Train.Recompute = c.Bool("recompute")
	}
	if b.machine, err = openMachine(c); err != nil {
		return err
	}
	var names []string
	for _, d := range b.machine.Devices {
		names = append(names, fmt.Sprintf("device %d: %s", d.Index, d.Name))
	}
	var reports []stepReport
	var trace []diffusion.Span
	err = guard(c.Duration("hang-timeout"), func(alive func(string)) error {
		b.alive = alive
		err := checkPrecision(b.precision, b.machine)
		for _, step := range []func() (stepReport, []diffusion.Span, error){b.trainLayers, b.sampleLayers} {
			if err != nil {
				break
			}
			var report stepReport
			var spans []diffusion.Span
			report, spans, err = step()
			reports, trace = append(reports, report), append(trace, after(trace, spans)...)
		}
		return join(err, b.machine.Close())
	})
	if err != nil {
		return err
	}
	if path := c.String("trace"); path != "" {
		if err := writeFile(path, func(w io.Writer) error { return writeTrace(w, names, trace) }); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, reports)
	}
	for _, r := range reports {
		r.write(c.App.Writer)
	}
	return nil
}

// after moves spans behind those of an earlier trace, or to the time 0.
func after(earlier, spans []diffusion.Span) []diffusion.Span {
	const gap = time.Millisecond
	var end, first time.Duration
	for _, s := range earlier {
		end = max(end, s.Start+s.Duration+gap)
	}
	for _, s := range spans {
		first = min(first, s.Start)
	}
	for i := range spans {
		spans[i].Start += end - first
	}
	return spans
}

// trainLayers traces a training step, and times steps that are queued one ahead.
func (b *benching) trainLayers() (r stepReport, spans []diffusion.Span, err error) {
	b.alive(trainStep + " runs")
	t, err := b.trainer()
	if err != nil {
		return r, nil, err
	}
	defer func() { err = join(err, t.Close()) }()
	whole, host, err := b.trainTimes(t)
	if err != nil {
		return r, nil, err
	}
	if spans, err = b.fastest(func() ([]diffusion.Span, error) { return t.Trace(context.Background()) }); err != nil {
		return r, nil, err
	}
	r = b.report(trainStep, spans, slices.Min(whole))
	r.Host = microseconds(slices.Min(host))
	r.Share = r.Host / r.Replayed
	return r, spans, nil
}

// fastest repeats a trace and gives the one in which device 0 computed for the shortest time.
func (b *benching) fastest(trace func() ([]diffusion.Span, error)) (best []diffusion.Span, err error) {
	least := time.Duration(math.MaxInt64)
	for range b.repeats {
		spans, err := trace()
		if err != nil {
			return nil, err
		}
		sum := time.Duration(0)
		for _, s := range spans {
			if ofTable(s) {
				sum += s.Duration
			}
		}
		if sum < least {
			best, least = spans, sum
		}
		b.alive("a traced step runs")
	}
	return best, nil
}

// ofTable says whether the table has a span.
func ofTable(s diffusion.Span) bool { return s.Device == 0 && s.Stream == diffusion.ComputeStream }

// sampleLayers traces a sampling step, and times whole draws of a few.
func (b *benching) sampleLayers() (r stepReport, spans []diffusion.Span, err error) {
	b.alive(sampleStep + " runs")
	g, err := b.generator()
	if err != nil {
		return r, nil, err
	}
	defer func() { err = join(err, g.Close()) }()
	times, err := b.sampleTimes(g)
	if err != nil {
		return r, nil, err
	}
	if spans, err = b.fastest(g.Trace); err != nil {
		return r, nil, err
	}
	return b.report(sampleStep, spans, slices.Min(times)), spans, nil
}

// report adds up the spans of device 0 by layer.
func (b *benching) report(name string, spans []diffusion.Span, replayed time.Duration) stepReport {
	r := stepReport{Name: name, Network: b.config.Name, Batch: b.config.Train.Batch, Device: b.machine.Devices[0].Name, Devices: len(b.machine.Devices),
		Replayed: microseconds(replayed)}
	type key struct{ layer, kind string }
	rows := map[key]int{}
	for _, s := range spans {
		if !ofTable(s) {
			continue
		}
		k := key{s.Layer, s.Kind}
		at, ok := rows[k]
		if !ok {
			at = len(r.Layers)
			rows[k] = at
			r.Layers = append(r.Layers, layerTime{Layer: s.Layer, Kind: s.Kind})
		}
		t, row := microseconds(s.Duration), &r.Layers[at]
		switch s.Pass {
		case "forward":
			row.Forward += t
		case "backward":
			row.Backward += t
		case "again":
			row.Again += t
		}
		row.Total += t
		r.Sum += t
		r.Spans++
	}
	slices.SortStableFunc(r.Layers, func(a, b layerTime) int {
		switch {
		case a.Total > b.Total:
			return -1
		case a.Total < b.Total:
			return 1
		}
		return 0
	})
	return r
}

func (r stepReport) write(w io.Writer) {
	fmt.Fprintf(w, "%s: %s, batch %d over %d device(s), times of device 0 (%s) in us\n", r.Name, r.Network, r.Batch, r.Devices, r.Device)
	const format = "%-44s %-16s %10s %10s %10s %10s %7s\n"
	fmt.Fprintf(w, format, "layer", "operation", "forward", "backward", "again", "total", "share")
	for _, l := range r.Layers {
		fmt.Fprintf(w, format, l.Layer, l.Kind, rateText(l.Forward), rateText(l.Backward), rateText(l.Again), rateText(l.Total),
			fmt.Sprintf("%.1f%%", 100*l.Total/r.Sum))
	}
	fmt.Fprintf(w, "%-61s %43.1f\n", fmt.Sprintf("sum of %d spans", r.Spans), r.Sum)
	fmt.Fprintf(w, "%-61s %43.1f %6.1f%% of the sum\n", "the step replayed as a graph", r.Replayed, 100*r.Replayed/r.Sum)
	if r.Host > 0 {
		fmt.Fprintf(w, "%-61s %43.1f %6.2f%% of the step\n", "launch path: the host queues it in", r.Host, 100*r.Share)
	}
	fmt.Fprintln(w)
}
