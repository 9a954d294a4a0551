package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"ddgpu/gpu/driver"
)

// writeCounters writes a table of what the PTX executor counted, a kernel a line: instructions and active lanes, branches that part a
// warp, sectors of 32 bytes for each access to global memory, passes for each access to shared memory against those without conflicts, bytes moved against
// those that must be, and the mix of instructions.
func writeCounters(w io.Writer, all []driver.Counters) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "kernel\tlaunches\tinstructions\tlanes\tdivergent\tsectors/request\twavefronts/least\tread/least\twritten/least\tmix")
	for _, c := range all {
		var classes []string
		for name := range c.Instructions {
			classes = append(classes, name)
		}
		slices.SortFunc(classes, func(a, b string) int {
			if x, y := c.Instructions[a], c.Instructions[b]; x != y {
				return int(min(1, max(-1, int64(y)-int64(x))))
			}
			return strings.Compare(a, b)
		})
		var mix []string
		for _, name := range classes {
			if share := quotient(c.Instructions[name], c.Total()); share >= 0.01 {
				mix = append(mix, fmt.Sprintf("%s %.0f%%", name, 100*share))
			}
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%.1f\t%.1f%%\t%.1f\t%.2f\t%.2f\t%.2f\t%s\n", c.Kernel, c.Launches, c.Total(), quotient(c.Lanes, c.Total()),
			100*quotient(c.Divergent, c.Branches), quotient(c.GlobalSectors, c.GlobalRequests), quotient(c.Wavefronts, c.LeastWavefronts),
			quotient(32*c.LoadSectors, c.ReadBytes), quotient(32*c.StoreSectors, c.WrittenBytes), strings.Join(mix, ", "))
	}
	return t.Flush()
}

// quotient is a/b, 0 where b is.
func quotient(a, b uint64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
