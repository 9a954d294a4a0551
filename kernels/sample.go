package kernels

import "ddgpu/gpu"

var (
	sampleStart  = declare("sample_start", "pppi")
	sampleTime   = declare("sample_time", "pppl")
	sampleUpdate = declare("sample_update", "pppppi")
)

// SampleRowLength is the reals of a row of a sampling table: Time, A, B, C, D, E, Sigma, Clip (see SampleUpdate).
const SampleRowLength = 8

// SampleStart draws x [n][perImage] from N(0, 1) for the images state.First …; the step plays no part. input receives the same as activations
// are stored.
func (q *Queue) SampleStart(n int, perImage int64, x, input, state gpu.Ptr) {
	if grid, elements, ok := q.imageGrid(sampleStart, n, perImage); ok {
		q.launch(sampleStart, grid, 0, ptr(x), ptr(input), ptr(state), i32(elements))
	}
}

// SampleTime sets t[n] to Time of the table's row state.Step, for n images.
func (q *Queue) SampleTime(n int, t, table, state gpu.Ptr) {
	q.launchElements(sampleTime, int64(n), ptr(t), ptr(table), ptr(state), i64(int64(n)))
}

// SampleUpdate is one sampling step in place, with the table's row state.Step: x̂0 = A·x + B·out, clipped to ±Clip (+Inf for none),
// x ← C·x̂0 + D·x + E·out + Sigma·z, z ~ N(0, 1). out is the network's output for x, input its next input: x as activations are stored.
func (q *Queue) SampleUpdate(n int, perImage int64, x, input, out, table, state gpu.Ptr) {
	if grid, elements, ok := q.imageGrid(sampleUpdate, n, perImage); ok {
		q.launch(sampleUpdate, grid, 0, ptr(x), ptr(input), ptr(out), ptr(table), ptr(state), i32(elements))
	}
}
