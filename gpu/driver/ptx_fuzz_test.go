package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzPTX hands over broken texts: each loads or is refused with a line.
func FuzzPTX(f *testing.F) {
	f.Add(head + entry("k", 1, 32, "mov.u32 %r1, %tid.x;\n@%p1 bra $L1;\nadd.rn.f32 %f1, %f2, 0f3F800000;\n$L1:\nbar.sync 0;"))
	f.Add(head + ".visible .const .align 4 .b8 g[8] = {0, 1, 0, 0, 4};\n.extern .shared .align 16 .b8 s[];\n")
	f.Add(head + entry("k", 2, 32, ".shared .align 16 .b8 s[64];\n{ .reg .b16 a; mov.b32 {a, %h1}, %r1; }\nbrx.idx %r1, $T;\n$T: .branchtargets $A, $B;\n$A:\n$B:"))
	f.Add(head + entry("k", 2, 32, ".local .align 8 .b8 d[16];\nmov.u64 %rd1, d;\ncvta.local.u64 %rd1, %rd1;\nld.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];\n"+
		"cp.async.cg.shared.global [%r1], [%rd100+16], 16, %r2;\nldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r1, %r2}, [%r3];\n"+
		"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%f1, %f2, %f3, %f4};"))
	f.Add(head + ".file 1 \"a.cu\"\n.section .debug_str { .b8 1 }\n" + entry("k", 0, 32, ".loc 1 2 3, function_name $f, inlined_at 1 2 3\n.pragma \"nounroll\";"))
	f.Fuzz(func(t *testing.T, text string) {
		if strings.IndexByte(text, 0) >= 0 || len(text) > 1<<16 {
			return
		}
		if _, opened := Opened(); !opened {
			open(t, "ptx")
		}
		m, err := LoadModule(text)
		if err == nil {
			ok(t, m.Unload())
			return
		}
		if is(err, InvalidPTX) && !strings.Contains(err.Error(), "; error   : ") && !strings.Contains(err.Error(), "no .version") &&
			!strings.Contains(err.Error(), "the first line asks") {
			t.Errorf("an error without a line: %v", err)
		}
	})
}

// A compiled text that ends anywhere, or lacks a byte, is refused or loads; it does not end the process.
func TestPTXDamaged(t *testing.T) {
	open(t, "ptx")
	rng := fresh(t)
	files, err := filepath.Glob("../../build/ptx/test/*.ptx")
	ok(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		ok(t, err)
		for range 300 {
			at := rng.IntN(len(text))
			damaged := string(text[:at])
			switch rng.IntN(3) {
			case 0:
				damaged += string(text[at+1:])
			case 1:
				damaged += string(rune(32+rng.IntN(95))) + string(text[at+1:])
			}
			if m, err := LoadModule(damaged); err == nil {
				ok(t, m.Unload())
			}
		}
	}
}
