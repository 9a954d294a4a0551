// Command sassreport assembles the kernels' PTX with ptxas, disassembles the machine code with nvdisasm, and prints for each kernel its
// main loop's instructions, what they are bound by, registers, shared memory and occupancy; and, given the launches of a training step
// (ddgpu launches --json), what the step takes on some GPUs at best. It needs no GPU; all that it says of time is predicted.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"ddgpu/kernels/ptxas"
)

func main() {
	var o options
	flag.StringVar(&o.assembler, "ptxas", "ptxas", "the assembler")
	flag.StringVar(&o.disassembler, "nvdisasm", "nvdisasm", "the disassembler")
	archs := flag.String("archs", "sm_80,sm_86,sm_89,sm_90", "the architectures, `LIST` with commas")
	flag.StringVar(&o.check, "check", "", "print no report; fail on a kernel that spills, or has fewer matrix instructions in its main loop "+
		"than `FILE` says, or whose cost in -step is not known")
	flag.BoolVar(&o.update, "update", false, "write the file of -check anew")
	only := flag.String("kernels", "", "list the main loops of kernels whose names match `EXPRESSION` alone")
	builds := flag.String("builds", "", "and of builds that match `EXPRESSION`")
	flag.StringVar(&o.step, "step", "", "predict training steps, whose launches `FILES` hold as ddgpu launches --json prints them, with "+
		"commas; the first in full")
	flag.Parse()
	o.archs, o.files = strings.Split(*archs, ","), flag.Args()
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		if o.builds, err = regexp.Compile(*builds); err == nil {
			err = run(o)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sassreport:", err)
		os.Exit(1)
	}
}

type options struct {
	assembler, disassembler, check, step string
	update                               bool
	archs, files                         []string
	only, builds                         *regexp.Regexp // of the main loops that are listed
}

func run(o options) error {
	kernels, err := analyse(o.assembler, o.disassembler, o.archs, o.files)
	if err != nil {
		return err
	}
	var steps []step
	for _, path := range strings.FieldsFunc(o.step, func(r rune) bool { return r == ',' }) {
		s, err := readStep(path)
		if err != nil {
			return err
		}
		steps = append(steps, s)
	}
	if o.check == "" {
		var listed []kernel
		for _, k := range kernels {
			if o.only.MatchString(k.Name) && o.builds.MatchString(k.Build) {
				listed = append(listed, k)
			}
		}
		if err := writeKernels(os.Stdout, listed); err != nil {
			return err
		}
		for i, s := range steps {
			if err := writeStep(os.Stdout, kernels, s, i == 0); err != nil {
				return err
			}
		}
		return nil
	}
	if o.update {
		if err := writeShares(o.check, kernels); err != nil {
			return err
		}
	}
	problems, err := check(kernels, o.check)
	if err != nil {
		return err
	}
	for _, s := range steps {
		guessed, err := checkStep(kernels, s)
		if err != nil {
			return err
		}
		problems = append(problems, guessed...)
	}
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, "sassreport:", p)
	}
	if err == nil && len(problems) > 0 {
		err = fmt.Errorf("%d problems; ./build.sh sass-check --update writes the table of matrix instructions anew", len(problems))
	}
	return err
}

// A kernel is one entry of one build, assembled for one architecture.
type kernel struct {
	Build   string // the folder of its PTX: sm_80_bf16
	Name    string
	Arch    string
	Threads int   // of a block at most
	Table   []int // its geometry
	Usage   ptxas.Usage
	Body    mix // once through the main loop
	Outside mix // all other instructions
}

// analyse assembles each file for each architecture that its build runs on. The kernels are in the order of builds, names, architectures.
func analyse(assembler, disassembler string, archs, files []string) ([]kernel, error) {
	if len(files) == 0 {
		return nil, errors.New("no PTX files named")
	}
	folder, err := os.MkdirTemp("", "sassreport")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	var group sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	found := make([][]kernel, len(files)*len(archs))
	errs := make([]error, len(found))
	for i, file := range files {
		for j, arch := range archs {
			at := i*len(archs) + j
			group.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				found[at], errs[at] = analyseFile(assembler, disassembler, file, arch, filepath.Join(folder, fmt.Sprint(at)))
			})
		}
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	kernels := slices.Concat(found...)
	slices.SortStableFunc(kernels, func(a, b kernel) int {
		if c := strings.Compare(a.Build, b.Build); c != 0 {
			return c
		}
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Arch, b.Arch)
	})
	return kernels, nil
}

func analyseFile(assembler, disassembler, file, arch, cubin string) ([]kernel, error) {
	if _, known := gpuOf(arch); !known {
		return nil, fmt.Errorf("nothing is known of a GPU of %s", arch)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the launch bounds: %w", err)
	}
	if !ptxas.Runs(text, arch) {
		return nil, nil
	}
	usage, err := ptxas.Assemble(assembler, file, arch, cubin)
	if err != nil {
		return nil, err
	}
	functions, err := disassemble(disassembler, cubin)
	if err != nil {
		return nil, fmt.Errorf("%s for %s: %w", file, arch, err)
	}
	threads, tables := ptxas.ParseThreads(text), geometries(text)
	var kernels []kernel
	for _, f := range functions {
		t, entry := threads[f.Name]
		if !entry {
			continue
		}
		body, outside := mainLoop(f)
		kernels = append(kernels, kernel{filepath.Base(filepath.Dir(file)), f.Name, arch, t, tables[f.Name], usage[f.Name], body, outside})
	}
	if len(kernels) != len(threads) {
		return nil, fmt.Errorf("%s for %s: %d of %d kernels in the machine code", file, arch, len(kernels), len(threads))
	}
	return kernels, nil
}
