package kernels

import (
	"fmt"
	"math"
	"slices"

	"ddgpu/gpu"
)

// Queue launches kernels on one stream, in order. Its error is the first that any launch had.
type Queue struct {
	library *Library
	stream  *gpu.Stream
	err     error
	slots   [maxParams]uint64
	names   *[]string // where Names wants the kernels' names, instead of launches
}

// maxParams is the most parameters that a kernel has.
const maxParams = 32

// NewQueue makes a queue of a stream of the library's device.
func (l *Library) NewQueue(s *gpu.Stream) *Queue { return &Queue{library: l, stream: s} }

// Err is the first error of the queue's launches.
func (q *Queue) Err() error { return q.err }

// Library is the kernels that the queue launches.
func (q *Queue) Library() *Library { return q.library }

// Precision is the number types of the kernels.
func (q *Queue) Precision() Precision { return q.library.precision }

// Stream is where the queue launches.
func (q *Queue) Stream() *gpu.Stream { return q.stream }

// Fail makes err the queue's error, if it is the first, so that nothing is launched from here on.
func (q *Queue) Fail(err error) {
	if q.err == nil {
		q.err = err
	}
}

// fail keeps the first error.
func (q *Queue) fail(format string, args ...any) {
	if q.err == nil {
		q.err = fmt.Errorf(format, args...)
	}
}

// Names is the kernels that f would launch, in order; it launches none.
func (q *Queue) Names(f func(q *Queue)) []string {
	var names []string
	q.names = &names
	f(q)
	q.names = nil
	return names
}

// arg is a kernel argument with the letter of its kind.
type arg struct {
	kind byte
	bits uint64
	real float64
}

func ptr(p gpu.Ptr) arg     { return arg{kind: 'p', bits: uint64(p)} }
func i32(n int) arg         { return arg{kind: 'i', bits: uint64(n)} }
func i64(n int64) arg       { return arg{kind: 'l', bits: uint64(n)} }
func realArg(x float64) arg { return arg{kind: 'r', real: x} }

// geometry gives the numbers of the kernel's GEOMETRY; ones after an error, so that a launcher can reckon on.
func (q *Queue) geometry(k declaration) []int32 {
	if loaded := q.loaded(k); loaded != nil {
		return loaded.geometry
	}
	return ones
}

var ones = slices.Repeat([]int32{1}, 16)

// loaded is a kernel of the library, which is loaded where it was not; nil after an error, which is then the queue's.
func (q *Queue) loaded(k declaration) *kernel {
	if q.err != nil {
		return nil
	}
	loaded, err := q.library.kernel(k)
	q.err = err
	return loaded
}

// launch queues a kernel with blocks of geometry[0] threads. A grid of no blocks is nothing to do.
func (q *Queue) launch(k declaration, grid [3]int, shared int, args ...arg) {
	if q.err != nil || grid[0] == 0 || grid[1] == 0 || grid[2] == 0 {
		return
	}
	if q.names != nil {
		*q.names = append(*q.names, k.name)
		return
	}
	loaded := q.loaded(k)
	if loaded == nil {
		return
	}
	if len(args) != len(k.params) {
		q.fail("kernel %s: %d arguments for the parameters %q", k.name, len(args), k.params)
		return
	}
	for i, a := range args {
		if a.kind != k.params[i] {
			q.fail("kernel %s: argument %d is of kind %c, the parameters are %q", k.name, i, a.kind, k.params)
			return
		}
		switch {
		case a.kind == 'i' && int64(a.bits) != int64(int32(a.bits)):
			q.fail("kernel %s: argument %d is %d, beyond 32 bits", k.name, i, int64(a.bits))
			return
		case a.kind == 'r' && q.library.precision != FP64:
			q.slots[i] = uint64(math.Float32bits(float32(a.real)))
		case a.kind == 'r':
			q.slots[i] = math.Float64bits(a.real)
		default:
			q.slots[i] = a.bits
		}
	}
	if shared > 0 {
		if q.err = loaded.function.AllowShared(shared); q.err != nil {
			return
		}
	}
	if !q.stream.Rehearsing() {
		loaded.launches++
	}
	block := [3]int{int(loaded.geometry[0]), 1, 1}
	q.err = q.stream.Launch(loaded.function, grid, block, shared, q.slots[:len(args)])
}

// line is a grid of blocks along x for n things, `per` to a block.
func line(n, per int64) [3]int { return [3]int{int(blocks(n, per)), 1, 1} }

func blocks(n, per int64) int64 { return (n + per - 1) / per }

// launchElements queues an elementwise kernel over n elements, geometry {threads, elements of a thread}.
func (q *Queue) launchElements(k declaration, n int64, args ...arg) {
	g := q.geometry(k)
	q.launch(k, line(n, int64(g[0])*int64(g[1])), 0, args...)
}

// launchRows queues a kernel over rows of c channels, geometry {threads, rows of a thread, channels of a thread}.
func (q *Queue) launchRows(k declaration, rows int64, c int, args ...arg) {
	g := q.geometry(k)
	chunks := blocks(int64(c), int64(g[2]))
	q.launch(k, line(blocks(rows, int64(g[1]))*chunks, int64(g[0])), 0, args...)
}
