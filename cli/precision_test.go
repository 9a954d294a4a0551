package main

import (
	"context"
	"flag"
	"math"
	"path/filepath"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"ddgpu/diffusion"
	"ddgpu/diffusion/data"
	"ddgpu/gpu"
)

var (
	curveSteps = flag.Int("steps", 30, "`STEPS` of each training of TestPrecisionsFollowFloat32")
	curveFile  = flag.String("curves", "", "`FILE` for a picture of its losses, a PNG")
)

func meanOf(points plotter.XYs) float64 {
	var sum float64
	for _, p := range points {
		sum += p.Y
	}
	return sum / float64(len(points))
}

// The quickstart's losses in bf16 and in tf32 stay within 2% of those in float32: same images, same noise, other rounding. What is compared is
// means over ten steps: the loss of one batch of 32 jumps by half from step to step, and once the weights differ in the third digit a single
// batch can differ by more than the training does. docs/mixed-precision.md shows the first hundred steps, and the single ones.
func TestPrecisionsFollowFloat32(t *testing.T) {
	config := emptyConfig()
	if err := overlayPreset("quickstart", &config); err != nil {
		t.Fatal(err)
	}
	config.Data.Path = filepath.Join("..", config.Data.Path)
	shape := data.Shape{H: config.Model.SampleSize.H, W: config.Model.SampleSize.W, C: config.Model.InChannels}
	train, _, err := data.Open(config.Data, shape)
	if err != nil {
		t.Fatal(err)
	}
	m, err := gpu.Open("host")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	losses := map[string]plotter.XYs{}
	precisions := []string{"fp32", "tf32", "bf16"}
	for _, config.Precision = range precisions {
		trainer, err := diffusion.NewTrainer(m, config, train, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range *curveSteps {
			result, err := trainer.Step(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			losses[config.Precision] = append(losses[config.Precision], plotter.XY{X: float64(result.Step), Y: result.Loss})
		}
		if err := trainer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range precisions[1:] {
		single, mean, far := 0.0, 0.0, 0
		for i, want := range losses["fp32"] {
			d := math.Abs(losses[p][i].Y/want.Y - 1)
			if single = max(single, d); d > 0.02 {
				far++
			}
			if i >= 9 {
				mean = max(mean, math.Abs(meanOf(losses[p][i-9:i+1])/meanOf(losses["fp32"][i-9:i+1])-1))
			}
		}
		all := meanOf(losses[p])/meanOf(losses["fp32"]) - 1
		t.Logf("%s, %d steps: single steps within %.2f%% of float32, %d beyond 2%%, means of ten within %.2f%%, the mean of all %+.3f%%",
			p, *curveSteps, 100*single, far, 100*mean, 100*all)
		if !(mean <= 0.02) {
			t.Errorf("%s: a mean of ten losses is %.2g%% from float32's, want at most 2%%", p, 100*mean)
		}
		if single == 0 {
			t.Errorf("%s: the same losses as float32: nothing was rounded", p)
		}
	}
	if *curveFile == "" {
		return
	}
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = "step", "loss of the batch"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, logTicks{}
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	for i, name := range precisions {
		line, err := plotter.NewLine(losses[name])
		if err != nil {
			t.Fatal(err)
		}
		line.Color, line.Width = plotutil.Color(i), vg.Points([]float64{2.5, 1.5, 0.8}[i])
		p.Add(line)
		p.Legend.Add(name, line)
	}
	if err := p.Save(16*vg.Centimeter, 10*vg.Centimeter, *curveFile); err != nil {
		t.Fatal(err)
	}
}
