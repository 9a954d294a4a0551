package main

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"ddgpu/diffusion"
	"ddgpu/gpu"
	"ddgpu/gpu/driver"
	"ddgpu/kernels"
	"ddgpu/kernels/selftest"
)

func selftestCommand() *cli.Command {
	return &cli.Command{
		Name:  "selftest",
		Usage: "compare every kernel with a float64 reference, on whatever device there is",
		Description: `Runs each operation on many shapes with fresh random inputs, and prints the error of the worst output, ‖Δ‖/‖reference‖, beside what is
allowed. Exit code 1 if any case fails; --seed repeats a run to the bit. --devices ptx interprets the kernels' PTX, in every precision where
none is named, and compares the results with those of the kernels that were compiled for the CPU as well.

Examples:
   ddgpu selftest
   ddgpu selftest --devices cuda:1 --op conv_forward --op conv_backward_data
   ddgpu selftest --devices ptx --short
   ddgpu selftest --devices ptx --precision bf16 --op conv_forward --counters
   ddgpu selftest --precision fp64 --devices host,tiles=gpu,order=reverse --seed 7`,
		Flags: []cli.Flag{
			devicesFlag(),
			memoryLimitFlag(),
			&cli.StringSliceFlag{Name: "op", Usage: "only the operation `NAME` (repeatable)"},
			precisionFlag(),
			&cli.Uint64Flag{Name: "seed", Usage: "`SEED` of the inputs", DefaultText: "fresh"},
			&cli.BoolFlag{Name: "short", Usage: "leave out the large shapes"},
			&cli.BoolFlag{Name: "counters", Usage: "with --devices ptx: then what each kernel did, such as instructions, sectors and bank conflicts"},
			&cli.BoolFlag{Name: "show-coverage", Usage: "then list every kernel with the operations that launched it"},
			jsonFlag("print a list with the cases of each device and precision"),
			hangFlag(),
		},
		Action: runSelftest,
	}
}

func precisionFlag() cli.Flag {
	return &cli.StringFlag{Name: "precision", Value: "fp32", Usage: "fp32, tf32, bf16, or fp64 on the host device"}
}

// precisionOf is --precision.
func precisionOf(c *cli.Context) (kernels.Precision, error) {
	p, err := kernels.ParsePrecision(c.String("precision"))
	if err != nil {
		return p, usagef("--%v", err)
	}
	return p, nil
}

// checkPrecision refuses float64 on a GPU, and tensor cores where there are none.
func checkPrecision(p kernels.Precision, m *gpu.Machine) error {
	if err := diffusion.CheckPrecision(p, m); err != nil {
		return usagef("--precision %v", err)
	}
	return nil
}

// operations checks the names of --op and gives a filter, nil for all.
func operations(c *cli.Context, more ...string) (func(string) bool, error) {
	chosen := c.StringSlice("op")
	if len(chosen) == 0 {
		return nil, nil
	}
	known := more
	for _, op := range selftest.All() {
		known = append(known, op.Name)
	}
	for _, name := range chosen {
		if !slices.Contains(known, name) {
			return nil, usagef("unknown operation %q%s; the operations are %s", name, suggest(name, known), strings.Join(known, ", "))
		}
	}
	return func(name string) bool { return slices.Contains(chosen, name) }, nil
}

// caseRow is one case as --json prints it.
type caseRow struct {
	Op      string  `json:"op"`
	Shape   string  `json:"shape"`
	Error   float64 `json:"error"` // −1 where it is not a number
	Bound   float64 `json:"bound"`
	Output  string  `json:"output"`
	Problem string  `json:"problem,omitempty"`
	Pass    bool    `json:"pass"`
}

// selftestReport is the selftest of one device in one precision as --json prints it.
type selftestReport struct {
	Device    string    `json:"device"`
	Precision string    `json:"precision"`
	Seed      uint64    `json:"seed"`
	Failed    int       `json:"failed"`
	Cases     []caseRow `json:"cases"`
	// Counters are of all cases, where --counters asks for them.
	Counters []driver.Counters `json:"counters,omitempty"`
}

func runSelftest(c *cli.Context) error {
	p, err := precisionOf(c)
	if err != nil {
		return err
	}
	match, err := operations(c)
	if err != nil {
		return err
	}
	options := selftest.Options{Seed: c.Uint64("seed"), Short: c.Bool("short"), Match: match}
	if !c.IsSet("seed") {
		options.Seed = 1 + rand.Uint64N(math.MaxUint64)
	} else if options.Seed == 0 {
		return usagef("--seed 0: want 1 or more, which repeats a run")
	}
	m, err := openMachine(c)
	if err != nil {
		return err
	}
	return guard(c.Duration("hang-timeout"), func(alive func(string)) error {
		precisions := []kernels.Precision{p}
		if m.PTX && !c.IsSet("precision") {
			precisions = []kernels.Precision{kernels.FP32, kernels.TF32, kernels.BF16}
		}
		options.Compiled = m.PTX
		if c.Bool("counters") && !m.PTX {
			return join(usagef("--counters needs --devices ptx"), m.Close())
		}
		return join(selftestDevices(c, m, precisions, options, alive), m.Close())
	})
}

func selftestDevices(c *cli.Context, m *gpu.Machine, precisions []kernels.Precision, o selftest.Options, alive func(string)) error {
	for _, p := range precisions {
		if err := checkPrecision(p, m); err != nil {
			return err
		}
	}
	w := c.App.Writer
	asJSON := c.Bool("json")
	var reports []selftestReport
	var results []selftest.Result
	cases, failed := 0, 0
	for n := range len(m.Devices) * len(precisions) {
		d, p := m.Devices[n/len(precisions)], precisions[n%len(precisions)]
		report := selftestReport{Device: d.Name, Precision: p.String(), Seed: o.Seed, Cases: []caseRow{}}
		if !asJSON {
			fmt.Fprintf(w, "device %d: %s, %s, seed %d\n%s\n", d.Index, d.Name, report.Precision, o.Seed, caseHead)
		}
		o.Done = func(result selftest.Result) {
			alive("the case after " + result.Op + " " + result.Shape + " runs")
			row := rowOf(result)
			if !row.Pass {
				report.Failed++
			}
			report.Cases = append(report.Cases, row)
			if !asJSON {
				row.write(w)
			}
		}
		counting := c.Bool("counters")
		driver.Count(counting)
		of, err := selftest.Run(d, p, o)
		if counting {
			report.Counters = driver.Counted()
			driver.Count(false)
		}
		if err != nil {
			return err
		}
		if counting && !asJSON {
			if err := writeCounters(w, report.Counters); err != nil {
				return err
			}
		}
		results = append(results, of...)
		reports = append(reports, report)
		cases, failed = cases+len(report.Cases), failed+report.Failed
	}
	if asJSON {
		if err := writeJSON(w, reports); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w, "%d cases, %d failed\n", cases, failed)
	}
	if c.Bool("show-coverage") && !asJSON {
		if err := selftest.ShowCoverage(w, results); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d cases of the selftest failed (--seed %d repeats them)", failed, cases, o.Seed)
	}
	return nil
}

func rowOf(r selftest.Result) caseRow {
	row := caseRow{Op: r.Op, Shape: r.Shape, Error: r.Error, Bound: r.Bound, Output: r.Output, Problem: r.Problem, Pass: r.Pass()}
	if !drawable(row.Error) {
		row.Error = -1 // JSON has no NaN
	}
	return row
}

var caseHead = fmt.Sprintf("%-24s %-52s %9s %7s  %s", "operation", "shape", "error", "bound", "pass")

func (r caseRow) write(w io.Writer) {
	verdict := "ok"
	if !r.Pass {
		verdict = strings.TrimSpace("FAIL " + r.Output + " " + r.Problem)
	}
	value := fmt.Sprintf("%.2g", r.Error)
	if r.Error < 0 {
		value = "NaN"
	}
	fmt.Fprintf(w, "%-24s %-52s %9s %7.0e  %s\n", r.Op, r.Shape, value, r.Bound, verdict)
}
