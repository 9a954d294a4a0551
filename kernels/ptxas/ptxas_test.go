package ptxas

import (
	"os"
	"path/filepath"
	"testing"
)

func recorded(t *testing.T, name string) map[string]Usage {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return ParseUsage(text)
}

func TestParseUsage(t *testing.T) {
	for _, c := range []struct {
		file, kernel string
		want         Usage
	}{
		{"reduce.sm_90.txt", "pixel_sum", Usage{Registers: 26, Shared: 4096}},
		{"reduce.sm_90.txt", "shard_sum", Usage{Registers: 32}},
		{"reduce.sm_90.txt", "tree_sum", Usage{Registers: 44}},
		{"spills.txt", "groupnorm_backward", Usage{Registers: 32, Spill: 464 + 556, Stack: 128}},
		{"spills.txt", "groupnorm_forward", Usage{Registers: 32, Spill: 16 + 20, Stack: 16}},
	} {
		got, ok := recorded(t, c.file)[c.kernel]
		if !ok || got != c.want {
			t.Errorf("%s: %s is %+v, %+v expected", c.file, c.kernel, got, c.want)
		}
	}
	if n := len(recorded(t, "reduce.sm_90.txt")); n != 3 {
		t.Errorf("%d kernels in reduce.sm_90.txt, 3 expected", n)
	}
}

func TestParseThreads(t *testing.T) {
	const ptx = `.version 6.3
.visible .entry one(
	.param .u64 one_param_0
)
.maxntid 256, 1, 1
{
	ret;
}
	// .globl	two
.visible .entry two(
	.param .u32 two_param_0
)
.maxntid 16, 8, 1                      // @two
.minnctapersm 2
{
	ret;
}
.visible .entry plain()
{
	ret;
}
.visible .entry three()
.maxntid 64
{
	ret;
}
`
	got := ParseThreads([]byte(ptx))
	want := map[string]int{"one": 256, "two": 128, "plain": 0, "three": 64}
	if len(got) != len(want) {
		t.Errorf("entries %v, %v expected", got, want)
	}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s: %d threads, %d expected", name, got[name], n)
		}
	}
}

// Values by hand from the rules of CUDA's occupancy calculator.
func TestBlocksPerMultiprocessor(t *testing.T) {
	for _, c := range []struct {
		arch                       string
		threads, registers, shared int
		want                       int
	}{
		{"sm_70", 256, 32, 0, 8},        // 64 warps
		{"sm_75", 256, 32, 0, 4},        // 32 warps
		{"sm_86", 256, 32, 0, 6},        // 48 warps
		{"sm_80", 32, 16, 0, 32},        // blocks
		{"sm_89", 32, 16, 0, 24},        // blocks
		{"sm_75", 32, 16, 0, 16},        // blocks
		{"sm_70", 256, 37, 0, 6},        // 1280 registers a warp: 12 warps in each of 4 partitions
		{"sm_90", 256, 255, 0, 1},       // 8192 registers a warp: 2 warps in each partition
		{"sm_80", 1024, 64, 0, 1},       // 2048 registers a warp: 8 warps in each partition
		{"sm_80", 1024, 72, 0, 0},       // 2304 registers a warp: 7 warps in each partition
		{"sm_70", 128, 16, 48 << 10, 2}, // 96 KB
		{"sm_75", 128, 16, 48 << 10, 1}, // 64 KB
		{"sm_86", 128, 16, 48 << 10, 2}, // 100 KB, 49 with the system's
		{"sm_80", 128, 16, 40 << 10, 4}, // 164 KB, 41 with the system's
		{"sm_90", 128, 16, 48 << 10, 4}, // 228 KB, 49 with the system's
		{"sm_86", 100, 16, 0, 12},       // 4 warps
	} {
		for _, chip := range Chips {
			if chip.Arch != c.arch {
				continue
			}
			if got := chip.BlocksPerMultiprocessor(c.threads, c.registers, c.shared); got != c.want {
				t.Errorf("%+v: %d blocks", c, got)
			}
		}
	}
}

func TestRuns(t *testing.T) {
	for _, c := range []struct {
		ptx, arch string
		want      bool
	}{
		{".version 6.3\n.target sm_70\n", "sm_70", true},
		{".version 6.3\n.target sm_70\n", "sm_90", true},
		{".version 7.5\n.target sm_80\n", "sm_75", false},
		{".version 7.5\n.target sm_80\n", "sm_80", true},
	} {
		if got := Runs([]byte(c.ptx), c.arch); got != c.want {
			t.Errorf("%q on %s: %v", c.ptx, c.arch, got)
		}
	}
}
