package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// A step is the launches of a training step, as `ddgpu launches --json` prints them.
type step struct {
	Preset    string   `json:"preset"`
	Precision string   `json:"precision"`
	Batch     int      `json:"batch"`
	Launches  []launch `json:"launches"`
}

type launch struct {
	Kernel string    `json:"kernel"`
	Grid   [3]int    `json:"grid"`
	Block  int       `json:"block"`
	Shared int       `json:"shared"`
	Args   []float64 `json:"args"`
}

func (l launch) blocks() int { return l.Grid[0] * l.Grid[1] * l.Grid[2] }
func (l launch) warps() int  { return (l.Block + 31) / 32 }

// tail is the last n arguments as whole numbers.
func (l launch) tail(n int) []int {
	out := make([]int, n)
	for i, v := range l.Args[len(l.Args)-n:] {
		out[i] = int(v)
	}
	return out
}

func readStep(path string) (step, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return step{}, fmt.Errorf("reading launches: %w", err)
	}
	var s step
	if err := json.Unmarshal(text, &s); err != nil {
		return step{}, fmt.Errorf("reading launches of %s: %w", path, err)
	}
	if s.Batch < 1 || len(s.Launches) == 0 {
		return step{}, fmt.Errorf("reading launches of %s: there are none", path)
	}
	for _, l := range s.Launches {
		if l.blocks() < 1 || l.Block < 1 || l.Shared < 0 {
			return step{}, fmt.Errorf("reading launches of %s: %s has grid %v, block %d", path, l.Kernel, l.Grid, l.Block)
		}
	}
	return s, nil
}

// real is the bytes of an activation.
func (s step) real() float64 {
	if s.Precision == "bf16" {
		return 2
	}
	return 4
}

// builds are the folders of the PTX that serves a precision, the first that has a kernel.
func (s step) builds() []string {
	switch s.Precision {
	case "bf16":
		return []string{"sm_80_bf16"}
	case "tf32":
		return []string{"sm_80_tf32", "sm_70"}
	}
	return []string{"sm_70"}
}

var geometryPattern = regexp.MustCompile(`(?m)^\.visible .*\.(b8|u32|s32|b32) (\w+)_geometry\[\d+\] = \{([\d, ]*)\}`)

// geometries reads the tables that tell a launcher a kernel's block and tile: 32-bit integers, written byte by byte or as such.
func geometries(ptx []byte) map[string][]int {
	tables := map[string][]int{}
	for _, m := range geometryPattern.FindAllSubmatch(ptx, -1) {
		name, list, perInt := string(m[2]), string(m[3]), 1
		if string(m[1]) == "b8" {
			perInt = 4
		}
		var table []int
		for i, word := range strings.Split(list, ",") {
			n, err := strconv.Atoi(strings.TrimSpace(word))
			if err != nil {
				continue
			}
			if i%perInt == 0 {
				table = append(table, 0)
			}
			table[len(table)-1] |= n << (8 * (i % perInt))
		}
		tables[name] = table
	}
	return tables
}
