package main

import (
	"image/color"
	"io"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// scalingChart draws, for each axis, the speed above and the memory below, on logarithmic scales.
func scalingChart(w io.Writer, rows []scalingRow) error {
	axes := []struct{ name, label string }{{"batch", "batch"}, {"size", "image height and width"}, {"channels", "base channels"}}
	plots := [][]*plot.Plot{make([]*plot.Plot, len(axes)), make([]*plot.Plot, len(axes))}
	for i, axis := range axes {
		of := onAxis(rows, axis.name)
		var speed, planned, allocated plotter.XYs
		for _, r := range of {
			x := r.value()
			speed = append(speed, plotter.XY{X: x, Y: r.ImagesPerSecond})
			planned = append(planned, plotter.XY{X: x, Y: float64(r.PlannedBytes) / (1 << 20)})
			if r.AllocatedBytes > 0 {
				allocated = append(allocated, plotter.XY{X: x, Y: float64(r.AllocatedBytes) / (1 << 20)})
			}
		}
		var err error
		if plots[0][i], err = scalingPlot(axis.label, "images/s", scalingLine{"", speed, true}); err != nil {
			return err
		}
		plots[1][i], err = scalingPlot(axis.label, "MiB", scalingLine{"planned", planned, true}, scalingLine{"allocated", allocated, false})
		if err != nil {
			return err
		}
	}
	plots[0][0].Title.Text = rows[0].Network + ", " + rows[0].Precision + ", " + rows[0].Device
	canvas := vgimg.New(30*vg.Centimeter, 18*vg.Centimeter)
	tiles := draw.Tiles{Rows: 2, Cols: len(axes), PadX: vg.Points(12), PadY: vg.Points(12), PadTop: vg.Points(6), PadBottom: vg.Points(6),
		PadLeft: vg.Points(6), PadRight: vg.Points(12)}
	for i, row := range plot.Align(plots, tiles, draw.New(canvas)) {
		for j, c := range row {
			plots[i][j].Draw(c)
		}
	}
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(w)
	return err
}

// scalingLine is a curve with its points joined, or as points alone.
type scalingLine struct {
	name   string
	xys    plotter.XYs
	joined bool
}

func scalingPlot(x, y string, lines ...scalingLine) (*plot.Plot, error) {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = logTicks{}
	p.Add(plotter.NewGrid())
	var ticks plot.ConstantTicks
	for _, l := range lines {
		if len(l.xys) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(l.xys)
		if err != nil {
			return nil, err
		}
		line.Color, dots.Color = color.RGBA{70, 110, 180, 255}, color.RGBA{70, 110, 180, 255}
		dots.Shape, dots.Radius = draw.CircleGlyph{}, vg.Points(2)
		if l.joined {
			p.Add(line)
		} else {
			dots.Shape, dots.Color, dots.Radius = draw.CrossGlyph{}, color.RGBA{200, 80, 40, 255}, vg.Points(4)
		}
		p.Add(dots)
		if l.name != "" {
			p.Legend.Add(l.name, dots)
		}
		if ticks == nil {
			for _, xy := range l.xys {
				ticks = append(ticks, plot.Tick{Value: xy.X, Label: strconv.FormatFloat(xy.X, 'g', 4, 64)})
			}
		}
	}
	p.X.Tick.Marker = ticks
	p.Legend.Top, p.Legend.Left = true, true
	p.Y.Min, p.Y.Max = p.Y.Min/1.3, p.Y.Max*1.3
	if p.X.Min == p.X.Max { // a single point
		p.X.Min, p.X.Max = p.X.Min/2, p.X.Max*2
	}
	return p, nil
}
