package main

import (
	"bytes"
	"flag"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"ddgpu/gpu"
	"ddgpu/gpu/driver"
	"ddgpu/kernels"
	"ddgpu/kernels/selftest"
)

// A kernel that does not give what its reference says makes the selftest fail, and so does one whose output is not a number.
func TestSelftestSaysWhatIsWrong(t *testing.T) {
	scale := func(name string, want float64, by float64) selftest.Op {
		return selftest.Op{Name: name, Cases: []selftest.Case{{Shape: "1", Build: func(b *selftest.Builder) {
			x, y := b.In([]float64{1}), b.Out("y", []float64{want})
			b.Launch(func(q *kernels.Queue) { q.Scale(1, y, x, by) })
		}}}}
	}
	untouched := selftest.Op{Name: "untouched", Cases: []selftest.Case{{Shape: "1", Build: func(b *selftest.Builder) {
		b.Out("y", []float64{1})
		y, x := b.Scratch(1), b.In([]float64{1})
		b.Launch(func(q *kernels.Queue) { q.Scale(1, y, x, 1) })
	}}}}
	for _, test := range []struct {
		op     selftest.Op
		failed bool
		row    string
	}{
		{scale("right", 3, 3), false, " ok\n"},
		{scale("wrong", 3, 3.001), true, "FAIL y"},
		{untouched, true, "NaN"},
	} {
		m, err := gpu.Open("host")
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		c := cli.NewContext(&cli.App{Writer: &out}, flag.NewFlagSet("", flag.ContinueOnError), nil)
		err = selftestDevices(c, m, []kernels.Precision{kernels.FP32}, selftest.Options{Seed: 1, Ops: []selftest.Op{test.op}}, func(string) {})
		if closeErr := m.Close(); closeErr != nil {
			t.Fatal(closeErr)
		}
		if (err != nil) != test.failed || !strings.Contains(out.String(), test.row) {
			t.Errorf("%s: %v; want a row with %q:\n%s", test.op.Name, err, test.row, out.String())
		}
		if test.failed && exitCode(err) != exitError {
			t.Errorf("%s: exit code %d", test.op.Name, exitCode(err))
		}
	}
}

func TestCountersTable(t *testing.T) {
	var out strings.Builder
	err := writeCounters(&out, []driver.Counters{{Kernel: "k", Launches: 3, Instructions: map[string]uint64{"mma": 30, "integer": 70}, Lanes: 1600,
		Branches: 8, Divergent: 2, GlobalRequests: 10, GlobalSectors: 45, LoadSectors: 25, StoreSectors: 20, ReadBytes: 400,
		WrittenBytes: 640, Wavefronts: 6, LeastWavefronts: 4}, {Kernel: "idle"}})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if got, want := strings.Join(strings.Fields(lines[1]), " "), "k 3 100 16.0 25.0% 4.5 1.50 2.00 1.00 integer 70%, mma 30%"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !strings.HasPrefix(lines[2], "idle ") || strings.Contains(lines[2], "NaN") {
		t.Errorf("%q", lines[2])
	}
}
