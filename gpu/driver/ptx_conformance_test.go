package driver

import (
	"math"
	"math/big"
	"math/bits"
	"testing"
)

func f32(b uint64) float64    { return float64(math.Float32frombits(uint32(b))) }
func f64(b uint64) float64    { return math.Float64frombits(b) }
func bits32(x float64) uint64 { return uint64(math.Float32bits(float32(x))) }
func bits64(x float64) uint64 { return math.Float64bits(x) }

// flush is x, or 0 of its sign where it is a subnormal float32.
func flush(x float64) float64 {
	if math.Abs(x) < 0x1p-126 {
		return math.Copysign(0, x)
	}
	return x
}

// fma32 is a·b + c rounded once to float32.
func fma32(a, b, c float64) float64 {
	p := a * b // exact
	s := p + c
	if math.IsNaN(s) || math.IsInf(s, 0) || s == 0 && p == 0 || p == -c {
		return s
	}
	exact := new(big.Float).SetPrec(400).Add(big.NewFloat(p), big.NewFloat(c))
	f, _ := exact.Float32()
	return float64(f)
}

func always(x uint64) (uint64, bool) { return x, true }

func truth(b bool) (uint64, bool) {
	if b {
		return 1, true
	}
	return 0, true
}

func one(f func(a uint64) uint64) func(a, b, c uint64) (uint64, bool) {
	return func(a, _, _ uint64) (uint64, bool) { return always(f(a)) }
}
func two(f func(a, b uint64) uint64) func(a, b, c uint64) (uint64, bool) {
	return func(a, b, _ uint64) (uint64, bool) { return always(f(a, b)) }
}
func three(f func(a, b, c uint64) uint64) func(a, b, c uint64) (uint64, bool) {
	return func(a, b, c uint64) (uint64, bool) { return always(f(a, b, c)) }
}
func relation(f func(a, b uint64) bool) func(a, b, c uint64) (uint64, bool) {
	return func(a, b, _ uint64) (uint64, bool) { return truth(f(a, b)) }
}

const (
	m16 = 0xffff
	m32 = 0xffffffff
)

func TestPTXInteger(t *testing.T) {
	i32 := func(x uint64) int32 { return int32(uint32(x)) }
	i64 := func(x uint64) int64 { return int64(x) }
	i16 := func(x uint64) int16 { return int16(uint16(x)) }
	check(t, []instruction{
		{"add.s32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return (a + b) & m32 }), 0},
		{"add.s64 $d, $a, $b;", "ddd", two(func(a, b uint64) uint64 { return a + b }), 0},
		{"add.s16 $d, $a, $b;", "hhh", two(func(a, b uint64) uint64 { return (a + b) & m16 }), 0},
		{"add.s32 $d, $a, -7;", "rr", one(func(a uint64) uint64 { return (a - 7) & m32 }), 0},
		{"add.u64 $d, $a, 0xF000000000000001;", "dd", one(func(a uint64) uint64 { return a + 0xF000000000000001 }), 0},
		{"sub.s32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return (a - b) & m32 }), 0},
		{"sub.u16 $d, $a, $b;", "hhh", two(func(a, b uint64) uint64 { return (a - b) & m16 }), 0},
		{"mul.lo.s32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return a * b & m32 }), 0},
		{"mul.lo.s64 $d, $a, $b;", "ddd", two(func(a, b uint64) uint64 { return a * b }), 0},
		{"mul.hi.u32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return a * b >> 32 }), 0},
		{"mul.hi.s32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return uint64(int64(i32(a))*int64(i32(b))>>32) & m32 }), 0},
		{"mul.hi.s16 $d, $a, $b;", "hhh", two(func(a, b uint64) uint64 { return uint64(int64(i16(a))*int64(i16(b))>>16) & m16 }), 0},
		{"mul.hi.u64 $d, $a, $b;", "ddd", two(func(a, b uint64) uint64 { h, _ := bits.Mul64(a, b); return h }), 0},
		{"mul.wide.u32 $d, $a, $b;", "drr", two(func(a, b uint64) uint64 { return a * b }), 0},
		{"mul.wide.s32 $d, $a, $b;", "drr", two(func(a, b uint64) uint64 { return uint64(int64(i32(a)) * int64(i32(b))) }), 0},
		{"mul.wide.u16 $d, $a, $b;", "rhh", two(func(a, b uint64) uint64 { return a * b }), 0},
		{"mul.wide.s16 $d, $a, $b;", "rhh", two(func(a, b uint64) uint64 { return uint64(int64(i16(a))*int64(i16(b))) & m32 }), 0},
		{"mad.lo.s32 $d, $a, $b, $c;", "rrrr", three(func(a, b, c uint64) uint64 { return (a*b + c) & m32 }), 0},
		{"mad.wide.s32 $d, $a, $b, $c;", "drrd", three(func(a, b, c uint64) uint64 { return uint64(int64(i32(a))*int64(i32(b))) + c }), 0},
		{"mad.wide.u32 $d, $a, $b, $c;", "drrd", three(func(a, b, c uint64) uint64 { return a*b + c }), 0},
		{"or.b32 $b, $b, 1;\ndiv.u32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return a / (b | 1) }), 0},
		{"or.b32 $b, $b, 1;\ndiv.s32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return uint64(int64(i32(a))/int64(i32(b|1))) & m32 }), 0},
		{"or.b32 $b, $b, 1;\nrem.s32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return uint64(int64(i32(a))%int64(i32(b|1))) & m32 }), 0},
		{"or.b64 $b, $b, 1;\ndiv.s64 $d, $a, $b;", "ddd", two(func(a, b uint64) uint64 { return uint64(i64(a) / i64(b|1)) }), 0},
		{"or.b64 $b, $b, 1;\nrem.u64 $d, $a, $b;", "ddd", two(func(a, b uint64) uint64 { return a % (b | 1) }), 0},
		{"or.b16 $b, $b, 1;\ndiv.s16 $d, $a, $b;", "hhh", two(func(a, b uint64) uint64 { return uint64(int(i16(a))/int(i16(b|1))) & m16 }), 0},
		{"min.s32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return uint64(uint32(min(i32(a), i32(b)))) }), 0},
		{"max.u32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return max(a, b) }), 0},
		{"min.u64 $d, $a, $b;", "ddd", two(func(a, b uint64) uint64 { return min(a, b) }), 0},
		{"max.s64 $d, $a, $b;", "ddd", two(func(a, b uint64) uint64 { return uint64(max(i64(a), i64(b))) }), 0},
		{"min.s16 $d, $a, $b;", "hhh", two(func(a, b uint64) uint64 { return uint64(uint16(min(i16(a), i16(b)))) }), 0},
		{"neg.s32 $d, $a;", "rr", one(func(a uint64) uint64 { return -a & m32 }), 0},
		{"neg.s64 $d, $a;", "dd", one(func(a uint64) uint64 { return -a }), 0},
		{"abs.s32 $d, $a;", "rr", one(func(a uint64) uint64 { return uint64(max(int64(i32(a)), -int64(i32(a)))) & m32 }), 0},
		{"and.b32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return a & b }), 0},
		{"or.b64 $d, $a, $b;", "ddd", two(func(a, b uint64) uint64 { return a | b }), 0},
		{"xor.b16 $d, $a, $b;", "hhh", two(func(a, b uint64) uint64 { return a ^ b }), 0},
		{"not.b32 $d, $a;", "rr", one(func(a uint64) uint64 { return ^a & m32 }), 0},
		{"not.b16 $d, $a;", "hh", one(func(a uint64) uint64 { return ^a & m16 }), 0},
		{"and.b32 $b, $b, 63;\nshl.b32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return a << (b & 63) & m32 }), 0},
		{"shl.b64 $d, $a, $b;", "ddr", two(func(a, b uint64) uint64 { return a << b }), 0},
		{"shl.b16 $d, $a, $b;", "hhr", two(func(a, b uint64) uint64 { return a << b & m16 }), 0},
		{"shr.u32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return a >> b }), 0},
		{"shr.s32 $d, $a, $b;", "rrr", two(func(a, b uint64) uint64 { return uint64(i32(a)>>b) & m32 }), 0},
		{"shr.s64 $d, $a, $b;", "ddr", two(func(a, b uint64) uint64 { return uint64(i64(a) >> b) }), 0},
		{"shr.u64 $d, $a, 9;", "dd", one(func(a uint64) uint64 { return a >> 9 }), 0},
		{"shr.s16 $d, $a, $b;", "hhr", two(func(a, b uint64) uint64 { return uint64(i16(a)>>b) & m16 }), 0},
		{"shr.u16 $d, $a, $b;", "hhr", two(func(a, b uint64) uint64 { return a >> b }), 0},
		{"clz.b32 $d, $a;", "rr", one(func(a uint64) uint64 { return uint64(bits.LeadingZeros32(uint32(a))) }), 0},
		{"clz.b64 $d, $a;", "rd", one(func(a uint64) uint64 { return uint64(bits.LeadingZeros64(a)) }), 0},
		{"popc.b32 $d, $a;", "rr", one(func(a uint64) uint64 { return uint64(bits.OnesCount32(uint32(a))) }), 0},
		{"popc.b64 $d, $a;", "rd", one(func(a uint64) uint64 { return uint64(bits.OnesCount64(a)) }), 0},
		{"brev.b32 $d, $a;", "rr", one(func(a uint64) uint64 { return uint64(bits.Reverse32(uint32(a))) }), 0},
		{"brev.b64 $d, $a;", "dd", one(bits.Reverse64), 0},
		{"bfe.u32 $d, $a, 5, 11;", "rr", one(func(a uint64) uint64 { return a >> 5 & (1<<11 - 1) }), 0},
		{"bfe.s32 $d, $a, 5, 11;", "rr", one(func(a uint64) uint64 { return uint64(i32(a<<16)>>21) & m32 }), 0},
		{"bfe.u32 $d, $a, $b, $c;", "rrrr", three(bfe32), 0},
		{"bfe.s64 $d, $a, 40, 30;", "dd", one(func(a uint64) uint64 { return uint64(i64(a) >> 40) }), 0},
		{"bfi.b32 $d, $a, $b, 7, 9;", "rrr", two(func(a, b uint64) uint64 { return b&^(511<<7) | a&511<<7 }), 0},
		{"bfi.b64 $d, $a, $b, 60, 9;", "ddd", two(func(a, b uint64) uint64 { return b&^(15<<60) | a<<60 }), 0},
		{"prmt.b32 $d, $a, $b, $c;", "rrrr", three(prmt), 0},
		{"prmt.b32 $d, $a, $b, 0x5410;", "rrr", two(func(a, b uint64) uint64 { return a&m16 | b&m16<<16 }), 0},
		{"lop3.b32 $d, $a, $b, $c, 0x96;", "rrrr", three(func(a, b, c uint64) uint64 { return a ^ b ^ c }), 0},
		{"lop3.b32 $d, $a, $b, $c, 0xE4;", "rrrr", three(func(a, b, c uint64) uint64 { return a&c | b&(^c&m32) }), 0},
		{"shf.l.wrap.b32 $d, $a, $b, $c;", "rrrr", three(func(a, b, c uint64) uint64 { return (b<<32 | a) << (c & 31) >> 32 }), 0},
		{"shf.r.wrap.b32 $d, $a, $b, $c;", "rrrr", three(func(a, b, c uint64) uint64 { return (b<<32 | a) >> (c & 31) & m32 }), 0},
		{"shf.r.clamp.b32 $d, $a, $b, $c;", "rrrr", three(func(a, b, c uint64) uint64 { return (b<<32 | a) >> min(c, 32) & m32 }), 0},
	})
}

// bfe32 is bfe.u32, bit by bit.
func bfe32(a, b, c uint64) (d uint64) {
	for n := uint64(0); n < c&255 && n < 32; n++ {
		if at := b&255 + n; at < 32 {
			d |= a >> at & 1 << n
		}
	}
	return d
}

// prmt is prmt.b32, byte by byte.
func prmt(a, b, c uint64) (d uint64) {
	for n := range 4 {
		s := c >> (4 * n) & 15
		x := (b<<32 | a) >> (8 * (s & 7)) & 255
		if s > 7 {
			x = x >> 7 * 255
		}
		d |= x << (8 * n)
	}
	return d
}

func TestPTXFloat(t *testing.T) {
	check(t, []instruction{
		{"add.rn.f32 $d, $a, $b;", "fff", two(func(a, b uint64) uint64 { return bits32(f32(a) + f32(b)) }), 0},
		{"add.f32 $d, $a, 0f3F800000;", "ff", one(func(a uint64) uint64 { return bits32(f32(a) + 1) }), 0},
		{"add.ftz.f32 $d, $a, $b;", "fff", two(func(a, b uint64) uint64 { return bits32(flush(float64(float32(flush(f32(a)) + flush(f32(b)))))) }), 0},
		{"add.f64 $d, $a, $b;", "eee", two(func(a, b uint64) uint64 { return bits64(f64(a) + f64(b)) }), 0},
		{"sub.rn.f32 $d, $a, $b;", "fff", two(func(a, b uint64) uint64 { return bits32(f32(a) - f32(b)) }), 0},
		{"mul.rn.f32 $d, $a, $b;", "fff", two(func(a, b uint64) uint64 { return bits32(f32(a) * f32(b)) }), 0},
		{"mul.ftz.f32 $d, $a, $b;", "fff", two(func(a, b uint64) uint64 { return bits32(flush(float64(float32(flush(f32(a)) * flush(f32(b)))))) }), 0},
		{"mul.f64 $d, $a, $b;", "eee", two(func(a, b uint64) uint64 { return bits64(f64(a) * f64(b)) }), 0},
		{"fma.rn.f32 $d, $a, $b, $c;", "ffff", three(func(a, b, c uint64) uint64 { return bits32(fma32(f32(a), f32(b), f32(c))) }), 0},
		{"mad.rn.f32 $d, $a, $b, $c;", "ffff", three(func(a, b, c uint64) uint64 { return bits32(fma32(f32(a), f32(b), f32(c))) }), 0},
		{"fma.rn.f64 $d, $a, $b, $c;", "eeee", three(func(a, b, c uint64) uint64 { return bits64(math.FMA(f64(a), f64(b), f64(c))) }), 0},
		{"neg.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return a ^ 1<<31 }), 0},
		{"abs.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return a &^ (1 << 31) }), 0},
		{"copysign.f32 $d, $a, $b;", "fff", two(func(a, b uint64) uint64 { return b&^(1<<31) | a&(1<<31) }), 0},
		{"min.f32 $d, $a, $b;", "fff", two(func(a, b uint64) uint64 { return extremum(a, b, math.Min) }), 0},
		{"max.f32 $d, $a, $b;", "fff", two(func(a, b uint64) uint64 { return extremum(a, b, math.Max) }), 0},
		{"div.rn.f32 $d, $a, $b;", "fff", two(func(a, b uint64) uint64 { return bits32(f32(a) / f32(b)) }), 0},
		{"div.rn.f64 $d, $a, $b;", "eee", two(func(a, b uint64) uint64 { return bits64(f64(a) / f64(b)) }), 0},
		{"sqrt.rn.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(math.Sqrt(f32(a))) }), 0},
		{"rcp.rn.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(1 / f32(a)) }), 0},
		{"ex2.approx.ftz.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(flush(float64(float32(math.Exp2(flush(f32(a))))))) }), 1},
		{"lg2.approx.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(math.Log2(f32(a))) }), 1},
		{"rsqrt.approx.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(1 / math.Sqrt(f32(a))) }), 1},
		{"rcp.approx.ftz.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(flush(float64(float32(1 / flush(f32(a)))))) }), 1},
		{"sqrt.approx.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(math.Sqrt(f32(a))) }), 1},
		{"sin.approx.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(math.Sin(f32(a))) }), 4},
		{"cos.approx.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(math.Cos(f32(a))) }), 4},
		{"tanh.approx.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(math.Tanh(f32(a))) }), 1},
		{"div.full.f32 $d, $a, $b;", "fff", two(func(a, b uint64) uint64 { return bits32(f32(a) / f32(b)) }), 0},
	})
}

// extremum is min.f32 or max.f32: a number wins against a NaN.
func extremum(a, b uint64, of func(x, y float64) float64) uint64 {
	switch {
	case math.IsNaN(f32(a)):
		return b
	case math.IsNaN(f32(b)):
		return a
	}
	return bits32(of(f32(a), f32(b)))
}

func TestPTXCompare(t *testing.T) {
	list := []instruction{
		{"setp.lt.s32 $d, $a, $b;", "prr", relation(func(a, b uint64) bool { return int32(uint32(a)) < int32(uint32(b)) }), 0},
		{"setp.lo.u32 $d, $a, $b;", "prr", relation(func(a, b uint64) bool { return a < b }), 0},
		{"setp.hs.u32 $d, $a, $b;", "prr", relation(func(a, b uint64) bool { return a >= b }), 0},
		{"setp.ge.s64 $d, $a, $b;", "pdd", relation(func(a, b uint64) bool { return int64(a) >= int64(b) }), 0},
		{"setp.gt.u64 $d, $a, $b;", "pdd", relation(func(a, b uint64) bool { return a > b }), 0},
		{"setp.eq.b64 $d, $a, 3;", "pd", one(func(a uint64) uint64 { r, _ := truth(a == 3); return r }), 0},
		{"setp.le.s16 $d, $a, $b;", "phh", relation(func(a, b uint64) bool { return int16(uint16(a)) <= int16(uint16(b)) }), 0},
		{"setp.ne.b32 $d, $a, $b;", "prr", relation(func(a, b uint64) bool { return a != b }), 0},
		{"setp.lt.or.s32 $d, $a, $b, !$c;", "prrp", three(func(a, b, c uint64) uint64 { r, _ := truth(int32(uint32(a)) < int32(uint32(b)) || c&1 == 0); return r }), 0},
		{"setp.eq.xor.s32 $d, $a, $b, $c;", "prrp", three(func(a, b, c uint64) uint64 { r, _ := truth((a == b) != (c&1 == 1)); return r }), 0},
		{"setp.lt.and.f32 %p1|$d, $a, $b, $c;", "pffp", three(func(a, b, c uint64) uint64 { r, _ := truth(!(f32(a) < f32(b)) && c&1 == 1); return r }), 0},
		{"setp.gt.f64 $d, $a, $b;", "pee", relation(func(a, b uint64) bool { return f64(a) > f64(b) }), 0},
		{"selp.b32 $d, $a, $b, $c;", "rrrp", three(func(a, b, c uint64) uint64 { return []uint64{b, a}[c&1] }), 0},
		{"selp.f64 $d, $a, $b, $c;", "eeep", three(func(a, b, c uint64) uint64 { return []uint64{b, a}[c&1] }), 0},
		{"and.pred $d, $a, $b;", "ppp", two(func(a, b uint64) uint64 { return a & b & 1 }), 0},
		{"or.pred $d, $a, $b;", "ppp", two(func(a, b uint64) uint64 { return (a | b) & 1 }), 0},
		{"xor.pred $d, $a, $b;", "ppp", two(func(a, b uint64) uint64 { return (a ^ b) & 1 }), 0},
		{"not.pred $d, $a;", "pp", one(func(a uint64) uint64 { return ^a & 1 }), 0},
		{"mov.pred $d, 1;\n@!$a mov.pred $d, 0;", "pp", one(func(a uint64) uint64 { return a & 1 }), 0},
	}
	unordered := func(a, b float64) bool { return math.IsNaN(a) || math.IsNaN(b) }
	for name, f := range map[string]func(a, b float64) bool{
		"eq": func(a, b float64) bool { return a == b }, "ne": func(a, b float64) bool { return a < b || a > b },
		"lt": func(a, b float64) bool { return a < b }, "le": func(a, b float64) bool { return a <= b },
		"gt": func(a, b float64) bool { return a > b }, "ge": func(a, b float64) bool { return a >= b },
	} {
		list = append(list,
			instruction{"setp." + name + ".f32 $d, $a, $b;", "pff", relation(func(a, b uint64) bool { return f(f32(a), f32(b)) }), 0},
			instruction{"setp." + name + "u.f32 $d, $a, $b;", "pff", relation(func(a, b uint64) bool { return unordered(f32(a), f32(b)) || f(f32(a), f32(b)) }), 0})
	}
	list = append(list,
		instruction{"setp.nan.f32 $d, $a, $b;", "pff", relation(func(a, b uint64) bool { return unordered(f32(a), f32(b)) }), 0},
		instruction{"setp.num.f32 $d, $a, $b;", "pff", relation(func(a, b uint64) bool { return !unordered(f32(a), f32(b)) }), 0})
	check(t, list)
}

// saturated is x as an integer from least to most; a NaN becomes 0.
func saturated(x, least, most float64) uint64 {
	switch {
	case math.IsNaN(x):
		return 0
	case x <= least:
		return uint64(int64(least))
	case x >= most:
		if most == math.MaxUint64 {
			return math.MaxUint64
		}
		if most == math.MaxInt64 {
			return math.MaxInt64
		}
		return uint64(most)
	case x >= 1<<63:
		return uint64(x)
	}
	return uint64(int64(x))
}

// bf16 is x rounded to the nearest bf16, as its bits.
func bf16(x float64) uint64 {
	if math.IsNaN(x) {
		return 0x7fff
	}
	b := math.Float32bits(float32(x))
	return uint64((b + 0x7fff + b>>16&1) >> 16)
}

// tf32 is the bits of a float rounded to the nearest tf32, ties away from 0.
func tf32(a uint64) uint64 {
	x := f32(a)
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return a
	}
	if x == 0 {
		return a
	}
	_, exponent := math.Frexp(x)
	unit := math.Ldexp(1, max(exponent-11, -136)) // of the last of 11 digits
	return bits32(math.Round(x/unit) * unit)
}

func TestPTXConvert(t *testing.T) {
	check(t, []instruction{
		{"cvt.s64.s32 $d, $a;", "dr", one(func(a uint64) uint64 { return uint64(int32(uint32(a))) }), 0},
		{"cvt.u64.u32 $d, $a;", "dr", one(func(a uint64) uint64 { return a }), 0},
		{"cvt.u32.u64 $d, $a;", "rd", one(func(a uint64) uint64 { return a & m32 }), 0},
		{"cvt.s64.s32 $d, $a;", "dd", one(func(a uint64) uint64 { return uint64(int32(uint32(a))) }), 0},
		{"cvt.u64.u16 $d, $a;", "dh", one(func(a uint64) uint64 { return a }), 0},
		{"cvt.s32.s16 $d, $a;", "rh", one(func(a uint64) uint64 { return uint64(int16(uint16(a))) & m32 }), 0},
		{"cvt.u16.u32 $d, $a;", "hr", one(func(a uint64) uint64 { return a & m16 }), 0},
		{"cvt.s8.s32 $d, $a;", "rr", one(func(a uint64) uint64 { return uint64(int8(uint8(a))) & m32 }), 0},
		{"cvt.s8.s32 $d, $a;", "hr", one(func(a uint64) uint64 { return uint64(int8(uint8(a))) & m16 }), 0},
		{"cvt.u8.u32 $d, $a;", "rr", one(func(a uint64) uint64 { return a & 255 }), 0},
		{"cvt.rn.f32.s32 $d, $a;", "fr", one(func(a uint64) uint64 { return uint64(math.Float32bits(float32(int32(uint32(a))))) }), 0},
		{"cvt.rn.f32.u32 $d, $a;", "fr", one(func(a uint64) uint64 { return uint64(math.Float32bits(float32(a))) }), 0},
		{"cvt.rn.f32.s64 $d, $a;", "fd", one(func(a uint64) uint64 { return uint64(math.Float32bits(float32(int64(a)))) }), 0},
		{"cvt.rn.f32.u64 $d, $a;", "fd", one(func(a uint64) uint64 { return uint64(math.Float32bits(float32(a))) }), 0},
		{"cvt.rn.f64.s64 $d, $a;", "ed", one(func(a uint64) uint64 { return bits64(float64(int64(a))) }), 0},
		{"cvt.rn.f32.u16 $d, $a;", "fh", one(func(a uint64) uint64 { return uint64(math.Float32bits(float32(a))) }), 0},
		{"cvt.rzi.s32.f32 $d, $a;", "rf", one(func(a uint64) uint64 { return saturated(math.Trunc(f32(a)), math.MinInt32, math.MaxInt32) & m32 }), 0},
		{"cvt.rni.s32.f32 $d, $a;", "rf", one(func(a uint64) uint64 { return saturated(math.RoundToEven(f32(a)), math.MinInt32, math.MaxInt32) & m32 }), 0},
		{"cvt.rmi.s32.f32 $d, $a;", "rf", one(func(a uint64) uint64 { return saturated(math.Floor(f32(a)), math.MinInt32, math.MaxInt32) & m32 }), 0},
		{"cvt.rpi.u32.f32 $d, $a;", "rf", one(func(a uint64) uint64 { return saturated(math.Ceil(f32(a)), 0, math.MaxUint32) & m32 }), 0},
		{"cvt.rzi.s64.f32 $d, $a;", "df", one(func(a uint64) uint64 { return saturated(math.Trunc(f32(a)), math.MinInt64, math.MaxInt64) }), 0},
		{"cvt.rzi.u64.f64 $d, $a;", "de", one(func(a uint64) uint64 { return saturated(math.Trunc(f64(a)), 0, math.MaxUint64) }), 0},
		{"cvt.f64.f32 $d, $a;", "ef", one(func(a uint64) uint64 { return bits64(f32(a)) }), 0},
		{"cvt.rn.f32.f64 $d, $a;", "fe", one(func(a uint64) uint64 { return bits32(f64(a)) }), 0},
		{"cvt.rmi.f32.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(math.Floor(f32(a))) }), 0},
		{"cvt.rni.f32.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(math.RoundToEven(f32(a))) }), 0},
		{"cvt.ftz.f32.f32 $d, $a;", "ff", one(func(a uint64) uint64 { return bits32(flush(f32(a))) }), 0},
		{"cvt.sat.f32.f32 $d, $a;", "ff", one(func(a uint64) uint64 {
			if math.IsNaN(f32(a)) {
				return 0
			}
			return bits32(max(0, min(1, f32(a))) + 0)
		}), 0},
		{"cvt.rna.tf32.f32 $d, $a;", "rf", one(tf32), 0},
		{"cvt.rn.bf16.f32 $d, $a;", "hf", one(func(a uint64) uint64 { return bf16(f32(a)) }), 0},
		{"cvt.rn.bf16x2.f32 $d, $a, $b;", "rff", two(func(a, b uint64) uint64 { return bf16(f32(a))<<16 | bf16(f32(b)) }), 0},
		{"cvt.f32.bf16 $d, $a;", "fh", one(func(a uint64) uint64 { return a << 16 }), 0},
		{"mov.b32 {%h1, %h2}, $a;\nmov.b32 $d, {%h2, %h1};", "rr", one(func(a uint64) uint64 { return a>>16 | a&m16<<16 }), 0},
		{"mov.b64 {%r1, %r2}, $a;\nmov.b64 $d, {%r2, %r1};", "dd", one(func(a uint64) uint64 { return a>>32 | a<<32 }), 0},
		{"mov.b64 {%h1, %h2, %h3, %h4}, $a;\nmov.b64 $d, {%h4, %h3, %h2, %h1};", "dd", one(func(a uint64) uint64 {
			return a>>48 | a>>32&m16<<16 | a>>16&m16<<32 | a<<48
		}), 0},
		{"{ .reg .b16 low; mov.b32 {low, $d}, $a; }", "hr", one(func(a uint64) uint64 { return a >> 16 }), 0},
		{"mov.b32 {_, $d}, $a;", "hr", one(func(a uint64) uint64 { return a >> 16 }), 0},
		{"mov.b32 %f1, $a;\nmov.b32 $d, %f1;", "rr", one(func(a uint64) uint64 { return a }), 0},
		{"cvta.shared.u64 %rd1, $a;\ncvta.to.shared.u64 $d, %rd1;", "dd", one(func(a uint64) uint64 { return a }), 0},
	})
}
