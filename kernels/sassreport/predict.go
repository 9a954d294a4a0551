package main

import (
	"fmt"
	"slices"

	"ddgpu/kernels/ptxas"
)

// A prediction is what one launch takes on a GPU at best.
type prediction struct {
	cost
	Kernel  string
	Seconds float64 // without the gap to the next kernel
	By      string  // what bounds it
	L2      float64 // seconds in which the L2 cache delivers what the multiprocessors ask of it; not part of Seconds
	Tensor  bool    // computes on tensor cores
	TF32    bool
	Blocks  int // resident on a multiprocessor
}

// A table of kernels by build, name and architecture.
type table map[[3]string]kernel

func tableOf(kernels []kernel) table {
	t := table{}
	for _, k := range kernels {
		t[[3]string{k.Build, k.Name, k.Arch}] = k
	}
	return t
}

func (t table) find(builds []string, name, arch string) (kernel, error) {
	for _, b := range builds {
		if k, ok := t[[3]string{b, name, arch}]; ok {
			return k, nil
		}
	}
	return kernel{}, fmt.Errorf("kernel %s is in none of the builds %v for %s", name, builds, arch)
}

// portBytes is what a multiprocessor takes in a clock from the L2 cache at most.
const portBytes = 64

// predict bounds the time of a launch from below by the busiest multiprocessor, which runs ⌈blocks / multiprocessors⌉ blocks (of different ones,
// those that schedule gives it), and by the bytes of DRAM. A block's warps go through the main loop as often as its part of the arithmetic takes (of the bytes, where nothing is
// multiplied), and once through everything else.
func (g gpu) predict(k kernel, l launch, real float64) (prediction, error) {
	c, known := costOf(l, k.Table, real)
	p := prediction{Kernel: k.Name, TF32: false}
	blocks, warps := float64(l.blocks()), float64(l.warps())
	loop, outside := k.Body, k.Outside
	if !known {
		c = cost{Kind: "other", Guessed: true, Bytes: blocks * warps * float64(loop.global()+outside.global())}
	}
	p.cost = c
	iterations := 0.0
	switch {
	case c.Padded > 0 && loop.flops() > 0:
		iterations = c.Padded / (blocks * warps * loop.flops())
	case c.Padded == 0 && loop.global() > 0:
		iterations = c.Bytes / (blocks * warps * float64(loop.global()))
	}
	block := func(iterations float64) (clocks float64, by string) {
		need := g.needs(loop, warps).times(iterations).plus(g.needs(outside, warps))
		need.DRAM = 0 // counted for the whole launch, as is the L2 cache's
		return need.bound()
	}
	clocks, by := block(iterations)
	rounds := float64((l.blocks() + g.Multiprocessors - 1) / g.Multiprocessors)
	p.Seconds, p.By = clocks*rounds/g.Clock, by
	if len(c.Runs) > 0 && loop.flops() > 0 {
		p.Seconds = g.schedule(c.Runs, func(padded float64) float64 {
			clocks, _ := block(padded / (warps * loop.flops()))
			return clocks
		}) / g.Clock
	}
	for product := range loop.Products {
		p.Tensor, p.TF32 = true, product.tf32
	}
	share := c.Missed
	if share == 0 {
		share = 1
	}
	moved := iterations*blocks*warps*loop.missed(share) + blocks*warps*float64(outside.global())
	if c.Padded == 0 {
		moved = c.Bytes
	}
	p.L2 = moved / g.L2
	busy := min(blocks, float64(g.Multiprocessors))
	for _, other := range []struct {
		seconds float64
		by      string
	}{{c.Bytes / (g.DRAM * dramShare), "dram"}, {moved / (busy * portBytes * g.Clock), "port"}} {
		if other.seconds > p.Seconds {
			p.Seconds, p.By = other.seconds, other.by
		}
	}
	chip, _ := ptxas.ChipOf(g.Arch)
	p.Blocks = chip.BlocksPerMultiprocessor(l.Block, k.Usage.Registers, k.Usage.Shared+l.Shared)
	if p.Blocks == 0 {
		return p, fmt.Errorf("%s, block %d with %d bytes of dynamic shared memory, fits no multiprocessor of %s", k.Name, l.Block, l.Shared, g.Name)
	}
	return p, nil
}

// schedule is the clocks until the last block ends, when each block goes to the multiprocessor that is the first to have no other.
func (g gpu) schedule(runs []blockRun, clocks func(padded float64) float64) float64 {
	busy := make([]float64, g.Multiprocessors) // until when, as a heap whose first is the least
	for _, r := range runs {
		each := clocks(r.Padded)
		for range r.Blocks {
			busy[0] += each
			for i := 0; ; {
				least := i
				for _, child := range []int{2*i + 1, 2*i + 2} {
					if child < len(busy) && busy[child] < busy[least] {
						least = child
					}
				}
				if least == i {
					break
				}
				busy[i], busy[least] = busy[least], busy[i]
				i = least
			}
		}
	}
	return slices.Max(busy)
}

// peak is the arithmetic per second that a launch is measured by: mma.sync's, or float32's.
func (g gpu) peak(p prediction) float64 {
	perClock := g.Lanes
	if p.Tensor {
		perClock = g.rate(p.TF32)
	}
	return 2 * perClock * g.Clock * float64(g.Multiprocessors)
}

// share is the part of the peak that a launch reaches, with what the L2 cache delivers taken into account or not.
func (g gpu) share(p prediction, withL2 bool) float64 {
	seconds := p.Seconds
	if withL2 {
		seconds = max(seconds, p.L2)
	}
	return p.FLOPs / (seconds * g.peak(p))
}

// predictStep predicts every launch of a step.
func (g gpu) predictStep(t table, s step) ([]prediction, error) {
	var all []prediction
	for i, l := range s.Launches {
		k, err := t.find(s.builds(), l.Kernel, g.Arch)
		if err != nil {
			return nil, err
		}
		p, err := g.predict(k, l, s.real())
		if err != nil {
			return nil, err
		}
		if i > 0 && l.Kernel == "shard_sum" && len(all[i-1].Runs) > 0 { // of its segments
			p.Kind, p.Side = all[i-1].Kind, all[i-1].Side
		}
		all = append(all, p)
	}
	return all, nil
}

// checkStep names the kernels of a step whose cost is guessed.
func checkStep(kernels []kernel, s step) (problems []string, err error) {
	if len(s.Launches) == 0 {
		return nil, nil
	}
	g, _ := gpuOf("sm_90")
	all, err := g.predictStep(tableOf(kernels), s)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		problem := fmt.Sprintf("%s: cost.go does not know what such a launch computes and moves", p.Kernel)
		if p.Guessed && !slices.Contains(problems, problem) {
			problems = append(problems, problem)
		}
	}
	return problems, nil
}
