package main

import "ddgpu/kernels/ptxas"

// A gpu is what the predictions know of a GPU. docs/predicted-performance.md names the sources.
type gpu struct {
	Name            string
	Arch            string
	Multiprocessors int
	Clock           float64 // Hz, boost
	DRAM            float64 // bytes/s
	L2              float64 // bytes/s that multiprocessors read from the L2 cache
	MACs            float64 // multiply-adds of 16-bit inputs with float32 sums that a multiprocessor's tensor cores do in a clock
	MMA             float64 // share of them that mma.sync reaches
	Lanes           float64 // float32 operations that a multiprocessor begins in a clock
}

var gpus = []gpu{
	{Name: "A100", Arch: "sm_80", Multiprocessors: 108, Clock: 1.41e9, DRAM: 2.039e12, L2: 4.5e12, MACs: 1024, MMA: 1, Lanes: 64},
	{Name: "RTX 3090", Arch: "sm_86", Multiprocessors: 82, Clock: 1.695e9, DRAM: 0.936e12, L2: 2.5e12, MACs: 256, MMA: 1, Lanes: 128},
	{Name: "RTX 4090", Arch: "sm_89", Multiprocessors: 128, Clock: 2.52e9, DRAM: 1.008e12, L2: 5e12, MACs: 256, MMA: 1, Lanes: 128},
	{Name: "H100", Arch: "sm_90", Multiprocessors: 132, Clock: 1.83e9, DRAM: 3.352e12, L2: 5.7e12, MACs: 2048, MMA: 0.62, Lanes: 128},
}

const (
	schedulers  = ptxas.Partitions // of a multiprocessor; each issues one instruction of a warp in a clock
	sharedBytes = 128              // of shared memory that a multiprocessor moves in a clock
	specialRate = 16               // special functions that a multiprocessor begins in a clock
	dramShare   = 0.9              // of the DRAM's bandwidth that copies reach
	launchGap   = 1e-6             // seconds between two kernels of a graph that follow one another
)

// gpuOf is the GPU that predictions for an architecture are made for.
func gpuOf(arch string) (gpu, bool) {
	for _, g := range gpus {
		if g.Arch == arch {
			return g, true
		}
	}
	return gpu{}, false
}

// A need is the clocks for which one multiprocessor is busy at least, by what it is busy with. The greatest of them bounds the work.
type need struct{ Issue, Tensor, FP32, Special, Shared, L2, DRAM float64 }

// productFLOPs is the arithmetic for each byte of global memory from which on a loop is taken for a matrix product, whose operands come
// from the L2 cache for the most part; below it, every byte is taken to come from DRAM.
const productFLOPs = 8

// cachedShare is how much of what is loaded through the first-level cache is not there, where the shape is not known: 3×3 taps of 4 rows.
const cachedShare = 0.2

// missed is the bytes that a warp asks the L2 cache for, when the first-level cache lacks `share` of what is loaded through it.
func (m mix) missed(share float64) float64 { return float64(m.global()) - float64(m.Cached)*(1-share) }

func (m mix) product() bool {
	return len(m.Products) > 0 || m.flops() > 0 && m.flops() >= productFLOPs*float64(m.global())
}

// needs is what `warps` warps ask of a multiprocessor for a mix, each once through.
func (g gpu) needs(m mix, warps float64) need {
	n := need{
		Issue:   float64(m.Total) / schedulers,
		FP32:    32 * float64(m.Count[fp32]) / g.Lanes,
		Special: 32 * float64(m.MUFU) / specialRate,
		Shared:  float64(m.Shared) / sharedBytes,
	}
	perClock := g.Clock * float64(g.Multiprocessors)
	if m.product() {
		n.L2 = m.missed(cachedShare) * perClock / g.L2
	} else {
		n.DRAM = float64(m.global()) * perClock / (g.DRAM * dramShare)
	}
	for p, count := range m.Products {
		n.Tensor += float64(count) * float64(p.macs) / g.rate(p.tf32)
	}
	return n.times(warps)
}

// rate is the multiply-adds that mma.sync does in a clock of a multiprocessor.
func (g gpu) rate(tf32 bool) float64 {
	if tf32 {
		return g.MACs * g.MMA / 2
	}
	return g.MACs * g.MMA
}

func (n need) times(f float64) need {
	return need{n.Issue * f, n.Tensor * f, n.FP32 * f, n.Special * f, n.Shared * f, n.L2 * f, n.DRAM * f}
}

func (n need) plus(o need) need {
	return need{n.Issue + o.Issue, n.Tensor + o.Tensor, n.FP32 + o.FP32, n.Special + o.Special, n.Shared + o.Shared, n.L2 + o.L2, n.DRAM + o.DRAM}
}

// bound is the greatest need and its name, without the L2 cache's, of which too little is known: withL2 adds that.
func (n need) bound() (clocks float64, by string) {
	by = "issue"
	for _, c := range []struct {
		clocks float64
		by     string
	}{{n.Tensor, "tensor"}, {n.FP32, "fp32"}, {n.Shared, "shared"}, {n.Special, "special"}, {n.DRAM, "dram"}, {n.Issue, "issue"}} {
		if c.clocks > clocks {
			clocks, by = c.clocks, c.by
		}
	}
	return clocks, by
}

// withL2 is the greatest need.
func (n need) withL2() float64 {
	clocks, _ := n.bound()
	return max(clocks, n.L2)
}

// useful is the clocks that remain when nothing but the purpose counts: the product on tensor cores, or else in float32; the bytes where
// there is no product.
func (n need) useful() float64 {
	switch {
	case n.DRAM > 0:
		return n.DRAM
	case n.Tensor > 0:
		return n.Tensor
	}
	return n.FP32
}
