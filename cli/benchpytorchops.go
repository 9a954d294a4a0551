package main

import (
	"fmt"
	"math"

	"ddgpu/cli/pytorch"
	"ddgpu/diffusion/safetensors"
	"ddgpu/diffusion/sampler"
	"ddgpu/diffusion/schedule"
	"ddgpu/gpu"
	"ddgpu/kernels"
	"ddgpu/layers"
)

// The modes that are tried for an operation. torch.compile makes one kernel of several; of a single product it makes a call of the same
// library that eager calls, and is not tried.
var (
	productModes = []string{pytorch.Eager, pytorch.ChannelsLast}
	fusedModes   = []string{pytorch.Eager, pytorch.ChannelsLast, pytorch.Compile}
	rowModes     = []string{pytorch.Eager}                  // of matrices, which have one layout
	flatModes    = []string{pytorch.Eager, pytorch.Compile} // of what has no layout of images
)

// bound is how far the result of a single operation may be from float64.
func (v *versus) bound() float64 {
	switch v.precision {
	case kernels.BF16:
		return 1e-2
	case kernels.TF32:
		return 1e-3
	}
	return 1e-5
}

// networkBound is the same of a whole network.
func (v *versus) networkBound() float64 { return 10 * v.bound() }

// operationSubjects are the operations of the network, each shape once, at its training batch.
func (v *versus) operationSubjects() (all []subject) {
	add := func(name, shape, kind string, modes []string, params map[string]any, build func(o *operation)) {
		all = append(all, subject{name: name, shape: shape, kind: kind, params: func() map[string]any { return params }, modes: modes, bound: v.bound(), slice: operationSlice,
			build: operate(build)})
	}
	n, ops := v.config.Train.Batch, v.graph.Operations()
	for _, g := range ops.Convs {
		g.N = n
		v.convSubjects(g, add)
	}
	for _, g := range ops.Linears {
		g.N = n
		v.linearSubjects(g, add)
	}
	for _, g := range ops.Norms {
		g.N = n
		v.normSubjects(g, add)
	}
	for _, g := range ops.Attentions {
		g.N = n
		v.attentionSubjects(g, add)
	}
	for _, s := range ops.Upsamples {
		shape, x, y := imageText(n, s), []int{n, s.H, s.W, s.C}, []int{n, 2 * s.H, 2 * s.W, s.C}
		add("upsample_forward", shape, "upsample_forward", fusedModes, nil, func(o *operation) {
			from, to := o.in("x", x...), o.out("y", y...)
			o.launch = func(q *kernels.Queue) { q.Upsample2Forward(n, s.H, s.W, s.C, to, from) }
		})
		add("upsample_backward", shape, "upsample_backward", fusedModes, nil, func(o *operation) {
			from, to := o.in("dy", y...), o.out("dx", x...)
			o.launch = func(q *kernels.Queue) { q.Upsample2Backward(n, s.H, s.W, s.C, to, from) }
		})
	}
	for _, s := range ops.AvgPools {
		shape, x, y := imageText(n, s), []int{n, s.H, s.W, s.C}, []int{n, s.H / 2, s.W / 2, s.C}
		add("downsample_forward", shape, "avgpool_forward", fusedModes, nil, func(o *operation) {
			from, to := o.in("x", x...), o.out("y", y...)
			o.launch = func(q *kernels.Queue) { q.AvgPool2Forward(n, s.H, s.W, s.C, to, from) }
		})
		add("downsample_backward", shape, "avgpool_backward", fusedModes, nil, func(o *operation) {
			o.in("x", x...) // PyTorch asks for it
			from, to := o.in("dy", y...), o.out("dx", x...)
			o.launch = func(q *kernels.Queue) { q.AvgPool2Backward(n, s.H, s.W, s.C, to, from) }
		})
	}
	v.stepSubjects(add)
	return all
}

// adder appends a subject.
type adder = func(name, shape, kind string, modes []string, params map[string]any, build func(o *operation))

func imageText(n int, s layers.Shape) string { return fmt.Sprintf("%d×%d×%d×%d", n, s.H, s.W, s.C) }

// shards is how the trainer divides a batch for gradients of parameters.
func (v *versus) shards() kernels.Shards {
	count := v.config.Train.Shards
	return kernels.Shards{Count: count, Size: (v.config.Train.Batch + count - 1) / count}
}

func (v *versus) convSubjects(g kernels.Conv, add adder) {
	shape := fmt.Sprintf("%d×%d×%d×%d→%d×%d×%d k%d s%d", g.N, g.H, g.W, g.Cin, g.OH, g.OW, g.Cout, g.KH, g.Stride)
	bottom, right := (g.OH-1)*g.Stride+g.KH-g.H-g.PadTop, (g.OW-1)*g.Stride+g.KW-g.W-g.PadLeft
	params := map[string]any{"stride": g.Stride, "pad": []int{g.PadTop, max(bottom, 0), g.PadLeft, max(right, 0)}}
	x, y, w := []int{g.N, g.H, g.W, g.Cin}, []int{g.N, g.OH, g.OW, g.Cout}, []int{g.KH, g.KW, g.Cin, g.Cout}
	add("conv_forward", shape, "conv_forward", productModes, params, func(o *operation) {
		xp, wp, b, yp := o.in("x", x...), o.in("w", w...), o.inWide("b", o.normal(g.Cout), g.Cout), o.out("y", y...)
		o.launch = func(q *kernels.Queue) { q.ConvForward(g, yp, xp, wp, kernels.Epilogue{Bias: b}) }
	})
	add("conv_backward_data", shape, "conv_backward_data", productModes, params, func(o *operation) {
		o.give("x", make([]float64, size(x)), x...) // its shape is asked for
		dy, wp, dx := o.in("dy", y...), o.in("w", w...), o.out("dx", x...)
		o.launch = func(q *kernels.Queue) { q.ConvBackwardData(g, dx, dy, wp, kernels.Epilogue{}) }
	})
	add("conv_backward_weight", shape, "conv_backward_weight", productModes, params, func(o *operation) {
		o.give("w", make([]float64, size(w)), w...)
		o.weightGradient(g, o.in("dy", y...), o.in("x", x...))
	})
}

// weightGradient is the gradient of each shard and their sum, as the trainer has them.
func (o *operation) weightGradient(g kernels.Conv, dy, x gpu.Ptr) {
	s, n := o.v.shards(), g.KH*g.KW*g.Cin*g.Cout
	partial, dw := o.scratchWide(s.Count*n), o.outWide("dw", n)
	cut := g.WeightSegments(s.Size, o.v.precision)
	var work gpu.Ptr
	if sums := cut.Work(g, s.Count); sums > 0 {
		work = o.scratchWide(int(sums))
	}
	o.launch = func(q *kernels.Queue) {
		q.ConvBackwardWeight(g, s, cut, partial, int64(n), work, dy, x)
		q.TreeSum(s.Count, int64(n), dw, partial, int64(n))
	}
}

func (v *versus) linearSubjects(g kernels.Conv, add adder) {
	rows := g.N * g.H * g.W
	shape := fmt.Sprintf("%d×%d→%d", rows, g.Cin, g.Cout)
	x, y, w := []int{rows, g.Cin}, []int{rows, g.Cout}, []int{g.Cin, g.Cout}
	add("linear_forward", shape, "linear_forward", rowModes, nil, func(o *operation) {
		xp, wp, b, yp := o.in("x", x...), o.in("w", w...), o.inWide("b", o.normal(g.Cout), g.Cout), o.out("y", y...)
		o.launch = func(q *kernels.Queue) { q.ConvForward(g, yp, xp, wp, kernels.Epilogue{Bias: b}) }
	})
	add("linear_backward_data", shape, "linear_backward_data", rowModes, nil, func(o *operation) {
		dy, wp, dx := o.in("dy", y...), o.in("w", w...), o.out("dx", x...)
		o.launch = func(q *kernels.Queue) { q.ConvBackwardData(g, dx, dy, wp, kernels.Epilogue{}) }
	})
	add("linear_backward_weight", shape, "linear_backward_weight", rowModes, nil, func(o *operation) {
		o.weightGradient(g, o.in("dy", y...), o.in("x", x...))
	})
}

func (v *versus) normSubjects(g kernels.Norm, add adder) {
	name := "groupnorm"
	if g.SiLU {
		name = "groupnorm_silu"
	}
	shape := fmt.Sprintf("%d×%d×%d %d groups", g.N, g.HW, g.C, g.Groups)
	params := map[string]any{"groups": g.Groups, "eps": g.Eps, "silu": g.SiLU}
	x := []int{g.N, g.HW, 1, g.C}
	inputs := func(o *operation) (xp, gamma, beta, y, stats gpu.Ptr) {
		xp, gamma, beta = o.in("x", x...), o.inWide("gamma", o.normal(g.C), g.C), o.inWide("beta", o.normal(g.C), g.C)
		return xp, gamma, beta, o.scratch(size(x)), o.scratchWide(2 * g.N * g.Groups)
	}
	add(name+"_forward", shape, "groupnorm_forward", fusedModes, params, func(o *operation) {
		xp, gamma, beta, _, stats := inputs(o)
		y := o.out("y", x...)
		o.launch = func(q *kernels.Queue) {
			q.GroupNormForward(g, kernels.Dropout{}, y, stats, xp, gamma, beta, 0, 0, 0, 0)
		}
	})
	add(name+"_backward", shape, "groupnorm_backward", fusedModes, params, func(o *operation) {
		xp, gamma, beta, y, stats := inputs(o)
		o.queue.GroupNormForward(g, kernels.Dropout{}, y, stats, xp, gamma, beta, 0, 0, 0, 0)
		s := v.shards()
		dy, dx := o.in("dy", x...), o.out("dx", x...)
		each, partial, sum := o.scratchWide(2*g.N*g.C), o.scratchWide(2*s.Count*g.C), o.scratchWide(2*g.C)
		o.compare("dgamma", sum, g.C)
		o.compare("dbeta", sum.Offset(4*int64(g.C)), g.C)
		o.launch = func(q *kernels.Queue) {
			q.GroupNormBackward(g, kernels.Dropout{}, dx, kernels.Rows{At: each, Stride: 2 * g.C}, 0, kernels.PixelSums{}, dy, xp, gamma, beta, 0, 0, stats)
			q.ShardSum(s, g.N, 2*g.C, partial, 2*int64(g.C), kernels.Rows{At: each, Stride: 2 * g.C})
			q.TreeSum(s.Count, 2*int64(g.C), sum, partial, 2*int64(g.C))
		}
	})
}

func (v *versus) attentionSubjects(g kernels.Attention, add adder) {
	shape := fmt.Sprintf("%d×%d, %d heads of %d", g.N, g.L, g.Heads, g.Dim)
	params := map[string]any{"n": g.N, "l": g.L, "heads": g.Heads, "dim": g.Dim, "scale": g.Scale}
	x := []int{g.N, g.L, g.Heads * g.Dim}
	rows := g.N * g.Heads * g.L
	add("attention_forward", shape, "attention_forward", flatModes, params, func(o *operation) {
		queries, keys, values, y, lse := o.in("q", x...), o.in("k", x...), o.in("v", x...), o.out("y", x...), o.scratchWide(rows)
		o.launch = func(q *kernels.Queue) { q.AttentionForward(g, y, lse, queries, keys, values) }
	})
	add("attention_backward", shape, "attention_backward", flatModes, params, func(o *operation) {
		queries, keys, values, y, lse := o.in("q", x...), o.in("k", x...), o.in("v", x...), o.scratch(size(x)), o.scratchWide(rows)
		o.queue.AttentionForward(g, y, lse, queries, keys, values)
		dy, dq, dk, dv, delta := o.in("dy", x...), o.out("dq", x...), o.out("dk", x...), o.out("dv", x...), o.scratchWide(rows)
		o.launch = func(q *kernels.Queue) { q.AttentionBackward(g, dq, dk, dv, delta, dy, y, lse, queries, keys, values) }
	})
}

// stepSubjects are the operations of a step around the network: the update of the weights, the noise of a training batch, a sampler's update.
func (v *versus) stepSubjects(add adder) {
	o, c := v.config.Optimizer, v.config
	var sizes []int64
	n := int64(0)
	for _, p := range v.graph.Params {
		sizes = append(sizes, p.Elements)
		n += p.Elements
	}
	params := v.optimizerParams()
	params["sizes"] = sizes
	add("adam_step", fmt.Sprintf("%d weights in %d tensors", n, len(sizes)), "adam_step", flatModes, params, func(op *operation) {
		count := int(n)
		p, ema, g := op.inWide("p", op.normal(count), count), op.inWide("ema", op.normal(count), count), op.inWide("g", op.normal(count), count)
		op.compare("p", p, count)
		op.compare("ema", ema, count)
		zeros := make([]float64, count)
		m, s := op.place("Adam's first moment", wide(zeros)), op.place("Adam's second moment", wide(zeros))
		norm, scratch := op.scratchWide(1), op.scratchWide(int(kernels.GradNormScratch(n)))
		state := op.state(kernels.StepState{LearningRate: o.LearningRate, EMADecay: c.EMA.Decay, Correction1: 1 - o.Beta1, Correction2: 1 - o.Beta2})
		adam := kernels.Adam{N: n, Beta1: o.Beta1, Beta2: o.Beta2, Epsilon: o.Epsilon, WeightDecay: o.WeightDecay, MaxNorm: o.MaxGradNorm, Decoupled: o.Name == "adamw"}
		var rounded gpu.Ptr
		if v.precision == kernels.BF16 {
			rounded = op.scratch(count)
		}
		op.launch = func(q *kernels.Queue) {
			q.GradNorm(n, norm, scratch, g)
			q.Adam(adam, p, m, s, ema, rounded, g, norm, state)
		}
	})
	v.noiseSubject(add)
	v.updateSubject(add)
}

// optimizerParams are the settings of Adam as PyTorch's side reads them.
func (v *versus) optimizerParams() map[string]any {
	o := v.config.Optimizer
	return map[string]any{"lr": o.LearningRate, "beta1": o.Beta1, "beta2": o.Beta2, "epsilon": o.Epsilon, "weight_decay": o.WeightDecay,
		"decoupled": o.Name == "adamw", "max_norm": o.MaxGradNorm, "ema_decay": v.config.EMA.Decay}
}

// normalsOf are the random numbers that a kernel draws for n images at a step.
func normalsOf(s kernels.StepState, purpose kernels.Purpose, step uint64, n, perImage int) []float64 {
	z := make([]float64, n*perImage)
	for i := range n {
		stream := kernels.Stream{Seed: s.Seed, Purpose: purpose, Image: s.First + uint64(i), Step: step}
		stream.Normals(z[i*perImage : (i+1)*perImage])
	}
	return z
}

func (v *versus) noiseSubject(add adder) {
	c, size := v.config, v.graph.In
	steps, n, shape := c.Schedule.Steps, c.Train.Batch, []int{c.Train.Batch, size.H, size.W, size.C}
	g := kernels.Noise{N: n, H: size.H, W: size.W, C: size.C, T: steps, Flip: c.Data.Flip}
	add("noise_add", imageText(n, size), "noise_add", fusedModes, map[string]any{"steps": steps, "flip": g.Flip}, func(o *operation) {
		state := kernels.StepState{Seed: v.seed, Step: 1}
		images := make([]byte, n*int(size.Elements()))
		index, coin := make([]byte, 0, 8*n), make([]byte, 0, n)
		for i := range images {
			images[i] = byte(v.random.Uint32())
		}
		for i := range n {
			s := kernels.Stream{Seed: state.Seed, Purpose: kernels.DrawIndex, Image: uint64(i), Step: state.Step}
			index = append(index, gpu.Bytes([]int64{int64(uint64(s.Block(0)[0]) * uint64(steps) >> 32)})...)
			s.Purpose = kernels.DrawFlip
			coin = append(coin, byte(s.Block(0)[0]>>31))
		}
		o.tensors = append(o.tensors, safetensors.Tensor{Name: "images", DType: safetensors.U8, Shape: shape, Data: images},
			safetensors.Tensor{Name: "n", DType: safetensors.I64, Shape: []int{n}, Data: index},
			safetensors.Tensor{Name: "coin", DType: safetensors.U8, Shape: []int{n}, Data: coin})
		o.give("eps", normalsOf(state, kernels.DrawNoise, state.Step, n, int(size.Elements())), shape...)
		noise, err := schedule.New(c.Schedule)
		if err != nil {
			o.err = err
			return
		}
		roots := o.inWide("roots", noise.Roots(), 2, steps)
		from, at, t, to := o.place("images", images), o.state(state), o.scratchWide(n), o.out("xn", shape...)
		o.launch = func(q *kernels.Queue) { q.NoiseAdd(g, to, t, from, at, roots, 1) }
	})
}

func (v *versus) updateSubject(add adder) {
	size := v.graph.In
	n, perImage := v.sampling, int(size.Elements())
	rows, err := v.samplerRows()
	if err != nil {
		return // Config.Validate refuses such a sampler
	}
	row := rows[len(rows)/2]
	add("sampler_update", imageText(n, size), "sampler_update", fusedModes, map[string]any{"row": rowParams(row, 1)}, func(o *operation) {
		shape := []int{n, size.H, size.W, size.C}
		state := kernels.StepState{Seed: v.seed}
		// The update is in place: the launch that is compared is the first.
		x := o.inWide("x", o.normal(n*perImage), shape...)
		o.compare("x", x, n*perImage)
		out := o.in("out", shape...)
		o.give("z", normalsOf(state, kernels.DrawSampling, 0, n, perImage), shape...)
		table := o.place("the sampler's coefficients", wide([]float64{float64(row.Index), row.A, row.B, row.C, row.D, row.E, row.Sigma, row.Clip}))
		at, input := o.state(state), o.scratch(n*perImage)
		o.launch = func(q *kernels.Queue) { q.SampleUpdate(n, int64(perImage), x, input, out, table, at) }
	})
}

// rowParams is a row of the sampler's table for PyTorch; what the network is told of step n is n·scale.
func rowParams(r sampler.Row, scale float64) []any {
	var clip any
	if !math.IsInf(r.Clip, 0) {
		clip = r.Clip
	}
	return []any{float64(r.Index) * scale, r.A, r.B, r.C, r.D, r.E, r.Sigma, clip}
}
