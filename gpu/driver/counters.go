package driver

/*
#include "dispatch/dispatch.h"
*/
import "C"

// Counters is what the PTX executor counted in the launches of one kernel.
type Counters struct {
	Kernel       string            `json:"kernel"`
	Launches     uint64            `json:"launches"`
	Instructions map[string]uint64 `json:"instructions"` // of a warp, by class
	Lanes        uint64            `json:"lanes"`        // active in all of them
	Branches     uint64            `json:"branches"`
	Divergent    uint64            `json:"divergent"` // branches that parted a warp
	// GlobalRequests are the accesses to global memory of a warp, GlobalSectors the pieces of 32 bytes that they touch.
	GlobalRequests uint64 `json:"global_requests"`
	GlobalSectors  uint64 `json:"global_sectors"`
	// LoadSectors and StoreSectors are GlobalSectors by direction; ReadBytes and WrittenBytes count the bytes once for each launch, the least that
	// it must move.
	LoadSectors  uint64 `json:"load_sectors"`
	StoreSectors uint64 `json:"store_sectors"`
	ReadBytes    uint64 `json:"read_bytes"`
	WrittenBytes uint64 `json:"written_bytes"`
	// Wavefronts are the passes that the accesses of a warp to shared memory take, LeastWavefronts those without conflicts of banks.
	SharedRequests  uint64 `json:"shared_requests"`
	Wavefronts      uint64 `json:"shared_wavefronts"`
	LeastWavefronts uint64 `json:"shared_wavefronts_least"`
}

// Total is the instructions of all classes.
func (c Counters) Total() (n uint64) {
	for _, of := range c.Instructions {
		n += of
	}
	return n
}

// Count begins anew to count what kernels do on a device that interprets PTX, or ends it. No launch may be under way.
func Count(on bool) {
	var flag C.int
	if on {
		flag = 1
	}
	C.ddgpu_counters_start(flag)
}

// Counted is the counters of each kernel that was launched since Count, by name.
func Counted() []Counters {
	var all []Counters
	var k C.ddgpu_kernel_counters
	for n := C.int(0); C.ddgpu_counters_read(n, &k) != 0; n++ {
		c := Counters{
			Kernel: C.GoString(&k.name[0]), Launches: uint64(k.launches), Instructions: map[string]uint64{}, Lanes: uint64(k.lanes),
			Branches: uint64(k.branches), Divergent: uint64(k.divergent),
			GlobalRequests: uint64(k.global_requests), GlobalSectors: uint64(k.global_sectors),
			LoadSectors: uint64(k.load_sectors), StoreSectors: uint64(k.store_sectors),
			ReadBytes: uint64(k.read_bytes), WrittenBytes: uint64(k.written_bytes),
			SharedRequests: uint64(k.shared_requests), Wavefronts: uint64(k.wavefronts), LeastWavefronts: uint64(k.least_wavefronts),
		}
		for class := range k.instructions {
			name := C.ddgpu_counters_class(C.int(class))
			if name != nil && k.instructions[class] > 0 {
				c.Instructions[C.GoString(name)] = uint64(k.instructions[class])
			}
		}
		all = append(all, c)
	}
	return all
}
