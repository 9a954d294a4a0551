// Package schedule defines the noise schedules of a diffusion process and the subsets of
// its steps that strided samplers keep.
//
// A schedule has T steps with index n = 0 … T−1 (n = the papers' t − 1) and
//
//	x_n = √ᾱ_n x_0 + √(1 − ᾱ_n) ε,   ε ~ N(0, I),   ᾱ_n = Π_{i≤n} (1 − β_i),   ᾱ_{−1} = 1.
//
// Everything is computed in float64 on the host and cast once, when a table goes to a device.
//
// Sources: [DDPM] Ho et al. 2020, [iDDPM] Nichol & Dhariwal 2021, [DDIM] Song et al. 2020.
package schedule

import (
	"fmt"
	"math"
)

// Config selects and parametrises a schedule. The zero value of a parameter means its default.
type Config struct {
	// Name is linear, cosine or sigmoid.
	Name string `yaml:"name" json:"name"`
	// Steps is T, the number of training steps.
	Steps int `yaml:"steps" json:"steps"`
	// BetaStart and BetaEnd are the ends of linear (1e-4 and 0.02).
	BetaStart float64 `yaml:"beta_start,omitempty" json:"beta_start,omitempty"`
	BetaEnd   float64 `yaml:"beta_end,omitempty" json:"beta_end,omitempty"`
	// Rescale multiplies both ends of linear by 1000/T, so that fewer or more steps destroy
	// as much signal as the 1000 of [DDPM] do [iDDPM].
	Rescale bool `yaml:"rescale,omitempty" json:"rescale,omitempty"`
	// CosineOffset is s of cosine (0.008).
	CosineOffset float64 `yaml:"cosine_offset,omitempty" json:"cosine_offset,omitempty"`
	// SigmoidStart, SigmoidEnd and SigmoidTau are s, e and τ of sigmoid (−3, 3 and 1).
	SigmoidStart float64 `yaml:"sigmoid_start,omitempty" json:"sigmoid_start,omitempty"`
	SigmoidEnd   float64 `yaml:"sigmoid_end,omitempty" json:"sigmoid_end,omitempty"`
	SigmoidTau   float64 `yaml:"sigmoid_tau,omitempty" json:"sigmoid_tau,omitempty"`
}

// maxSteps bounds T: far above any published schedule, and small enough for a table.
const maxSteps = 1_000_000

// maxBeta keeps the last steps of cosine and sigmoid from reaching β = 1, where ᾱ = 0 [iDDPM].
const maxBeta = 0.999

func orDefault(v, def float64) float64 {
	if v == 0 {
		return def
	}
	return v
}

// Schedule is a discrete noise schedule. Its slices have length T and are not to be written.
type Schedule struct {
	Beta     []float64 // β_n
	Alpha    []float64 // α_n = 1 − β_n
	AlphaBar []float64 // ᾱ_n = α_0 … α_n
}

// New builds the schedule that c describes.
//
//	linear   β_n from beta_start to beta_end in equal steps [DDPM]
//	cosine   ᾱ(u) = f(u)/f(0), f(u) = cos²((u/T + s)/(1 + s)·π/2) [iDDPM]
//	sigmoid  ᾱ(u) = (S(e/τ) − S((s + (e−s)u/T)/τ))/(S(e/τ) − S(s/τ)), S logistic (Jabri et al. 2022)
//
// For the last two β_n = min(1 − ᾱ(n+1)/ᾱ(n), 0.999), and ᾱ_n is the product of the clipped α.
func New(c Config) (*Schedule, error) {
	if c.Steps < 1 || c.Steps > maxSteps {
		return nil, fmt.Errorf("schedule: steps is %d, it must be 1 … %d", c.Steps, maxSteps)
	}
	T := float64(c.Steps)
	beta := make([]float64, c.Steps)
	switch c.Name {
	case "linear":
		lo, hi := orDefault(c.BetaStart, 1e-4), orDefault(c.BetaEnd, 0.02)
		if c.Rescale {
			lo, hi = lo*1000/T, hi*1000/T
		}
		for n := range beta {
			beta[n] = lo
			if c.Steps > 1 {
				beta[n] = lo + (hi-lo)*float64(n)/(T-1)
			}
		}
	case "cosine":
		s := orDefault(c.CosineOffset, 0.008)
		f := func(u float64) float64 {
			root := math.Cos((u/T + s) / (1 + s) * math.Pi / 2)
			return root * root
		}
		betaFromAlphaBar(beta, func(u float64) float64 { return f(u) / f(0) })
	case "sigmoid":
		start, end, tau := orDefault(c.SigmoidStart, -3), orDefault(c.SigmoidEnd, 3), orDefault(c.SigmoidTau, 1)
		if start >= end || tau < 0 {
			return nil, fmt.Errorf("schedule: sigmoid needs sigmoid_start < sigmoid_end and sigmoid_tau > 0, got %g, %g, %g", start, end, tau)
		}
		logistic := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
		top, bottom := logistic(end/tau), logistic(start/tau)
		betaFromAlphaBar(beta, func(u float64) float64 {
			return (top - logistic((start+(end-start)*u/T)/tau)) / (top - bottom)
		})
	default:
		return nil, fmt.Errorf("schedule: unknown name %q, it must be linear, cosine or sigmoid", c.Name)
	}
	return FromBeta(beta)
}

// FromBeta builds a schedule from β, each in (0, 1).
func FromBeta(beta []float64) (*Schedule, error) {
	s := &Schedule{Beta: beta, Alpha: make([]float64, len(beta)), AlphaBar: make([]float64, len(beta))}
	product := 1.0
	for n, b := range beta {
		if !(b > 0 && b < 1) {
			return nil, fmt.Errorf("schedule: β at index %d is %g, it must lie inside (0, 1)", n, b)
		}
		s.Alpha[n] = 1 - b
		product *= 1 - b
		s.AlphaBar[n] = product
	}
	return s, nil
}

// betaFromAlphaBar fills β_n = min(1 − ᾱ(n+1)/ᾱ(n), 0.999) [iDDPM].
func betaFromAlphaBar(beta []float64, alphaBar func(u float64) float64) {
	for n := range beta {
		beta[n] = min(1-alphaBar(float64(n+1))/alphaBar(float64(n)), maxBeta)
	}
}

// T is the number of steps.
func (s *Schedule) T() int { return len(s.Beta) }

// AlphaBarAt is ᾱ_n, with ᾱ_{−1} = 1.
func (s *Schedule) AlphaBarAt(n int) float64 {
	if n < 0 {
		return 1
	}
	return s.AlphaBar[n]
}

// SNR is ᾱ_n/(1 − ᾱ_n).
func (s *Schedule) SNR(n int) float64 { return s.AlphaBar[n] / (1 - s.AlphaBar[n]) }

// PosteriorVariance is β̃_n = β_n (1 − ᾱ_{n−1})/(1 − ᾱ_n), the variance of q(x_{n−1}|x_n, x_0)
// ([DDPM] eq. 7). It is 0 at n = 0.
func (s *Schedule) PosteriorVariance(n int) float64 {
	return s.Beta[n] * (1 - s.AlphaBarAt(n-1)) / (1 - s.AlphaBar[n])
}

// PosteriorLogVariance is log β̃_n, at index 0 clipped to index 1's, for a network that
// interpolates between it and log β [iDDPM].
func (s *Schedule) PosteriorLogVariance(n int) float64 {
	if n == 0 && s.T() > 1 {
		n = 1
	}
	return math.Log(s.PosteriorVariance(n))
}

// PosteriorMean gives the coefficients of q(x_{n−1}|x_n, x_0)'s mean μ̃ = onX0·x_0 + onX·x_n
// ([DDPM] eq. 7):
//
//	onX0 = √ᾱ_{n−1} β_n/(1 − ᾱ_n),   onX = √α_n (1 − ᾱ_{n−1})/(1 − ᾱ_n).
func (s *Schedule) PosteriorMean(n int) (onX0, onX float64) {
	prev, denom := s.AlphaBarAt(n-1), 1-s.AlphaBar[n]
	return math.Sqrt(prev) * s.Beta[n] / denom, math.Sqrt(s.Alpha[n]) * (1 - prev) / denom
}

// Roots is √ᾱ_0 … √ᾱ_{T−1}, √(1 − ᾱ_0) … √(1 − ᾱ_{T−1}): the table of the forward process
// that the noise and loss kernels read, length 2T.
func (s *Schedule) Roots() []float64 {
	T := s.T()
	table := make([]float64, 2*T)
	for n, a := range s.AlphaBar {
		table[n], table[T+n] = math.Sqrt(a), math.Sqrt(1-a)
	}
	return table
}

// Keep is the schedule of the kept steps alone, in increasing order: its ᾱ are those of s at
// kept, and β is rebuilt from them, β'_i = 1 − ᾱ_{kept_i}/ᾱ_{kept_{i−1}} [iDDPM].
func (s *Schedule) Keep(kept []int) (*Schedule, error) {
	if len(kept) == 0 {
		return nil, fmt.Errorf("schedule: no step kept")
	}
	k := &Schedule{}
	prev, prevBar := -1, 1.0
	for _, n := range kept {
		if n <= prev || n >= s.T() {
			return nil, fmt.Errorf("schedule: kept step %d after %d of %d steps: they must increase", n, prev, s.T())
		}
		alpha := s.AlphaBar[n] / prevBar
		k.Alpha = append(k.Alpha, alpha)
		k.Beta = append(k.Beta, 1-alpha)
		k.AlphaBar = append(k.AlphaBar, s.AlphaBar[n])
		prev, prevBar = n, s.AlphaBar[n]
	}
	return k, nil
}
