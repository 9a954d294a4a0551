// Package ptxas runs NVIDIA's assembler over the kernels' PTX and reads what it says: registers, shared memory, spills; and how many blocks
// a multiprocessor holds of what takes so much.
package ptxas

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// A Usage is what ptxas reports of one kernel on one chip. Bytes, but for Registers.
type Usage struct {
	Registers, Shared, Spill, Stack int
}

var (
	functionLine = regexp.MustCompile(`^ptxas info\s*: (?:Compiling entry function '([^']+)'|Function properties for (\S+))`)
	frameLine    = regexp.MustCompile(`(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads`)
	usedLine     = regexp.MustCompile(`^ptxas info\s*: Used (\d+) registers`)
	sharedPart   = regexp.MustCompile(`(\d+) bytes smem`)
	entryStart   = regexp.MustCompile(`(?m)^\.visible \.entry ([A-Za-z_]\w*)\(`)
	targetLine   = regexp.MustCompile(`(?m)^\.target sm_(\d+)`)
	maxThreads   = regexp.MustCompile(`\.maxntid (\d+)(?:, (\d+), (\d+))?`)
)

// ParseUsage reads what `ptxas -v` prints. The stack and the spills of a function that a kernel calls count for the kernel
// that ptxas last announced.
func ParseUsage(output []byte) map[string]Usage {
	kernels := map[string]Usage{}
	var name string
	for line := range bytes.Lines(output) {
		if m := functionLine.FindSubmatch(line); m != nil && len(m[1]) > 0 {
			name = string(m[1])
			kernels[name] = Usage{}
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

// Runs says whether PTX text runs on a chip: whether that is no older than the text's target.
func Runs(ptx []byte, arch string) bool {
	m := targetLine.FindSubmatch(ptx)
	return m == nil || number(m[1]) <= number([]byte(strings.TrimPrefix(arch, "sm_")))
}

// ParseThreads reads the launch bounds of the entries of a PTX text: the most threads of a block, 0 where none is declared.
func ParseThreads(ptx []byte) map[string]int {
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

// Assemble runs ptxas over one PTX file for one architecture. The machine code goes to cubin; [os.DevNull] drops it.
func Assemble(ptxas, path, arch, cubin string) (map[string]Usage, error) {
	output, err := exec.Command(ptxas, "-v", "-arch="+arch, "-o", cubin, path).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("assembling %s for %s: %w\n%s", filepath.Base(path), arch, err, bytes.TrimSpace(output))
	}
	return ParseUsage(output), nil
}
