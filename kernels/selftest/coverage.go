package selftest

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"ddgpu/kernels"
)

// Missing is the kernels that every precision has and no case of the results launched.
func Missing(results []Result) []string {
	var missing []string
	users := usersOf(results)
	for _, name := range kernels.Declared(false) {
		if users[name] == nil {
			missing = append(missing, name)
		}
	}
	return missing
}

// ShowCoverage writes a table of all kernels with the operations that launched each and in how many cases.
func ShowCoverage(w io.Writer, results []Result) error {
	users := usersOf(results)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "kernel\tcases\toperations")
	for _, name := range slices.Concat(kernels.Declared(false), kernels.Declared(true)) {
		cases, ops := 0, []string{}
		for op, n := range users[name] {
			cases += n
			ops = append(ops, op)
		}
		slices.Sort(ops)
		if cases == 0 {
			ops = []string{"none"}
		}
		fmt.Fprintf(t, "%s\t%d\t%s\n", name, cases, strings.Join(ops, " "))
	}
	return t.Flush()
}

// usersOf counts the cases of each operation that launched a kernel.
func usersOf(results []Result) map[string]map[string]int {
	users := map[string]map[string]int{}
	for _, r := range results {
		for _, k := range r.Kernels {
			if users[k] == nil {
				users[k] = map[string]int{}
			}
			users[k][r.Op]++
		}
	}
	return users
}
