package diffusion

import (
	"fmt"
	"math/bits"

	"ddgpu/kernels"
)

// cut is the part of a global batch that one launch computes: a group of whole virtual shards.
//
// The batch of B images has S shards of ⌈B/S⌉ images each; the last ones may be short or empty. Device d of D and micro-batch m of M compute
// the S/(D·M) shards from (d·M + m)·S/(D·M) on, so that the tree over shards has one subtree for each launch, whatever D and M.
type cut struct {
	First, Count int // images of the global batch
	Shards       kernels.Shards
}

func (t *TrainConfig) shardSize() int { return (t.Batch + t.Shards - 1) / t.Shards }

// cut gives the part of micro-batch m on device d of devices.
func (t *TrainConfig) cut(devices, d, m int) cut {
	size := t.shardSize()
	shards := t.Shards / (devices * t.MicroBatches)
	first := min((d*t.MicroBatches+m)*shards*size, t.Batch)
	return cut{First: first, Count: min(shards*size, t.Batch-first), Shards: kernels.Shards{Count: shards, Size: size}}
}

// local is the part of all micro-batches on device d.
func (t *TrainConfig) local(devices, d int) (first, count int) {
	a, z := t.cut(devices, d, 0), t.cut(devices, d, t.MicroBatches-1)
	return a.First, z.First + z.Count - a.First
}

// treeLevels is how many levels of the tree lie above the micro-batches: one more than so many arenas hold its pending nodes.
func (t *TrainConfig) treeLevels() int { return bits.Len(uint(t.MicroBatches)) - 1 }

// checkDevices says whether the shards can be divided over so many devices.
func (t *TrainConfig) checkDevices(devices int) error {
	reason := ""
	switch {
	case devices&(devices-1) != 0 || devices*t.MicroBatches > t.Shards:
		reason = fmt.Sprintf("cannot be divided over %d devices with %d micro-batches each: the devices must be a power of two, and "+
			"devices × micro-batches at most the shards", devices, t.MicroBatches)
	case devices > kernels.MaxTreeParts:
		reason = fmt.Sprintf("would be divided over %d devices: at most %d can add up their gradients", devices, kernels.MaxTreeParts)
	case t.Shards > kernels.MaxTreeParts*devices*t.MicroBatches:
		reason = fmt.Sprintf("is too many for %d devices with %d micro-batches each: one launch adds up at most %d shards", devices, t.MicroBatches,
			kernels.MaxTreeParts)
	default:
		return nil
	}
	return &ConfigError{Key: "train.shards", Reason: fmt.Sprintf("is %d, which %s", t.Shards, reason)}
}
