package layers_test

import (
	"fmt"

	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

// The network of Ho et al. 2020 for CIFAR-10, and the memory that a training step of 128 images needs.
func ExampleGraph_Plan() {
	graph, err := layers.NewUNet2D(layers.CIFAR10DDPM())
	if err != nil {
		fmt.Println(err)
		return
	}
	plan, err := graph.Plan(layers.PlanOptions{Batch: 128, Train: true, Shards: kernels.Shards{Count: 8, Size: 16}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(plan)
	// Output:
	// parameters      136.36 MiB  35746307 in 328 tensors, fp32
	// activations    4367.74 MiB  batch 128, forward and backward
	// workspace         0.12 MiB
	// total          4504.22 MiB
	// per image        34.12 MiB  activations and workspace
}

// A network's prediction for one image, on the host device.
func ExampleInstance_Forward() {
	config := layers.DefaultUNet2DConfig()
	config.SampleSize = layers.SampleSize{H: 8, W: 8}
	config.InChannels, config.OutChannels = 1, 1
	config.BlockOutChannels, config.NormNumGroups = []int{8, 16}, 4
	config.DownBlockTypes = []string{"DownBlock2D", "AttnDownBlock2D"}
	config.UpBlockTypes = []string{"AttnUpBlock2D", "UpBlock2D"}
	graph, err := layers.NewUNet2D(config)
	if err != nil {
		fmt.Println(err)
		return
	}
	plan, err := graph.Plan(layers.PlanOptions{Batch: 1})
	if err != nil {
		fmt.Println(err)
		return
	}

	machine, err := gpu.Open("host")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer machine.Close()
	device := machine.Devices[0]
	prediction := make([]float32, graph.Out.Elements())
	err = device.Do(func() error {
		library, err := kernels.Load(device, kernels.FP32)
		if err != nil {
			return err
		}
		stream, err := device.NewStream()
		if err != nil {
			return err
		}
		queue := library.NewQueue(stream)
		network, err := plan.Instantiate(device, library)
		if err != nil {
			return err
		}
		weights := make([]float32, graph.ArenaElements)
		for i, w := range graph.InitWeights(1) {
			weights[i] = float32(w)
		}
		arena, err := device.Alloc("weights", int64(4*len(weights)))
		if err != nil {
			return err
		}
		image := make([]float32, graph.In.Elements()) // grey
		for to, v := range map[gpu.Ptr][]float32{arena: weights, network.X: image, network.Time: {500}} {
			if err := device.Write(to, gpu.Bytes(v)); err != nil {
				return err
			}
		}
		network.Forward(queue, layers.Weights{Arena: arena}, 0, 0)
		if err := queue.Err(); err != nil {
			return err
		}
		if err := stream.Sync(); err != nil {
			return err
		}
		return device.Read(gpu.Bytes(prediction), network.Y)
	})
	fmt.Println(graph.In, "to", graph.Out, err, prediction[0] != 0)
	// Output: 8x8x1 to 8x8x1 <nil> true
}
