package kernels

import (
	"math"

	"ddgpu/gpu"
)

// Dropout is a·m/(1 − p) of the activation a that a kernel computes, m = 0 with probability P and else 1; backward takes the gradient so. The
// mask is a function of the seed and step of State (a StepState), of the layer's number Site and of the image, State.First + Offset + n. Without
// State everything is kept as it is.
type Dropout struct {
	Site   int
	P      float64
	State  gpu.Ptr
	Offset int64
}

// MaxDropoutSites is how many dropout layers have purposes of their own.
const MaxDropoutSites = 128

// dropoutArgs declares what args makes.
const dropoutArgs = "pliir"

func (d Dropout) valid() bool { return d.P >= 0 && d.P < 1 && d.Site >= 0 && d.Site < MaxDropoutSites }

func (d Dropout) args() []arg {
	return []arg{ptr(d.State), i64(d.Offset), i32(d.Site), i32(int(int32(dropoutThreshold(d.P)))), realArg(1 / (1 - d.P))}
}

// dropoutThreshold is the number below which an element is dropped.
func dropoutThreshold(p float64) uint32 { return uint32(min(math.Round(p*(1<<32)), 1<<32-1)) }
