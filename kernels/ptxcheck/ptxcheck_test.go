package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func recorded(t *testing.T, name string) map[string]usage {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return parseUsage(text)
}

func TestParseUsage(t *testing.T) {
	for _, c := range []struct {
		file, kernel string
		want         usage
	}{
		{"reduce.sm_90.txt", "pixel_sum", usage{Registers: 26, Shared: 4096}},
		{"reduce.sm_90.txt", "shard_sum", usage{Registers: 32}},
		{"reduce.sm_90.txt", "tree_sum", usage{Registers: 44}},
		{"spills.txt", "groupnorm_backward", usage{Registers: 32, Spill: 464 + 556, Stack: 128}},
		{"spills.txt", "groupnorm_forward", usage{Registers: 32, Spill: 16 + 20, Stack: 16}},
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
	got := parseThreads([]byte(ptx))
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
		for _, chip := range chips {
			if chip.arch != c.arch {
				continue
			}
			if got := chip.blocksPerMultiprocessor(c.threads, c.registers, c.shared); got != c.want {
				t.Errorf("%+v: %d blocks", c, got)
			}
		}
	}
}

// fakePtxas writes a program that prints a recorded output and ends with the given status.
func fakePtxas(t *testing.T, file, status string) string {
	t.Helper()
	recording, err := filepath.Abs(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ptxas")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncat '"+recording+"' >&2\nexit "+status+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func writePTX(t *testing.T, entries ...string) string {
	t.Helper()
	var text strings.Builder
	for _, e := range entries {
		text.WriteString(".visible .entry " + e + "()\n.maxntid 256, 1, 1\n{\n\tret;\n}\n")
	}
	path := filepath.Join(t.TempDir(), "kernels.ptx")
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReport(t *testing.T) {
	rows, err := check(fakePtxas(t, "reduce.sm_90.txt", "0"), []string{writePTX(t, "tree_sum", "pixel_sum", "shard_sum")})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if problems := report(&out, rows); len(problems) != 0 {
		t.Errorf("problems %q, none expected", problems)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	const want = "pixel_sum                            256   4096     0     0     26   8     26   4     26   8     26   6     26   6     26   8"
	if got := lines[len(lines)-3]; got != want {
		t.Errorf("line\n%s\nexpected\n%s", got, want)
	}
	for _, line := range lines {
		if len(line) > 130 {
			t.Errorf("a line of %d columns: %s", len(line), line)
		}
	}
}

func TestReportSpills(t *testing.T) {
	rows, err := check(fakePtxas(t, "spills.txt", "0"), []string{writePTX(t, "groupnorm_backward", "groupnorm_forward")})
	if err != nil {
		t.Fatal(err)
	}
	problems := report(&bytes.Buffer{}, rows)
	if len(problems) != len(chips)*2 || !strings.Contains(problems[0], "groupnorm_backward on sm_70 spills") {
		t.Errorf("problems %q, one for each kernel and chip expected", problems)
	}
}

func TestCheckRefuses(t *testing.T) {
	if _, err := check(fakePtxas(t, "spills.txt", "255"), []string{writePTX(t, "groupnorm_forward")}); err == nil {
		t.Error("no error from an assembler that fails")
	}
	if _, err := check(fakePtxas(t, "spills.txt", "0"), []string{writePTX(t, "another")}); err == nil {
		t.Error("no error for a kernel that the assembler does not name")
	}
	if _, err := check("ptxas", nil); err == nil {
		t.Error("no error without files")
	}
	rows := []row{{Name: "unbounded", Usage: make([]usage, len(chips))}}
	if problems := report(&bytes.Buffer{}, rows); len(problems) != 1 {
		t.Errorf("problems %q, the missing launch bound expected", problems)
	}
}
