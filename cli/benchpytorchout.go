package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"image/color"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/mattn/go-isatty"
	"github.com/urfave/cli/v2"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"ddgpu/cli/pytorch"
	"ddgpu/diffusion"
)

// versusName is the name of the files of a comparison.
const versusName = "comparison"

// versusProgress shows rows as they come: as a table on stdout, and what runs on stderr, where that is a terminal. With --json, whose list is
// printed at the end, stderr has a line for each row.
type versusProgress struct {
	table    io.Writer // nil with --json
	status   io.Writer
	terminal bool
	rows     int
	done     int
	doing    string
	told     map[string]bool
}

func newVersusProgress(c *cli.Context, rows int) *versusProgress {
	p := &versusProgress{status: c.App.ErrWriter, rows: rows, told: map[string]bool{}}
	if !c.Bool("json") {
		p.table = c.App.Writer
	}
	f, ok := c.App.ErrWriter.(*os.File)
	p.terminal = ok && isatty.IsTerminal(f.Fd())
	return p
}

// head says what is compared where.
func (p *versusProgress) head(machine string, versions map[string]string) {
	p.clear()
	if p.table == nil {
		return
	}
	fmt.Fprintf(p.table, "%s; %s\n%s\n", machine, versionsText(versions), versusHead)
}

func versionsText(versions map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		parts = append(parts, name+" "+versions[name])
	}
	return strings.Join(parts, ", ")
}

func (p *versusProgress) clear() {
	if p.terminal {
		fmt.Fprint(p.status, "\r\x1b[K")
	}
}

// at says what comes next.
func (p *versusProgress) at(name, shape string) {
	p.doing = strings.TrimSpace(name + " " + shape)
	p.note("")
}

func (p *versusProgress) note(mode string) {
	if !p.terminal {
		return
	}
	p.clear()
	text := fmt.Sprintf("%d of %d: %s", min(p.done+1, p.rows), p.rows, p.doing)
	if mode != "" {
		text += ", PyTorch prepares " + mode
	}
	if room := columns(p.status) - 1; len(text) > room {
		text = string([]rune(text)[:min(room, len([]rune(text)))])
	}
	fmt.Fprint(p.status, text)
}

// failed says once for each kind and mode that PyTorch cannot run it.
func (p *versusProgress) failed(s subject, m pytorch.Mode) {
	if key := s.kind + m.Mode; !p.told[key] {
		p.told[key] = true
		p.clear()
		fmt.Fprintf(p.status, "%s: PyTorch does not run it as %s: %s\n", s.name, m.Mode, m.Failure)
	}
}

func (p *versusProgress) row(r versusRow) {
	p.done++
	p.clear()
	if p.table != nil {
		fmt.Fprintln(p.table, r)
	} else if !p.terminal {
		fmt.Fprintf(p.status, "%d of %d: %s %s: %.2f\n", p.done, p.rows, r.Name, r.Shape, r.Ratio)
	}
}

func (p *versusProgress) close() { p.clear() }

const versusFormat = "%-24s %-52s %18s %18s %6s %8s %8s %9s %9s  %s"

var versusHead = fmt.Sprintf(versusFormat, "operation", "shape", "ours", "theirs", "ratio", "error", "theirs", "memory", "theirs", "best mode of PyTorch")

func (r versusRow) String() string {
	return fmt.Sprintf(versusFormat, r.Name, r.Shape, value(r.Ours, r.Spread, r.Unit), value(r.Theirs, r.SpreadTheirs, r.Unit),
		fmt.Sprintf("%.2f", r.Ratio), errorText(r.ErrorOurs), errorText(r.ErrorTheirs), humanize.IBytes(uint64(r.PeakBytesOurs)),
		humanize.IBytes(uint64(r.PeakBytesTheirs)), r.Mode)
}

// value is a median with its spread and unit.
func value(median, spread float64, unit string) string {
	if unit == "images/s" {
		unit = "/s"
	}
	return fmt.Sprintf("%.*f ± %.*f %s", digits(median), median, digits(median), spread, unit)
}

// digits after the point leave a number three or more in all.
func digits(v float64) int {
	if v < 100 {
		return 1
	}
	return 0
}

func errorText(e *float64) string {
	if e == nil {
		return ""
	}
	return fmt.Sprintf("%.1e", *e)
}

// writeVersus writes the rows, the bar chart and the page into a folder.
func writeVersus(folder string, c diffusion.Config, rows []versusRow) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("creating the folder of the comparison: %w", err)
	}
	path := func(extension string) string { return filepath.Join(folder, versusName+extension) }
	if err := writeFile(path(".json"), func(w io.Writer) error { return writeJSON(w, rows) }); err != nil {
		return err
	}
	if err := writeFile(path(".png"), func(w io.Writer) error { return versusChart(w, c, rows) }); err != nil {
		return err
	}
	return writeFile(path(".html"), func(w io.Writer) error { return versusPage(w, c, rows) })
}

// versusTitle is above the chart and the page.
func versusTitle(c diffusion.Config, rows []versusRow) string {
	r := rows[0]
	return fmt.Sprintf("ddgpu against PyTorch %s: %s, %s, batch %d", r.Versions["torch"], c.Name, c.Precision, c.Train.Batch)
}

var (
	fasterColor = color.RGBA{60, 130, 90, 255}
	slowerColor = color.RGBA{200, 80, 40, 255}
)

// versusChart draws the ratio of each row as a bar from 1, to the right where ddgpu is faster, on a logarithmic scale.
func versusChart(w io.Writer, c diffusion.Config, rows []versusRow) error {
	p := plot.New()
	p.Title.Text = versusTitle(c, rows) + "\n" + rows[0].Machine
	p.X.Label.Text = "speed of ddgpu / speed of PyTorch's best mode"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{}
	low, high := 0.5, 2.0
	names := make([]string, len(rows))
	for i, r := range rows {
		names[len(rows)-1-i] = r.Name + "  " + r.Shape
		low, high = min(low, r.Ratio/1.1), max(high, r.Ratio*1.1)
	}
	p.X.Min, p.X.Max = low, high
	p.NominalY(names...)
	p.Y.Tick.Label.Font.Size = vg.Points(7)
	p.Y.Min, p.Y.Max = -1, float64(len(rows))
	p.Add(plotter.NewGrid(), ratioBars(rows))
	canvas := vgimg.New(28*vg.Centimeter, vg.Length(len(rows)+8)*0.42*vg.Centimeter)
	margin := vg.Points(18) // the plot measures long labels a little too narrow
	p.Draw(draw.Crop(draw.New(canvas), margin, -margin/2, margin/4, -margin/4))
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(w)
	return err
}

// ratioBars draws a horizontal bar from 1 to the ratio of each row, the first row at the top.
type ratioBars []versusRow

// Plot implements plot.Plotter.
func (b ratioBars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for i, r := range b {
		at, half := y(float64(len(b)-1-i)), vg.Points(4)
		fill := fasterColor
		if r.Ratio < 1 {
			fill = slowerColor
		}
		from, to := x(1), x(r.Ratio)
		c.FillPolygon(fill, []vg.Point{{X: from, Y: at - half}, {X: to, Y: at - half}, {X: to, Y: at + half}, {X: from, Y: at + half}})
		style := p.X.Tick.Label
		style.Font.Size = vg.Points(7)
		style.YAlign = draw.YCenter
		style.XAlign = draw.XLeft
		c.FillText(style, vg.Point{X: max(from, to) + vg.Points(3), Y: at}, fmt.Sprintf("%.2f", r.Ratio))
	}
}

//go:embed pytorch/page.html
var versusTemplate string

// pageRow is a row with its bar, in pixels.
type pageRow struct {
	versusRow
	Left, Width int
	Faster      bool
	Notes       []string
}

// versusPage writes one HTML file that needs nothing else.
func versusPage(w io.Writer, c diffusion.Config, rows []versusRow) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"value": value, "error": errorText, "bytes": func(n int64) string { return humanize.IBytes(uint64(n)) },
		"ratio": func(v float64) string { return fmt.Sprintf("%.2f", v) },
	}).Parse(versusTemplate)
	if err != nil {
		return err
	}
	page := struct {
		Title, Machine, Versions string
		First                    versusRow
		Center                   int
		Rows                     []pageRow
	}{Title: versusTitle(c, rows), Machine: rows[0].Machine, Versions: versionsText(rows[0].Versions), First: rows[0], Center: 90}
	for _, r := range rows {
		// 80 pixels for a factor of 4.
		length := int(80 * min(1, max(-1, math.Log(r.Ratio)/math.Log(4))))
		row := pageRow{versusRow: r, Left: page.Center + min(0, length), Width: max(1, max(length, -length)), Faster: r.Ratio >= 1}
		for _, mode := range slices.Sorted(maps.Keys(r.Modes)) {
			row.Notes = append(row.Notes, fmt.Sprintf("%s %.*f", mode, digits(r.Modes[mode]), r.Modes[mode]))
		}
		for _, mode := range slices.Sorted(maps.Keys(r.Failures)) {
			row.Notes = append(row.Notes, mode+" does not run: "+r.Failures[mode])
		}
		page.Rows = append(page.Rows, row)
	}
	return t.Execute(w, page)
}
