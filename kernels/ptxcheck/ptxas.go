package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// A usage is what ptxas reports of one kernel on one chip. Bytes, but for Registers.
type usage struct {
	Registers, Shared, Spill, Stack int
}

var (
	functionLine = regexp.MustCompile(`^ptxas info\s*: (?:Compiling entry function '([^']+)'|Function properties for (\S+))`)
	frameLine    = regexp.MustCompile(`(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads`)
	usedLine     = regexp.MustCompile(`^ptxas info\s*: Used (\d+) registers`)
	sharedPart   = regexp.MustCompile(`(\d+) bytes smem`)
	entryStart   = regexp.MustCompile(`(?m)^\.visible \.entry ([A-Za-z_]\w*)\(`)
	maxThreads   = regexp.MustCompile(`\.maxntid (\d+)(?:, (\d+), (\d+))?`)
)

// parseUsage reads what `ptxas -v` prints. The stack and the spills of a function that a kernel calls count for the kernel
// that ptxas last announced.
func parseUsage(output []byte) map[string]usage {
	kernels := map[string]usage{}
	var name string
	for line := range bytes.Lines(output) {
		if m := functionLine.FindSubmatch(line); m != nil && len(m[1]) > 0 {
			name = string(m[1])
			kernels[name] = usage{}
		}
		u := kernels[name]
		if m := frameLine.FindSubmatch(line); m != nil {
			u.Stack += number(m[1])
			u.Spill += number(m[2]) + number(m[3])
		}
		if m := usedLine.FindSubmatch(line); m != nil {
			u.Registers = number(m[1])
			if m := sharedPart.FindSubmatch(line); m != nil {
				u.Shared = number(m[1])
			}
		}
		if name != "" {
			kernels[name] = u
		}
	}
	return kernels
}

// parseThreads reads the launch bounds of the entries of a PTX text: the most threads of a block, 0 where none is declared.
func parseThreads(ptx []byte) map[string]int {
	threads := map[string]int{}
	starts := entryStart.FindAllSubmatchIndex(ptx, -1)
	for i, s := range starts {
		end := len(ptx)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		head, _, _ := bytes.Cut(ptx[s[1]:end], []byte("\n{"))
		n := 0
		if m := maxThreads.FindSubmatch(head); m != nil {
			n = number(m[1])
			for _, side := range m[2:] {
				if len(side) > 0 {
					n *= number(side)
				}
			}
		}
		threads[string(ptx[s[2]:s[3]])] = n
	}
	return threads
}

func number(digits []byte) int {
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		return 0 // the expressions above match nothing but digits; more of them than an int holds is no size
	}
	return n
}

// assemble runs ptxas over one PTX file for one chip.
func assemble(ptxas, path, arch string) (map[string]usage, error) {
	output, err := exec.Command(ptxas, "-v", "-arch="+arch, "-o", os.DevNull, path).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("assembling %s for %s: %w\n%s", filepath.Base(path), arch, err, bytes.TrimSpace(output))
	}
	return parseUsage(output), nil
}
