package main

import (
	"fmt"
	"io"
	"strings"

	"ddgpu/kernels/ptxas"
)

const kernelsHead = `Main loops: of each kernel the loop that computes the most (or moves the most bytes of global memory), once through, for one warp.
  regs, smem, blk   registers of a thread, static bytes of shared memory, blocks that a multiprocessor holds with these (dynamic comes on top)
  instr             instructions of the loop; 0: the kernel has none, and what follows is all of it
  mma ... bar       share of the issued instructions in %: matrix products, float32, shared memory (LDS, LDSM, STS), LDGSTS, global memory,
                    special functions and conversions, integer and moves, branches, barriers and waits
  flop, smB, glB    arithmetic, bytes through shared and from or to global memory, of a warp
  bound, peak       predicted: what keeps a full multiprocessor busy the longest, and the share of the peak that this allows: mma.sync's
                    where there are matrix instructions, float32's in other products, else the DRAM's bandwidth
  L2                the share with what the L2 cache delivers taken into account, which is known roughly
`

// columns of a kernel's line; the heads have them too.
const columns = "%-33v %-5v %4v %5v %3v %5v %4v %3v %3v %3v %3v %3v %3v %3v %3v %7v %6v %5v %-7v %4v %4v"

// writeKernels prints one line for each kernel and architecture.
func writeKernels(w io.Writer, kernels []kernel) error {
	if len(kernels) == 0 {
		return nil
	}
	var t strings.Builder
	t.WriteString(kernelsHead)
	build := ""
	for _, k := range kernels {
		if k.Build != build {
			build = k.Build
			fmt.Fprintf(&t, "\n%s\n"+columns+"\n", build, "kernel", "chip", "regs", "smem", "blk", "instr", "mma", "f32", "sm", "asy", "gl", "sp", "int",
				"ctl", "bar", "flop", "smB", "glB", "bound", "peak", "L2")
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
	blocks := chip.BlocksPerMultiprocessor(k.Threads, k.Usage.Registers, k.Usage.Shared)
	return fmt.Sprintf(columns, k.Name, k.Arch, k.Usage.Registers, k.Usage.Shared, blocks, k.Body.Total, percent(tensor), percent(fp32),
		percent(sharedIO), percent(async), percent(globalIO), percent(special), percent(integer), percent(control), percent(barrier),
		fmt.Sprintf("%.0f", m.flops()), m.Shared, m.global(), by, peak, withL2)
}
