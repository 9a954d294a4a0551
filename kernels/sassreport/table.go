package main

import (
	"fmt"
	"io"
	"strings"

	"ddgpu/kernels/ptxas"
)

const kernelsHead = `Main loops: the innermost loop of a kernel that computes the most (or moves the most bytes of global memory), once through, for one warp.
  regs, smem, blk   registers of a thread, static bytes of shared memory, blocks that a multiprocessor holds with these (dynamic comes on top)
  instr             instructions of the loop; 0: the kernel has none, and what follows is all of it
  mma ... bar       share of the issued instructions in %: matrix products, float32, shared memory (LDS, LDSM, STS), LDGSTS, global memory,
                    special functions and conversions, integer and moves, branches, barriers and waits
  flop, smB, glB    arithmetic, bytes through shared and from or to global memory, of a warp
  bound, peak       predicted: what keeps a full multiprocessor busy the longest, and the share of the peak that this allows: mma.sync's where
                    there are matrix instructions, float32's in other products, else the DRAM's bandwidth
  L2                the share with what the L2 cache delivers taken into account, which is known roughly
`

// writeKernels prints one line for each kernel and architecture.
func writeKernels(w io.Writer, kernels []kernel) error {
	var t strings.Builder
	t.WriteString(kernelsHead)
	build := ""
	for _, k := range kernels {
		if k.Build != build {
			build = k.Build
			fmt.Fprintf(&t, "\n%s\n%-33s %-5s %4s %5s %3s %5s %4s %3s %3s %3s %3s %3s %3s %3s %3s %7s %6s %5s %-7s %4s %4s\n", build, "kernel", "chip", "regs", "smem",
				"blk", "instr", "mma", "f32", "sm", "asy", "gl", "sp", "int", "ctl", "bar", "flop", "smB", "glB", "bound", "peak", "L2")
		}
		t.WriteString(k.line() + "\n")
	}
	_, err := io.WriteString(w, t.String())
	return err
}

// loop is what a kernel's line describes: its main loop, or all of it where it has none.
func (k kernel) loop() mix {
	if k.Body.Total == 0 {
		return k.Outside
	}
	return k.Body
}

func (k kernel) line() string {
	chip, _ := ptxas.ChipOf(k.Arch)
	g, _ := gpuOf(k.Arch)
	m := k.loop()
	n := g.needs(m, 1)
	clocks, by := n.bound()
	percent := func(c class) string {
		if m.Count[c] == 0 {
			return "."
		}
		return fmt.Sprintf("%.0f", 100*m.share(c))
	}
	peak, withL2 := ".", "."
	if useful := n.useful(); useful > 0 {
		peak = fmt.Sprintf("%.0f%%", 100*useful/clocks)
		withL2 = fmt.Sprintf("%.0f%%", 100*useful/n.withL2())
	}
	return fmt.Sprintf("%-33s %-5s %4d %5d %3d %5d %4s %3s %3s %3s %3s %3s %3s %3s %3s %7.0f %6d %5d %-7s %4s %4s", k.Name, k.Arch, k.Usage.Registers, k.Usage.Shared,
		chip.BlocksPerMultiprocessor(k.Threads, k.Usage.Registers, k.Usage.Shared), k.Body.Total, percent(tensor), percent(fp32), percent(sharedIO),
		percent(async), percent(globalIO), percent(special), percent(integer), percent(control), percent(barrier), m.flops(), m.Shared, m.global(), by, peak, withL2)
}
