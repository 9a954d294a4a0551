package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ddgpu/kernels/ptxas"
)

// fakePtxas writes a program that prints a recorded output and ends with the given status.
func fakePtxas(t *testing.T, file, status string) string {
	t.Helper()
	recording, err := filepath.Abs(filepath.Join("..", "ptxas", "testdata", file))
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
	if len(problems) != len(ptxas.Chips)*2 || !strings.HasSuffix(problems[0], "groupnorm_backward on sm_70 spills 1020 bytes") {
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
	rows := []row{{Name: "unbounded", Usage: make([]*ptxas.Usage, len(ptxas.Chips))}}
	if problems := report(&bytes.Buffer{}, rows); len(problems) != 1 {
		t.Errorf("problems %q, the missing launch bound expected", problems)
	}
}
