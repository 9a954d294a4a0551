package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"

	"ddgpu/diffusion"
	"ddgpu/gpu"
)

func sampleCommand() *cli.Command {
	return &cli.Command{
		Name:  "sample",
		Usage: "draw images from a trained network",
		Description: `Draws with the averaged weights of a run's newest checkpoint, or of one checkpoint, and with the sampler that the run was configured
with unless options say otherwise. The images depend on the weights, the sampler and the seed; not on --batch nor --devices. Image i of a
run of n images is image i of any run with the same seed. A network with classes draws them in turn, or only --class.

Examples:
   ddgpu sample --model runs/quickstart --n 64 --sampler ddim --steps 50 --seed 1 --out grid.png
   ddgpu sample --model runs/quickstart --n 1000 --out-dir drawn
   ddgpu sample --model runs/quickstart --n 1000 --out-dir drawn --format npy     drawn/images.npy, uint8 [N, H, W, C]`,
		Flags: []cli.Flag{
			modelFlag("run folder or checkpoint folder"),
			&cli.IntFlag{Name: "n", Value: 64, Usage: "`NUMBER` of images"},
			&cli.StringFlag{Name: "sampler", Usage: "ddpm or ddim", DefaultText: ofRun},
			&cli.IntFlag{Name: "steps", Usage: "sampling `STEPS`, 0 for all of the schedule", DefaultText: ofRun},
			&cli.Float64Flag{Name: "eta", Usage: "noise of ddim, 0 (none) … 1", DefaultText: ofRun},
			&cli.StringFlag{Name: "spacing", Usage: "which steps: even, leading, trailing, linspace, or counts such as 10,15,20", DefaultText: ofRun},
			&cli.StringFlag{Name: "variance", Usage: "of ddpm: fixed_small or fixed_large", DefaultText: ofRun},
			&cli.Uint64Flag{Name: "seed", Usage: "`SEED` of all noise"},
			&cli.IntFlag{Name: "batch", Value: 64, Usage: "`IMAGES` that a device draws at once; the result is the same"},
			&cli.IntFlag{Name: "class", Usage: "draw only class `K`, counted from 0", DefaultText: "all in turn"},
			devicesFlag(),
			memoryLimitFlag(),
			&cli.StringFlag{Name: "out", Usage: "`FILE` for one PNG with all images in a grid (default: samples.png, without --out-dir)"},
			&cli.StringFlag{Name: "out-dir", Usage: "`FOLDER` for each image by itself"},
			&cli.StringFlag{Name: "format", Value: "png", Usage: "of --out-dir: png (00000.png, …) or npy (images.npy and, with classes, labels.npy)"},
			jsonFlag("JSON lines on stdout about what was written, and no progress bar"),
			hangFlag(),
		},
		Action: sample,
	}
}

// ofRun is the default of what the model's own configuration has.
const ofRun = "as the run is configured"

func modelFlag(what string) cli.Flag {
	return &cli.StringFlag{Name: "model", Usage: "`PATH` of a " + what}
}

func sample(c *cli.Context) error {
	if err := require(c, "model"); err != nil {
		return err
	}
	out := &samplesOut{grid: c.String("out"), dir: c.String("out-dir"), format: c.String("format")}
	if out.grid == "" && out.dir == "" {
		out.grid = "samples.png"
	}
	n, batch := c.Int("n"), c.Int("batch")
	switch {
	case n < 1 || n > 1<<24:
		return usagef("--n %d: want 1 … %d images", n, 1<<24)
	case batch < 1 || batch > 1<<16:
		return usagef("--batch %d: want 1 … %d images", batch, 1<<16)
	case out.format != "png" && out.format != "npy":
		return usagef("--format %s: want png or npy", out.format)
	case out.dir == "" && c.IsSet("format"):
		return usagef("--format is for the files of --out-dir")
	}
	if _, err := deviceSpec(c); err != nil {
		return err
	}
	model, err := diffusion.OpenModel(c.String("model"))
	if err != nil {
		return err
	}
	if err := overrideSampler(c, &model.Config); err != nil {
		return err
	}
	class := -1
	if c.IsSet("class") {
		if class = c.Int("class"); class < 0 || class >= model.Config.Classes() {
			return usagef("--class %d: the network has %d classes", class, model.Config.Classes())
		}
	}
	if err := out.folders(); err != nil {
		return err
	}
	m, err := openMachine(c)
	if err != nil {
		return err
	}
	show := newCounter(c, n)
	err = guard(c.Duration("hang-timeout"), func(alive func(string)) error {
		d := &drawing{model: model, class: class, n: n, batch: min(batch, n), seed: c.Uint64("seed"), out: out, show: show, alive: alive}
		return join(d.run(m), m.Close())
	})
	show.Close()
	if err != nil {
		return err
	}
	return out.report(c, n, model.Step)
}

// overrideSampler applies the options about the sampler.
func overrideSampler(c *cli.Context, config *diffusion.Config) error {
	s := &config.Sampler
	if c.IsSet("sampler") {
		s.Name = c.String("sampler")
	}
	if c.IsSet("steps") {
		s.Steps = c.Int("steps")
	}
	if c.IsSet("eta") {
		s.Eta = c.Float64("eta")
	}
	if c.IsSet("spacing") {
		s.Spacing = c.String("spacing")
	}
	if c.IsSet("variance") {
		s.Variance = c.String("variance")
	}
	return config.Validate()
}

// drawing is the work of "ddgpu sample": images in portions, so that a large number needs no more memory.
type drawing struct {
	model    *diffusion.Model
	class    int // −1: all in turn
	n, batch int
	seed     uint64
	out      *samplesOut
	show     *counter
	alive    func(string)
}

// portion is about how many images are in memory as floats at once.
const portion = 1024

func (d *drawing) run(m *gpu.Machine) error {
	d.alive("the devices are prepared")
	g, err := diffusion.NewGenerator(m, d.model, d.batch)
	if err != nil {
		return err
	}
	atOnce := d.batch * len(m.Devices)
	return join(d.draw(g, max(1, portion/atOnce)*atOnce), g.Close())
}

// draw draws portions of so many images at most.
func (d *drawing) draw(g *diffusion.Generator, most int) error {
	for first := 0; first < d.n; first += most {
		n := min(most, d.n-first)
		labels := roundRobin(d.model.Config, first, n)
		for i := range labels {
			if d.class >= 0 {
				labels[i] = int32(d.class)
			}
		}
		images, err := g.Sample(context.Background(), diffusion.SampleRequest{N: n, First: uint64(first), Seed: d.seed, Labels: labels,
			Progress: func(step, steps int) {
				d.alive(fmt.Sprintf("sampling step %d of %d runs", step+1, steps))
				d.show.Done(first, n, step, steps)
			}})
		if err != nil {
			return err
		}
		d.alive("images are written")
		if err := d.out.add(picturesOf(d.model.Config, images), labels, first, first+n == d.n); err != nil {
			return err
		}
	}
	return nil
}

// roundRobin is the classes of images first … first+n in turn, nil for a network without classes.
func roundRobin(config diffusion.Config, first, n int) []int32 {
	classes := config.Classes()
	if classes == 0 {
		return nil
	}
	labels := make([]int32, n)
	for i := range labels {
		labels[i] = int32((first + i) % classes)
	}
	return labels
}

func picturesOf(config diffusion.Config, images []float32) pictures {
	p := pictures{H: config.Model.SampleSize.H, W: config.Model.SampleSize.W, C: config.Model.OutChannels, Pixels: diffusion.Pixels(images)}
	p.N = len(images) / (p.H * p.W * p.C)
	return p
}

// samplesOut writes images as they come: PNG files at once, a grid and arrays at the end.
type samplesOut struct {
	grid, dir, format string

	all    pictures
	labels []int32
	wrote  []string
}

// folders makes the folders that images will lie in, so that a path that cannot be is known before the work is done.
func (o *samplesOut) folders() error {
	for _, folder := range []string{o.dir, filepath.Dir(o.grid)} {
		if folder == "" {
			continue
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("creating the folder of samples: %w", err)
		}
	}
	if stat, err := os.Stat(o.grid); err == nil && stat.IsDir() {
		return usagef("--out %s: it is a folder, want the name of a PNG; a folder for each image by itself is --out-dir", o.grid)
	}
	return nil
}

// add takes the images from number first on, the last of all among them or not.
func (o *samplesOut) add(p pictures, labels []int32, first int, last bool) error {
	if o.dir != "" && o.format == "png" {
		if err := writePNGs(o.dir, first, p); err != nil {
			return err
		}
	}
	if o.grid != "" || o.format == "npy" {
		pixels := append(o.all.Pixels, p.Pixels...)
		p.N += o.all.N
		o.all, o.all.Pixels = p, pixels
		o.labels = append(o.labels, labels...)
	}
	if !last {
		return nil
	}
	if o.dir != "" && o.format == "npy" {
		if err := o.writeArrays(); err != nil {
			return err
		}
	}
	if o.dir != "" {
		o.wrote = append(o.wrote, o.dir)
	}
	if o.grid != "" {
		if err := writeGrid(o.grid, o.all); err != nil {
			return err
		}
		o.wrote = append(o.wrote, o.grid)
	}
	return nil
}

func (o *samplesOut) writeArrays() error {
	if err := writeNPY(filepath.Join(o.dir, "images.npy"), o.all.array()); err != nil {
		return err
	}
	if len(o.labels) == 0 {
		return nil
	}
	return writeNPY(filepath.Join(o.dir, "labels.npy"), int32Array(o.labels))
}

func (o *samplesOut) report(c *cli.Context, n int, step int64) error {
	if c.Bool("json") {
		newJSONLines(c.App.Writer, 0, 1).Note("done", fields{"images": n, "model_step": step, "wrote": o.wrote})
		return nil
	}
	for _, path := range o.wrote {
		if _, err := fmt.Fprintf(c.App.Writer, "%d images from step %d in %s\n", n, step, path); err != nil {
			return err
		}
	}
	return nil
}

// counter is the progress of "ddgpu sample": a bar on a terminal's stderr, else JSON lines with --json, else nothing.
type counter struct {
	bar   *progressbar.ProgressBar
	w     io.Writer
	lines *jsonLines
	n     int
	tenth int
}

func newCounter(c *cli.Context, n int) *counter {
	k := &counter{w: c.App.ErrWriter, n: n}
	if f, ok := c.App.ErrWriter.(*os.File); ok && !c.Bool("json") && isatty.IsTerminal(f.Fd()) {
		k.bar = progressbar.NewOptions(1000, progressbar.OptionSetWriter(f), progressbar.OptionSetWidth(24), progressbar.OptionSetPredictTime(true),
			progressbar.OptionUseANSICodes(true), progressbar.OptionSetTheme(progressbar.ThemeASCII), progressbar.OptionSetDescription("drawing"))
	} else if c.Bool("json") {
		k.lines = newJSONLines(c.App.Writer, 0, 1)
	}
	return k
}

// Done notes that some of the sampling steps of images first … first+n are done.
func (k *counter) Done(first, n, step, steps int) {
	share := (float64(first) + float64(n)*float64(step)/float64(steps)) / float64(k.n)
	if k.bar != nil {
		_ = k.bar.Set(int(1000 * share)) // a bar that cannot be drawn is no reason to stop
	}
	if tenth := int(10 * share); k.lines != nil && tenth > k.tenth {
		k.tenth = tenth
		k.lines.Note("drawing", fields{"percent": 10 * tenth})
	}
}

// Close ends the bar's line.
func (k *counter) Close() {
	if k.bar != nil {
		fmt.Fprintln(k.w)
	}
}
