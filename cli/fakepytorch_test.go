package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"ddgpu/diffusion/safetensors"
)

// fakePyTorch is a command that takes the place of Python with PyTorch in scripts: it speaks the protocol of cli/pytorch/peer.py and computes
// upsample_forward alone. $FAKE says what is wrong with it.
func fakePyTorch() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var r struct {
			ID                          int
			Do, Kind, Inputs, Reference string
			Modes                       []string
			Times                       int
		}
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			fakeFails(err)
		}
		answer := map[string]any{"id": r.ID}
		switch fake := os.Getenv("FAKE"); {
		case fake == "silent":
			fmt.Fprintln(os.Stderr, "waiting")
			time.Sleep(time.Hour)
		case fake == "missing":
			answer["error"], answer["missing"] = "No module named 'torch'", "torch"
		case r.Do == "hello":
			answer["result"] = map[string]any{"versions": map[string]string{"torch": "2.0", "python": "3"}, "device": "CPU", "threads": 1}
		case fake == "garbage":
			fmt.Println("<html>")
			continue
		case fake == "dies":
			fmt.Fprintln(os.Stderr, "Segmentation fault")
			os.Exit(139)
		case r.Do == "prepare":
			if err := fakeReference(r.Inputs, r.Reference, fake == "other"); err != nil {
				fakeFails(err)
			}
			var modes []map[string]any
			for _, mode := range r.Modes {
				m := map[string]any{"mode": mode, "error": 1e-8, "peak_bytes": 1 << 20}
				if mode == "compile" || fake == "unable" {
					m = map[string]any{"mode": mode, "failure": "InvalidCxxCompiler: none"}
				}
				if fake == "wrong" {
					m["error"] = 0.5
				}
				modes = append(modes, m)
			}
			answer["result"] = map[string]any{"modes": modes}
		case r.Do == "run":
			answer["result"] = map[string]any{"seconds": 0.01 * float64(r.Times)}
		}
		text, err := json.Marshal(answer)
		if err != nil {
			fakeFails(err)
		}
		fmt.Println(string(text))
	}
}

func fakeFails(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// fakeReference doubles x, or gives something else.
func fakeReference(inputs, reference string, other bool) error {
	if inputs == "" {
		return nil
	}
	file, err := safetensors.Open(inputs)
	if err != nil {
		return err
	}
	defer file.Close()
	tensor, err := file.Read("x")
	if err != nil {
		return err
	}
	x, err := tensor.Float64s()
	if err != nil {
		return err
	}
	n, h, w, c := tensor.Shape[0], tensor.Shape[1], tensor.Shape[2], tensor.Shape[3]
	y := make([]float64, 4*len(x))
	for i := range y {
		channel, column, row, image := i%c, i/c%(2*w), i/c/(2*w)%(2*h), i/c/(2*w)/(2*h)
		y[i] = x[((image*h+row/2)*w+column/2)*c+channel]
		if other {
			y[i]++
		}
	}
	to, err := os.Create(reference)
	if err != nil {
		return err
	}
	return join(safetensors.Write(to, []safetensors.Tensor{safetensors.FromFloat64s("y", []int{n, 2 * h, 2 * w, c}, y)}, nil), to.Close())
}
