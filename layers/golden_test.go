package layers

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"ddgpu/diffusion/safetensors"
	"ddgpu/kernels"
)

// golden is a file of testdata/golden made by unet.py.
type golden struct {
	t    *testing.T
	file *safetensors.File
}

func openGolden(t *testing.T, name string) golden {
	t.Helper()
	f, err := safetensors.Open("../testdata/golden/" + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return golden{t, f}
}

func (g golden) read(name string) (shape []int, v []float64) {
	g.t.Helper()
	tensor, err := g.file.Read(name)
	if err != nil {
		g.t.Fatal(err)
	}
	if v, err = tensor.Float64s(); err != nil {
		g.t.Fatal(err)
	}
	return tensor.Shape, v
}

// image reads a tensor [N][C][H][W] as [N][H][W][C]; one of two dimensions stays.
func (g golden) image(name string) []float64 {
	g.t.Helper()
	shape, v := g.read(name)
	if len(shape) == 4 {
		v = toNHWC(shape, v)
	}
	return v
}

func toNHWC(shape []int, v []float64) []float64 {
	n, c, hw := shape[0], shape[1], shape[2]*shape[3]
	out := make([]float64, len(v))
	for i := range n {
		for k := range c {
			for p := range hw {
				out[(i*hw+p)*c+k] = v[(i*c+k)*hw+p]
			}
		}
	}
	return out
}

// params reads the network's tensors prefix+NAME.
func (g golden) params(prefix string) []Tensor {
	var tensors []Tensor
	for _, info := range g.file.Infos() {
		if name, ok := strings.CutPrefix(info.Name, prefix); ok {
			shape, v := g.read(info.Name)
			tensors = append(tensors, Tensor{Name: name, Shape: shape, Values: v})
		}
	}
	return tensors
}

// network builds the network of a configuration with the file's parameters; zero are those whose gradients are 0 in exact arithmetic.
func (g golden) network(t *testing.T, config string) (graph *Graph, weights []float64, zero []string) {
	t.Helper()
	c, err := ParseUNet2DConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	if graph, err = NewUNet2D(c); err != nil {
		t.Fatal(err)
	}
	if weights, err = graph.FromPublic(g.params("param.")); err != nil {
		t.Fatal(err)
	}
	var parameters struct{ Names []string }
	if err := json.Unmarshal([]byte(g.file.Metadata["zero_gradients"]), &parameters); err != nil {
		t.Fatal(err)
	}
	return graph, weights, parameters.Names
}

// relative is ‖got − want‖/‖want‖.
func relative(got, want []float64) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var diff, norm float64
	for i := range want {
		diff += (got[i] - want[i]) * (got[i] - want[i])
		norm += want[i] * want[i]
	}
	return math.Sqrt(diff / norm)
}

// TestGoldenUNets compares whole networks with PyTorch: activations, loss, the gradient of every parameter and of the input.
func TestGoldenUNets(t *testing.T) {
	for _, real := range []kernels.Precision{kernels.FP32, kernels.FP64} {
		bound := 1e-4
		if real == kernels.FP64 {
			bound = 1e-10
		}
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			t.Run(fmt.Sprintf("%s/%v", name, real), func(t *testing.T) {
				testGoldenUNet(t, openGolden(t, "unet_"+name+".safetensors"), real, bound)
			})
		}
	}
}

func testGoldenUNet(t *testing.T, file golden, real kernels.Precision, bound float64) {
	text := file.file.Metadata["config"]
	// The caller centres the input: x is fed as 2x − 1, and dx is twice what the network gives.
	centred := strings.Contains(text, `"center_input_sample": true`)
	graph, weights, zero := file.network(t, strings.Replace(text, `"center_input_sample": true`, `"center_input_sample": false`, 1))
	x, times, target := file.image("x"), file.image("t"), file.image("target")
	if centred {
		for i := range x {
			x[i] = 2*x[i] - 1
		}
	}
	checked := map[string]bool{}
	compare := func(what string, got, want []float64) {
		t.Helper()
		checked[what] = true
		if e := relative(got, want); !(e <= bound) {
			t.Errorf("%s differs by %.2g, allowed is %.2g", what, e, bound)
		}
	}
	batch := len(times)
	onHost(t, real, func(m *machine) {
		plan, err := graph.Plan(PlanOptions{Batch: batch, Train: true, Precision: real, InputGradient: true,
			Shards: kernels.Shards{Count: 2, Size: (batch + 1) / 2}})
		m.check(err)
		instance, err := plan.Instantiate(m.device, m.library)
		m.check(err)
		w, partial := m.upload(weights), m.poisoned(2*graph.ArenaElements)
		m.write(instance.X, x)
		m.write(instance.Time, times)
		if graph.Classes > 0 {
			tensor, err := file.file.Read("labels")
			m.check(err)
			m.check(m.device.Write(instance.Labels, tensor.Data))
		}
		values := map[string]string{} // by layer, the name in the file
		for _, info := range file.file.Infos() {
			if module, ok := strings.CutPrefix(info.Name, "act."); ok && module != "out" && module != "time_embedding" {
				values[lastLayer(graph, module)] = info.Name
			}
		}
		values["time_embedding.linear_2"], values["conv_out"] = "act.time_embedding", "act.out"
		instance.after = func(k int, backward bool) {
			n := graph.nodes[k]
			if name := values[n.name]; name != "" && !backward {
				m.sync()
				at := plan.nodes[k].out[0]
				if before := plan.nodes[k].before; before != none {
					at = before // PyTorch's layer ends before the activation
				}
				compare(name, m.read(instance.at[at], int64(batch)*n.out[0].shape.Elements()), file.image(name))
			}
		}
		instance.Forward(m.queue, Weights{Arena: w}, 0, 0)
		m.sync()

		y := m.read(instance.Y, int64(len(target)))
		loss, dy := squareLoss(y, target)
		_, want := file.read("loss")
		compare("loss", []float64{loss}, want)
		m.write(instance.DY, dy)
		instance.Backward(m.queue, Weights{Arena: w}, partial, 0, 0)
		m.sync()
		dx := m.read(instance.DX, int64(len(x)))
		if centred {
			for i := range dx {
				dx[i] *= 2
			}
		}
		compare("dx", dx, file.image("dx"))

		sum := m.read(partial, graph.ArenaElements)
		for i, g := range m.read(partial.Offset(graph.ArenaElements*real.Size()), graph.ArenaElements) {
			sum[i] += g
		}
		for _, g := range graph.ToPublic(sum) {
			if slices.Contains(zero, g.Name) {
				// A key's bias has no gradient: what is there is rounding, on the scale of the query's.
				_, query := file.read("grad." + strings.Replace(g.Name, "to_k", "to_q", 1))
				checked["grad."+g.Name] = true
				if r := norm(g.Values) / norm(query); !(r <= bound) {
					t.Errorf("the gradient of %s is %.2g of that of the query's bias, and 0 in exact arithmetic", g.Name, r)
				}
				continue
			}
			_, want := file.read("grad." + g.Name)
			compare("grad."+g.Name, g.Values, want)
		}
	})
	for _, info := range file.file.Infos() {
		if n := info.Name; (strings.HasPrefix(n, "act.") || strings.HasPrefix(n, "grad.") || n == "dx" || n == "loss") && !checked[n] {
			t.Errorf("%s was not compared", n)
		}
	}
}

// lastLayer is the last layer whose name is prefix or below it.
func lastLayer(g *Graph, prefix string) string {
	last := ""
	for _, n := range g.nodes {
		if _, fan := n.op.(fanOut); !fan && (n.name == prefix || strings.HasPrefix(n.name, prefix+".")) {
			last = n.name
		}
	}
	return last
}

func norm(v []float64) float64 {
	var s float64
	for _, x := range v {
		s += x * x
	}
	return math.Sqrt(s)
}
