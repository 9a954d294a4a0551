package driver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"gorgonia.org/cu"
)

// plant is a launch of one of testkernels.
type plant struct {
	sanitizer, kernel string
	grid, threads     int
	shared            int
	n                 uint64
	report            string
}

func (p plant) name() string { return fmt.Sprintf("%s/%d/%d", p.kernel, p.grid, p.n) }

// plants are kernels with a bug that a sanitizer must find, and what it says; those that it must not complain about say "".
var plants = []plant{
	{"address", "write_past_end", 1, 1, 0, 192, "heap-buffer-overflow"},
	{"address", "read_past_end", 1, 1, 0, 192, "heap-buffer-overflow"},
	{"address", "write_past_end", 1, 1, 0, 191, ""},
	{"address", "shared_past_end", 1, 64, 0, 1, "use-after-poison"},
	{"address", "shared_past_end", 1, 64, 0, 0, ""},
	{"address", "dynamic_shared_past_end", 1, 1, 400, 100, "use-after-poison"},
	{"address", "dynamic_shared_past_end", 1, 1, 400, 99, ""},
	{"address", "copied_past_end", 1, 1, 0, 47, ""},
	{"address", "copied_past_end", 1, 1, 0, 48, "heap-buffer-overflow"},
	{"address", "overflow", 1, 1, 0, 1, "signed integer overflow"},
	{"address", "misaligned", 1, 1, 0, 1, "misaligned address"},
	{"address", "misaligned", 1, 1, 0, 4, ""},
	{"thread", "neighbour", 1, 64, 0, 0, "data race"},
	{"thread", "neighbour", 3, 64, 0, 1, ""},
	{"thread", "next_round", 1, 64, 0, 3, "data race"},
	{"thread", "next_round", 1, 64, 0, 1, ""},
	{"thread", "through_shuffle", 1, 32, 0, 0, "data race"},
	{"thread", "through_shuffle", 1, 32, 0, 1, ""},
	{"thread", "through_ldmatrix", 1, 32, 0, 0, "data race"},
	{"thread", "through_ldmatrix", 1, 32, 0, 1, ""},
	{"thread", "neighbours_copy", 2, 32, 0, 0, ""},
	{"thread", "neighbours_copy", 1, 32, 0, 1, "data race"},
	{"thread", "neighbours_copy", 1, 32, 0, 2, "data race"},
	{"thread", "many_products", 3, 64, 0, 2, ""},
	{"thread", "same_element", 2, 64, 0, 5, "data race"},
	{"thread", "same_element", 1, 64, 0, 5, ""},
	{"thread", "same_element_of_threads", 1, 2, 0, 5, "data race"},
}

// plantVariable tells the test program to run one of the plants, in one order of the threads.
const plantVariable = "DDGPU_TEST_PLANT"

// Each planted bug ends a process of its own, in every order of the threads. Without a sanitizer there is nothing to see.
func TestPlantedBugs(t *testing.T) {
	if plant := os.Getenv(plantVariable); plant != "" {
		name, order, _ := strings.Cut(plant, " ")
		for _, p := range plants {
			if p.name() == name {
				open(t, "host,tiles=gpu,order="+order)
				// Twice, as what one launch does is before the next.
				for range 2 {
					err := Launch(kernel(t, p.kernel), [3]int{p.grid, 1, 1}, [3]int{p.threads, 1, 1}, p.shared, cu.Stream{},
						[]uint64{memory(t, 192), p.n})
					ok(t, err)
					ok(t, cu.Synchronize())
				}
			}
		}
		return
	}
	for _, p := range plants {
		if p.sanitizer != Sanitizer() {
			continue
		}
		for _, order := range orders {
			if p.threads*p.grid == 1 && order != "forward" {
				continue
			}
			t.Run(p.name()+"/"+order, func(t *testing.T) {
				t.Parallel()
				command := exec.Command(os.Args[0], "-test.run=^TestPlantedBugs$")
				command.Env = append(os.Environ(), plantVariable+"="+p.name()+" "+order)
				out, err := command.CombinedOutput()
				var exit *exec.ExitError
				switch {
				case err != nil && !errors.As(err, &exit):
					t.Fatal(err)
				case p.report == "" && err != nil:
					t.Errorf("%v for a kernel without a bug:\n%s", err, out)
				case p.report != "" && (err == nil || !strings.Contains(string(out), p.report)):
					t.Errorf("%v, and no report of %q:\n%s", err, p.report, out)
				}
			})
		}
	}
}
