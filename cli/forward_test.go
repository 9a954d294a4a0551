package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ddgpu/diffusion/safetensors"
)

// goldenNetwork is a network of testdata/golden written as the files that a user of PyTorch has: weights, configuration and arrays.
type goldenNetwork struct {
	t       *testing.T
	dir     string
	file    *safetensors.File
	zero    struct{ Names []string } // gradients that are zero in exact arithmetic
	args    []string                 // of ddgpu forward
	wantOut []float64
	centred bool // PyTorch's network computes 2x − 1 first, which the files then have done
}

const centred = `"center_input_sample": true`

func (g *goldenNetwork) read(name string) safetensors.Tensor {
	g.t.Helper()
	tensor, err := g.file.Read(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return tensor
}

func (g *goldenNetwork) values(name string) []float64 {
	g.t.Helper()
	v, err := g.read(name).Float64s()
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

func (g *goldenNetwork) path(name string) string { return filepath.Join(g.dir, name) }

func (g *goldenNetwork) array(name string, a *array) {
	g.t.Helper()
	if err := writeNPY(g.path(name), a); err != nil {
		g.t.Fatal(err)
	}
}

func newGoldenNetwork(t *testing.T, path string) *goldenNetwork {
	t.Helper()
	file, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	g := &goldenNetwork{t: t, dir: t.TempDir(), file: file}
	if err := json.Unmarshal([]byte(file.Metadata["zero_gradients"]), &g.zero); err != nil {
		t.Fatal(err)
	}
	config := file.Metadata["config"]
	g.centred = strings.Contains(config, centred)
	config = strings.Replace(config, centred, `"center_input_sample": false`, 1)
	if err := os.WriteFile(g.path("config.json"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	var weights []safetensors.Tensor
	for _, info := range file.Infos() {
		if name, ok := strings.CutPrefix(info.Name, "param."); ok {
			tensor := g.read(info.Name)
			tensor.Name = name
			weights = append(weights, tensor)
		}
	}
	out, err := os.Create(g.path("net.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if err := join(safetensors.Write(out, weights, nil), out.Close()); err != nil {
		t.Fatal(err)
	}
	g.args = []string{"forward", "--devices", "host", "--model", g.path("net.safetensors")}
	for _, input := range []struct{ flag, name string }{{"--x", "x"}, {"--n", "t"}, {"--label", "labels"}} {
		if !file.Has(input.name) {
			continue
		}
		values := g.values(input.name)
		if g.centred && input.name == "x" {
			for i, v := range values {
				values[i] = 2*v - 1
			}
		}
		g.array(input.name+".npy", float64Array(g.read(input.name).Shape, values))
		g.args = append(g.args, input.flag, g.path(input.name+".npy"))
	}
	// The loss of the golden file is the mean of the squared error.
	g.wantOut = g.values("act.out")
	gradient := g.values("target")
	for i, target := range gradient {
		gradient[i] = 2 * (g.wantOut[i] - target) / float64(len(gradient))
	}
	g.array("g.npy", float64Array(g.read("target").Shape, gradient))
	g.args = append(g.args, "--grad-out", g.path("g.npy"), "--grads", g.path("grads.safetensors"), "--out", g.path("y.npy"))
	return g
}

// distance is ‖a − b‖/‖b‖.
func distance(a, b []float64) float64 {
	if len(a) != len(b) {
		return math.NaN()
	}
	var difference, norm float64
	for i := range b {
		difference += (a[i] - b[i]) * (a[i] - b[i])
		norm += b[i] * b[i]
	}
	return math.Sqrt(difference / norm)
}

// PyTorch's outputs and gradients, through the files and the command that a user would compare them with.
func TestForwardIsPyTorchs(t *testing.T) {
	paths, err := filepath.Glob("../testdata/golden/unet_*.safetensors")
	if err != nil || len(paths) < 5 {
		t.Fatalf("%d golden networks, %v", len(paths), err)
	}
	for _, path := range paths {
		for _, test := range []struct {
			precision, dtype string
			bound            float64
		}{{"fp32", "<f4", 1e-4}, {"fp64", "<f8", 1e-10}} {
			t.Run(filepath.Base(path)+" "+test.precision, func(t *testing.T) {
				g := newGoldenNetwork(t, path)
				if code, _, stderr := ddgpu(append(g.args, "--precision", test.precision)...); code != 0 {
					t.Fatalf("exit code %d: %s", code, stderr)
				}
				y, err := readNPY(g.path("y.npy"))
				if err != nil {
					t.Fatal(err)
				}
				if d := distance(y.Float64s(), g.wantOut); !(d <= test.bound) || y.Type != test.dtype {
					t.Errorf("the output is %s and differs by %g, allowed is %g", y.Type, d, test.bound)
				}
				g.checkGradients(test.bound)
			})
		}
	}
}

func (g *goldenNetwork) checkGradients(bound float64) {
	t := g.t
	grads, err := safetensors.Open(g.path("grads.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer grads.Close()
	compared := 0
	for _, info := range grads.Infos() {
		tensor, err := grads.Read(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tensor.Float64s()
		if err != nil {
			t.Fatal(err)
		}
		want := "grad." + info.Name
		if info.Name == "x" {
			want = "dx"
			for i := range got {
				if g.centred {
					got[i] *= 2
				}
			}
		}
		if slices.Contains(g.zero.Names, info.Name) {
			continue
		}
		compared++
		if d := distance(got, g.values(want)); !(d <= bound) {
			t.Errorf("the gradient of %s differs by %g, allowed is %g", info.Name, d, bound)
		}
	}
	if compared < 20 {
		t.Errorf("only %d gradients compared", compared)
	}
}
