// Command ptxcheck assembles the kernels' PTX with ptxas for the chips from sm_70 to sm_90 that it is for, and prints one line per
// kernel: launch bound, static shared memory, spills, and per chip the registers of a thread and the blocks that a multiprocessor
// holds at once. It needs no GPU. It fails on a kernel that does not assemble, spills, has no launch bound, or fits no
// multiprocessor, and when the host device's table of registers was not what ptxas says; then it has been written anew.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"ddgpu/kernels/ptxas"
)

func main() {
	assembler := flag.String("ptxas", "ptxas", "the assembler, of CUDA 11 or 12 (13 does not know sm_70)")
	registers := flag.String("registers", "", "`FILE` for the host device's table: the registers that each kernel takes on sm_70")
	flag.Parse()
	rows, err := check(*assembler, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "ptxcheck:", err)
		os.Exit(1)
	}
	problems := report(os.Stdout, rows)
	if *registers != "" {
		changed, err := writeRegisters(*registers, rows)
		if err != nil {
			problems = append(problems, err.Error())
		}
		if changed {
			problems = append(problems, *registers+" was out of date and is written anew: build again, and commit it")
		}
	}
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, "ptxcheck:", p)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

// A row is one kernel of one build: its launch bound and what it takes on each of ptxas.Chips, nil on those that the build is not for.
type row struct {
	Build   string // the folder of its PTX
	Name    string
	Threads int
	Usage   []*ptxas.Usage
}

// check assembles each PTX file for every chip that it is for. The rows are in the order of builds and names.
func check(assembler string, paths []string) ([]row, error) {
	if len(paths) == 0 {
		return nil, fmt.Errorf("no PTX files named")
	}
	texts := make([][]byte, len(paths))
	found := make([][]map[string]ptxas.Usage, len(paths)) // by file and chip
	errs := make([]error, len(paths)*len(ptxas.Chips))
	var group sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for i, path := range paths {
		var err error
		if texts[i], err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("reading the launch bounds: %w", err)
		}
		found[i] = make([]map[string]ptxas.Usage, len(ptxas.Chips))
		for j, c := range ptxas.Chips {
			if !ptxas.Runs(texts[i], c.Arch) {
				continue
			}
			group.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				found[i][j], errs[i*len(ptxas.Chips)+j] = ptxas.Assemble(assembler, path, c.Arch, os.DevNull)
			})
		}
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var rows []row
	for i, path := range paths {
		for name, threads := range ptxas.ParseThreads(texts[i]) {
			r := row{Build: filepath.Base(filepath.Dir(path)), Name: name, Threads: threads, Usage: make([]*ptxas.Usage, len(ptxas.Chips))}
			for j, c := range ptxas.Chips {
				if found[i][j] == nil {
					continue
				}
				u, ok := found[i][j][name]
				if !ok {
					return nil, fmt.Errorf("%s: ptxas says nothing of %s for %s", path, name, c.Arch)
				}
				r.Usage[j] = &u
			}
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		if c := strings.Compare(a.Build, b.Build); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return rows, nil
}

// writeRegisters writes what the host device refuses launches by, {"ENTRY", registers of a thread on sm_70}, where the file says
// something else.
func writeRegisters(path string, rows []row) (changed bool, err error) {
	var table strings.Builder
	table.WriteString("// {\"ENTRY\", registers of a thread} on sm_70, as ptxas says: written by ./build.sh ptx-check.\n")
	volta := slices.IndexFunc(ptxas.Chips, func(c ptxas.Chip) bool { return c.Arch == "sm_70" })
	for _, r := range rows {
		if u := r.Usage[volta]; u != nil {
			fmt.Fprintf(&table, "{%q, %d},\n", r.Name, u.Registers)
		}
	}
	was, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("reading the table of registers: %w", err)
	}
	if string(was) == table.String() {
		return false, nil
	}
	if err := os.WriteFile(path, []byte(table.String()), 0o644); err != nil {
		return false, fmt.Errorf("writing the table of registers: %w", err)
	}
	return true, nil
}

// report prints the table and returns what is wrong in it, one line each.
func report(w io.Writer, rows []row) (problems []string) {
	const left, leftHead, cell, cellHead = "%-32s %7d %6d %5d %5d", "%-32s %7s %6s %5s %5s", "  %5d %3d", "  %9s"
	var table strings.Builder
	table.WriteString("threads: the launch bound of a block; shared: its static bytes, a launch may add dynamic ones; spill, stack:\n" +
		"bytes of a thread on the worst chip; by chip: registers of a thread and blocks that a multiprocessor holds at once.\n")
	build := ""
	for i, r := range rows {
		if i == 0 || r.Build != build {
			build = r.Build
			fmt.Fprintf(&table, "\n"+leftHead, build, "", "", "", "")
			for _, c := range ptxas.Chips {
				fmt.Fprintf(&table, cellHead, c.Arch)
			}
			fmt.Fprintf(&table, "\n"+leftHead, "kernel", "threads", "shared", "spill", "stack")
			for range ptxas.Chips {
				fmt.Fprintf(&table, cellHead, "regs blk")
			}
			table.WriteByte('\n')
		}
		var worst ptxas.Usage
		for _, u := range r.Usage {
			if u != nil {
				worst.Shared, worst.Spill, worst.Stack = max(worst.Shared, u.Shared), max(worst.Spill, u.Spill), max(worst.Stack, u.Stack)
			}
		}
		fmt.Fprintf(&table, left, r.Name, r.Threads, worst.Shared, worst.Spill, worst.Stack)
		if r.Threads == 0 {
			problems = append(problems, r.Name+" declares no launch bound")
			table.WriteByte('\n')
			continue
		}
		for i, u := range r.Usage {
			if u == nil {
				fmt.Fprintf(&table, cellHead, "")
				continue
			}
			blocks := ptxas.Chips[i].BlocksPerMultiprocessor(r.Threads, u.Registers, u.Shared)
			fmt.Fprintf(&table, cell, u.Registers, blocks)
			switch at := strings.TrimLeft(r.Build+" "+r.Name, " ") + " on " + ptxas.Chips[i].Arch; {
			case u.Spill > 0:
				problems = append(problems, fmt.Sprintf("%s spills %d bytes", at, u.Spill))
			case u.Registers > ptxas.MaxRegisters:
				problems = append(problems, fmt.Sprintf("%s takes %d registers, a thread has %d", at, u.Registers, ptxas.MaxRegisters))
			case u.Shared > ptxas.SharedDefault:
				problems = append(problems, fmt.Sprintf("%s takes %d bytes of shared memory, a block has %d", at, u.Shared, ptxas.SharedDefault))
			case blocks == 0:
				problems = append(problems, at+" fits no multiprocessor")
			}
		}
		table.WriteByte('\n')
	}
	if _, err := io.WriteString(w, table.String()); err != nil {
		problems = append(problems, "writing the table: "+err.Error())
	}
	return problems
}
