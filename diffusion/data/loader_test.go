package data

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// numbered is a Dataset whose image i is four bytes of value i.
type numbered struct {
	n      int
	broken int // index that fails, if positive
}

func (d numbered) Len() int     { return d.n }
func (d numbered) Shape() Shape { return Shape{2, 2, 1} }
func (d numbered) Classes() int { return d.n }
func (d numbered) At(i int, dst []byte) (int32, error) {
	if d.broken > 0 && i == d.broken {
		return 0, bad(fmt.Sprint("image ", i), "broken")
	}
	copy(dst, bytes.Repeat([]byte{byte(i)}, 4))
	return int32(i), nil
}

func TestOrderIsAPermutationOfEachEpoch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		o := NewOrder(rapid.Uint64().Draw(t, "seed"), n)
		epoch := rapid.Int64Range(0, 1000).Draw(t, "epoch")
		seen := make([]bool, n)
		for p := range n {
			seen[o.At(epoch*int64(n)+int64(p))] = true
		}
		if slices.Contains(seen, false) {
			t.Fatal("an image is missing in an epoch")
		}
	})
}

func TestOrderDependsOnSeedAndEpoch(t *testing.T) {
	a, b, c := permutation(1, 0, 100), permutation(1, 1, 100), permutation(2, 0, 100)
	if slices.Equal(a, b) || slices.Equal(a, c) {
		t.Error("epochs or seeds share an order")
	}
	// Pinned: a resumed run relies on these numbers in every later version.
	if want := []int32{2, 4, 3, 9, 0, 1, 8, 6, 5, 7}; !slices.Equal(permutation(1, 2, 10), want) {
		t.Errorf("permutation(1, 2, 10) = %v, want %v", permutation(1, 2, 10), want)
	}
}

func TestPermutationIsUniform(t *testing.T) {
	const rounds, n = 6000, 5
	var count [n][n]int
	for s := range rounds {
		for i, v := range permutation(uint64(s), 0, n) {
			count[i][v]++
		}
	}
	// χ² with 16 degrees of freedom exceeds 45 with probability 1.4e-4; the seeds are fixed.
	var chi2 float64
	for i := range n {
		for v := range n {
			d := float64(count[i][v]) - rounds/n
			chi2 += d * d / (rounds / n)
		}
	}
	if chi2 > 45 {
		t.Errorf("χ² = %g", chi2)
	}
}

func TestLoaderGivesTheStreamFromAnyStep(t *testing.T) {
	ctx := context.Background()
	set := numbered{n: 23}
	const batch = 5
	want := NewOrder(7, set.n)
	for _, first := range []int{0, 1, 13} {
		for _, ahead := range []int{1, 2, 5} {
			l := NewLoader(set, NewOrder(7, set.n), batch, first, ahead)
			for step := first; step < first+30; step++ {
				b, err := l.Next(ctx)
				if err != nil || b.Step != step || len(b.Images) != batch*4 {
					t.Fatalf("step %d: %+v, %v", step, b, err)
				}
				for i := range batch {
					if image := want.At(int64(step*batch + i)); b.Labels[i] != int32(image) || b.Images[4*i+3] != byte(image) {
						t.Fatalf("step %d, ahead %d: image %d is %d, want %d", step, ahead, i, b.Labels[i], image)
					}
				}
			}
			l.Close()
		}
	}
}

func TestLoaderReportsAnErrorAtItsStep(t *testing.T) {
	set := numbered{n: 10, broken: 4}
	order := NewOrder(1, set.n)
	at := 0
	for order.At(int64(at)) != 4 {
		at++
	}
	l := NewLoader(set, order, 2, 0, 3)
	defer l.Close()
	for step := 0; ; step++ {
		_, err := l.Next(context.Background())
		if step < at/2 && err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		if step == at/2 {
			refused(t, "broken image", err, "image 4", fmt.Sprintf("batch %d", step))
			if _, again := l.Next(context.Background()); again != err {
				t.Errorf("the call after the error gives %v", again)
			}
			return
		}
	}
}

func TestLoaderStopsWithItsContext(t *testing.T) {
	l := NewLoader(blocked{}, NewOrder(1, 4), 2, 0, 2)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	l.Close()
}

type blocked struct{ numbered }

func (blocked) Len() int                      { return 4 }
func (blocked) At(int, []byte) (int32, error) { select {} }
