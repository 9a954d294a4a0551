package data

import (
	"context"
	"fmt"
)

// Batch is the images of one step. Its memory is the loader's.
type Batch struct {
	Step   int
	Images []byte  // [B][H][W][C]
	Labels []int32 // [B]
}

// Loader reads the batches of an Order ahead of their use, each in a goroutine of its own.
type Loader struct {
	set    Dataset
	order  *Order
	batch  int
	next   int // step of the batch that Next gives
	first  int
	slots  []slot
	inUse  bool
	err    error // of the first batch that could not be read
	cancel context.CancelFunc
}

// slot reads every len(slots)-th batch into its own memory.
type slot struct {
	ready chan result
	free  chan struct{}
}

type result struct {
	Batch
	err error
}

// NewLoader starts to read the batches of step first and on, ahead batches in advance.
func NewLoader(set Dataset, order *Order, batch, first, ahead int) *Loader {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Loader{set: set, order: order, batch: batch, next: first, first: first, slots: make([]slot, max(1, ahead)), cancel: cancel}
	for i := range l.slots {
		l.slots[i] = slot{make(chan result, 1), make(chan struct{}, 1)}
		go l.read(ctx, l.slots[i], first+i)
	}
	return l
}

func (l *Loader) read(ctx context.Context, s slot, step int) {
	b := Batch{Images: make([]byte, l.batch*l.set.Shape().Bytes()), Labels: make([]int32, l.batch)}
	for ; ; step += len(l.slots) {
		b.Step = step
		s.ready <- result{b, l.fill(b)} // does not block: the slot was freed
		select {
		case <-s.free:
		case <-ctx.Done():
			return
		}
	}
}

func (l *Loader) fill(b Batch) error {
	size := l.set.Shape().Bytes()
	for i := range b.Labels {
		var err error
		at := l.order.At(int64(b.Step)*int64(l.batch) + int64(i))
		if b.Labels[i], err = l.set.At(at, b.Images[i*size:(i+1)*size]); err != nil {
			return fmt.Errorf("reading batch %d: %w", b.Step, err)
		}
	}
	return nil
}

// Next waits for the next batch. It may be used until Next or Close is called again. After a batch that cannot be read every call gives its
// error, so that none is passed over.
func (l *Loader) Next(ctx context.Context) (Batch, error) {
	if l.err != nil {
		return Batch{}, l.err
	}
	if l.inUse {
		l.slots[(l.next-1-l.first)%len(l.slots)].free <- struct{}{}
		l.inUse = false
	}
	select {
	case r := <-l.slots[(l.next-l.first)%len(l.slots)].ready:
		l.inUse = true
		l.next++
		l.err = r.err
		return r.Batch, r.err
	case <-ctx.Done():
		return Batch{}, ctx.Err()
	}
}

// Close ends the reading. The batch of the last Next must not be used any more.
func (l *Loader) Close() { l.cancel() }
