package data

import (
	"math/bits"
	"math/rand/v2"
	"sync"
)

// Order is the endless stream of training images: epoch after epoch, each a permutation that
// (seed, epoch) alone decides. Image i of step k is position k·batch + i, so a run resumes from
// its step and nothing else. It may be used from any goroutine.
type Order struct {
	seed uint64
	n    int

	mu     sync.Mutex
	epochs map[int64][]int32 // the last two: readers work ahead across a border
}

// NewOrder orders n images.
func NewOrder(seed uint64, n int) *Order {
	return &Order{seed: seed, n: n, epochs: map[int64][]int32{}}
}

// At is the image at a position of the stream.
func (o *Order) At(position int64) int {
	epoch := position / int64(o.n)
	o.mu.Lock()
	defer o.mu.Unlock()
	order, ok := o.epochs[epoch]
	if !ok {
		order = permutation(o.seed, uint64(epoch), o.n)
		for e := range o.epochs {
			if e < epoch-1 || e > epoch+1 {
				delete(o.epochs, e)
			}
		}
		o.epochs[epoch] = order
	}
	return int(order[position%int64(o.n)])
}

// permutation of 0 … n−1 by Fisher and Yates with numbers from PCG. It is spelled out here
// because rand.Perm may change with Go's release, and with it the bits of a resumed run.
func permutation(seed, stream uint64, n int) []int32 {
	random := rand.NewPCG(seed, stream)
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	for i := n - 1; i > 0; i-- {
		// ⌊u·(i+1)/2^64⌋ is uniform up to a bias of n/2^64.
		j, _ := bits.Mul64(random.Uint64(), uint64(i+1))
		order[i], order[j] = order[j], order[i]
	}
	return order
}
