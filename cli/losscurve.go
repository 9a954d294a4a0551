package main

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// curvePoints is how many means the training losses are reduced to: the loss of one step is mostly the noise of its
// time steps, and a picture has no more columns.
const curvePoints = 300

// writeLossCurve draws training loss (means of neighbouring steps) and validation loss over steps as a PNG.
func writeLossCurve(path, title string, points []metric) error {
	train, val := curves(points)
	if len(train) == 0 {
		return nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, "step", "loss"
	p.Add(plotter.NewGrid())
	low, high := extent(append(append(plotter.XYs{}, train...), val...))
	if low > 0 && high/low > 4 {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, logTicks{}
	}
	for _, curve := range []struct {
		name  string
		xys   plotter.XYs
		color color.RGBA
	}{
		{"training", train, color.RGBA{70, 110, 180, 255}},
		{"validation", val, color.RGBA{200, 80, 40, 255}},
	} {
		if len(curve.xys) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(curve.xys)
		if err != nil {
			return fmt.Errorf("drawing the %s loss: %w", curve.name, err)
		}
		line.Color, line.Width = curve.color, vg.Points(1.2)
		p.Add(line)
		p.Legend.Add(curve.name, line)
		if len(curve.xys) < 40 {
			dots.Color, dots.Radius = curve.color, vg.Points(2)
			p.Add(dots)
		}
	}
	p.X.Min = 0
	p.Legend.Top = true
	return writeFile(path, func(w io.Writer) error {
		image, err := p.WriterTo(16*vg.Centimeter, 10*vg.Centimeter, "png")
		if err == nil {
			_, err = image.WriteTo(w)
		}
		return err
	})
}

// curves splits metrics into the two lines of the picture. What a picture cannot show (infinite, or not a number) is left
// out.
func curves(points []metric) (train, val plotter.XYs) {
	bin := max(1, (len(points)+curvePoints-1)/curvePoints)
	for start := 0; start < len(points); start += bin {
		part := points[start:min(start+bin, len(points))]
		var x, y float64
		for _, m := range part {
			x += float64(m.Step) / float64(len(part))
			y += m.Loss / float64(len(part))
		}
		if drawable(y) {
			train = append(train, plotter.XY{X: x, Y: y})
		}
	}
	for _, m := range points {
		if m.ValLoss != nil && drawable(*m.ValLoss) {
			val = append(val, plotter.XY{X: float64(m.Step), Y: *m.ValLoss})
		}
	}
	return train, val
}

func drawable(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func extent(xys plotter.XYs) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, p := range xys {
		low, high = min(low, p.Y), max(high, p.Y)
	}
	return low, high
}

// logTicks labels 1, 2 and 5 times the powers of ten: a loss often spans less than one power.
type logTicks struct{}

func (logTicks) Ticks(low, high float64) (ticks []plot.Tick) {
	for power := math.Floor(math.Log10(low)); power <= math.Ceil(math.Log10(high)); power++ {
		for _, digit := range []float64{1, 2, 5} {
			if v := digit * math.Pow(10, power); v >= low && v <= high {
				ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 5, 64)})
			}
		}
	}
	return ticks
}
