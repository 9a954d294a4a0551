package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ddgpu/kernels/ptxas"
)

func TestGeometries(t *testing.T) {
	const ptx = ".visible .const .align 4 .b8 a_geometry[8] = {128, 0, 0, 0, 0, 16};\n" +
		".visible .const .align 4 .u32 b_geometry[2] = {128, 4096};\n"
	got := geometries([]byte(ptx))
	for name, want := range map[string][]int{"a": {128, 4096}, "b": {128, 4096}} {
		if g := got[name]; len(g) != 2 || g[0] != want[0] || g[1] != want[1] {
			t.Errorf("%s: %v, want %v", name, g, want)
		}
	}
}

// Launches as the fp32 kernels have them, for which everything can be counted by hand.
func TestCost(t *testing.T) {
	conv := func(name string, grid [3]int, args ...float64) launch {
		return launch{Kernel: name, Grid: grid, Block: 128, Args: args}
	}
	const c = 128 * 16 * 16
	for _, x := range []struct {
		launch   launch
		geometry []int
		real     float64
		want     cost
	}{
		// 128 images of 16×16, 96 → 100 channels, 3×3: tiles of 128×64 make 256·128 rows and 2·64 columns.
		{conv("conv_forward_large", [3]int{256, 2, 1}, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 128, 16, 16, 96, 100, 3, 3, 1, 1, 1, 16, 16), []int{128, 128, 64, 4}, 2,
			cost{Bytes: 2 * (c*(96+3*100) + 9*96*100), FLOPs: 2 * c * 9 * 96 * 100, Padded: 2 * c * 9 * 96 * 128}},
		{conv("conv_backward_data_large", [3]int{256, 2, 1}, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 128, 16, 16, 96, 100, 3, 3, 1, 1, 1, 16, 16), []int{128, 128, 64, 4}, 4,
			cost{Bytes: 4 * (c*(96+100) + 9*96*100), FLOPs: 2 * c * 9 * 96 * 100, Padded: 2 * c * 9 * 128 * 100}},
		// 8 shards of 16 images; 9·96 = 864 rows in 7 tiles.
		{conv("conv_backward_weight_large", [3]int{7 * 2 * 8, 1, 1}, 1, 0, 1, 1, 1e6, 0, 0, 0, 128, 16, 16, 16, 96, 100, 3, 3, 1, 1, 1, 16, 16), []int{128, 128, 64, 4}, 2,
			cost{Bytes: 2*c*(96+100) + 4*8*9*96*100, FLOPs: 2 * c * 9 * 96 * 100, Padded: 2 * c * 7 * 128 * 128}},
		// Of the 7 tiles, 4 over all of a shard's 4096 pixels, 3 in 3 segments of 1408.
		{conv("conv_backward_weight_large", [3]int{(4 + 3*3) * 2 * 8, 1, 1}, 1, 1, 1, 1, 1e6, 512, 3, 1408, 128, 16, 16, 16, 96, 100, 3, 3, 1, 1, 1, 16, 16), []int{128, 128, 64, 4}, 2,
			cost{Bytes: 2*c*(96+100) + 4*8*(512+3*(864-512))*100, FLOPs: 2 * c * 9 * 96 * 100, Padded: 2 * c * 7 * 128 * 128,
				Runs: []blockRun{{4 * 2 * 8, 2 * 128 * 64 * 4096}, {3 * 3 * 2 * 8, 2 * 128 * 64 * 1408}}}},
		{launch{Kernel: "attention_forward_64", Grid: [3]int{6 * 4 * 3, 1, 1}, Block: 128, Args: []float64{1, 1, 1, 1, 1, 144, 4, 64, 0.125}}, []int{128, 64}, 2,
			cost{Bytes: 4 * 6 * 4 * 144 * 64 * 2, FLOPs: 4 * 6 * 4 * 144 * 144 * 64, Padded: 4 * 6 * 4 * 192 * 144 * 64}},
		{launch{Kernel: "groupnorm_backward", Grid: [3]int{128 * 4, 1, 1}, Block: 256, Args: []float64{1, 1, 999, 1, 1, 999, 1, 1, 1, 1, 1, 1, 0, 1, 1024, 128, 32, 32, 1, 1}}, []int{256, 32, 4}, 2,
			cost{Bytes: 3 * 128 * 1024 * 128 * 2}},
		{launch{Kernel: "groupnorm_forward", Grid: [3]int{128 * 4, 1, 1}, Block: 256, Args: []float64{1, 1, 0, 0, 1, 1, 1, 1, 0, 1024, 128, 32, 32, 0, 1e-6, 1}}, []int{256, 32, 4}, 2,
			cost{Bytes: 3 * 128 * 1024 * 128 * 2}},
		{launch{Kernel: "tree_sum", Grid: [3]int{10, 1, 1}, Block: 256, Args: []float64{1, 1, 5000, 8, 4000}}, []int{256, 4}, 2, cost{Bytes: 9 * 4000 * 4}},
	} {
		got, known := costOf(x.launch, x.geometry, x.real)
		if !known || got.Bytes != x.want.Bytes || got.FLOPs != x.want.FLOPs || got.Padded != x.want.Padded || !slices.Equal(got.Runs, x.want.Runs) {
			t.Errorf("%s: %+v, want %+v", x.launch.Kernel, got, x.want)
		}
	}
	// 128 pixels are 4 rows of 32, of which 3×3 taps see 6 rows; 128 pixels of 8×8 images are two of them; a part of a row sees its width and two more.
	for _, x := range []struct {
		c    convArgs
		want float64
	}{
		{convArgs{H: 32, W: 32, OH: 32, OW: 32, KH: 3, KW: 3, Stride: 1}, 6 * 32 / (128 * 9.0)},
		{convArgs{H: 32, W: 32, OH: 16, OW: 16, KH: 3, KW: 3, Stride: 2}, 17 * 32 / (128 * 9.0)},
		{convArgs{H: 8, W: 8, OH: 8, OW: 8, KH: 3, KW: 3, Stride: 1}, 1 / 9.0},
		{convArgs{H: 9, W: 300, OH: 9, OW: 300, KH: 3, KW: 3, Stride: 1}, 3 * 130 / (128 * 9.0)},
		{convArgs{H: 32, W: 32, OH: 32, OW: 32, KH: 1, KW: 1, Stride: 1}, 1},
	} {
		if got := x.c.missed(128); math.Abs(got-x.want) > 1e-12 {
			t.Errorf("%+v: %v missed, want %v", x.c, got, x.want)
		}
	}
	for _, l := range []launch{{Kernel: "tree_sum", Args: []float64{1}}, {Kernel: "unheard_of"}, conv("conv_forward_large", [3]int{1, 1, 1}, 1, 2)} {
		if c, known := costOf(l, []int{1, 2, 3}, 4); known {
			t.Errorf("%s with %d arguments costs %+v", l.Kernel, len(l.Args), c)
		}
	}
}

// product is a kernel whose loop does 8 matrix instructions among 16, for a block tile of 128×64 and 4 warps.
func productKernel() (kernel, launch) {
	k := kernel{Build: "sm_80_bf16", Name: "conv_forward_large", Arch: "sm_80", Threads: 128, Table: []int{128, 128, 64, 8}, Usage: ptxas.Usage{Registers: 128}}
	k.Body = mix{Total: 16, Products: map[product]int{{2048, false}: 8}, Loaded: 128}
	k.Body.Count[tensor] = 8
	k.Outside = mix{Total: 400}
	l := launch{Kernel: k.Name, Grid: [3]int{250, 1, 1}, Block: 128,
		Args: []float64{1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 125, 16, 16, 64, 64, 3, 3, 1, 1, 1, 16, 16}}
	return k, l
}

func TestPredict(t *testing.T) {
	g, _ := gpuOf("sm_80")
	k, l := productKernel()
	p, err := g.predict(k, l, 2)
	if err != nil {
		t.Fatal(err)
	}
	// A block has 128·64·576 multiply-adds at 1024 a clock: 4608 clocks, and the busiest of 108 multiprocessors has 3 of 250 blocks.
	if want := 3 * 4608 / 1.41e9; math.Abs(p.Seconds-want) > 1e-9*want || p.By != "tensor" {
		t.Errorf("%v s by %s, %v by tensor expected", p.Seconds, p.By, want)
	}
	if want := 250.0 / (3 * 108); math.Abs(g.share(p, false)-want) > 1e-9 {
		t.Errorf("%v of the peak, %v expected", g.share(p, false), want)
	}
	// 72 iterations of 4 warps that load 128 bytes each, 250 blocks.
	if want := 72 * 4 * 128 * 250 / 4.5e12; math.Abs(p.L2-want) > 1e-9*want {
		t.Errorf("%v s of the L2 cache, %v expected", p.L2, want)
	}
	if p.Blocks != 4 {
		t.Errorf("%d blocks on a multiprocessor, 4 expected", p.Blocks)
	}
	k.Body.Total = 160 // ten instructions for each of the matrix products' two: 160·72 + 400 instead of 16·4 + …
	if p, _ = g.predict(k, l, 2); p.By != "issue" || math.Abs(p.Seconds-3*(160*72+400)/1.41e9) > 1e-12 {
		t.Errorf("%v s by %s, by issue expected", p.Seconds, p.By)
	}
	// 108 blocks of 4 and 100 of 1, when a block of 4 units takes 4: of 108 multiprocessors 100 have both.
	if got := g.schedule([]blockRun{{108, 4}, {100, 1}}, func(padded float64) float64 { return padded }); got != 5 {
		t.Errorf("%v clocks, 5 expected", got)
	}
	// 60 of 2, then 130 of 1: 48 multiprocessors take two of these, the others are free for the other 34 then.
	if got := g.schedule([]blockRun{{60, 2}, {130, 1}}, func(padded float64) float64 { return padded }); got != 3 {
		t.Errorf("%v clocks, 3 expected", got)
	}
	l.Shared = 200 << 10
	if _, err := g.predict(k, l, 2); err == nil {
		t.Error("no error for a block that fits no multiprocessor")
	}
	// What has no formula moves what its code moves; DRAM bounds a sum.
	sumKernel := kernel{Name: "tree_sum", Table: []int{256, 4}, Threads: 256, Usage: ptxas.Usage{Registers: 32}, Body: mix{Total: 30, Loaded: 4096, Stored: 512}}
	big := launch{Kernel: "tree_sum", Grid: [3]int{30000, 1, 1}, Block: 256, Args: []float64{1, 1, 3e7, 8, 3e7}}
	p, err = g.predict(sumKernel, big, 2)
	if want := 9 * 3e7 * 4 / (2.039e12 * 0.9); err != nil || p.By != "dram" || math.Abs(p.Seconds-want) > 1e-9*want {
		t.Errorf("%v s by %s (%v), %v by dram expected", p.Seconds, p.By, err, want)
	}
	sumKernel.Name, big.Kernel = "new", "new"
	if p, err = g.predict(sumKernel, big, 2); err != nil || !p.Guessed || p.Bytes != 30000*8*4608 {
		t.Errorf("%+v (%v), guessed bytes expected", p, err)
	}
}

func TestWriteStep(t *testing.T) {
	k, l := productKernel()
	path := filepath.Join(t.TempDir(), "step.json")
	text, err := json.Marshal(step{"cifar10-ddpm", "bf16", 125, []launch{l, l}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := readStep(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := writeStep(&out, []kernel{k}, s, true); err != nil {
		t.Fatal(err)
	}
	// Two launches of 9.804 µs and two gaps of 1 µs.
	for _, want := range []string{"PREDICTED", "the step at best, ms                                             0.02", " 5784758\n",
		"conv 3x3 at 16x16, forward                   2     0.022 tensor", "3x3   64 ->  64 at 16x16        conv_forward_large             2   77% tensor"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	k.Arch = "sm_90"
	if problems, err := checkStep([]kernel{k}, s); err != nil || len(problems) != 0 {
		t.Errorf("problems %q, error %v", problems, err)
	}
	s.Launches[0].Args = s.Launches[0].Args[3:]
	if problems, err := checkStep([]kernel{k}, s); err != nil || len(problems) != 1 {
		t.Errorf("problems %q, error %v: one problem expected", problems, err)
	}
	s.Launches[0].Kernel = "conv_unknown"
	if err := writeStep(&out, []kernel{k}, s, true); err == nil {
		t.Error("no error for a launch of no kernel")
	}
	for _, broken := range []string{"", "{}", `{"batch":1,"launches":[{"kernel":"a","grid":[1,1,0],"block":1}]}`} {
		if err := os.WriteFile(path, []byte(broken), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readStep(path); err == nil {
			t.Errorf("no error for %q", broken)
		}
	}
}
