package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"ddgpu/diffusion"
	"ddgpu/diffusion/safetensors"
	"ddgpu/kernels"
	"ddgpu/layers"
)

func forwardCommand() *cli.Command {
	return &cli.Command{
		Name:  "forward",
		Usage: "run a network once on arrays from files, to compare with another implementation",
		Description: `Reads the input as PyTorch has it (NCHW; float32 or float64), runs the network forward and writes its output. With --grad-out it also
runs backward from that gradient of the output and writes the gradient of every parameter under its public name, and of the input as "x",
to --grads. Dropout is off. --model is a run, a checkpoint, or a safetensors file with diffusers' names; a file needs --config with the
config.json of diffusers' UNet2DModel (default: config.json beside it).

Examples:
   ddgpu forward --model net.safetensors --config net/config.json --x x.npy --n n.npy --out y.npy
   ddgpu forward --model runs/quickstart --x x.npy --n n.npy --out y.npy --grad-out g.npy --grads grads.safetensors
   ddgpu forward --model net.safetensors --x x.npy --n n.npy --out y.npy --precision fp64`,
		Flags: []cli.Flag{
			modelFlag("run folder, a checkpoint folder or a safetensors file"),
			&cli.StringFlag{Name: "config", Usage: "config.json `FILE` for a safetensors file"},
			&cli.StringFlag{Name: "x", Usage: "input `FILE`.npy, [N, C, H, W]"},
			&cli.StringFlag{Name: "n", Usage: "time steps `FILE`.npy, [N], whole numbers or not"},
			&cli.StringFlag{Name: "label", Usage: "classes `FILE`.npy, [N], for a network with classes"},
			&cli.StringFlag{Name: "out", Usage: "output `FILE`.npy, [N, C, H, W]"},
			&cli.StringFlag{Name: "grad-out", Usage: "gradient of the output, `FILE`.npy, [N, C, H, W]"},
			&cli.StringFlag{Name: "grads", Usage: "`FILE`.safetensors for the gradients"},
			&cli.StringFlag{Name: "precision", Usage: "fp32, tf32, bf16, or fp64 on the host device", DefaultText: "the run's, fp32 for a file"},
			devicesFlag(),
			memoryLimitFlag(),
			hangFlag(),
		},
		Action: forward,
	}
}

func forward(c *cli.Context) error {
	if err := require(c, "model", "x", "n", "out"); err != nil {
		return err
	}
	if c.IsSet("grad-out") != c.IsSet("grads") {
		return usagef("--grad-out and --grads go together")
	}
	if _, err := deviceSpec(c); err != nil {
		return err
	}
	x, err := readImages(c.String("x"))
	if err != nil {
		return err
	}
	model, err := openForward(c, x)
	if err != nil {
		return err
	}
	p := &diffusion.Pass{N: x.Shape[0], X: x.Float64s()}
	if err := checkImages(c.String("x"), x, p.N, model.Graph.In); err != nil {
		return err
	}
	if p.Time, p.Labels, err = readConditions(c, p.N); err != nil {
		return err
	}
	if c.IsSet("grad-out") {
		g, err := readImages(c.String("grad-out"))
		if err == nil {
			err = checkImages(c.String("grad-out"), g, p.N, model.Graph.Out)
		}
		if err != nil {
			return err
		}
		p.DY = g.Float64s()
	}
	if err := p.Check(model.Graph); err != nil {
		return npyError{c.String("x"), err}
	}
	m, err := openMachine(c)
	if err != nil {
		return err
	}
	types, err := kernels.ParsePrecision(model.Config.Precision)
	if err == nil {
		err = checkPrecision(types, m)
	}
	if err != nil {
		return join(err, m.Close())
	}
	return guard(c.Duration("hang-timeout"), func(alive func(string)) error {
		alive("the network runs")
		result, err := p.Run(m.Devices[0], model)
		if err == nil {
			err = writeForward(c, model, p.N, result)
		}
		return join(err, m.Close())
	})
}

// openForward opens --model, for images of the size that x has.
func openForward(c *cli.Context, x *array) (*diffusion.Model, error) {
	path, precision := c.String("model"), c.String("precision")
	if precision != "" {
		if _, err := precisionOf(c); err != nil {
			return nil, err
		}
	}
	var model *diffusion.Model
	var err error
	if stat, statErr := os.Stat(path); statErr == nil && !stat.IsDir() {
		config, err := readUNetConfig(c, path)
		if err != nil {
			return nil, err
		}
		config.SampleSize = layers.SampleSize{H: x.Shape[2], W: x.Shape[3]}
		if err := config.Validate(); err != nil {
			return nil, usageError{err}
		}
		model, err = diffusion.OpenWeights(path, config)
		if err != nil {
			return nil, err
		}
		model.Config.Precision = kernels.FP32.String()
	} else {
		if c.IsSet("config") {
			return nil, usagef("--config is for a safetensors file: %s has its own configuration", path)
		}
		if model, err = diffusion.OpenModel(path); err != nil {
			return nil, err
		}
	}
	if precision != "" {
		model.Config.Precision = precision
	}
	return model, nil
}

func readUNetConfig(c *cli.Context, model string) (layers.UNet2DConfig, error) {
	path := c.String("config")
	if path == "" {
		path = filepath.Join(filepath.Dir(model), "config.json")
	}
	text, err := readConfig(path)
	if err != nil {
		return layers.UNet2DConfig{}, usageError{fmt.Errorf("reading the network's configuration (--config): %w", err)}
	}
	config, err := layers.ParseUNet2DConfig(text)
	if err != nil {
		return config, usageError{fmt.Errorf("%s: %w", path, jsonError(err))}
	}
	return config, nil
}

// readImages reads an array [N, C, H, W] of floating-point numbers.
func readImages(path string) (*array, error) {
	a, err := readNPY(path)
	if err != nil {
		return nil, err
	}
	if len(a.Shape) != 4 || (a.Type != "<f4" && a.Type != "<f8") {
		return nil, npyError{path, fmt.Errorf("it is %s %v: want [N, C, H, W] of float32 or float64", a.Type, a.Shape)}
	}
	return a, nil
}

// checkImages requires n images of the shape that a network has: the same numbers in another order would go unnoticed.
func checkImages(path string, a *array, n int, s layers.Shape) error {
	if want := []int{n, s.C, s.H, s.W}; !slices.Equal(a.Shape, want) {
		return npyError{path, fmt.Errorf("its shape is %v: want [N, C, H, W], here %v", a.Shape, want)}
	}
	return nil
}

// readConditions reads what the network is told about each image: its time step and, with classes, its class.
func readConditions(c *cli.Context, n int) (time []float64, labels []int32, err error) {
	read := func(flag string) (*array, error) {
		a, err := readNPY(c.String(flag))
		if err == nil && (len(a.Shape) > 1 || a.Len() != n) {
			err = npyError{c.String(flag), fmt.Errorf("its shape is %v: want [%d], one number for each image", a.Shape, n)}
		}
		return a, err
	}
	a, err := read("n")
	if err != nil {
		return nil, nil, err
	}
	time = a.Float64s()
	if !c.IsSet("label") {
		return time, nil, nil
	}
	if a, err = read("label"); err != nil {
		return nil, nil, err
	}
	for _, v := range a.Float64s() {
		if v != math.Trunc(v) || math.Abs(v) > math.MaxInt32 {
			return nil, nil, npyError{c.String("label"), errors.New("labels are whole numbers")}
		}
		labels = append(labels, int32(v))
	}
	return time, labels, nil
}

func writeForward(c *cli.Context, model *diffusion.Model, n int, r diffusion.PassResult) error {
	out := model.Graph.Out
	shape := []int{n, out.C, out.H, out.W}
	y := float64Array(shape, r.Y)
	if model.Config.Precision != kernels.FP64.String() {
		y = y.float32s()
	}
	if err := writeNPY(c.String("out"), y); err != nil {
		return err
	}
	if r.Grads == nil {
		return nil
	}
	return writeFile(c.String("grads"), func(w io.Writer) error {
		return safetensors.Write(w, r.Grads, map[string]string{"format": "pt"})
	})
}
