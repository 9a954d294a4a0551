package main

import (
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows a run to a person or to a log.
type progress interface {
	Step(m metric, memory int64)        // after every step; memory is device memory in bytes, 0 when unknown
	Note(message string, fields fields) // what happens now and then: a validation, a checkpoint, a resume
	Report(s summary) error             // at the end of a run that is complete
	Close()
}

// summary is what a training leaves behind.
type summary struct {
	Run        string   `json:"run"`
	Steps      int64    `json:"steps"`
	ValLoss    *float64 `json:"val_loss,omitempty"`
	Samples    string   `json:"samples,omitempty"`
	LossCurve  string   `json:"loss_curve"`
	Checkpoint string   `json:"checkpoint"`
	Hash       string   `json:"hash"` // equal hashes are equal weights, to the bit
}

type fields map[string]any

// newProgress draws a bar when w is a terminal, unless json is asked for; else it writes a JSON line every logEvery steps.
func newProgress(w io.Writer, json bool, steps, logEvery int64) progress {
	if f, ok := w.(*os.File); ok && !json && isatty.IsTerminal(f.Fd()) {
		return newBar(w, steps)
	}
	return newJSONLines(w, steps, logEvery)
}

// jsonLines is for logs: one zerolog line every few steps and one for every note.
type jsonLines struct {
	log          zerolog.Logger
	steps, every int64
}

func newJSONLines(w io.Writer, steps, every int64) *jsonLines {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	return &jsonLines{zerolog.New(w).With().Timestamp().Logger(), steps, max(1, every)}
}

func (l *jsonLines) Step(m metric, memory int64) {
	if m.Step%l.every != 0 && m.Step != l.steps {
		return
	}
	e := l.log.Info().Int64("step", m.Step).Int64("steps", l.steps).Float64("loss", m.Loss).
		Float64("grad_norm", m.GradNorm).Float64("lr", m.LR).Float64("images_per_second", m.ImagesPerSecond)
	if m.ValLoss != nil {
		e = e.Float64("val_loss", *m.ValLoss)
	}
	if memory > 0 {
		e = e.Int64("memory_bytes", memory)
	}
	e.Send()
}

func (l *jsonLines) Note(message string, f fields) {
	l.log.Info().Fields(map[string]any(f)).Msg(message)
}

func (l *jsonLines) Report(s summary) error {
	e := l.log.Info().Str("run", s.Run).Int64("steps", s.Steps)
	if s.ValLoss != nil {
		e = e.Float64("val_loss", *s.ValLoss)
	}
	if s.Samples != "" {
		e = e.Str("samples", s.Samples)
	}
	e.Str("loss_curve", s.LossCurve).Str("checkpoint", s.Checkpoint).Str("hash", s.Hash).Msg("done")
	return nil
}

func (l *jsonLines) Close() {}

// bar is one line of a terminal, with notes above it.
type bar struct {
	w       io.Writer
	bar     *progressbar.ProgressBar
	columns func() int // of the terminal
	steps   int64
	rate    rate
	end     sync.Once
}

func newBar(w io.Writer, steps int64) *bar {
	return &bar{w: w, columns: func() int { return columns(w) }, steps: steps, bar: progressbar.NewOptions64(steps,
		progressbar.OptionSetWriter(w),
		progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(10),
		progressbar.OptionSetPredictTime(false), // it would count the steps before a resume as made in no time
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetTheme(progressbar.ThemeASCII),
	)}
}

// columns is the width of a terminal, 80 where it does not say.
func columns(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return 80
}

func (b *bar) Step(m metric, memory int64) {
	counts := len(fmt.Sprintf(" 100%% [] (%d/%d) ", b.steps, b.steps)) // the library shortens the bar itself where it must
	b.bar.Describe(describe(m, memory, b.rate.left(time.Now(), m.Step, b.steps), b.columns()-counts))
	_ = b.bar.Set64(m.Step) // a bar that cannot be drawn is no reason to stop
}

// rate is how fast steps come, from the first one that this process made.
type rate struct {
	start time.Time
	first int64
}

// left is the time until the last step, validations and samples on the way included; 0 while it is unknown.
func (r *rate) left(now time.Time, step, steps int64) time.Duration {
	if r.start.IsZero() {
		r.start, r.first = now, step
		return 0
	}
	each := now.Sub(r.start) / time.Duration(max(1, step-r.first))
	return (time.Duration(steps-step) * each).Round(time.Second)
}

func (b *bar) Note(message string, f fields) {
	_ = b.bar.Clear()
	fmt.Fprintln(b.w, message+f.String())
	_ = b.bar.RenderBlank()
}

func (b *bar) Close() { b.end.Do(func() { fmt.Fprintln(b.w) }) }

func (b *bar) Report(s summary) error {
	b.Close()
	t := tabwriter.NewWriter(b.w, 0, 0, 2, ' ', 0)
	if s.ValLoss != nil {
		fmt.Fprintf(t, "validation loss\t%.4f\n", *s.ValLoss)
	}
	if s.Samples != "" {
		fmt.Fprintf(t, "samples\t%s\n", s.Samples)
	}
	fmt.Fprintf(t, "loss curve\t%s\n", s.LossCurve)
	fmt.Fprintf(t, "checkpoint\t%s\n", s.Checkpoint)
	fmt.Fprintf(t, "its hash\t%s\n", s.Hash)
	fmt.Fprintf(t, "draw more\tddgpu sample --model %s --n 64 --out grid.png\n", s.Run)
	return t.Flush()
}

// describe is the text before the bar: the more important first, and no more than has room, since a line that wraps cannot be drawn over.
func describe(m metric, memory int64, left time.Duration, room int) string {
	text := fmt.Sprintf("loss %.4f", m.Loss)
	parts := []string{fmt.Sprintf("%.0f img/s", m.ImagesPerSecond)}
	if left > 0 {
		parts = append(parts, fmt.Sprintf("%v left", left))
	}
	parts = append(parts, fmt.Sprintf("grad %.3f", m.GradNorm), fmt.Sprintf("lr %.1e", m.LR))
	if memory > 0 {
		parts = append(parts, humanize.IBytes(uint64(memory)))
	}
	for _, part := range parts {
		if len(text)+1+len(part) > room {
			break
		}
		text += " " + part
	}
	return text
}

// String gives " key=value …" in the order of the keys.
func (f fields) String() string {
	keys := make([]string, 0, len(f))
	for k := range f {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var s strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&s, "  %s=%v", k, f[k])
	}
	return s.String()
}
