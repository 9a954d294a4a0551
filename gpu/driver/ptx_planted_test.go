package driver

import (
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"

	"gorgonia.org/cu"
)

// compiled is the PTX that clang made of one of the sources in testkernels.
func compiled(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../build/ptx/test/" + name + ".ptx")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Misuses that the executor itself finds, with the line and what it says.
func TestPTXFaults(t *testing.T) {
	const (
		thread = "mov.u32 %r1, %tid.x;\nmul.wide.u32 %rd1, %r1, 4;\nshl.b32 %r2, %r1, 2;\nadd.s64 %rd2, %rd100, %rd1;\n"
		shared = ".shared .align 16 .b8 s[1024];\n" + thread + "mov.u32 %r3, s;\nadd.s32 %r3, %r3, %r2;\n"
		store  = "st.shared.u32 [%r3], %r1;\n"
	)
	for _, c := range []struct {
		name    string
		threads int
		body    string
		want    Result
		line    string // the text of the instruction at fault
		detail  string
	}{
		{"nothing", 64, shared + store + "bar.sync 0;\nxor.b32 %r4, %r2, 4;\nmov.u32 %r5, s;\nadd.s32 %r4, %r4, %r5;\nld.shared.u32 %r6, [%r4];\nst.global.u32 [%rd2], %r6;", 0, "", ""},
		{"beyond the allocation", 64, thread + "st.global.u32 [%rd2+8], %r1;", IllegalAddress, "st.global.u32 [%rd2+8], %r1;", "thread (62, 0, 0)"},
		{"before the allocation", 64, thread + "ld.global.u32 %r4, [%rd2+-4];", IllegalAddress, "ld.global.u32 %r4, [%rd2+-4];", "thread (0, 0, 0)"},
		{"null", 32, "mov.u64 %rd1, 0;\nld.global.u32 %r1, [%rd1];", IllegalAddress, "ld.global.u32 %r1, [%rd1];", "not inside one live allocation"},
		{"misaligned", 32, thread + "ld.global.v2.u32 {%r4, %r5}, [%rd2];", MisalignedAddress, "ld.global.v2.u32 {%r4, %r5}, [%rd2];", "thread (1, 0, 0)"},
		{"undefined value", 32, thread + "st.global.u32 [%rd2], %r9;", LaunchFailed, "st.global.u32 [%rd2], %r9;", "the value that is stored is not defined"},
		{"undefined sum", 32, thread + "add.s32 %r8, %r9, %r1;\nst.global.u32 [%rd2], %r8;", LaunchFailed, "st.global.u32 [%rd2], %r8;", "not defined"},
		{"undefined in one lane", 32, thread + "setp.ne.s32 %p1, %r1, 5;\n@%p1 mov.u32 %r9, 1;\nst.global.u32 [%rd2], %r9;", LaunchFailed, "st.global.u32 [%rd2], %r9;", "thread (5, 0, 0)"},
		{"undefined and unused", 32, thread + "add.s32 %r8, %r9, %r1;\nsetp.ge.s32 %p1, %r1, 0;\nselp.b32 %r8, %r1, %r8, %p1;\nst.global.u32 [%rd2], %r8;", 0, "", ""},
		{"undefined address", 32, thread + "ld.global.u32 %r4, [%rd9];", LaunchFailed, "ld.global.u32 %r4, [%rd9];", "the address is not defined"},
		{"undefined predicate", 32, thread + "@%p9 bra $L1;\n$L1:\nst.global.u32 [%rd2], %r1;", LaunchFailed, "@%p9 bra $L1;", "its predicate is not defined"},
		{"division by zero", 32, thread + "mov.u32 %r4, 0;\ndiv.u32 %r5, %r1, %r4;\nst.global.u32 [%rd2], %r5;", LaunchFailed, "st.global.u32 [%rd2], %r5;", "not defined"},
		{"never written", 64, shared + "ld.shared.u32 %r4, [%r3];\nst.global.u32 [%rd2], %r4;", LaunchFailed, "st.global.u32 [%rd2], %r4;", "shared memory that nobody wrote was read at line 20"},
		{"beyond the variable", 64, ".shared .align 16 .b8 t[64];\n" + shared + "mov.u32 %r3, t;\nadd.s32 %r3, %r3, %r2;\n" + store, IllegalAddress, "st.shared.u32 [%r3], %r1;", "not inside one variable"},
		{"beyond shared memory", 32, shared + "st.shared.u32 [%r3+8192], %r1;", IllegalAddress, "st.shared.u32 [%r3+8192], %r1;", "not inside one variable"},
		{"write, read", 64, shared + store + "xor.b32 %r4, %r2, 128;\nmov.u32 %r5, s;\nadd.s32 %r4, %r4, %r5;\nld.shared.u32 %r6, [%r4];", LaunchFailed, "", "a race: it"},
		{"read, write", 64, shared + store + "bar.sync 0;\nxor.b32 %r4, %r2, 128;\nmov.u32 %r5, s;\nadd.s32 %r4, %r4, %r5;\nld.shared.u32 %r6, [%r4];\n" + store, LaunchFailed, "", "a race: it"},
		{"write, write", 64, shared + "st.shared.u32 [s], %r1;", LaunchFailed, "st.shared.u32 [s], %r1;", "which thread 0 wrote at line 20"},
		{"lanes without a barrier", 32, shared + store + "xor.b32 %r4, %r2, 4;\nmov.u32 %r5, s;\nadd.s32 %r4, %r4, %r5;\nld.shared.u32 %r6, [%r4];", LaunchFailed, "ld.shared.u32 %r6, [%r4];", "a race: it reads"},
		{"lanes with a barrier", 32, shared + store + "bar.warp.sync -1;\nxor.b32 %r4, %r2, 4;\nmov.u32 %r5, s;\nadd.s32 %r4, %r4, %r5;\nld.shared.u32 %r6, [%r4];\nbar.warp.sync -1;\n" + store, 0, "", ""},
		{"lanes read, then write", 32, shared + store + "bar.warp.sync -1;\nld.shared.u32 %r6, [s];\n" + store, LaunchFailed, "st.shared.u32 [%r3], %r1;", "a race: it writes"},
		{"some threads at the barrier", 64, thread + "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra $L1;\nbar.sync 0;\n$L1:", LaunchFailed, "bar.sync \t0;", "a barrier that lanes 0xffffffff of warp 0 cannot reach"},
		{"some lanes at the barrier", 32, thread + "setp.lt.u32 %p1, %r1, 7;\n@%p1 bra $L1;\nbar.sync 0;\n$L1:\nst.global.u32 [%rd2], %r1;", LaunchFailed, "bar.sync \t0;", "lanes 0xffffff80 reach the barrier without lanes 0x0000007f"},
		{"a lane without a shuffle", 32, thread + "setp.eq.u32 %p1, %r1, 9;\n@%p1 bra $L1;\nshfl.sync.bfly.b32 %r4, %r1, 1, 0x1f, -1;\n$L1:\nst.global.u32 [%rd2], %r1;", LaunchFailed, "", "lanes 0x00000200 of the member mask 0xffffffff do not execute it"},
		{"a mask without the lane", 32, thread + "vote.sync.any.pred %p1, %p1, 0x7fffffff;", LaunchFailed, "", "the member mask 0x7fffffff does not name the executing lane"},
		{"from a lane that has ended", 32, thread + "setp.eq.u32 %p1, %r1, 31;\n@%p1 ret;\nshfl.sync.bfly.b32 %r4, %r1, 1, 0x1f, -1;\nst.global.u32 [%rd2], %r4;", LaunchFailed, "st.global.u32 [%rd2], %r4;", "thread (30, 0, 0)"},
		{"uniform branch", 32, thread + "setp.eq.u32 %p1, %r1, 9;\n@%p1 bra.uni $L1;\n$L1:", LaunchFailed, "@%p1 bra.uni $L1;", "part at a uniform branch"},
		{"mma of half a warp", 32, thread + "setp.lt.u32 %p1, %r1, 16;\n@%p1 bra $L1;\nmma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4}, {%r1, %r1, %r1, %r1}, {%r1, %r1}, {%f1, %f2, %f3, %f4};\n$L1:", LaunchFailed, "", "it needs the whole warp"},
		{"trap", 32, thread + "setp.eq.u32 %p1, %r1, 9;\n@%p1 trap;", IllegalInstruction, "@%p1 trap;", "thread (9, 0, 0)"},
		{"table", 32, thread + "brx.idx %r1, $T;\n$T: .branchtargets $L1, $L1;\n$L1:", LaunchFailed, "brx.idx %r1, $T;", "index 2 of a table of 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, order := range orders {
				open(t, "ptx,order="+order)
				text := head + entry("k", 1, 64, strings.ReplaceAll(c.body, "bar.sync 0;", "bar.sync \t0;"))
				err := runPTX(t, text, "k", 1, c.threads, 0, memory(t, 64))
				if c.want == 0 {
					ok(t, err)
				} else {
					expect(t, err, c.want, "kernel k, block (0, 0, 0)")
					for _, part := range []string{c.detail, c.line} {
						if order == "forward" && !strings.Contains(Detail(), part) {
							t.Errorf("the detail %q says nothing of %q", Detail(), part)
						}
					}
					// The context is lost with it, as on a GPU.
					_, err := cu.MemAlloc(4)
					expect(t, err, c.want, "")
				}
				Close()
			}
		})
	}
}

// The lines of the text and of the source that the detail names are those of the instruction.
func TestPTXFaultNamesTheSource(t *testing.T) {
	open(t, "ptx")
	err := runPTX(t, compiled(t, "wrong"), "write_past_end", 1, 1, 0, memory(t, 192), 192)
	expect(t, err, IllegalAddress, "(wrong.cu:")
	m := regexp.MustCompile(`ptx line (\d+) \(wrong.cu:(\d+)\)`).FindStringSubmatch(Detail())
	if m == nil {
		t.Fatalf("the detail %q names no lines", Detail())
	}
	source, err := os.ReadFile("testkernels/wrong.cu")
	ok(t, err)
	if line := strings.Split(string(source), "\n")[atoi(t, m[2])-1]; !strings.Contains(line, "x[n] = T(1)") {
		t.Errorf("line %s of wrong.cu is %q", m[2], line)
	}
	if line := strings.Split(compiled(t, "wrong"), "\n")[atoi(t, m[1])-1]; !strings.Contains(line, "st.global") {
		t.Errorf("line %s of the PTX is %q", m[1], line)
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n := 0
	for _, c := range s {
		n = 10*n + int(c-'0')
	}
	return n
}

// The kernels of wrong.cu, as clang compiles them for a GPU.
func TestPTXWrongKernels(t *testing.T) {
	for _, c := range []struct {
		kernel        string
		grid, threads int
		shared        int
		n             uint64
		want          Result
		detail        string
	}{
		{"write_past_end", 1, 1, 0, 192, IllegalAddress, "not inside one live allocation"},
		{"write_past_end", 1, 1, 0, 191, 0, ""},
		{"read_past_end", 1, 1, 0, 192, IllegalAddress, "not inside one live allocation"},
		{"dynamic_shared_past_end", 1, 1, 400, 100, IllegalAddress, "not inside one variable"},
		{"dynamic_shared_past_end", 1, 1, 400, 99, 0, ""},
		{"misaligned", 1, 1, 0, 1, MisalignedAddress, "not aligned to 16 bytes"},
		{"misaligned", 1, 1, 0, 4, 0, ""},
		{"neighbour", 1, 64, 0, 0, LaunchFailed, "a race"},
		{"neighbour", 3, 64, 0, 1, 0, ""},
		{"next_round", 1, 64, 0, 3, LaunchFailed, "a race"},
		{"next_round", 1, 64, 0, 1, 0, ""},
		{"through_shuffle", 1, 32, 0, 0, LaunchFailed, "a race"},
		{"through_shuffle", 1, 32, 0, 1, 0, ""},
		{"partial_barrier", 1, 64, 0, 40, LaunchFailed, "barrier"},
		{"partial_barrier", 1, 64, 0, 64, 0, ""},
		{"divergent_shuffle", 1, 32, 0, 7, LaunchFailed, "do not execute it"},
		{"shuffle_and_barrier", 1, 32, 0, 7, LaunchFailed, "do not execute it"},
		{"shuffle_returned", 1, 32, 0, 31, LaunchFailed, "not defined"},
		{"fresh_shared", 1, 64, 256, 1, LaunchFailed, "shared memory that nobody wrote"},
		{"barriers", 3, 64, 0, 5, 0, ""},
	} {
		for _, order := range orders {
			open(t, "ptx,order="+order)
			err := runPTX(t, compiled(t, "wrong"), c.kernel, c.grid, c.threads, c.shared, memory(t, 192), c.n)
			if c.want == 0 && err != nil {
				t.Errorf("%s %d, %s: %v: %s", c.kernel, c.n, order, err, Detail())
			} else if c.want != 0 {
				expect(t, err, c.want, c.detail)
			}
			Close()
		}
	}
}

// productPTX runs product_bf16 of mma.cu with a fault, on PTX that edit changes, and gives its error against float64.
func productPTX(t *testing.T, text string, fault uint64) (float64, error) {
	t.Helper()
	const rows, k, columns = 57, 80, 64
	rng := rand.New(rand.NewPCG(1, fault))
	a, b := random(rng, rows*k, bf16Mask), random(rng, k*columns, bf16Mask)
	want := append(product(nil, a, b, rows, k, columns, bf16Mask), make([]float64, (64-rows)*columns)...)
	open(t, "ptx")
	defer Close()
	c := memory(t, 64*columns)
	if err := runPTX(t, text, "product_bf16", 1, 128, 0, c, write(t, bf16s(a)), write(t, bf16s(b)), rows, k, fault); err != nil {
		return 0, err
	}
	return distance(read[float32](t, c, 64*columns), want), nil
}

// Each mistake of a tensor-core kernel is a wrong result or a fault; without one it is right.
func TestPTXProduct(t *testing.T) {
	text := compiled(t, "mma")
	for fault, detail := range []string{"", "", "which nobody waited for", "a race: it reads", "a race: it writes", ""} {
		e, err := productPTX(t, text, uint64(fault))
		switch {
		case detail != "" && err == nil:
			t.Errorf("fault %d is not found, error %.2g", fault, e)
		case detail == "" && err != nil:
			t.Errorf("fault %d: %v", fault, err)
		case fault == 0 && !(e < 1e-6):
			t.Errorf("error %.2g", e)
		case detail == "" && fault > 0 && e < 1e-2:
			t.Errorf("fault %d gives the right product", fault)
		}
	}
}

// Edits of the compiled product, each a bug: a barrier or a wait that is missing, operands that are swapped.
func TestPTXEditedProduct(t *testing.T) {
	text := compiled(t, "mma")
	begin := strings.Index(text, ".entry product_bf16(")
	end := begin + strings.Index(text[begin:], "\n}\n")
	body := text[begin:end]
	edits := map[string]string{}
	remove := func(name, pattern string) {
		for n, at := range regexp.MustCompile(pattern).FindAllStringIndex(body, -1) {
			edits[name+" "+string(rune('0'+n))] = body[:at[0]] + body[at[1]:]
		}
	}
	swap := func(name, pattern, by string) {
		for n, at := range regexp.MustCompile(pattern).FindAllStringSubmatchIndex(body, 3) {
			edits[name+" "+string(rune('0'+n))] = body[:at[0]] + string(regexp.MustCompile(pattern).ExpandString(nil, by, body, at)) + body[at[1]:]
		}
	}
	remove("no wait", `cp\.async\.wait_group 1;`)
	remove("no commit", `cp\.async\.commit_group;`)
	swap("mma operands of a", `(mma\S+ \{[^}]*\}, \{)(%r\d+), (%r\d+),`, "$1$3, $2,")
	swap("mma operands of b", `(mma\S+ \{[^}]*\}, \{[^}]*\}, \{)(%r\d+), (%r\d+)\}`, "$1$3, $2}")
	swap("mma results", `(mma\S+ \{)(%f\d+), (%f\d+),`, "$1$3, $2,")
	swap("ldmatrix results", `(ldmatrix\S+ \{)(%r\d+), (%r\d+),`, "$1$3, $2,")
	swap("not transposed", `\.x4\.trans\.`, ".x4.")
	swap("size of the source", `(cp\.async\.cg\.shared\.global \[%r\d+\], \[%rd\d+\], 16, )%r\d+;`, "${1}0;")
	if len(edits) < 16 {
		t.Fatalf("%d edits: the compiled kernel has another form", len(edits))
	}
	for name, edited := range edits {
		e, err := productPTX(t, text[:begin]+edited+text[end:], 0)
		if err == nil && e < 1e-3 {
			t.Errorf("%s: not found, error %.2g", name, e)
		}
	}
}

// The mistakes of a warp's lanes with their copies.
func TestPTXCopiesOfEachThread(t *testing.T) {
	for mistake, detail := range []string{"", "a race: it reads", "a race: it writes", "which nobody waited for"} {
		for _, order := range orders {
			open(t, "ptx,order="+order)
			x := make([]float32, 192)
			for i := range x {
				x[i] = float32(i)
			}
			p := write(t, x)
			err := runPTX(t, compiled(t, "mma"), "neighbours_copy", 2, 32, 0, p, uint64(mistake))
			if mistake > 0 {
				expect(t, err, LaunchFailed, detail)
			} else {
				ok(t, err)
				for i, got := range read[float32](t, p, 192)[128:] {
					if want := float32(2 * (4*(i%32) ^ 4)); got != want {
						t.Errorf("%s: thread %d got %v, want %v", order, i, got, want)
					}
				}
			}
			Close()
		}
	}
}

// Misuses of mma, ldmatrix and cp.async.
func TestPTXMatrixMisuse(t *testing.T) {
	for _, c := range []struct {
		kernel  string
		n       uint64
		threads int
		want    Result
		detail  string
	}{
		{"lacking_lane", 5, 32, LaunchFailed, "needs the whole warp"},
		{"lacking_lane", 40, 24, LaunchFailed, "needs the whole warp"},
		{"lacking_lane", 40, 32, 0, ""},
		{"copy_misuse", 0, 1, 0, ""},
		{"copy_misuse", 1, 1, MisalignedAddress, "not aligned to 16 bytes"},
		{"copy_misuse", 2, 1, MisalignedAddress, "not aligned to 16 bytes"},
		{"copy_misuse", 3, 1, IllegalAddress, "not inside one variable"},
		{"copy_misuse", 4, 1, IllegalAddress, "not inside one live allocation"},
		{"ldmatrix_misuse", 1, 32, MisalignedAddress, "not aligned to 16 bytes"},
		{"through_ldmatrix", 0, 32, LaunchFailed, "a race: it reads"},
		{"through_ldmatrix", 1, 32, 0, ""},
		{"copied_past_end", 16, 1, IllegalAddress, "not inside one live allocation"},
		{"copied_past_end", 15, 1, 0, ""},
	} {
		open(t, "ptx")
		p := memory(t, 64)
		if c.kernel == "through_ldmatrix" {
			p = memory(t, 128)
		}
		err := runPTX(t, compiled(t, "mma"), c.kernel, 1, c.threads, 0, p, c.n)
		if c.want == 0 && err != nil {
			t.Errorf("%s %d: %v: %s", c.kernel, c.n, err, Detail())
		} else if c.want != 0 {
			expect(t, err, c.want, c.detail)
		}
		Close()
	}
}
