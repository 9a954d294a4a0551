// Package layers builds networks as static graphs of operations, each with Forward and Backward written out, and plans their memory.
//
// A network is built once ([NewUNet2D]): the builder infers every shape, gives every parameter its public name (that of diffusers) and its
// place in one flat arena, and refuses a network whose shapes do not fit, naming the layer and both shapes. [Graph.Plan] then lays out all
// activations and gradients for one batch size from their lifetimes, without a device; [Plan.Instantiate] binds a plan to a device, and
// [Instance.Forward] and [Instance.Backward] launch kernels and do nothing else, so that a step can be captured as a CUDA graph.
//
// Conventions. A value is [N][H][W][C]; N comes with the plan. Each value has one consumer: where several need it the graph has a fan-out,
// whose backward is the sum, so that every backward kernel assigns. Parameter gradients are written per virtual shard into a workspace and
// combined by the tree alone, which makes them the same bits on any number of devices.
package layers
