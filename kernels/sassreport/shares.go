package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// shareSlack is how far a share may fall below the table's, in points of percent: as much as writing it with one digit takes away.
const shareSlack = 0.1

// tensorShares is the share of matrix instructions in the main loop of each kernel that has some, in percent, by "BUILD KERNEL ARCH".
func tensorShares(kernels []kernel) map[string]float64 {
	shares := map[string]float64{}
	for _, k := range kernels {
		if k.Body.Count[tensor] > 0 {
			shares[k.key()] = 100 * k.Body.share(tensor)
		}
	}
	return shares
}

func (k kernel) key() string { return k.Build + " " + k.Name + " " + k.Arch }

const sharesHead = "# Least share of matrix instructions in a kernel's main loop, %: build, kernel, chip.\n" +
	"# Written by ./build.sh sass-check --update.\n"

// writeShares writes the table.
func writeShares(path string, kernels []kernel) error {
	shares := tensorShares(kernels)
	var lines []string
	for key, share := range shares {
		lines = append(lines, fmt.Sprintf("%s %.1f\n", key, share))
	}
	slices.Sort(lines)
	if err := os.WriteFile(path, []byte(sharesHead+strings.Join(lines, "")), 0o644); err != nil {
		return fmt.Errorf("writing the table of shares: %w", err)
	}
	return nil
}

func readShares(path string) (map[string]float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the table of shares: %w", err)
	}
	shares := map[string]float64{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		share, err := strconv.ParseFloat(line[at+1:], 64)
		if at < 0 || err != nil || !(share >= 0 && share <= 100) {
			return nil, fmt.Errorf("%s:%d: want BUILD KERNEL ARCH SHARE", path, n)
		}
		shares[line[:at]] = share
	}
	return shares, lines.Err()
}

// check says what is wrong with the kernels, one line each: spills, and main loops with fewer matrix instructions than the table has.
func check(kernels []kernel, path string) (problems []string, err error) {
	least, err := readShares(path)
	if err != nil {
		return nil, err
	}
	for _, k := range kernels {
		if k.Usage.Spill > 0 {
			problems = append(problems, fmt.Sprintf("%s spills %d bytes", k.key(), k.Usage.Spill))
		}
	}
	shares := tensorShares(kernels)
	for key, share := range shares {
		switch floor, known := least[key]; {
		case !known:
			problems = append(problems, fmt.Sprintf("%s: %.1f%% of the main loop are matrix instructions, which %s does not have", key, share, path))
		case share < floor-shareSlack:
			problems = append(problems, fmt.Sprintf("%s: %.1f%% of the main loop are matrix instructions, %.1f%% in %s", key, share, floor, path))
		}
	}
	for key := range least {
		if _, there := shares[key]; !there {
			problems = append(problems, fmt.Sprintf("%s: no main loop with matrix instructions, but %s has it", key, path))
		}
	}
	slices.Sort(problems)
	return problems, nil
}
