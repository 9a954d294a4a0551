package ptxas

// A Chip is what bounds the blocks that a multiprocessor holds at once: CUDA C++ Programming Guide, table "Technical
// Specifications per Compute Capability", and the allocation units of CUDA's occupancy calculator (cuda_occupancy.h).
type Chip struct {
	Arch       string
	warps      int // resident per multiprocessor
	blocks     int // resident per multiprocessor
	shared     int // bytes of shared memory per multiprocessor
	reserved   int // bytes of shared memory that the system takes of each block
	sharedUnit int // bytes: shared memory of a block is rounded up to this
}

// Chips are the compute capabilities that the kernels are assembled for.
var Chips = []Chip{
	{Arch: "sm_70", warps: 64, blocks: 32, shared: 96 << 10, sharedUnit: 256},
	{Arch: "sm_75", warps: 32, blocks: 16, shared: 64 << 10, sharedUnit: 256},
	{Arch: "sm_80", warps: 64, blocks: 32, shared: 164 << 10, reserved: 1 << 10, sharedUnit: 128},
	{Arch: "sm_86", warps: 48, blocks: 16, shared: 100 << 10, reserved: 1 << 10, sharedUnit: 128},
	{Arch: "sm_89", warps: 48, blocks: 24, shared: 100 << 10, reserved: 1 << 10, sharedUnit: 128},
	{Arch: "sm_90", warps: 64, blocks: 32, shared: 228 << 10, reserved: 1 << 10, sharedUnit: 128},
}

// The same on every chip from sm_70 to sm_90.
const (
	WarpSize      = 32
	Partitions    = 4        // of a multiprocessor, each with a scheduler and its share of the registers
	SharedDefault = 48 << 10 // bytes of shared memory that a block gets without opting in to more
	MaxRegisters  = 255      // of a thread

	registers    = 64 << 10 // of a multiprocessor
	registerUnit = 256      // registers of a warp are rounded up to this
)

// BlocksPerMultiprocessor is how many blocks of this many threads, registers per thread and bytes of shared memory a
// multiprocessor of the chip holds: the least of what its warps, blocks, registers and shared memory allow.
func (c Chip) BlocksPerMultiprocessor(threads, perThread, shared int) int {
	warps := (threads + WarpSize - 1) / WarpSize
	n := min(c.blocks, c.warps/warps)
	if perThread > 0 {
		n = min(n, registers/Partitions/roundUp(perThread*WarpSize, registerUnit)*Partitions/warps)
	}
	if taken := roundUp(shared+c.reserved, c.sharedUnit); taken > 0 {
		n = min(n, c.shared/taken)
	}
	return n
}

// ChipOf finds the chip of an architecture such as sm_80.
func ChipOf(arch string) (Chip, bool) {
	for _, c := range Chips {
		if c.Arch == arch {
			return c, true
		}
	}
	return Chip{}, false
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }
