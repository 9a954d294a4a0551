package driver

import (
	"testing"

	"gorgonia.org/cu"
)

// A warp that writes 32 floats side by side, reads them strided by two words from shared memory, and parts once.
func TestPTXCounters(t *testing.T) {
	open(t, "ptx")
	Count(true)
	defer Count(false)
	ok(t, runPTX(t, head+entry("k", 1, 32, ".shared .align 16 .b8 s[256];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd1, %r1, 4;\n"+
		"add.s64 %rd2, %rd100, %rd1;\nshl.b32 %r2, %r1, 3;\nmov.u32 %r3, s;\nadd.s32 %r3, %r3, %r2;\nst.shared.u32 [%r3], %r1;\n"+
		"ld.shared.u32 %r4, [%r3];\nsetp.lt.u32 %p1, %r1, 8;\n@%p1 bra $L1;\nadd.s32 %r4, %r4, 1;\n$L1:\nst.global.u32 [%rd2], %r4;"),
		"k", 1, 32, 0, memory(t, 32)))
	ok(t, cu.Synchronize())
	all := Counted()
	if len(all) != 1 {
		t.Fatalf("%d kernels: %+v", len(all), all)
	}
	c := all[0]
	if c.Kernel != "k" || c.Launches != 1 || c.Divergent != 1 || c.Branches != 1 {
		t.Errorf("%+v", c)
	}
	if c.GlobalRequests != 1 || c.GlobalSectors != 4 || c.StoreSectors != 4 || c.LoadSectors != 0 || c.WrittenBytes != 128 || c.ReadBytes != 0 {
		t.Errorf("global memory: %+v", c)
	}
	if c.SharedRequests != 2 || c.Wavefronts != 4 || c.LeastWavefronts != 2 {
		t.Errorf("shared memory: %+v", c)
	}
	if c.Instructions["st.global"] != 1 || c.Instructions["ld.shared"] != 1 || c.Instructions["st.shared"] != 1 || c.Instructions["mma"] != 0 {
		t.Errorf("classes: %v", c.Instructions)
	}
	if n := c.Total(); c.Lanes != 32*n-24-8 {
		t.Errorf("%d lanes in %d instructions, of which the branch leaves out 24 and the sum behind it 8", c.Lanes, n)
	}
	Count(true)
	if all := Counted(); len(all) != 0 {
		t.Errorf("counters stay: %+v", all)
	}
}
