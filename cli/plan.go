package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"

	"ddgpu/diffusion"
)

// writePlan prints what a network costs, as comments of YAML, and the limit where it is not 0.
func writePlan(w io.Writer, config diffusion.Config, devices int, m diffusion.Memory, limit int64) error {
	var t strings.Builder
	fmt.Fprintf(&t, "#\n# %s parameters in %d tensors\n", humanize.Comma(m.Parameters), m.Tensors)
	fmt.Fprintf(&t, "# memory of each of %d device(s) at batch %d, %d micro-batch(es), %s:\n#\n", devices, config.Train.Batch,
		config.Train.MicroBatches, config.Precision)
	if config.Precision == "auto" {
		fmt.Fprintln(&t, "# auto: bf16 on GPUs of compute capability 8.0 and newer, fp32 elsewhere; these are fp32's numbers\n#")
	}
	row := func(name string, bytes int64) {
		fmt.Fprintf(&t, "#   %-38s %10s %18s bytes\n", name, humanize.IBytes(uint64(bytes)), humanize.Comma(bytes))
	}
	for _, r := range m.Rows {
		row(r.Name, r.Bytes)
	}
	row("total", m.Total)
	row("of these, per image of a launch", m.PerImage)
	if limit > 0 {
		row("limit", limit)
	}
	what := "--recompute would save"
	if config.Train.Recompute {
		what = "saved by --recompute"
	}
	row(what, m.Recompute)
	_, err := io.WriteString(w, t.String())
	return err
}
