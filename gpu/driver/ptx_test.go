package driver

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"gorgonia.org/cu"
)

// fresh is a source of random numbers whose seed a failing test prints.
func fresh(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

// head begins PTX for sm_80.
const head = ".version 7.4\n.target sm_80\n.address_size 64\n"

// entry is a kernel with 64-bit parameters p0, p1 …, which lie in %rd100, %rd101 …, addresses of device memory. It may use the registers
// %r, %rd, %f, %d, %h and %p up to 99.
func entry(name string, params, threads int, body string) string {
	var list []string
	var load strings.Builder
	for i := range params {
		list = append(list, fmt.Sprintf(".param .u64 %s_%d", name, i))
		fmt.Fprintf(&load, "ld.param.u64 %%rd%d, [%s_%d];\n", 100+i, name, i)
	}
	return fmt.Sprintf(`.visible .entry %s(%s) .maxntid %d, 1, 1
{
.reg .pred %%p<100>;
.reg .b16 %%h<100>;
.reg .b32 %%r<100>;
.reg .b64 %%rd<110>;
.reg .f32 %%f<100>;
.reg .f64 %%d<100>;
%s%s
ret;
}
`, name, strings.Join(list, ", "), threads, load.String(), body)
}

// run launches a kernel on the PTX executor with blocks of so many threads, and waits.
func runPTX(t testing.TB, text, name string, grid, threads, shared int, args ...uint64) error {
	t.Helper()
	f := must(must(LoadModule(text))(t).Function(name))(t)
	if err := Launch(f, [3]int{grid, 1, 1}, [3]int{threads, 1, 1}, shared, cu.Stream{}, args); err != nil {
		return err
	}
	return cu.Synchronize()
}

// instruction is one instruction with what it must give: operands and result are bits of the types that sig names, result first:
// h, r, d 16, 32 and 64 bits, f and e floats of 32 and 64 bits, p a predicate.
type instruction struct {
	text string // with $d, $a, $b, $c for registers
	sig  string
	want func(a, b, c uint64) (uint64, bool) // false: undefined
	ulps uint64                              // of a float's error that are allowed
}

var registerOf = map[byte]string{'h': "%h", 'r': "%r", 'd': "%rd", 'f': "%f", 'e': "%d", 'p': "%p"}

// body computes i from the arrays at %rd101 … into the one at %rd100, elements of 8 bytes, one for each thread.
func (i instruction) body() string {
	var b strings.Builder
	b.WriteString("mov.u32 %r90, %tid.x;\nmov.u32 %r91, %ctaid.x;\nmov.u32 %r92, %ntid.x;\nmad.lo.s32 %r90, %r91, %r92, %r90;\nmul.wide.u32 %rd90, %r90, 8;\n")
	text := i.text
	for n := 1; n < len(i.sig); n++ {
		fmt.Fprintf(&b, "add.s64 %%rd91, %%rd%d, %%rd90;\nld.global.u64 %%rd%d, [%%rd91];\n", 100+n, 80+n)
		switch i.sig[n] {
		case 'h':
			fmt.Fprintf(&b, "cvt.u16.u64 %%h%d, %%rd%d;\n", 70+n, 80+n)
		case 'r':
			fmt.Fprintf(&b, "cvt.u32.u64 %%r%d, %%rd%d;\n", 70+n, 80+n)
		case 'd':
			fmt.Fprintf(&b, "mov.b64 %%rd%d, %%rd%d;\n", 70+n, 80+n)
		case 'f':
			fmt.Fprintf(&b, "cvt.u32.u64 %%r%d, %%rd%d;\nmov.b32 %%f%d, %%r%d;\n", 80+n, 80+n, 70+n, 80+n)
		case 'e':
			fmt.Fprintf(&b, "mov.b64 %%d%d, %%rd%d;\n", 70+n, 80+n)
		case 'p':
			fmt.Fprintf(&b, "and.b64 %%rd%d, %%rd%d, 1;\nsetp.ne.s64 %%p%d, %%rd%d, 0;\n", 80+n, 80+n, 70+n, 80+n)
		}
		text = strings.ReplaceAll(text, "$"+string("dabc"[n]), fmt.Sprintf("%s%d", registerOf[i.sig[n]], 70+n))
	}
	text = strings.ReplaceAll(text, "$d", registerOf[i.sig[0]]+"60")
	b.WriteString(text + "\n")
	switch i.sig[0] {
	case 'h':
		b.WriteString("cvt.u64.u16 %rd61, %h60;\n")
	case 'r':
		b.WriteString("cvt.u64.u32 %rd61, %r60;\n")
	case 'd':
		b.WriteString("mov.b64 %rd61, %rd60;\n")
	case 'f':
		b.WriteString("mov.b32 %r61, %f60;\ncvt.u64.u32 %rd61, %r61;\n")
	case 'e':
		b.WriteString("mov.b64 %rd61, %d60;\n")
	case 'p':
		b.WriteString("selp.u64 %rd61, 1, 0, %p60;\n")
	}
	b.WriteString("add.s64 %rd91, %rd100, %rd90;\nst.global.u64 [%rd91], %rd61;")
	return b.String()
}

// draw is a random operand of a kind: any bits, or one of the values where things go wrong.
func draw(rng *rand.Rand, kind byte) uint64 {
	bits := rng.Uint64()
	switch rng.IntN(4) {
	case 0: // a power of two and its neighbours
		bits = 1<<rng.IntN(64) + uint64(rng.IntN(3)) - 1
	case 1:
		bits = uint64(int64(rng.IntN(9) - 4))
	}
	switch kind {
	case 'f':
		specials := []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), 1, -1, 0.5, math.MaxFloat32, math.SmallestNonzeroFloat32, 1e-40, 3e9, -3e9, 1e19, 2.5, -2.5}
		switch rng.IntN(4) {
		case 0:
			return uint64(math.Float32bits(specials[rng.IntN(len(specials))]))
		case 1:
			return bits & 0xffffffff
		}
		return uint64(math.Float32bits(float32(rng.NormFloat64() * math.Pow(2, float64(rng.IntN(20)-10)))))
	case 'e':
		if rng.IntN(4) == 0 {
			return bits
		}
		return math.Float64bits(rng.NormFloat64() * math.Pow(2, float64(rng.IntN(80)-40)))
	case 'h':
		return bits & 0xffff
	case 'r':
		return bits & 0xffffffff
	}
	return bits
}

func isNaN(kind byte, bits uint64) bool {
	switch kind {
	case 'f':
		return math.IsNaN(float64(math.Float32frombits(uint32(bits))))
	case 'e':
		return math.IsNaN(math.Float64frombits(bits))
	}
	return false
}

// agree compares two results; a NaN is like any other.
func (i instruction) agree(got, want uint64) bool {
	kind := i.sig[0]
	if isNaN(kind, want) || isNaN(kind, got) {
		return isNaN(kind, want) == isNaN(kind, got)
	}
	if got == want {
		return true
	}
	distance := got - want
	if want > got {
		distance = want - got
	}
	return distance <= i.ulps
}

// check runs each instruction on random operands, in blocks that end within a warp.
func check(t *testing.T, list []instruction) {
	open(t, "ptx")
	rng := fresh(t)
	const grid, threads = 4, 112
	var text strings.Builder
	text.WriteString(head)
	for n, i := range list {
		text.WriteString(entry(fmt.Sprintf("k%d", n), len(i.sig), threads, i.body()))
	}
	module := must(LoadModule(text.String()))(t)
	for n, i := range list {
		var in [3][]uint64
		args := []uint64{write(t, make([]uint64, grid*threads))}
		for k := 1; k < len(i.sig); k++ {
			for range grid * threads {
				in[k-1] = append(in[k-1], draw(rng, i.sig[k]))
			}
			args = append(args, write(t, in[k-1]))
		}
		f := must(module.Function(fmt.Sprintf("k%d", n)))(t)
		undefined := false
		want := make([]uint64, grid*threads)
		defined := make([]bool, grid*threads)
		at := func(k, x int) uint64 {
			if in[k] == nil {
				return 0
			}
			return in[k][x]
		}
		for x := range want {
			want[x], defined[x] = i.want(at(0, x), at(1, x), at(2, x))
			if !defined[x] {
				undefined = true
			}
		}
		if undefined {
			t.Fatalf("%s: an undefined result among random operands", i.text)
		}
		ok(t, Launch(f, [3]int{grid, 1, 1}, [3]int{threads, 1, 1}, 0, cu.Stream{}, args))
		ok(t, cu.Synchronize())
		for x, got := range read[uint64](t, args[0], grid*threads) {
			if !i.agree(got, want[x]) {
				t.Errorf("%s of %#x, %#x, %#x: got %#x, want %#x", i.text, at(0, x), at(1, x), at(2, x), got, want[x])
				break
			}
		}
		for _, p := range args {
			ok(t, cu.MemFree(cu.DevicePtr(p)))
		}
	}
}

// The device says what it is.
func TestPTXDevice(t *testing.T) {
	open(t, "ptx:2")
	if name := must(cu.Device(1).Name())(t); name != "host device 1 (ptx)" {
		t.Errorf("name %q", name)
	}
	if !HostDevice() {
		t.Error("it is no host device")
	}
	if s, _ := Opened(); s.Kind != PTX || s.String() != "ptx:2" {
		t.Errorf("spec %v", s)
	}
	if _, err := ParseSpec("ptx,tiles=gpu"); err == nil {
		t.Error("tiles are a setting of the host device's compiled kernels")
	}
	s := must(ParseSpec("ptx:3,memory=1MiB,order=random:7,lazy,nopeers,threads=2,fault=copy:3"))(t)
	if again := must(ParseSpec(s.String()))(t); !reflect.DeepEqual(again, s) {
		t.Errorf("%v becomes %v", s, again)
	}
}

// What is wrong with a text comes with its line, as the driver's log has it.
func TestPTXErrors(t *testing.T) {
	open(t, "ptx")
	for _, c := range []struct{ text, want string }{
		{"no PTX", "no .version or .target"},
		{head + ".entry a()\n{\n.reg .b32 %r<2>;\nadd.s32 %r0, %r1;\nret;\n}\n", "line 7; error   : add.s32: 2 operands, want 3"},
		{head + ".entry a()\n{\n.reg .b32 %r<2>;\nfoo.b32 %r0;\n}\n", "line 7; error   : foo.b32: unsupported instruction"},
		{head + ".entry a()\n{\n.reg .b32 %r<2>;\nadd.sat.s32 %r0, %r1, %r1;\n}\n", "line 7; error   : add.sat.s32: unsupported '.sat'"},
		{head + ".entry a()\n{\n.reg .b32 %r<2>;\nadd.s32 %r0, %r1, %r2;\n}\n", "line 7; error   : add.s32: unknown register '%r2'"},
		{head + ".entry a()\n{\n.reg .u32 %r<2>;\n.reg .f32 %f<2>;\nadd.s32 %r0, %r1, %f1;\n}\n", "line 8; error   : add.s32: a register of .f32 where .s32 is due"},
		{head + ".entry a()\n{\n.reg .b64 %r<2>;\nadd.s32 %r0, %r1, %r1;\n}\n", "line 7; error   : add.s32: a register of 64 bits where .s32 is due"},
		{head + ".entry a()\n{\nbra $L1;\n}\n", "line 6; error   : unknown label '$L1'"},
		{head + ".entry a()\n{\nret\n}\n", "line 7; error   : want"},
		{head + ".entry a()\n{\nret;\n", "entry 'a' does not end"},
		{head + ".entry a()\n{\nbar.sync 1;\n}\n", "only barrier 0"},
		{head + ".entry a()\n{\n.shared .b8 s[49153];\nret;\n}\n", "uses too much shared data (49153 bytes of at most 49152)"},
		{head + ".func f()\n{\n}\n", "unsupported directive '.func'"},
		{head + ".entry a(.param .u64 p)\n{\n.reg .b64 %r<2>;\nld.param.u64 %r0, [q];\n}\n", "line 7; error   : ld.param.u64: unknown parameter 'q'"},
		{strings.Replace(head, "sm_80", "sm_90", 1), "need compute capability 9.0 or newer, the device has 8.0"},
	} {
		_, err := LoadModule(c.text)
		switch {
		case err == nil:
			t.Errorf("no error, want %q", c.want)
		case !strings.Contains(err.Error(), c.want):
			t.Errorf("got %q, want %q", err, c.want)
		case !strings.Contains(c.want, "newer") && !errors.Is(err, InvalidPTX):
			t.Errorf("got %v, want error 218", err)
		}
	}
}

// A variable of the module, read by the program and by the driver.
func TestPTXGlobals(t *testing.T) {
	open(t, "ptx")
	module := must(LoadModule(head + ".visible .const .align 4 .b32 table[4] = {7, -1, 3};\n.global .f32 one = 0f3F800000;\n" + entry("k", 1, 32,
		"mov.u32 %r1, %tid.x;\nand.b32 %r2, %r1, 3;\nmul.wide.u32 %rd1, %r2, 4;\nmov.u64 %rd2, table;\nadd.s64 %rd3, %rd2, %rd1;\n"+
			"ld.const.u32 %r3, [%rd3];\nld.global.f32 %f1, [one];\ncvt.rzi.s32.f32 %r4, %f1;\nadd.s32 %r3, %r3, %r4;\n"+
			"mul.wide.u32 %rd1, %r1, 4;\nadd.s64 %rd3, %rd100, %rd1;\nst.global.u32 [%rd3], %r3;")))(t)
	out := memory(t, 32)
	ok(t, Launch(must(module.Function("k"))(t), [3]int{1, 1, 1}, [3]int{32, 1, 1}, 0, cu.Stream{}, []uint64{out}))
	ok(t, cu.Synchronize())
	for i, got := range read[int32](t, out, 32) {
		if want := []int32{8, 0, 4, 1}[i%4]; got != want {
			t.Fatalf("thread %d: %d, want %d", i, got, want)
		}
	}
	global, size, err := module.Global("table")
	ok(t, err)
	var table [4]int32
	ok(t, cu.MemcpyDtoH(unsafe.Pointer(&table), global, size))
	if size != 16 || table != [4]int32{7, -1, 3, 0} {
		t.Errorf("%d bytes: %v", size, table)
	}
}
