package schedule

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Timesteps lists, in increasing order, the count of T step indices that a strided sampler keeps.
//
//	even      equally spaced from 0 to T−1, both included, rounded half to even [iDDPM]
//	leading   i·⌊T/count⌋, i = 0 … count−1: starts at 0, may stop well before T−1 [DDIM]
//	trailing  round(T − i·T/count) − 1: ends at T−1 (Lin et al. 2023)
//	linspace  linspace(−1, T−1, count+1) without its first, truncated (the reference trainer)
//
// A list such as "10,15,20" instead of a name cuts the T steps into that many sections, equal
// within one step, the longer ones first, and keeps so many of each, evenly [iDDPM]; count is
// then ignored unless it contradicts the sum.
func Timesteps(spacing string, T, count int) ([]int, error) {
	if strings.Contains(spacing, ",") {
		return sections(spacing, T, count)
	}
	if count < 1 || count > T {
		return nil, fmt.Errorf("schedule: cannot keep %d of %d steps", count, T)
	}
	kept := make([]int, count)
	stride := float64(T) / float64(count)
	switch spacing {
	case "even":
		return evenly(0, T, count), nil
	case "leading":
		for i := range kept {
			kept[i] = i * (T / count)
		}
	case "trailing":
		for i := range kept {
			kept[count-1-i] = int(math.RoundToEven(float64(T)-float64(i)*stride)) - 1
		}
	case "linspace":
		for i := range kept {
			kept[i] = int(math.Trunc(-1 + float64((i+1)*T)/float64(count)))
		}
	default:
		return nil, fmt.Errorf("schedule: unknown spacing %q, it must be even, leading, trailing, linspace or counts such as 10,15,20", spacing)
	}
	return kept, nil
}

// evenly spaces count indices over size steps from start, ends included.
func evenly(start, size, count int) []int {
	kept := make([]int, count)
	for i := range kept {
		if count > 1 {
			kept[i] = start + int(math.RoundToEven(float64(i)*float64(size-1)/float64(count-1)))
		} else {
			kept[i] = start
		}
	}
	return kept
}

func sections(spec string, T, count int) ([]int, error) {
	parts := strings.Split(spec, ",")
	var kept []int
	start := 0
	for i, part := range parts {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		size := T / len(parts)
		if i < T%len(parts) {
			size++
		}
		if err != nil || n < 1 || n > size {
			return nil, fmt.Errorf("schedule: section %d of %q: %q is not a count of 1 … %d steps", i+1, spec, part, size)
		}
		kept = append(kept, evenly(start, size, n)...)
		start += size
	}
	if count != 0 && count != len(kept) {
		return nil, fmt.Errorf("schedule: sections %s keep %d steps, but %d were asked for", spec, len(kept), count)
	}
	return kept, nil
}
