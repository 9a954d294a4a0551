// Package sampler turns a schedule into the table of coefficients that one fused kernel reads
// at every sampling step, so that the same captured graph serves all steps.
//
// Every first-order sampler with a clipped prediction is the same three lines per element,
//
//	x̂_0 = A·x + B·out                       what the network's output says about x_0
//	x̂_0 = max(−Clip, min(Clip, x̂_0))
//	x   ← C·x̂_0 + D·x + E·out + Sigma·z,    z ~ N(0, 1),
//
// and differs only in a Row of coefficients, computed here in float64.
//
// Sources: [DDPM] Ho et al. 2020, [iDDPM] Nichol & Dhariwal 2021, [DDIM] Song et al. 2020,
// [PD] Salimans & Ho 2022.
package sampler

import (
	"fmt"
	"math"

	"ddgpu/diffusion/schedule"
)

// Objective is what the network predicts.
type Objective string

// The objectives, with x = √ᾱ x_0 + √(1−ᾱ) ε.
const (
	Eps Objective = "eps" // the noise ε [DDPM]
	X0  Objective = "x0"  // the clean image x_0
	V   Objective = "v"   // v = √ᾱ ε − √(1−ᾱ) x_0 [PD]
)

// Config selects and parametrises a sampler.
type Config struct {
	// Name is ddpm or ddim.
	Name string `yaml:"name" json:"name"`
	// Steps is how many of the schedule's T steps are kept; 0 keeps all.
	Steps int `yaml:"steps" json:"steps"`
	// Spacing says which steps are kept: see schedule.Timesteps.
	Spacing string `yaml:"spacing" json:"spacing"`
	// Variance of ddpm's noise is fixed_small (β̃) or fixed_large (β).
	Variance string `yaml:"variance" json:"variance"`
	// Eta of ddim scales its noise: 0 is deterministic, 1 equals strided ddpm with fixed_small.
	Eta float64 `yaml:"eta" json:"eta"`
	// ClipX0 clips the predicted x_0 to [−1, 1].
	ClipX0 bool `yaml:"clip_x0" json:"clip_x0"`
	// RederiveEps lets ddim compute ε again from the clipped x_0. Without it the ε of the
	// network's own output is used, as diffusers does by default.
	RederiveEps bool `yaml:"rederive_eps" json:"rederive_eps"`
}

// Default is all T steps of ddpm with fixed_large and clipping.
func Default() Config {
	return Config{Name: "ddpm", Spacing: "even", Variance: "fixed_large", ClipX0: true, RederiveEps: true}
}

// Row holds the coefficients of one update (see the package comment).
type Row struct {
	Index int // n, the schedule's step that the network is conditioned on
	A, B  float64
	C, D  float64
	E     float64
	Sigma float64
	Clip  float64 // bound on |x̂_0|, +Inf for none
}

// Apply is the update of one element: x from the step before, the network's output, and the
// noise z. Kernels do the same in their own precision.
func (r Row) Apply(x, out, z float64) float64 {
	x0 := max(-r.Clip, min(r.Clip, r.A*x+r.B*out))
	return r.C*x0 + r.D*x + r.E*out + r.Sigma*z
}

// Table lists the updates in the order in which sampling runs them: from the largest kept
// step down to the clean image. The last has Sigma 0.
func Table(s *schedule.Schedule, objective Objective, c Config) ([]Row, error) {
	count := c.Steps
	if count == 0 {
		count = s.T()
		if len(c.Spacing) > 0 && c.Spacing[0] >= '0' && c.Spacing[0] <= '9' {
			count = 0 // section counts carry their own sum
		}
	}
	kept, err := schedule.Timesteps(c.Spacing, s.T(), count)
	if err != nil {
		return nil, fmt.Errorf("sampler %s: %w", c.Name, err)
	}
	strided, err := s.Keep(kept)
	if err != nil {
		return nil, fmt.Errorf("sampler %s: %w", c.Name, err)
	}
	clip := math.Inf(1)
	if c.ClipX0 {
		clip = 1
	}
	rows := make([]Row, 0, len(kept))
	for i := len(kept) - 1; i >= 0; i-- {
		r := Row{Index: kept[i], Clip: clip}
		if r.A, r.B, err = predictX0(objective, strided.AlphaBar[i]); err != nil {
			return nil, err
		}
		switch c.Name {
		case "ddpm":
			err = ddpm(&r, strided, i, c.Variance)
		case "ddim":
			err = ddim(&r, strided, i, objective, c)
		default:
			err = fmt.Errorf("sampler: unknown name %q, it must be ddpm or ddim", c.Name)
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// predictX0 gives x̂_0 = onX·x + onOut·out.
func predictX0(objective Objective, alphaBar float64) (onX, onOut float64, err error) {
	signal, noise := math.Sqrt(alphaBar), math.Sqrt(1-alphaBar)
	switch objective {
	case Eps:
		return 1 / signal, -noise / signal, nil
	case X0:
		return 0, 1, nil
	case V:
		return signal, -noise, nil
	}
	return 0, 0, fmt.Errorf("sampler: unknown objective %q, it must be eps, x0 or v", objective)
}

// predictEps gives ε̂ = onX·x + onOut·out of the output as it is.
func predictEps(objective Objective, alphaBar float64) (onX, onOut float64) {
	signal, noise := math.Sqrt(alphaBar), math.Sqrt(1-alphaBar)
	switch objective {
	case X0:
		return 1 / noise, -signal / noise
	case V:
		return noise, signal
	default:
		return 0, 1
	}
}

// ddpm draws from p(x_{n−1}|x_n) = N(μ̃(x_n, x̂_0), Σ) ([DDPM] algorithm 2), with Σ = β or β̃ of
// the strided schedule and no noise at the last step.
func ddpm(r *Row, s *schedule.Schedule, i int, variance string) error {
	r.C, r.D = s.PosteriorMean(i)
	switch variance {
	case "fixed_small":
		r.Sigma = math.Sqrt(s.PosteriorVariance(i))
	case "fixed_large":
		r.Sigma = math.Sqrt(s.Beta[i])
	default:
		return fmt.Errorf("sampler ddpm: unknown variance %q, it must be fixed_small or fixed_large", variance)
	}
	if i == 0 {
		r.Sigma = 0
	}
	return nil
}

// ddim is [DDIM] eq. 12 with s the previous kept step:
//
//	x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) ε̂ + σ z,   σ² = η² (1 − ᾱ_s)/(1 − ᾱ) (1 − ᾱ/ᾱ_s).
func ddim(r *Row, s *schedule.Schedule, i int, objective Objective, c Config) error {
	if c.Eta < 0 || c.Eta > 1 {
		return fmt.Errorf("sampler ddim: eta is %g, it must be 0 … 1", c.Eta)
	}
	bar, prev := s.AlphaBar[i], s.AlphaBarAt(i-1)
	variance := c.Eta * c.Eta * (1 - prev) / (1 - bar) * (1 - bar/prev)
	onEps := math.Sqrt(max(0, 1-prev-variance))
	r.Sigma = math.Sqrt(variance)
	r.C = math.Sqrt(prev)
	if c.RederiveEps { // ε̂ = (x − √ᾱ x̂_0)/√(1−ᾱ)
		noise := math.Sqrt(1 - bar)
		r.C -= onEps * math.Sqrt(bar) / noise
		r.D = onEps / noise
		return nil
	}
	onX, onOut := predictEps(objective, bar)
	r.D, r.E = onEps*onX, onEps*onOut
	return nil
}
