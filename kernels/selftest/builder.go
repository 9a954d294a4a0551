package selftest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// Builder makes the memory and the launches of a case. Its first error ends the case.
type Builder struct {
	device   *gpu.Device
	queue    *kernels.Queue
	rng      *rand.Rand
	timing   bool // only the time is of interest: no references
	arrays   []*array
	launches []func(q *kernels.Queue)
	again    []division
	err      error
}

// array is device memory between two guards.
type array struct {
	name    string
	at      gpu.Ptr // of the content
	content []byte  // what it held before the launches
	guard   byte
	want    []float64 // nil: not an output
	least   float64   // see Cancels
	scratch bool      // content may change
	acc     bool      // of the type that parameters and statistics have; otherwise of activations'
	hash    [32]byte  // of the output's bits after the launches
}

type division struct {
	what   string
	launch func(q *kernels.Queue)
}

// guardBytes lie before and behind each array. Arrays start at a multiple of 64 bytes that is not one of 128: no kernel may count on more.
const guardBytes = 5 * 64

// Guards of inputs are NaNs, so that what reads there is seen; guards of outputs are a pattern that no computation leaves as it was. What
// an output holds before a launch is NaNs.
const (
	nanByte   = 0xff
	guardByte = 0xa5
)

// Rand is the source of the case's random numbers.
func (b *Builder) Rand() *rand.Rand { return b.rng }

// Precision is what is under test.
func (b *Builder) Precision() kernels.Precision { return b.queue.Precision() }

// Normal is n draws from N(0, 1), rounded to what an activation can be.
func (b *Builder) Normal(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = b.Round(b.rng.NormFloat64())
	}
	return v
}

// Round rounds to what an activation can be.
func (b *Builder) Round(x float64) float64 { return b.Precision().Round(x) }

// RoundAcc rounds to what a sum can be.
func (b *Builder) RoundAcc(x float64) float64 {
	if b.Precision() == kernels.FP64 {
		return x
	}
	return float64(float32(x))
}

// Want is the n values that reference returns; where only the time is of interest it is not called.
func (b *Builder) Want(n int, reference func() []float64) []float64 {
	if b.timing {
		return make([]float64, n)
	}
	v := reference()
	if len(v) != n && b.err == nil {
		b.err = fmt.Errorf("a reference has %d values, want %d", len(v), n)
	}
	return v
}

// In is device memory that holds v as activations. Launches must leave it as it is.
func (b *Builder) In(v []float64) gpu.Ptr {
	return b.place(&array{name: "an input", content: bytes.Clone(b.Precision().Bytes(v)), guard: nanByte})
}

// InAcc is device memory that holds v as parameters and statistics.
func (b *Builder) InAcc(v []float64) gpu.Ptr {
	return b.place(&array{name: "an input", content: bytes.Clone(b.Precision().AccBytes(v)), guard: nanByte, acc: true})
}

// InInt32 is device memory that holds v.
func (b *Builder) InInt32(v []int32) gpu.Ptr { return b.InBytes(gpu.Bytes(v)) }

// InBytes is device memory that holds v.
func (b *Builder) InBytes(v []byte) gpu.Ptr {
	return b.place(&array{name: "an input", content: bytes.Clone(v), guard: nanByte})
}

// Out is an output, full of NaNs, that the launches must make `want`; where want is NaN they must not write.
func (b *Builder) Out(name string, want []float64) gpu.Ptr {
	content := bytes.Repeat([]byte{nanByte}, len(want)*int(b.Precision().Size()))
	return b.place(&array{name: name, content: content, guard: guardByte, want: want})
}

// OutAcc is Out of parameters' gradients and statistics.
func (b *Builder) OutAcc(name string, want []float64) gpu.Ptr {
	content := bytes.Repeat([]byte{nanByte}, len(want)*int(b.Precision().AccSize()))
	return b.place(&array{name: name, content: content, guard: guardByte, want: want, acc: true})
}

// Cancels says that the values of the last output are sums that cancel, of values with this norm: its error is relative to no less.
func (b *Builder) Cancels(norm float64) {
	if b.err == nil {
		b.arrays[len(b.arrays)-1].least = norm
	}
}

// InOut is memory that holds v, which the launches must make `want`.
func (b *Builder) InOut(name string, v, want []float64) gpu.Ptr {
	if len(v) != len(want) && b.err == nil {
		b.err = fmt.Errorf("%s: %d values become %d", name, len(v), len(want))
	}
	return b.place(&array{name: name, content: bytes.Clone(b.Precision().Bytes(v)), guard: guardByte, want: want})
}

// InOutAcc is InOut of parameters and statistics.
func (b *Builder) InOutAcc(name string, v, want []float64) gpu.Ptr {
	if len(v) != len(want) && b.err == nil {
		b.err = fmt.Errorf("%s: %d values become %d", name, len(v), len(want))
	}
	return b.place(&array{name: name, content: bytes.Clone(b.Precision().AccBytes(v)), guard: guardByte, want: want, acc: true})
}

// Scratch is n sums full of NaNs, not compared.
func (b *Builder) Scratch(n int) gpu.Ptr {
	content := bytes.Repeat([]byte{nanByte}, n*int(b.Precision().AccSize()))
	return b.place(&array{name: "scratch", content: content, guard: guardByte, scratch: true, acc: true})
}

// Offset is the address n values behind p, which is the start of one of the case's arrays, or 0.
func (b *Builder) Offset(p gpu.Ptr, n int) gpu.Ptr {
	size := b.Precision().Size()
	for _, a := range b.arrays {
		if a.at == p && a.acc {
			size = b.Precision().AccSize()
		}
	}
	return p.Offset(int64(n) * size)
}

// Launch adds launches to the case; they run when it is built.
func (b *Builder) Launch(f func(q *kernels.Queue)) { b.launches = append(b.launches, f) }

// Again adds launches that do the same work divided otherwise ("in two launches"): on the same inputs they must give the same bits.
func (b *Builder) Again(what string, f func(q *kernels.Queue)) {
	b.again = append(b.again, division{what, f})
}

func (b *Builder) place(a *array) gpu.Ptr {
	if b.err != nil {
		return 0
	}
	base, err := b.device.Alloc(a.name, int64(len(a.content)+2*guardBytes))
	if err != nil {
		b.err = err
		return 0
	}
	a.at = base + guardBytes
	b.arrays = append(b.arrays, a)
	b.err = b.fill(a)
	return a.at
}

func (b *Builder) fill(a *array) error {
	guard := bytes.Repeat([]byte{a.guard}, guardBytes)
	return b.device.Write(a.at-guardBytes, bytes.Join([][]byte{guard, guard}, a.content))
}

func (b *Builder) free() error {
	var first error
	for _, a := range b.arrays {
		first = join(first, b.device.Free(a.at-guardBytes))
	}
	return first
}

// storesRounded says whether an output has less precision than sums, which a case's own bound is made for.
func (b *Builder) storesRounded() bool {
	p := b.Precision()
	return p.Size() < p.AccSize() && slices.ContainsFunc(b.arrays, func(a *array) bool { return a.want != nil && !a.acc })
}

// reset puts all memory back as it was before the launches.
func (b *Builder) reset() error {
	for _, a := range b.arrays {
		if a.want != nil || a.scratch {
			if err := b.fill(a); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Builder) run(launches []func(*kernels.Queue)) error {
	for _, f := range launches {
		f(b.queue)
	}
	if err := b.queue.Err(); err != nil {
		return err
	}
	return b.queue.Stream().Sync()
}

// read returns an array's content, and what is wrong with the memory around it.
func (b *Builder) read(a *array) (content []byte, problem string, err error) {
	all := make([]byte, len(a.content)+2*guardBytes)
	if err := b.device.Read(all, a.at-guardBytes); err != nil {
		return nil, "", err
	}
	content = all[guardBytes : guardBytes+len(a.content)]
	for i, x := range all {
		if x != a.guard && (i < guardBytes || i >= guardBytes+len(content)) {
			return content, fmt.Sprintf("a launch wrote %d bytes from the start of %s, which has %d", i-guardBytes, a.name, len(content)), nil
		}
	}
	if a.want == nil && !a.scratch && !bytes.Equal(content, a.content) {
		return content, "a launch changed an input", nil
	}
	return content, "", nil
}

// compare compares the outputs with what they must be.
func (b *Builder) compare(r *Result) error {
	h := sha256.New()
	for _, a := range b.arrays {
		content, problem, err := b.read(a)
		if err != nil {
			return err
		}
		if problem != "" {
			r.Problem = problem
		}
		if a.want == nil {
			continue
		}
		a.hash = sha256.Sum256(content)
		h.Write(a.hash[:])
		got := b.Precision().Values
		if a.acc {
			got = b.Precision().AccValues
		}
		values := got(content)
		r.values, r.least = append(r.values, values), append(r.least, a.least)
		if e := relativeError(values, a.want, a.least); r.Output == "" || e > r.Error || math.IsNaN(e) { // NaN stays: nothing is greater
			r.Error, r.Output = e, a.name
		}
	}
	h.Sum(r.Hash[:0])
	if r.Output == "" {
		r.Problem = "the case has no output"
	}
	return nil
}

// compareAgain compares the outputs with those of the first launches, bit by bit.
func (b *Builder) compareAgain(what string, r *Result) error {
	for _, a := range b.arrays {
		content, problem, err := b.read(a)
		if err != nil {
			return err
		}
		if problem != "" {
			r.Problem = what + ": " + problem
		}
		if a.want != nil && sha256.Sum256(content) != a.hash {
			r.Problem = fmt.Sprintf("%s has other bits %s", a.name, what)
		}
	}
	return nil
}

// untouched is n values of an output that no launch may write: NaN in what must come out means that it is what was there.
func untouched(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = math.NaN()
	}
	return v
}

// relativeError is ‖got − want‖/max(‖want‖, least), or ‖got − want‖ where that is 0. Where want is NaN, got must be NaN.
func relativeError(got, want []float64, least float64) float64 {
	var difference, norm float64
	for i, w := range want {
		if math.IsNaN(w) && math.IsNaN(got[i]) {
			continue
		}
		d := got[i] - w
		difference += d * d
		norm += w * w
	}
	norm = max(norm, least*least)
	if norm == 0 {
		return math.Sqrt(difference)
	}
	return math.Sqrt(difference / norm)
}
