package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// A function is the machine code of one kernel, in the order of its addresses.
type function struct {
	Name string
	Code []instruction
}

// An instruction is one line of nvdisasm's: `@!P0 BRA `(.L_x_1)“ has the opcode BRA and is guarded.
type instruction struct {
	Opcode  string // with its modifiers: LDG.E.128
	Guarded bool   // by a predicate
	Never   bool   // by one that is never true: it takes its time to issue and does nothing
	Args    string
	Target  int // of a branch: an index into Code; −1 for all else
}

// base is the opcode without modifiers.
func (i instruction) base() string {
	base, _, _ := strings.Cut(i.Opcode, ".")
	return base
}

var (
	codeLine   = regexp.MustCompile(`^\s*/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*?)\s*;`)
	labelLine  = regexp.MustCompile(`^(\.L_\w+):`)
	textLine   = regexp.MustCompile(`^\.text\.([A-Za-z_]\w*):`)
	targetPart = regexp.MustCompile("`\\((\\.L_\\w+)\\)")
)

// branches are the opcodes whose label is a place that they may go to; BSSY and others name labels that they do not jump to. ptxas also leaves
// loops by a CALL that never returns.
var branches = map[string]bool{"BRA": true, "JMP": true, "CALL": true}

// parseSASS reads the functions of what `nvdisasm -c` prints.
func parseSASS(text []byte) ([]function, error) {
	var functions []function
	var labels map[string]int
	resolve := func() error {
		if len(functions) == 0 {
			return nil
		}
		f := &functions[len(functions)-1]
		for i := range f.Code {
			c := &f.Code[i]
			c.Target = -1
			if !branches[c.base()] {
				continue
			}
			m := targetPart.FindStringSubmatch(c.Args)
			if m == nil && c.base() == "CALL" {
				continue // of another function
			}
			if m == nil {
				return fmt.Errorf("%s: %s %s goes to no label", f.Name, c.Opcode, c.Args)
			}
			at, ok := labels[m[1]]
			if !ok {
				return fmt.Errorf("%s: %s %s goes to a label that is not there", f.Name, c.Opcode, c.Args)
			}
			c.Target = at
		}
		return nil
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if m := textLine.FindStringSubmatch(line); m != nil {
			if err := resolve(); err != nil {
				return nil, err
			}
			functions = append(functions, function{Name: m[1]})
			labels = map[string]int{}
			continue
		}
		if len(functions) == 0 {
			continue
		}
		f := &functions[len(functions)-1]
		if m := labelLine.FindStringSubmatch(line); m != nil {
			labels[m[1]] = len(f.Code)
		} else if m := codeLine.FindStringSubmatch(line); m != nil {
			f.Code = append(f.Code, instruction{Opcode: m[2], Guarded: m[1] != "", Never: strings.TrimSpace(m[1]) == "@!PT", Args: m[3]})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading machine code: %w", err)
	}
	if err := resolve(); err != nil {
		return nil, err
	}
	for _, f := range functions {
		if len(f.Code) == 0 {
			return nil, fmt.Errorf("%s: no instruction", f.Name)
		}
	}
	return functions, nil
}

// disassemble runs nvdisasm over a cubin.
func disassemble(nvdisasm, cubin string) ([]function, error) {
	var problems bytes.Buffer
	c := exec.Command(nvdisasm, "-c", cubin)
	c.Stderr = &problems
	text, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("disassembling: %w\n%s", err, bytes.TrimSpace(problems.Bytes()))
	}
	return parseSASS(text)
}
