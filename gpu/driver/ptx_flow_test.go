package driver

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"gorgonia.org/cu"
)

// flow makes random structured programs over one value x of each thread, as PTX and as Go.
type flow struct {
	rng    *rand.Rand
	text   strings.Builder
	labels int
	ends   bool // lanes may return early
	loops  int
}

// step changes a lane's x; false: the lane has returned.
type step func(x *uint32) bool

func (f *flow) label() string {
	f.labels++
	return fmt.Sprintf("$L%d", f.labels)
}

func (f *flow) line(format string, args ...any) { fmt.Fprintf(&f.text, format+"\n", args...) }

// block is a few statements one after the other. %r10 holds x; a loop at depth d counts in register 20 + d.
func (f *flow) block(depth int) step {
	var steps []step
	for range 1 + f.rng.IntN(3) {
		steps = append(steps, f.statement(depth))
	}
	return func(x *uint32) bool {
		for _, s := range steps {
			if !s(x) {
				return false
			}
		}
		return true
	}
}

func (f *flow) statement(depth int) step {
	kind := f.rng.IntN(6)
	if depth > 4 {
		kind = 0
	}
	a, b, bit := f.rng.Uint32()|1, f.rng.Uint32(), f.rng.IntN(32)
	switch kind {
	case 1, 2: // if, with or without else
		no, end := f.label(), f.label()
		f.line("and.b32 %%r11, %%r10, %d;\nsetp.eq.s32 %%p1, %%r11, 0;\n@%%p1 bra %s;", uint32(1)<<bit, no)
		yes := f.block(depth + 1)
		other := func(*uint32) bool { return true }
		if kind == 1 {
			f.line("bra.uni %s;\n%s:", end, no)
			other = f.block(depth + 1)
			f.line("%s:", end)
		} else {
			f.line("%s:", no)
		}
		return func(x *uint32) bool {
			if *x>>bit&1 == 1 {
				return yes(x)
			}
			return other(x)
		}
	case 3: // a loop with as many rounds as x has in two bits, or until a bit of x is set
		if f.loops == 3 {
			break
		}
		f.loops++
		loop, end := f.label(), f.label()
		f.line("shr.u32 %%r%d, %%r10, %d;\nand.b32 %%r%d, %%r%d, 3;\n%s:", 20+depth, bit, 20+depth, 20+depth, loop)
		f.line("setp.eq.s32 %%p1, %%r%d, 0;\n@%%p1 bra %s;", 20+depth, end)
		body := f.block(depth + 1)
		f.line("sub.s32 %%r%d, %%r%d, 1;\nbra.uni %s;\n%s:", 20+depth, 20+depth, loop, end)
		f.loops--
		return func(x *uint32) bool {
			for n := *x >> bit & 3; n > 0; n-- {
				if !body(x) {
					return false
				}
			}
			return true
		}
	case 4: // a return
		if !f.ends || depth == 0 {
			break
		}
		f.line("and.b32 %%r11, %%r10, %d;\nsetp.ne.s32 %%p1, %%r11, 0;", uint32(1)<<bit)
		if f.rng.IntN(2) == 0 {
			f.line("@%%p1 st.global.u32 [%%rd2], %%r10;\n@%%p1 ret;")
		} else {
			f.line("@%%p1 bra $END;")
		}
		return func(x *uint32) bool { return *x>>bit&1 == 0 }
	case 5: // a branch to one of several places
		if depth > 2 {
			break
		}
		table, end := f.label(), f.label()
		places := []string{f.label(), f.label(), end}
		f.line("shr.u32 %%r11, %%r10, 30;\nmin.u32 %%r11, %%r11, 2;\nbrx.idx %%r11, %s;\n%s: .branchtargets %s;", table, table, strings.Join(places, ", "))
		var cases [3]step
		for n := range 2 {
			f.line("%s:", places[n])
			cases[n] = f.block(depth + 1)
			f.line("bra.uni %s;", end)
		}
		f.line("%s:", end)
		cases[2] = func(*uint32) bool { return true }
		return func(x *uint32) bool { return cases[min(*x>>30, 2)](x) }
	}
	f.line("mul.lo.s32 %%r10, %%r10, %d;\nadd.s32 %%r10, %%r10, %d;", int32(a), int32(b))
	return func(x *uint32) bool {
		*x = *x*a + b
		return true
	}
}

// Lanes that take different ways come out with what each alone would have, in every order of the sides; where none returns early, all of
// them meet behind every branch, which a shuffle by the whole warp checks.
func TestPTXFlow(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		seed := rand.Uint64()
		f := &flow{rng: rand.New(rand.NewPCG(seed, 0)), ends: round%2 == 1}
		f.line("mov.u32 %%r1, %%tid.x;\nmul.wide.u32 %%rd1, %%r1, 4;\nadd.s64 %%rd2, %%rd100, %%rd1;\nld.global.u32 %%r10, [%%rd2];")
		var steps []step
		for range 3 {
			steps = append(steps, f.block(0))
			if !f.ends {
				f.line("shfl.sync.bfly.b32 %%r10, %%r10, 5, 0x1f, -1;")
			}
		}
		f.line("$END:\nst.global.u32 [%%rd2], %%r10;")
		const threads = 96
		x := make([]uint32, threads)
		for i := range x {
			x[i] = f.rng.Uint32()
		}
		want := make([]uint32, threads)
		copy(want, x)
		done := make([]bool, threads)
		for _, s := range steps {
			for i := range want {
				if !done[i] && !s(&want[i]) {
					done[i] = true
				}
			}
			if !f.ends {
				before := make([]uint32, threads)
				copy(before, want)
				for i := range want {
					want[i] = before[i^5]
				}
			}
		}
		for _, order := range orders {
			open(t, "ptx,order="+order)
			p := write(t, x)
			text := head + entry("k", 1, threads, f.text.String())
			if err := runPTX(t, text, "k", 1, threads, 0, p); err != nil {
				t.Fatalf("seed %d, %s: %v: %s\n%s", seed, order, err, Detail(), text)
			}
			for i, got := range read[uint32](t, p, threads) {
				if got != want[i] {
					t.Fatalf("seed %d, %s: thread %d has %#x, want %#x\n%s", seed, order, i, got, want[i], text)
				}
			}
			Close()
		}
	}
}

// What the lanes of a warp exchange.
func TestPTXCollectives(t *testing.T) {
	open(t, "ptx")
	rng := fresh(t)
	x := make([]uint32, 32)
	for i := range x {
		x[i] = rng.Uint32()
	}
	ballot := uint32(0)
	var sum uint32
	least := int32(1<<31 - 1)
	for i, v := range x {
		ballot |= v & 1 << i
		sum += v
		least = min(least, int32(v))
	}
	for _, c := range []struct {
		text string
		want func(lane int) uint32
	}{
		{"shfl.sync.bfly.b32 %r10, %r10, 9, 0x1f, -1;", func(l int) uint32 { return x[l^9] }},
		{"shfl.sync.idx.b32 %r10, %r10, 7, 0x1f, -1;", func(int) uint32 { return x[7] }},
		{"shfl.sync.up.b32 %r10, %r10, 3, 0, -1;", func(l int) uint32 {
			if l < 3 {
				return x[l]
			}
			return x[l-3]
		}},
		{"shfl.sync.down.b32 %r10, %r10, 3, 0x1f, -1;", func(l int) uint32 {
			if l+3 > 31 {
				return x[l]
			}
			return x[l+3]
		}},
		// Segments of 8 lanes: mask 0x18 in the upper bits of the clamp.
		{"shfl.sync.down.b32 %r10, %r10, 3, 0x1807, -1;", func(l int) uint32 {
			if l%8+3 > 7 {
				return x[l]
			}
			return x[l+3]
		}},
		{"shfl.sync.down.b32 %r10|%p1, %r10, 3, 0x1f, -1;\nselp.b32 %r10, 1, 0, %p1;", func(l int) uint32 {
			if l+3 > 31 {
				return 0
			}
			return 1
		}},
		{"and.b32 %r11, %r10, 1;\nsetp.eq.s32 %p1, %r11, 1;\nvote.sync.ballot.b32 %r10, %p1, -1;", func(int) uint32 { return ballot }},
		{"and.b32 %r11, %r10, 1;\nsetp.eq.s32 %p1, %r11, 1;\nvote.sync.ballot.b32 %r10, !%p1, -1;", func(int) uint32 { return ^ballot }},
		{"setp.eq.s32 %p1, %r1, 5;\nvote.sync.any.pred %p2, %p1, -1;\nselp.b32 %r10, 1, 0, %p2;", func(int) uint32 { return 1 }},
		{"setp.eq.s32 %p1, %r1, 5;\nvote.sync.all.pred %p2, %p1, -1;\nselp.b32 %r10, 1, 0, %p2;", func(int) uint32 { return 0 }},
		{"setp.eq.s32 %p1, %r1, 55;\nvote.sync.uni.pred %p2, %p1, -1;\nselp.b32 %r10, 1, 0, %p2;", func(int) uint32 { return 1 }},
		{"redux.sync.add.u32 %r10, %r10, -1;", func(int) uint32 { return sum }},
		{"redux.sync.min.s32 %r10, %r10, -1;", func(int) uint32 { return uint32(least) }},
		{"activemask.b32 %r10;", func(int) uint32 { return 0xffffffff }},
		{"mov.u32 %r10, %laneid;\nmov.u32 %r11, %lanemask_lt;\nadd.s32 %r10, %r10, %r11;", func(l int) uint32 { return uint32(l) + 1<<l - 1 }},
		{"setp.lt.u32 %p1, %r1, 16;\n@%p1 bra $L1;\nshfl.sync.bfly.b32 %r10, %r10, 1, 0x1f, 0xffff0000;\nbra.uni $L2;\n$L1:\nshfl.sync.bfly.b32 %r10, %r10, 2, 0x1f, 0xffff;\n$L2:", func(l int) uint32 {
			if l < 16 {
				return x[l^2]
			}
			return x[l^1]
		}},
	} {
		p := write(t, x)
		ok(t, runPTX(t, head+entry("k", 1, 32, "mov.u32 %r1, %tid.x;\nmul.wide.u32 %rd1, %r1, 4;\nadd.s64 %rd2, %rd100, %rd1;\nld.global.u32 %r10, [%rd2];\n"+
			c.text+"\nst.global.u32 [%rd2], %r10;"), "k", 1, 32, 0, p))
		for l, got := range read[uint32](t, p, 32) {
			if want := c.want(l); got != want {
				t.Errorf("%s: lane %d has %#x, want %#x", c.text, l, got, want)
				break
			}
		}
	}
}

// mma and ldmatrix have the bits of the compiled host device: one chain of fused multiply-adds in ascending k.
func TestPTXAgreesWithCompiledKernels(t *testing.T) {
	rng := fresh(t)
	type output struct {
		name string
		bits []uint32
	}
	a, b, d := random(rng, 64*80, bf16Mask), random(rng, 80*64, bf16Mask), random(rng, 16*8, 0xffffffff)
	x := make([]uint16, 4*64)
	for i := range x {
		x[i] = uint16(rng.Uint32())
	}
	results := func(spec string, f func(name string) cu.Function) []output {
		open(t, spec)
		defer Close()
		var all []output
		keep := func(name string, p uint64, n int) { all = append(all, output{name, read[uint32](t, p, n)}) }
		for _, name := range []string{"fragments_bf16", "fragments_tf32"} {
			p := write(t, d)
			ok(t, finish(f(name), 32, p, write(t, a), write(t, b), 0))
			keep(name, p, len(d))
		}
		c := memory(t, 64*64)
		ok(t, finish(f("product_bf16"), 128, c, write(t, bf16s(a)), write(t, bf16s(b)), 64, 80, 0))
		keep("product_bf16", c, 64*64)
		p, q := memory(t, 32*16), memory(t, 32*16)
		ok(t, finish(f("together"), 32, p, q, write(t, a), write(t, b)))
		keep("together", p, 32*16)
		keep("together, one by one", q, 32*16)
		for _, count := range []uint64{1, 2, 4} {
			for transposed := range uint64(2) {
				y := memory(t, 4*32)
				ok(t, finish(f("matrices"), 32, y, write(t, x), count, transposed))
				keep(fmt.Sprintf("matrices %d %d", count, transposed), y, 4*32)
			}
		}
		return all
	}
	want := results("host,tiles=gpu", func(name string) cu.Function { return kernel(t, name) })
	got := results("ptx", func(name string) cu.Function { return must(must(LoadModule(compiled(t, "mma")))(t).Function(name))(t) })
	for i, w := range want {
		for n := range w.bits {
			if got[i].bits[n] != w.bits[n] {
				t.Errorf("%s: value %d is %#x, compiled %#x", w.name, n, got[i].bits[n], w.bits[n])
				break
			}
		}
	}
}
