package selftest

import (
	"fmt"
	"math"

	"ddgpu/gpu"
	"ddgpu/kernels"
)

// state is a StepState with a random seed, some step below `steps`, and images numbered from beyond 32 bits.
func (b *Builder) state(steps int) kernels.StepState {
	return kernels.StepState{Seed: b.rng.Uint64(), Step: b.rng.Uint64N(uint64(steps)), First: b.rng.Uint64N(1 << 40)}
}

func (b *Builder) inState(s kernels.StepState) gpu.Ptr {
	return b.InBytes(gpu.Bytes([]kernels.StepState{s}))
}

// normals draws perImage elements for each of n images.
func normals(s kernels.StepState, p kernels.Purpose, step uint64, offset, n, perImage int) []float64 {
	z := make([]float64, n*perImage)
	for i := range n {
		stream := kernels.Stream{Seed: s.Seed, Purpose: p, Image: s.First + uint64(offset+i), Step: step}
		stream.Normals(z[i*perImage : (i+1)*perImage])
	}
	return z
}

// imageShapes are images with one element (many, so that no cancellation in one is the whole norm), sizes that are no multiple of 4, and more than one block of 4096.
var imageShapes = []kernels.Noise{
	{N: 61, H: 1, W: 1, C: 1, T: 1},
	{N: 5, H: 2, W: 3, C: 1, T: 7},
	{N: 3, H: 7, W: 5, C: 3, T: 1000},
	{N: 7, H: 8, W: 8, C: 4, T: 10},
	{N: 4, H: 28, W: 28, C: 1, T: 1000},
	{N: 2, H: 32, W: 30, C: 3, T: 1000},
	{N: 2, H: 37, W: 41, C: 3, T: 50},
	{N: 2, H: 64, W: 64, C: 3, T: 1000},
}

func noiseShape(g kernels.Noise) string {
	flip := ""
	if g.Flip {
		flip = " flip"
	}
	return fmt.Sprintf("%d×%d×%d×%d T%d%s", g.N, g.H, g.W, g.C, g.T, flip)
}

// training is what noise_add and loss work on.
type training struct {
	g                    kernels.Noise
	state                kernels.StepState
	statePtr, images     gpu.Ptr
	roots                gpu.Ptr
	bytes                []byte
	signal, noise        []float64 // √ᾱ, √(1 − ᾱ)
	perImage             int
	index                []int     // n of each image
	x0, eps, xn, t, vpar []float64 // vpar: √ᾱ ε − √(1 − ᾱ) x0
}

const timeScale = 1.25

func newTraining(b *Builder, g kernels.Noise) *training {
	g.Offset = int64(b.rng.IntN(1000))
	s := &training{g: g, state: b.state(1 << 40), perImage: g.H * g.W * g.C}
	s.bytes = make([]byte, g.N*s.perImage)
	for i := range s.bytes {
		s.bytes[i] = byte(b.rng.Uint32())
	}
	roots := make([]float64, 2*g.T)
	for n := range g.T {
		bar := (float64(n) + b.rng.Float64()) / float64(g.T)
		roots[n], roots[g.T+n] = b.RoundAcc(math.Sqrt(1-bar)), b.RoundAcc(math.Sqrt(bar))
	}
	s.signal, s.noise = roots[:g.T], roots[g.T:]
	s.statePtr, s.images, s.roots = b.inState(s.state), b.InBytes(s.bytes), b.InAcc(roots)
	if !b.timing {
		s.reference()
	}
	return s
}

func (s *training) reference() {
	g := s.g
	s.x0 = make([]float64, len(s.bytes))
	s.xn, s.vpar = make([]float64, len(s.bytes)), make([]float64, len(s.bytes))
	s.eps = normals(s.state, kernels.DrawNoise, s.state.Step, int(g.Offset), g.N, s.perImage)
	for n := range g.N {
		stream := kernels.Stream{Seed: s.state.Seed, Purpose: kernels.DrawIndex, Image: s.state.First + uint64(g.Offset) + uint64(n), Step: s.state.Step}
		index := int(uint64(stream.Block(0)[0]) * uint64(g.T) >> 32)
		stream.Purpose = kernels.DrawFlip
		flip := g.Flip && stream.Block(0)[0] >= 1<<31
		s.index = append(s.index, index)
		s.t = append(s.t, float64(index)*timeScale)
		a, c := s.signal[index], s.noise[index]
		for h := range g.H {
			for w := range g.W {
				from := w
				if flip {
					from = g.W - 1 - w
				}
				for ch := range g.C {
					v := s.bytes[((n*g.H+h)*g.W+from)*g.C+ch]
					i := ((n*g.H+h)*g.W+w)*g.C + ch
					s.x0[i] = float64(v)*2/255 - 1
					s.xn[i] = a*s.x0[i] + c*s.eps[i]
					s.vpar[i] = a*s.eps[i] - c*s.x0[i]
				}
			}
		}
	}
}

// from is the batch without its first k images: the shape and the pointers moved by k images of perImage values.
func (s *training) from(k int) (g kernels.Noise, images gpu.Ptr) {
	g = s.g
	g.N, g.Offset = g.N-k, g.Offset+int64(k)
	return g, s.images.Offset(int64(k * s.perImage))
}

func noiseAddCase(g kernels.Noise) Case {
	elements := float64(g.N * g.H * g.W * g.C)
	return Case{Shape: noiseShape(g), Bytes: 5 * elements, FLOPs: 3 * elements, Build: func(b *Builder) {
		s := newTraining(b, g)
		xn := b.Out("x_n", b.Want(len(s.bytes), func() []float64 { return s.xn }))
		t := b.OutAcc("t", b.Want(g.N, func() []float64 { return s.t }))
		b.Launch(func(q *kernels.Queue) { q.NoiseAdd(s.g, xn, t, s.images, s.statePtr, s.roots, timeScale) })
		b.Again("in two launches", func(q *kernels.Queue) {
			k := g.N / 2
			first := s.g
			first.N = k
			q.NoiseAdd(first, xn, t, s.images, s.statePtr, s.roots, timeScale)
			rest, images := s.from(k)
			q.NoiseAdd(rest, b.Offset(xn, k*s.perImage), b.Offset(t, k), images, s.statePtr, s.roots, timeScale)
		})
	}}
}

var objectiveNames = []string{"eps", "x0", "v"}

func lossCase(g kernels.Noise, o kernels.Objective, gradient bool) Case {
	elements := float64(g.N * g.H * g.W * g.C)
	shape, moved := noiseShape(g)+" "+objectiveNames[o], 8.0
	if !gradient {
		shape, moved = shape+" forward", 4
	}
	if o != kernels.Eps {
		moved++
	}
	return Case{Shape: shape, Bytes: moved * elements, FLOPs: 4 * elements, Build: func(b *Builder) {
		s := newTraining(b, g)
		y := b.Normal(len(s.bytes))
		scale := 1 / float64(g.N)
		var dyWant []float64
		lossWant := b.Want(g.N, func() []float64 {
			target := [][]float64{s.eps, s.x0, s.vpar}[o]
			loss := make([]float64, g.N)
			dyWant = make([]float64, len(y))
			for i := range y {
				d := y[i] - target[i]
				loss[i/s.perImage] += d * d / float64(s.perImage)
				dyWant[i] = scale * 2 * d / float64(s.perImage)
			}
			return loss
		})
		var dy gpu.Ptr
		if gradient {
			dy = b.Out("dy", b.Want(len(y), func() []float64 { return dyWant }))
		}
		loss, yp := b.OutAcc("loss", lossWant), b.In(y)
		b.Launch(func(q *kernels.Queue) { q.Loss(s.g, o, dy, loss, yp, s.images, s.statePtr, s.roots, scale) })
		b.Again("in two launches", func(q *kernels.Queue) {
			k := g.N / 2
			first := s.g
			first.N = k
			q.Loss(first, o, dy, loss, yp, s.images, s.statePtr, s.roots, scale)
			rest, images := s.from(k)
			var restDy gpu.Ptr
			if gradient {
				restDy = b.Offset(dy, k*s.perImage)
			}
			q.Loss(rest, o, restDy, b.Offset(loss, k), b.Offset(yp, k*s.perImage), images, s.statePtr, s.roots, scale)
		})
	}}
}

func sampleStartCase(n, perImage int) Case {
	return Case{Shape: fmt.Sprintf("%d×%d", n, perImage), Bytes: 4 * float64(n*perImage), Build: func(b *Builder) {
		s := b.state(1000)
		want := b.Want(n*perImage, func() []float64 { return normals(s, kernels.DrawStart, 0, 0, n, perImage) })
		x, input := b.OutAcc("x", want), b.Out("input", want)
		state := b.inState(s)
		b.Launch(func(q *kernels.Queue) { q.SampleStart(n, int64(perImage), x, input, state) })
	}}
}

// sampleTable is random rows; only row s.Step may be read.
func sampleTable(b *Builder, s kernels.StepState, rows int, sigma, clip float64) (table, row []float64) {
	table = make([]float64, rows*kernels.SampleRowLength)
	for i := range table {
		table[i] = math.NaN()
	}
	row = table[int(s.Step)*kernels.SampleRowLength:][:kernels.SampleRowLength]
	copy(row, b.Normal(6))
	row[6], row[7] = b.RoundAcc(sigma), b.RoundAcc(clip)
	return table, row
}

func sampleTimeCase(n int) Case {
	return Case{Shape: fmt.Sprint(n), Bytes: 4 * float64(n), Build: func(b *Builder) {
		s := b.state(9)
		table, row := sampleTable(b, s, 9, 0, 1)
		t := b.OutAcc("t", b.Want(n, func() []float64 {
			t := make([]float64, n)
			for i := range t {
				t[i] = row[0]
			}
			return t
		}))
		tablePtr, state := b.InAcc(table), b.inState(s)
		b.Launch(func(q *kernels.Queue) { q.SampleTime(n, t, tablePtr, state) })
	}}
}

func sampleUpdateCase(n, perImage int, sigma, clip float64) Case {
	elements := float64(n * perImage)
	return Case{Shape: fmt.Sprintf("%d×%d σ%g clip %g", n, perImage, sigma, clip), Bytes: 12 * elements, FLOPs: 9 * elements, Build: func(b *Builder) {
		s := b.state(9)
		table, row := sampleTable(b, s, 9, sigma, clip)
		x, out := b.Normal(n*perImage), b.Normal(n*perImage)
		want := b.Want(len(x), func() []float64 {
			z := normals(s, kernels.DrawSampling, s.Step, 0, n, perImage)
			next := make([]float64, len(x))
			for i := range x {
				x0 := max(-row[7], min(row[7], row[1]*x[i]+row[2]*out[i]))
				next[i] = row[3]*x0 + row[4]*x[i] + row[5]*out[i] + row[6]*z[i]
			}
			return next
		})
		xp, input := b.InOutAcc("x", x, want), b.Out("input", want)
		outPtr, tablePtr, state := b.In(out), b.InAcc(table), b.inState(s)
		b.Launch(func(q *kernels.Queue) { q.SampleUpdate(n, int64(perImage), xp, input, outPtr, tablePtr, state) })
	}}
}

func diffusionOps() []Op {
	quickstart, cifar := kernels.Noise{N: 64, H: 28, W: 28, C: 1, T: 1000}, kernels.Noise{N: 128, H: 32, W: 32, C: 3, T: 1000, Flip: true}
	noise := Op{Name: "noise_add", Bench: []Case{noiseAddCase(quickstart), noiseAddCase(cifar)}}
	loss := Op{Name: "loss", Bench: []Case{lossCase(quickstart, kernels.Eps, true), lossCase(cifar, kernels.V, true)}}
	for i, g := range imageShapes {
		noise.Cases = append(noise.Cases, noiseAddCase(g))
		loss.Cases = append(loss.Cases, lossCase(g, kernels.Eps, i%2 == 0))
		g.Flip = true
		noise.Cases = append(noise.Cases, noiseAddCase(g))
		loss.Cases = append(loss.Cases, lossCase(g, kernels.X0, true), lossCase(g, kernels.V, i%2 == 1))
	}
	start := Op{Name: "sample_start", Bench: []Case{sampleStartCase(64, 28*28)}}
	update := Op{Name: "sample_update", Bench: []Case{sampleUpdateCase(64, 28*28, 0.1, 1), sampleUpdateCase(64, 28*28, 0, 1)}}
	for _, size := range [][2]int{{61, 1}, {5, 6}, {3, 105}, {2, 256}, {3, 784}, {2, 4551}, {2, 8192}} {
		n, perImage := size[0], size[1]
		start.Cases = append(start.Cases, sampleStartCase(n, perImage))
		update.Cases = append(update.Cases, sampleUpdateCase(n, perImage, 0.3, 1), sampleUpdateCase(n, perImage, 0, 0.5),
			sampleUpdateCase(n, perImage, 1.5, math.Inf(1)))
	}
	time := Op{Name: "sample_time", Cases: []Case{sampleTimeCase(1), sampleTimeCase(64), sampleTimeCase(133)}}
	return []Op{noise, loss, start, time, update}
}
