package driver

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"gorgonia.org/cu"
)

var orders = []string{"forward", "reverse", "ahead", "random:7"}

// What threads of a block may not do is an error that names the kernel, the thread and the places in the source.
func TestDivergence(t *testing.T) {
	for _, c := range []struct {
		kernel  string
		threads int
		n       uint64
		details []string
	}{
		{"partial_barrier", 64, 7, []string{"kernel partial_barrier", "wrong.cu:", "has returned"}},
		{"partial_barrier", 64, 63, []string{"a barrier that only ", " of 64 threads reach", "has returned"}},
		{"two_barriers", 64, 10, []string{"barriers at two places", "waits at", "wrong.cu:"}},
		{"divergent_shuffle", 32, 5, []string{"lanes of a warp meet in different collectives", "mask 0xffffffff"}},
		{"divergent_shuffle", 96, 70, []string{"lanes of a warp meet in different collectives"}},
		{"shuffle_and_barrier", 32, 5, []string{"a barrier that only ", "in a warp collective at"}},
		{"plain_barrier", 64, 0, []string{"make it a BLOCK_KERNEL"}},
	} {
		for _, order := range orders {
			t.Run(fmt.Sprintf("%s/%d/%s", c.kernel, c.n, order), func(t *testing.T) {
				if c.kernel == "plain_barrier" && Sanitizer() == "thread" {
					c.details = nil // every kernel runs on fibers there
				}
				open(t, "host,tiles=gpu,order="+order)
				f := kernel(t, c.kernel)
				p := memory(t, c.threads)
				ok(t, start(f, c.threads, p, c.n))
				err := cu.Synchronize()
				if c.details == nil {
					ok(t, err)
					return
				}
				for _, detail := range c.details {
					expect(t, err, LaunchFailed, detail)
				}
				expect(t, cu.Synchronize(), LaunchFailed, "") // sticky
			})
		}
	}
}

// A device runs well after a block was given up in the middle, in a new context.
func TestAfterDivergence(t *testing.T) {
	open(t, "host,tiles=gpu")
	for i := range 3 {
		f := kernel(t, "two_barriers")
		expect(t, finish(f, 1024, memory(t, 1024), 100), LaunchFailed, "two places")
		ok(t, cu.Device(0).ResetPrimaryCtx())
		ok(t, cu.SetCurrentContext(must(cu.Device(0).RetainPrimaryCtx())(t)))
		p := memory(t, 1024)
		ok(t, finish(kernel(t, "barriers"), 1024, p, uint64(i)))
		if v := read[float32](t, p, 1024); v[1023] != float32(i) {
			t.Errorf("got %v", v[1023])
		}
	}
}

func TestAssertion(t *testing.T) {
	open(t, "host,tiles=gpu")
	expect(t, finish(kernel(t, "assertion"), 64, memory(t, 64), 9), Assert, "thread (9, 0, 0)")
}

// Lanes that have returned need not come to a shuffle, and give NaN to those that read them.
func TestShuffleFromReturnedLane(t *testing.T) {
	for _, order := range orders {
		open(t, "host,tiles=gpu,order="+order)
		p := memory(t, 64)
		ok(t, finish(kernel(t, "shuffle_returned"), 64, p, 41))
		for i, v := range read[float32](t, p, 64)[:41] {
			switch {
			case i == 31: // lane 32 is lane 0
				if v != 0 {
					t.Errorf("%s: lane 31 got %v", order, v)
				}
			case i == 40:
				if v == v {
					t.Errorf("%s: the last lane got %v from a lane that returned", order, v)
				}
			case v != float32(i+1):
				t.Errorf("%s: lane %d got %v", order, i, v)
			}
		}
		Close()
	}
}

// The threads run in the order that was asked for.
func TestOrder(t *testing.T) {
	const threads, rounds = 96, 2
	run := func(order string) [][]int32 {
		open(t, "host,tiles=gpu,order="+order)
		defer Close()
		seen, count := memory(t, 2*rounds*threads), memory(t, 1)
		ok(t, cu.MemsetD32Async(cu.DevicePtr(count), 0, 1, cu.Stream{}))
		ok(t, finish(kernel(t, "order"), threads, seen, count, rounds))
		all := read[int32](t, seen, 2*rounds*threads)
		var phases [][]int32
		for r := range rounds {
			phase := all[2*r*threads : 2*(r+1)*threads]
			phases = append(phases, phase)
			// Every thread is seen twice between two barriers.
			count := map[int32]int{}
			for _, i := range phase {
				count[i]++
			}
			for i := range int32(threads) {
				if count[i] != 2 {
					t.Fatalf("%s: thread %d was seen %d times in round %d", order, i, count[i], r)
				}
			}
		}
		return phases
	}
	if Sanitizer() == "thread" {
		return // the kernel is one race
	}
	if p := run("forward"); p[0][0] != 0 || p[0][1] != 1 || p[0][31] != 31 {
		t.Errorf("forward: %v", p[0])
	}
	if p := run("reverse"); p[0][0] != 95 || p[0][1] != 94 {
		t.Errorf("reverse: %v", p[0])
	}
	p := run("ahead")
	for r, warp := range []int32{2, 1} {
		for _, i := range p[r][:64] {
			if i/32 != warp {
				t.Errorf("ahead: thread %d in round %d before warp %d reached the barrier", i, r, warp)
				break
			}
		}
	}
	a, b, c := run("random:1"), run("random:1"), run("random:2")
	if !slices.Equal(a[0], b[0]) || slices.Equal(a[0], c[0]) || slices.Equal(a[0], a[1]) || slices.IsSorted(a[0]) {
		t.Errorf("random: %v, again %v, another seed %v", a[0], b[0], c[0])
	}
}

// Reports how fast threads switch at barriers.
func BenchmarkBarrier(b *testing.B) {
	open(b, "host,tiles=gpu,threads=1")
	f := kernel(b, "barriers")
	p := memory(b, 256)
	best := math.Inf(1)
	const rounds, threads = 2000, 256
	for b.Loop() {
		begin := time.Now()
		if err := finish(f, threads, p, rounds); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Since(begin).Seconds())
	}
	b.ReportMetric(rounds*threads/best/1e6, "Mswitches/s")
}
