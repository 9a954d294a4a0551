package kernels

// StepState is what changes from step to step. It lies in device memory (state.cuh has the same 64 bytes), written by an asynchronous
// copy before each step, so that a captured graph serves every step.
type StepState struct {
	Seed         uint64
	Step         uint64 // training step from 1, or sampling step from 0
	First        uint64 // global index of the first image of this device's part of the batch
	LearningRate float64
	EMADecay     float64
	Correction1  float64 // 1 − β1^k of Adam's step k = 1, 2, …
	Correction2  float64 // 1 − β2^k
	_            float64
}

// StepStateSize is the bytes of a StepState.
const StepStateSize = 64
