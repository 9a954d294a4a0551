package schedule

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func mustNew(t testing.TB, c Config) *Schedule {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func near(t *testing.T, what string, got, want, rtol float64) {
	t.Helper()
	if math.Abs(got-want) > rtol*math.Abs(want) {
		t.Errorf("%s = %.17g, want %.17g", what, got, want)
	}
}

func TestLinear(t *testing.T) {
	s := mustNew(t, Config{Name: "linear", Steps: 1000})
	near(t, "β_0", s.Beta[0], 1e-4, 1e-15)
	near(t, "β_999", s.Beta[999], 0.02, 1e-15)
	near(t, "β_500", s.Beta[500], 1e-4+0.0199*500/999, 1e-15)
	// The last ᾱ of DDPM's schedule, as published implementations print it.
	near(t, "ᾱ_999", s.AlphaBar[999], 4.0358e-5, 1e-3)

	rescaled := mustNew(t, Config{Name: "linear", Steps: 100, Rescale: true})
	near(t, "rescaled β_0", rescaled.Beta[0], 1e-3, 1e-15)
	near(t, "rescaled β_99", rescaled.Beta[99], 0.2, 1e-15)
}

func TestCosine(t *testing.T) {
	const T, s = 1000, 0.008
	c := mustNew(t, Config{Name: "cosine", Steps: T})
	f := func(u float64) float64 { return math.Pow(math.Cos((u/T+s)/(1+s)*math.Pi/2), 2) }
	for _, n := range []int{0, 1, 499, 900, 997} { // unclipped, so ᾱ_n is the formula
		near(t, "ᾱ", c.AlphaBar[n], f(float64(n+1))/f(0), 1e-9)
	}
	if c.Beta[T-1] != maxBeta {
		t.Errorf("last β is %g, want it clipped to %g", c.Beta[T-1], maxBeta)
	}
	near(t, "ᾱ after the clip", c.AlphaBar[T-1], c.AlphaBar[T-2]*(1-maxBeta), 1e-12)
}

func TestSigmoid(t *testing.T) {
	const T = 1000
	s := mustNew(t, Config{Name: "sigmoid", Steps: T})
	logistic := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	// ᾱ after half of the steps: by symmetry (S(3) − ½)/(S(3) − S(−3)) = ½.
	near(t, "ᾱ_499", s.AlphaBar[T/2-1], 0.5, 1e-12)
	near(t, "ᾱ_0", s.AlphaBar[0], (logistic(3)-logistic(-3+6.0/T))/(logistic(3)-logistic(-3)), 1e-12)
	if s.Beta[T-1] != maxBeta {
		t.Errorf("last β is %g, want it clipped to %g", s.Beta[T-1], maxBeta)
	}
}

// The posterior q(x_{n−1}|x_n, x_0) by the textbook product of the Gaussians q(x_n|x_{n−1}) and
// q(x_{n−1}|x_0), independently of the formulas under test.
func TestPosteriorIsTheProductOfGaussians(t *testing.T) {
	for _, name := range []string{"linear", "cosine", "sigmoid"} {
		s := mustNew(t, Config{Name: name, Steps: 250})
		for n := 1; n < s.T(); n++ {
			// q(x_n|x_{n−1}) as a function of x_{n−1} has precision α/β and mean x_n/√α.
			a := s.Alpha[n] / s.Beta[n]
			b := 1 / (1 - s.AlphaBar[n-1])
			near(t, name+" variance", s.PosteriorVariance(n), 1/(a+b), 1e-9)
			onX0, onX := s.PosteriorMean(n)
			near(t, name+" mean on x_n", onX, a/math.Sqrt(s.Alpha[n])/(a+b), 1e-9)
			near(t, name+" mean on x_0", onX0, b*math.Sqrt(s.AlphaBar[n-1])/(a+b), 1e-9)
		}
		onX0, onX := s.PosteriorMean(0)
		near(t, "μ̃ at 0 on x_0", onX0, 1, 1e-12)
		if onX != 0 || s.PosteriorVariance(0) != 0 {
			t.Errorf("%s: at index 0 the posterior must be x_0 itself", name)
		}
		if s.PosteriorLogVariance(0) != s.PosteriorLogVariance(1) || math.IsInf(s.PosteriorLogVariance(0), 0) {
			t.Errorf("%s: the log variance at index 0 must be clipped to index 1's", name)
		}
	}
}

func TestSchedulesDestroyTheSignalStepByStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Config{
			Name:    rapid.SampledFrom([]string{"linear", "cosine", "sigmoid"}).Draw(t, "name"),
			Steps:   rapid.IntRange(20, 2000).Draw(t, "T"),
			Rescale: rapid.Bool().Draw(t, "rescale"),
		}
		if c.Rescale && c.Steps < 25 {
			c.Steps = 25 // 0.02·1000/20 = 1 is refused, as the next test says
		}
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		roots := s.Roots()
		for n := range s.T() {
			if !(s.AlphaBar[n] > 0 && s.AlphaBar[n] < s.AlphaBarAt(n-1)) {
				t.Fatalf("ᾱ_%d = %g after %g", n, s.AlphaBar[n], s.AlphaBarAt(n-1))
			}
			if n > 0 && s.SNR(n) >= s.SNR(n-1) {
				t.Fatalf("SNR does not fall at %d", n)
			}
			if v := s.PosteriorVariance(n); v < 0 || v > s.Beta[n] {
				t.Fatalf("β̃_%d = %g is not in [0, β = %g]", n, v, s.Beta[n])
			}
			if sum := roots[n]*roots[n] + roots[s.T()+n]*roots[s.T()+n]; math.Abs(sum-1) > 1e-12 {
				t.Fatalf("x_%d has variance %g for x_0 of variance 1", n, sum)
			}
		}
	})
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{
		{Name: "linear"},
		{Name: "linear", Steps: -1},
		{Name: "linear", Steps: maxSteps + 1},
		{Name: "quadratic", Steps: 10},
		{Name: "linear", Steps: 10, BetaEnd: 1},
		{Name: "linear", Steps: 10, BetaEnd: math.NaN()},
		{Name: "linear", Steps: 20, Rescale: true}, // ends at β = 1
		{Name: "sigmoid", Steps: 10, SigmoidStart: 4},
		{Name: "sigmoid", Steps: 10, SigmoidTau: -1},
	} {
		if s, err := New(c); err == nil {
			t.Errorf("New(%+v) = %v, want an error", c, s)
		}
	}
}

func TestTimesteps(t *testing.T) {
	for _, c := range []struct {
		spacing  string
		T, count int
		want     []int
	}{
		{"even", 1000, 5, []int{0, 250, 500, 749, 999}}, // 249.75, 499.5 → 500 (even), 749.25
		{"even", 10, 10, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"even", 10, 1, []int{0}},
		{"leading", 1000, 4, []int{0, 250, 500, 750}},
		{"leading", 10, 3, []int{0, 3, 6}},
		{"trailing", 1000, 4, []int{249, 499, 749, 999}},
		{"trailing", 10, 4, []int{1, 4, 7, 9}}, // 10, 7.5→8, 5, 2.5→2, minus 1
		{"linspace", 1000, 4, []int{249, 499, 749, 999}},
		{"linspace", 10, 3, []int{2, 5, 9}}, // −1, 2.33, 5.67, 9
		{"2,3", 10, 0, []int{0, 4, 5, 7, 9}},
		{"10,15,20", 300, 45, nil}, // [iDDPM]'s example: checked by its length
	} {
		got, err := Timesteps(c.spacing, c.T, c.count)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if c.want == nil {
			c.want = got
			if len(got) != c.count {
				t.Errorf("%+v kept %d steps", c, len(got))
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("Timesteps(%q, %d, %d) = %v, want %v", c.spacing, c.T, c.count, got, c.want)
		}
	}
	for _, c := range []struct {
		spacing  string
		T, count int
	}{{"even", 10, 0}, {"even", 10, 11}, {"odd", 10, 2}, {"2,9", 10, 0}, {"2,x", 10, 0}, {"2,3", 10, 4}, {"1,,1", 10, 0}} {
		if got, err := Timesteps(c.spacing, c.T, c.count); err == nil {
			t.Errorf("Timesteps(%q, %d, %d) = %v, want an error", c.spacing, c.T, c.count, got)
		}
	}
}

func TestTimestepsIncreaseWithinRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		T := rapid.IntRange(1, 1500).Draw(t, "T")
		count := rapid.IntRange(1, T).Draw(t, "count")
		spacing := rapid.SampledFrom([]string{"even", "leading", "trailing", "linspace"}).Draw(t, "spacing")
		kept, err := Timesteps(spacing, T, count)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range kept {
			if n < 0 || n >= T || (i > 0 && n <= kept[i-1]) {
				t.Fatalf("%s %d of %d: %v", spacing, count, T, kept)
			}
		}
		if len(kept) != count {
			t.Fatalf("kept %d", len(kept))
		}
	})
}

func TestKeepHasTheSameMarginals(t *testing.T) {
	s := mustNew(t, Config{Name: "linear", Steps: 1000})
	kept := []int{0, 3, 500, 999}
	k, err := s.Keep(kept)
	if err != nil {
		t.Fatal(err)
	}
	product := 1.0
	for i, n := range kept {
		product *= 1 - k.Beta[i]
		near(t, "rebuilt ᾱ", product, s.AlphaBar[n], 1e-12)
	}
	all := make([]int, s.T())
	for n := range all {
		all[n] = n
	}
	if k, err = s.Keep(all); err != nil {
		t.Fatal(err)
	}
	for n := range all {
		near(t, "β of all steps kept", k.Beta[n], s.Beta[n], 1e-9)
	}
	for _, bad := range [][]int{nil, {1, 1}, {2, 1}, {-1}, {1000}} {
		if _, err := s.Keep(bad); err == nil {
			t.Errorf("Keep(%v) must be refused", bad)
		}
	}
}
