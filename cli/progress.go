package main

import (
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
	"github.com/schollz/progressbar/v3"
)

// progress shows a run to a person or to a log.
type progress interface {
	Step(m metric, memory int64)        // after every step; memory is device memory in bytes, 0 when unknown
	Note(message string, fields fields) // what happens now and then: a validation, a checkpoint, a resume
	Close()
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

func (l *jsonLines) Close() {}

// bar is one line of a terminal, with notes above it.
type bar struct {
	w   io.Writer
	bar *progressbar.ProgressBar
}

func newBar(w io.Writer, steps int64) *bar {
	return &bar{w, progressbar.NewOptions64(steps,
		progressbar.OptionSetWriter(w),
		progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(24),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionShowElapsedTimeOnFinish(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetTheme(progressbar.ThemeASCII),
	)}
}

func (b *bar) Step(m metric, memory int64) {
	b.bar.Describe(describe(m, memory))
	b.bar.Set64(m.Step)
}

func (b *bar) Note(message string, f fields) {
	b.bar.Clear()
	fmt.Fprintln(b.w, message+f.String())
	b.bar.RenderBlank()
}

func (b *bar) Close() { fmt.Fprintln(b.w) }

// describe is the text before the bar. Widths are fixed so that the bar stands still.
func describe(m metric, memory int64) string {
	text := fmt.Sprintf("loss %.4f  grad %.3f  lr %.1e  %5.0f img/s", m.Loss, m.GradNorm, m.LR, m.ImagesPerSecond)
	if memory > 0 {
		text += "  " + humanize.IBytes(uint64(memory))
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
