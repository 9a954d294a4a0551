package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ddgpu/kernels/ptxas"
)

// snippet is a kernel of ours as nvdisasm wrote it.
func snippet(t *testing.T, name string) function {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	functions, err := parseSASS(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(functions) != 1 {
		t.Fatalf("%s: %d functions", name, len(functions))
	}
	return functions[0]
}

func TestParseSASS(t *testing.T) {
	f := snippet(t, "peak.sm_90.sass")
	if f.Name != "peak" || len(f.Code) != 192 {
		t.Errorf("%s with %d instructions, peak with 192 expected", f.Name, len(f.Code))
	}
	first, branch, store := f.Code[0], f.Code[0x80/16], f.Code[0xb50/16]
	if first.Opcode != "LDC" || first.Guarded || first.Target != -1 {
		t.Errorf("the first instruction is %+v", first)
	}
	if branch.Opcode != "BRA" || !branch.Guarded || branch.Target != 0xaf0/16 {
		t.Errorf("the first branch is %+v", branch)
	}
	if store.Opcode != "STG.E.128" || store.base() != "STG" || width(store.Opcode) != 16 {
		t.Errorf("the store is %+v", store)
	}
}

func TestParseSASSRefuses(t *testing.T) {
	for what, text := range map[string]string{
		"a branch to nowhere":    ".text.f:\n        /*0000*/                   BRA `(.L_x_1) ;\n",
		"a branch without label": ".text.f:\n        /*0000*/                   BRA 0x40 ;\n",
		"a function of nothing":  ".text.f:\n",
	} {
		if f, err := parseSASS([]byte(text)); err == nil {
			t.Errorf("%s: %+v, an error expected", what, f)
		}
	}
}

// The loops of peak: unrolled by four, and what remains. pixel_sum: rows within columns within chunks of channels twice, with a branch
// that has two conditions (`@!P0 BRA P1, …`).
func TestLoops(t *testing.T) {
	for _, c := range []struct {
		file string
		want []int // addresses of the heads
	}{
		{"peak.sm_90.sass", []int{0x250, 0x900}},
		{"pixel_sum.sm_90.sass", []int{0x4a0, 0x540, 0x790, 0x830, 0x860}},
	} {
		blocks := blocksOf(snippet(t, c.file))
		var heads []int
		for _, l := range loopsOf(blocks) {
			heads = append(heads, blocks[l.head].first*16)
		}
		slices.Sort(heads)
		if !slices.Equal(heads, c.want) {
			t.Errorf("%s: loops at %x, %x expected", c.file, heads, c.want)
		}
	}
}

func TestMainLoop(t *testing.T) {
	body, outside := mainLoop(snippet(t, "peak.sm_90.sass"))
	if body.Total != 0x680/16-0x250/16 || body.FFMA != 64 || body.flops() != 64*64 || body.Count[control] != 1 {
		t.Errorf("peak's main loop is %+v", body)
	}
	// To the loop, then past what remains of the steps (@!P1 to .L_x_4, @!P0 to .L_x_5) to the end: not the branch to itself behind the EXIT.
	if outside.Total != 0x250/16+(0x6a0-0x680)/16+(0x900-0x8e0)/16+(0xb70-0xa30)/16 || outside.Stored != 512 {
		t.Errorf("outside of peak's main loop is %+v", outside)
	}
	body, _ = mainLoop(snippet(t, "pixel_sum.sm_90.sass"))
	if body.Total != 0x660/16-0x540/16 || body.Loaded != 512 || body.flops() != 0 {
		t.Errorf("pixel_sum's main loop is %+v", body)
	}
}

// The main loop of a convolution on tensor cores: 16 matrix instructions, fragments by LDSM, copies by LDGSTS, three LDS that are never run, with a loop over taps in it
// that computes nothing.
func TestTensorLoop(t *testing.T) {
	body, outside := mainLoop(snippet(t, "conv_forward_narrow.loop.sm_80.sass"))
	if body.Total != 113 || outside.Total != 1 || body.Products[product{2048, false}] != 16 || body.Count[tensor] != 16 {
		t.Errorf("%d instructions within, %d outside, products %v", body.Total, outside.Total, body.Products)
	}
	if body.Count[async] != 5 || body.Loaded != 5*512 || body.Cached != 0 || body.LDSM != 8 || body.Shared != (5+8)*512 || body.Count[barrier] != 3 {
		t.Errorf("the loop is %+v", body)
	}
}

// A loop that computes around one that does not is the main loop, with the other in it.
func TestMainLoopAroundAnother(t *testing.T) {
	const text = ".text.f:\n" +
		"        /*0000*/                   MOV R1, R2 ;\n" +
		".L_x_0:\n" +
		"        /*0010*/                   LDSM.16.M88.4 R4, [R1] ;\n" +
		"        /*0020*/                   LDGSTS.E.BYPASS.LTC128B.128 [R1], desc[UR4][R2.64] ;\n" +
		"        /*0030*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;\n" +
		".L_x_1:\n" +
		"        /*0040*/                   IADD3 R3, R3, -0x1, RZ ;\n" +
		"        /*0050*/               @P0 BRA `(.L_x_1) ;\n" +
		"        /*0060*/                   HMMA.1688.F32.TF32 R8, R4, R6, R8 ;\n" +
		"        /*0070*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;\n" +
		"        /*0080*/               @P1 BRA `(.L_x_0) ;\n" +
		"        /*0090*/                   EXIT ;\n" +
		".L_x_2:\n" +
		"        /*00a0*/                   BRA `(.L_x_2);\n"
	functions, err := parseSASS([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	body, outside := mainLoop(functions[0])
	if body.Total != 8 || outside.Total != 2 {
		t.Errorf("%d instructions within, %d outside; 8 and 2 expected", body.Total, outside.Total)
	}
	if want := 2.0 * (16*8*16 + 16*8*8); body.flops() != want {
		t.Errorf("%v flop, %v expected", body.flops(), want)
	}
	if body.Shared != 512+512 || body.Loaded != 512 || body.Cached != 0 || body.Count[async] != 1 || body.LDSM != 1 || body.Count[barrier] != 1 {
		t.Errorf("the loop is %+v", body)
	}
	var cached mix
	if cached.add([]instruction{{Opcode: "LDGSTS.E.128"}}); cached.Cached != 512 || cached.missed(0.25) != 128 {
		t.Errorf("a copy through the first-level cache is %+v", cached)
	}
	if body.Products[product{2048, false}] != 1 || body.Products[product{1024, true}] != 1 {
		t.Errorf("the loop's products are %v", body.Products)
	}
}

// ptxas leaves some loops by a CALL that does not return.
func TestLoopLeftByCall(t *testing.T) {
	const text = ".text.f:\n" +
		".L_x_0:\n" +
		"        /*0000*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;\n" +
		"        /*0010*/              @!P2 CALL.REL.NOINC `(.L_x_1) ;\n" +
		"        /*0020*/                   BRA `(.L_x_0) ;\n" +
		".L_x_1:\n" +
		"        /*0030*/                   CALL.REL.NOINC `($f$another) ;\n" +
		"        /*0040*/                   EXIT ;\n"
	functions, err := parseSASS([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if body, outside := mainLoop(functions[0]); body.Total != 3 || outside.Total != 2 || body.Count[tensor] != 1 {
		t.Errorf("%d instructions within, %d outside; 3 and 2 expected", body.Total, outside.Total)
	}
}

func TestNeeds(t *testing.T) {
	a100, _ := gpuOf("sm_80")
	m := mix{Total: 40, FFMA: 8, Shared: 1024, Products: map[product]int{{2048, false}: 8, {1024, true}: 4}}
	m.Count[tensor], m.Count[fp32] = 12, 8
	n := a100.needs(m, 2)
	// Two warps: 80 instructions on 4 schedulers; 16·2048/1024 + 8·1024/512; 16·32/64; 2048/128.
	if want := (need{Issue: 20, Tensor: 48, FP32: 8, Shared: 16}); n != want {
		t.Errorf("needs %+v, %+v expected", n, want)
	}
	if clocks, by := n.bound(); clocks != 48 || by != "tensor" {
		t.Errorf("bound by %s, %v clocks", by, clocks)
	}
}

func TestShares(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shares.txt")
	with := func(count, total int) []kernel {
		k := kernel{Build: "sm_80_bf16", Name: "conv", Arch: "sm_90", Body: mix{Total: total}}
		k.Body.Count[tensor] = count
		return []kernel{k, {Build: "sm_80_bf16", Name: "add", Arch: "sm_90", Body: mix{Total: 10}}}
	}
	if err := writeShares(path, with(40, 97)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kernels []kernel
		want    string // part of the one problem
	}{
		{with(40, 97), ""},
		{with(50, 97), ""},
		{with(40, 100), "40.0% of the main loop are matrix instructions, 41.2% in"},
		{with(0, 100), "no main loop with matrix instructions"},
		{append(with(40, 97), kernel{Build: "sm_70", Name: "add", Arch: "sm_80", Usage: usageWithSpills}), "spills 16 bytes"},
	} {
		problems, err := check(c.kernels, path)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(problems, "\n"); c.want == "" && got != "" || !strings.Contains(got, c.want) || len(problems) > 1 {
			t.Errorf("problems %q, %q expected", problems, c.want)
		}
	}
	if err := os.WriteFile(path, []byte("a b c\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := check(with(1, 2), path); err == nil {
		t.Error("no error for a table that is none")
	}
}

var usageWithSpills = ptxas.Usage{Spill: 16}
