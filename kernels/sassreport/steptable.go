package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// stepGPUs are the GPUs that a step is predicted for.
var stepGPUs = []string{"sm_80", "sm_90", "sm_89"}

// A sum is what launches of one kind take together, by GPU.
type sum struct {
	name     string
	launches int
	seconds  []float64
	by       []map[string]float64 // seconds by what bounds them
	guessed  bool
}

// writeStep prints the prediction of a step on each GPU, in full or its totals.
func writeStep(w io.Writer, kernels []kernel, s step, full bool) error {
	var shown []gpu
	var all [][]prediction
	table := tableOf(kernels)
	for _, arch := range stepGPUs {
		g, _ := gpuOf(arch)
		if !slices.ContainsFunc(kernels, func(k kernel) bool { return k.Arch == arch }) {
			continue
		}
		p, err := g.predictStep(table, s)
		if err != nil {
			return err
		}
		shown, all = append(shown, g), append(all, p)
	}
	if len(shown) == 0 {
		return fmt.Errorf("a step is predicted for %v: none of them was assembled for", stepGPUs)
	}
	var t strings.Builder
	fmt.Fprintf(&t, "\nPREDICTED: a training step of %s, batch %d, %s, one GPU. Nothing here was measured.\n\n", s.Preset, s.Batch, s.Precision)
	totals(&t, shown, all, s)
	if !full {
		_, err := io.WriteString(w, t.String())
		return err
	}
	fmt.Fprintf(&t, "\nBy kernel: launches, milliseconds, and what bounds most of them.\n\n")
	sums(&t, shown, all, func(p prediction) string { return p.Kernel })
	fmt.Fprintf(&t, "\nBy kind of layer.\n\n")
	sums(&t, shown, all, func(p prediction) string { return p.Kind })
	convolutions(&t, shown, all)
	_, err := io.WriteString(w, t.String())
	return err
}

func heads(t *strings.Builder, left string, shown []gpu, width int) {
	t.WriteString(left)
	for _, g := range shown {
		fmt.Fprintf(t, " %*s", width, g.Name)
	}
	t.WriteByte('\n')
}

// totals prints the sums of a step.
func totals(t *strings.Builder, shown []gpu, all [][]prediction, s step) {
	heads(t, fmt.Sprintf("%-58s", ""), shown, 10)
	row := func(name, format string, value func(g gpu, of []prediction) float64) {
		fmt.Fprintf(t, "%-58s", name)
		for i, g := range shown {
			fmt.Fprintf(t, " %10s", fmt.Sprintf(format, value(g, all[i])))
		}
		t.WriteByte('\n')
	}
	add := func(of []prediction, f func(p prediction) float64) (total float64) {
		for _, p := range of {
			total += f(p)
		}
		return total
	}
	bound := func(_ gpu, of []prediction) float64 {
		return add(of, func(p prediction) float64 { return p.Seconds + launchGap })
	}
	withL2 := func(_ gpu, of []prediction) float64 {
		return add(of, func(p prediction) float64 { return max(p.Seconds, p.L2) + launchGap })
	}
	row("launches", "%.0f", func(_ gpu, of []prediction) float64 { return float64(len(of)) })
	row("arithmetic of matrix products, TFLOP", "%.2f", func(_ gpu, of []prediction) float64 {
		return add(of, func(p prediction) float64 { return p.FLOPs / 1e12 })
	})
	row("the same with what tiles waste at edges", "%.2f", func(_ gpu, of []prediction) float64 {
		return add(of, func(p prediction) float64 { return p.Padded / 1e12 })
	})
	row("their peak, TFLOP/s", "%.0f", func(g gpu, of []prediction) float64 {
		most := slices.MaxFunc(of, func(a, b prediction) int { return cmp.Compare(a.FLOPs, b.FLOPs) })
		return g.peak(most) / 1e12
	})
	row("DRAM traffic, GB", "%.1f", func(_ gpu, of []prediction) float64 {
		return add(of, func(p prediction) float64 { return p.Bytes / 1e9 })
	})
	row("gaps between kernels, ms", "%.2f", func(_ gpu, of []prediction) float64 { return 1e3 * launchGap * float64(len(of)) })
	row("the step at best, ms", "%.2f", func(g gpu, of []prediction) float64 { return 1e3 * bound(g, of) })
	row("images/s at best", "%.0f", func(g gpu, of []prediction) float64 { return float64(s.Batch) / bound(g, of) })
	row("the step with what the L2 cache delivers (rough), ms", "%.2f", func(g gpu, of []prediction) float64 { return 1e3 * withL2(g, of) })
	row("images/s with it", "%.0f", func(g gpu, of []prediction) float64 { return float64(s.Batch) / withL2(g, of) })
}

// sums prints the time by a property of the launches, the longest first.
func sums(t *strings.Builder, shown []gpu, all [][]prediction, key func(p prediction) string) {
	byName := map[string]*sum{}
	for i := range shown {
		for _, p := range all[i] {
			s := byName[key(p)]
			if s == nil {
				s = &sum{name: key(p), seconds: make([]float64, len(shown)), by: make([]map[string]float64, len(shown))}
				byName[s.name] = s
			}
			if i == 0 {
				s.launches++
			}
			s.seconds[i] += p.Seconds + launchGap
			if s.by[i] == nil {
				s.by[i] = map[string]float64{}
			}
			s.by[i][p.By] += p.Seconds
			s.guessed = s.guessed || p.Guessed
		}
	}
	rows := slices.SortedFunc(maps.Values(byName), func(a, b *sum) int {
		return cmp.Or(cmp.Compare(b.seconds[0], a.seconds[0]), strings.Compare(a.name, b.name))
	})
	heads(t, fmt.Sprintf("%-40s %5s", "", "n"), shown, 17)
	for _, s := range rows {
		name := s.name
		if s.guessed {
			name += " (bytes guessed)"
		}
		fmt.Fprintf(t, "%-40s %5d", name, s.launches)
		for i := range shown {
			most := ""
			for _, by := range slices.Sorted(maps.Keys(s.by[i])) {
				if most == "" || s.by[i][by] > s.by[i][most] {
					most = by
				}
			}
			fmt.Fprintf(t, " %9.3f %-7s", 1e3*s.seconds[i], most)
		}
		t.WriteByte('\n')
	}
}

// leastSide is the smallest image whose convolutions are listed one by one.
const leastSide = 16

// convolutions prints the share of the peak of each shape of convolution on the larger images.
func convolutions(t *strings.Builder, shown []gpu, all [][]prediction) {
	fmt.Fprintf(t, "\nConvolutions on images of %d and more: share of the peak at best, wave quantisation included; then with what the\n"+
		"L2 cache delivers.\n\n", leastSide)
	type row struct {
		name  string
		count int
		at    int // in all
	}
	rows := map[string]*row{}
	for i, p := range all[0] {
		if p.Shape == "" || p.Side < leastSide {
			continue
		}
		name := fmt.Sprintf("%-31s %s", p.Shape, p.Kernel)
		if rows[name] == nil {
			rows[name] = &row{name: name, at: i}
		}
		rows[name].count++
	}
	heads(t, fmt.Sprintf("%-60s %3s", "", "n"), shown, 20)
	for _, r := range slices.SortedFunc(maps.Values(rows), func(a, b *row) int { return strings.Compare(a.name, b.name) }) {
		fmt.Fprintf(t, "%-60s %3d", r.name, r.count)
		for i, g := range shown {
			p := all[i][r.at]
			fmt.Fprintf(t, " %4.0f%% %-7s %5.0f%%", 100*g.share(p, false), p.By, 100*g.share(p, true))
		}
		t.WriteByte('\n')
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(t, "%-60s    ", "all of these")
	for i, g := range shown {
		var ideal, bound, l2 float64
		for _, p := range all[i] {
			if p.Side >= leastSide { // with the sums of segments
				ideal += p.FLOPs / g.peak(p)
				bound += p.Seconds
				l2 += max(p.Seconds, p.L2)
			}
		}
		fmt.Fprintf(t, " %4.0f%% %-7s %5.0f%%", 100*ideal/bound, "", 100*ideal/l2)
	}
	t.WriteByte('\n')
}
