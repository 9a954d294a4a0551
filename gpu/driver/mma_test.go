package driver

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"gorgonia.org/cu"
)

// random is n draws from N(0, 1) whose last bits, those that mask leaves out, are 0.
func random(rng *rand.Rand, n int, mask uint32) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = math.Float32frombits(math.Float32bits(float32(rng.NormFloat64())) & mask)
	}
	return v
}

const (
	bf16Mask = 0xffff0000
	tf32Mask = 0xffffe000
)

// bf16s is the upper halves of v.
func bf16s(v []float32) []uint16 {
	b := make([]uint16, len(v))
	for i, x := range v {
		b[i] = uint16(math.Float32bits(x) >> 16)
	}
	return b
}

// write allocates device memory that holds v.
func write[T any](t testing.TB, v []T) uint64 {
	t.Helper()
	size := int64(len(v)) * int64(unsafe.Sizeof(v[0]))
	p := must(cu.MemAlloc(size))(t)
	ok(t, cu.MemcpyHtoD(p, unsafe.Pointer(&v[0]), size))
	return uint64(p)
}

// product is d + a·b in float64, a [rows][k] with the values that mask leaves, b [k][columns].
func product(d, a, b []float32, rows, k, columns int, mask uint32) []float64 {
	value := func(x float32) float64 { return float64(math.Float32frombits(math.Float32bits(x) & mask)) }
	c := make([]float64, rows*columns)
	for i := range rows {
		for j := range columns {
			if d != nil {
				c[i*columns+j] = float64(d[i*columns+j])
			}
			for l := range k {
				c[i*columns+j] += value(a[i*k+l]) * value(b[l*columns+j])
			}
		}
	}
	return c
}

// distance is ‖got − want‖/‖want‖.
func distance(got []float32, want []float64) float64 {
	var difference, norm float64
	for i, w := range want {
		difference += (float64(got[i]) - w) * (float64(got[i]) - w)
		norm += w * w
	}
	return math.Sqrt(difference / norm)
}

// One product of fragments against float64, and with fragments read at wrong places.
func TestFragments(t *testing.T) {
	for _, c := range []struct {
		kernel string
		k      int
		mask   uint32
	}{{"fragments_bf16", 16, bf16Mask}, {"fragments_tf32", 8, tf32Mask}} {
		for _, order := range orders {
			t.Run(c.kernel+"/"+order, func(t *testing.T) {
				seed := rand.Uint64()
				rng := rand.New(rand.NewPCG(seed, 0))
				open(t, "host,tiles=gpu,order="+order)
				f := kernel(t, c.kernel)
				// What tf32 does not read of its inputs is there all the same.
				given := uint32(0xffffffff)
				if c.k == 16 {
					given = c.mask
				}
				d, a, b := random(rng, 16*8, 0xffffffff), random(rng, 16*c.k, given), random(rng, c.k*8, given)
				want := product(d, a, b, 16, c.k, 8, c.mask)
				for fault := range uint64(2) {
					p := write(t, d)
					ok(t, finish(f, 32, p, write(t, a), write(t, b), fault))
					e := distance(read[float32](t, p, len(d)), want)
					if fault == 0 && !(e < 1e-6) || fault == 1 && e < 1e-2 {
						t.Errorf("fault %d: error %.2g (seed %d)", fault, e, seed)
					}
				}
			})
		}
	}
}

// A product by cp.async, ldmatrix and mma against float64 in every order of the threads; its mistakes are seen in some order.
func TestProduct(t *testing.T) {
	const rows, k, columns = 57, 80, 64
	names := []string{"none", "wrong fragment", "no wait", "no barrier after the wait", "no barrier before the copy", "wrong matrix"}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	a, b := random(rng, rows*k, bf16Mask), random(rng, k*columns, bf16Mask)
	want := append(product(nil, a, b, rows, k, columns, bf16Mask), make([]float64, (64-rows)*columns)...)
	for fault, name := range names {
		t.Run(name, func(t *testing.T) {
			if fault > 2 && fault < 5 && Sanitizer() == "thread" {
				return // a race ends the process
			}
			seen := 0
			for _, order := range orders {
				open(t, "host,tiles=gpu,order="+order)
				c := memory(t, 64*columns)
				ok(t, finish(kernel(t, "product_bf16"), 128, c, write(t, bf16s(a)), write(t, bf16s(b)), rows, k, uint64(fault)))
				if e := distance(read[float32](t, c, 64*columns), want); !(e < 1e-6) {
					seen++
					if fault == 0 {
						t.Errorf("%s: error %.2g (seed %d)", order, e, seed)
					}
				}
				Close()
			}
			if fault > 0 && seen == 0 {
				t.Errorf("all orders give the right product")
			}
			// Mistakes of one thread show in every order.
			if (fault == 1 || fault == 2 || fault == 5) && seen < len(orders) {
				t.Errorf("%d of %d orders give another product", seen, len(orders))
			}
		})
	}
}

// Several fragments in one call have the bits of one call for each.
func TestFragmentsTogether(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	open(t, "host,tiles=gpu")
	a, b := random(rng, 32*8, 0xffffffff), random(rng, 8*16, 0xffffffff)
	d, e := memory(t, 32*16), memory(t, 32*16)
	ok(t, finish(kernel(t, "together"), 32, d, e, write(t, a), write(t, b)))
	got, single := read[float32](t, d, 32*16), read[float32](t, e, 32*16)
	for i := range got {
		if got[i] != single[i] {
			t.Fatalf("element %d: %v, one by one %v (seed %d)", i, got[i], single[i], seed)
		}
	}
	if e := distance(got, product(nil, a, b, 32, 8, 16, tf32Mask)); !(e < 1e-6) {
		t.Errorf("error %.2g (seed %d)", e, seed)
	}
}

// Each value goes to the lane that the PTX ISA names.
func TestMatrices(t *testing.T) {
	x := make([]uint16, 4*64)
	for i := range x {
		x[i] = uint16(i)
	}
	for _, order := range orders {
		for _, count := range []int{1, 2, 4} {
			for transposed := range 2 {
				t.Run(fmt.Sprintf("%s/x%d/%d", order, count, transposed), func(t *testing.T) {
					open(t, "host,tiles=gpu,order="+order)
					y := memory(t, 4*32)
					ok(t, finish(kernel(t, "matrices"), 32, y, write(t, x), uint64(count), uint64(transposed)))
					for i, got := range read[uint32](t, y, 4*32) {
						matrix, row, column := i/32, i%32/4, i%4*2
						low, high := matrix*64+row*8+column, matrix*64+row*8+column+1
						if transposed == 1 {
							low, high = matrix*64+column*8+row, matrix*64+(column+1)*8+row
						}
						want := uint32(high<<16 | low)
						if matrix >= count {
							want = 7
						}
						if got != want {
							t.Fatalf("matrix %d, lane %d: %#x, want %#x", matrix, i%32, got, want)
						}
					}
				})
			}
		}
	}
}

// Copies are NaN until their group has been waited for; one without a group stays so.
func TestArrivals(t *testing.T) {
	for _, order := range orders {
		open(t, "host,tiles=gpu,order="+order)
		x := make([]float32, 16)
		for i := range x {
			x[i] = float32(i)
		}
		y := memory(t, 12)
		ok(t, finish(kernel(t, "arrivals"), 1, y, write(t, x)))
		nan := float32(math.NaN())
		want := []float32{nan, nan, nan, nan, 0, nan, nan, nan, 0, 0, 10, nan}
		for i, got := range read[float32](t, y, 12) {
			if got != want[i] && (got == got || want[i] == want[i]) {
				t.Errorf("%s: y[%d] is %v, want %v", order, i, got, want[i])
			}
		}
		Close()
	}
}

// A second thread does not find the copies of the one before it on its stack or in its place.
func TestCopiesOfEachThread(t *testing.T) {
	for _, order := range orders {
		for mistake := range uint64(4) {
			if Sanitizer() == "thread" && mistake > 0 {
				continue // a race ends the process
			}
			open(t, "host,tiles=gpu,threads=1,order="+order)
			x := make([]float32, 192)
			for i := range x {
				x[i] = float32(i)
			}
			p := write(t, x)
			ok(t, Launch(kernel(t, "neighbours_copy"), [3]int{2, 1, 1}, [3]int{32, 1, 1}, 0, cu.Stream{}, []uint64{p, mistake}))
			ok(t, cu.Synchronize())
			for i, got := range read[float32](t, p, 192)[128:] {
				want := float32(2 * (4*(i%32) ^ 4))
				if mistake == 0 && got != want || mistake == 3 && got == want {
					t.Errorf("%s, mistake %d: thread %d got %v, want %v", order, mistake, i, got, want)
				}
			}
			Close()
		}
	}
}

func TestMatrixMisuse(t *testing.T) {
	for _, c := range []struct {
		kernel  string
		n       uint64
		threads int
		want    Result
		detail  string
	}{
		{"lacking_lane", 5, 32, LaunchFailed, "has only the lanes of mask 0xffffffdf"},
		{"lacking_lane", 31, 32, LaunchFailed, "has only the lanes of mask 0x7fffffff"},
		{"lacking_lane", 40, 24, LaunchFailed, "has only the lanes of mask 0x00ffffff"},
		{"lacking_lane", 40, 1, LaunchFailed, ""},
		{"lacking_lane", 40, 32, 0, ""},
		{"copy_misuse", 0, 1, 0, ""},
		{"copy_misuse", 1, 1, MisalignedAddress, "mma.cu:"},
		{"copy_misuse", 2, 1, MisalignedAddress, "misaligned global address"},
		{"copy_misuse", 3, 1, InvalidAddressSpace, "not of the block's shared memory"},
		{"copy_misuse", 4, 1, InvalidAddressSpace, "the source of cp.async"},
		{"ldmatrix_misuse", 0, 32, 0, ""},
		{"ldmatrix_misuse", 1, 32, MisalignedAddress, "misaligned shared address"},
		{"ldmatrix_misuse", 3, 32, InvalidAddressSpace, "not of the block's shared memory"},
	} {
		t.Run(fmt.Sprintf("%s/%d/%d", c.kernel, c.n, c.threads), func(t *testing.T) {
			open(t, "host,tiles=gpu")
			err := finish(kernel(t, c.kernel), c.threads, memory(t, 64), c.n)
			if c.want == 0 {
				ok(t, err)
				return
			}
			expect(t, err, c.want, c.detail)
		})
	}
}

// Reports how fast a warp multiplies, 8 fragments in one call.
func BenchmarkProduct(b *testing.B) {
	open(b, "host,tiles=gpu,threads=1")
	f := kernel(b, "many_products")
	p := memory(b, 128)
	best := math.Inf(1)
	const rounds = 2000
	for b.Loop() {
		begin := time.Now()
		if err := finish(f, 128, p, rounds); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Since(begin).Seconds())
	}
	b.ReportMetric(rounds*4*8*16*8*16/best/1e9, "GMAC/s")
}
