package sampler

import (
	"math"
	"testing"

	"ddgpu/diffusion/schedule"

	"pgregory.net/rapid"
)

func linear(t testing.TB, T int) *schedule.Schedule {
	t.Helper()
	s, err := schedule.New(schedule.Config{Name: "linear", Steps: T})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func table(t testing.TB, s *schedule.Schedule, o Objective, c Config) []Row {
	t.Helper()
	rows, err := Table(s, o, c)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func near(t testing.TB, what string, got, want, tol float64) {
	t.Helper()
	if math.Abs(got-want) > tol*max(1, math.Abs(want)) {
		t.Errorf("%s = %.15g, want %.15g", what, got, want)
	}
}

// [DDPM] algorithm 2, line 4: without clipping, x_{n−1} = (x_n − β/√(1−ᾱ) ε)/√α + σ z.
func TestUnclippedDDPMIsAlgorithm2(t *testing.T) {
	s := linear(t, 1000)
	rows := table(t, s, Eps, Config{Name: "ddpm", Spacing: "even", Variance: "fixed_large"})
	if len(rows) != 1000 || rows[0].Index != 999 || rows[999].Index != 0 {
		t.Fatalf("%d rows from %d to %d", len(rows), rows[0].Index, rows[len(rows)-1].Index)
	}
	x, eps, z := 0.7, -1.3, 0.4
	for _, r := range rows {
		n := r.Index
		want := (x - s.Beta[n]/math.Sqrt(1-s.AlphaBar[n])*eps) / math.Sqrt(s.Alpha[n])
		if n > 0 {
			want += math.Sqrt(s.Beta[n]) * z
		}
		near(t, "x", r.Apply(x, eps, z), want, 1e-10)
	}
}

// With the true ε (or x_0, or v) a deterministic ddim step lands on the same trajectory of the
// forward process, whatever the stride and objective, and ends at x_0.
func TestDDIMFollowsTheForwardProcess(t *testing.T) {
	s := linear(t, 1000)
	x0, eps := 0.6, -1.1
	at := func(n int) float64 {
		bar := s.AlphaBarAt(n)
		return math.Sqrt(bar)*x0 + math.Sqrt(1-bar)*eps
	}
	for _, objective := range []Objective{Eps, X0, V} {
		for _, rederive := range []bool{false, true} {
			c := Config{Name: "ddim", Steps: 50, Spacing: "trailing", ClipX0: true, RederiveEps: rederive}
			x := at(999)
			rows := table(t, s, objective, c)
			for i, r := range rows {
				bar := s.AlphaBar[r.Index]
				out := map[Objective]float64{Eps: eps, X0: x0, V: math.Sqrt(bar)*eps - math.Sqrt(1-bar)*x0}[objective]
				x = r.Apply(x, out, 5) // σ is 0: the noise must not matter
				next := -1
				if i+1 < len(rows) {
					next = rows[i+1].Index
				}
				near(t, string(objective)+" trajectory", x, at(next), 1e-9)
			}
			near(t, string(objective)+" end", x, x0, 1e-9)
		}
	}
}

// η = 1 equals strided ddpm with fixed_small, coefficient by coefficient ([DDIM] section 4.1).
func TestDDIMWithEtaOneIsDDPM(t *testing.T) {
	s := linear(t, 1000)
	ddpm := table(t, s, V, Config{Name: "ddpm", Steps: 37, Spacing: "even", Variance: "fixed_small", ClipX0: true})
	ddim := table(t, s, V, Config{Name: "ddim", Steps: 37, Spacing: "even", Eta: 1, ClipX0: true, RederiveEps: true})
	for i, a := range ddpm {
		b := ddim[i]
		if a.Index != b.Index || a.A != b.A || a.B != b.B {
			t.Fatalf("row %d: %+v and %+v", i, a, b)
		}
		near(t, "C", b.C, a.C, 1e-10)
		near(t, "D", b.D, a.D, 1e-10)
		near(t, "Sigma", b.Sigma, a.Sigma, 1e-10)
	}
}

// Data x_0 ~ N(0, s²) has a closed-form perfect network; every sampler must then end with
// variance s², up to a discretisation error that falls as 1/T.
func TestSamplersReachTheDataVariance(t *testing.T) {
	const std = 0.5
	relativeError := func(T int, objective Objective, c Config) float64 {
		s, err := schedule.New(schedule.Config{Name: "linear", Steps: T, Rescale: true})
		if err != nil {
			t.Fatal(err)
		}
		variance := 1.0
		for _, r := range table(t, s, objective, c) {
			bar := s.AlphaBar[r.Index]
			x0 := std * std * math.Sqrt(bar) / (std*std*bar + 1 - bar) // E[x_0|x] for x = 1
			eps := (1 - math.Sqrt(bar)*x0) / math.Sqrt(1-bar)
			out := map[Objective]float64{Eps: eps, X0: x0, V: math.Sqrt(bar)*eps - math.Sqrt(1-bar)*x0}[objective]
			onX := r.Apply(1, out, 0) // linear in x, as the network is
			variance = onX*onX*variance + r.Sigma*r.Sigma
		}
		return variance/(std*std) - 1
	}
	for _, c := range []Config{
		{Name: "ddpm", Spacing: "even", Variance: "fixed_large"},
		{Name: "ddpm", Spacing: "even", Variance: "fixed_small"},
		{Name: "ddim", Spacing: "even"},
		{Name: "ddim", Spacing: "even", RederiveEps: true, Eta: 0.5},
	} {
		for _, objective := range []Objective{Eps, X0, V} {
			coarse, fine := relativeError(1000, objective, c), relativeError(8000, objective, c)
			if math.Abs(coarse) > 0.06 || math.Abs(fine) > math.Abs(coarse)/6 {
				t.Errorf("%s %s %s: relative error of the variance %g at T = 1000, %g at T = 8000", c.Name, c.Variance, objective, coarse, fine)
			}
		}
	}
}

func TestClipAndLastStep(t *testing.T) {
	s := linear(t, 100)
	rapid.Check(t, func(t *rapid.T) {
		c := Config{
			Name:     rapid.SampledFrom([]string{"ddpm", "ddim"}).Draw(t, "name"),
			Steps:    rapid.IntRange(1, 100).Draw(t, "steps"),
			Spacing:  rapid.SampledFrom([]string{"even", "leading", "trailing", "linspace"}).Draw(t, "spacing"),
			Variance: rapid.SampledFrom([]string{"fixed_small", "fixed_large"}).Draw(t, "variance"),
			Eta:      rapid.Float64Range(0, 1).Draw(t, "eta"),
			ClipX0:   true, RederiveEps: true,
		}
		rows, err := Table(s, Eps, c)
		if err != nil {
			t.Fatal(err)
		}
		last := rows[len(rows)-1]
		if last.Sigma != 0 {
			t.Fatalf("the last step adds noise: %+v", last)
		}
		x, out := rapid.Float64Range(-9, 9).Draw(t, "x"), rapid.Float64Range(-9, 9).Draw(t, "out")
		if got := last.Apply(x, out, 0); math.Abs(got) > 1+1e-9 {
			t.Fatalf("the clipped image has a value of %g", got)
		}
	})
}

func TestTableRefuses(t *testing.T) {
	s := linear(t, 10)
	good := Default()
	for name, change := range map[string]func(*Config){
		"name":     func(c *Config) { c.Name = "heun" },
		"steps":    func(c *Config) { c.Steps = 11 },
		"spacing":  func(c *Config) { c.Spacing = "odd" },
		"variance": func(c *Config) { c.Variance = "learned" },
		"eta":      func(c *Config) { c.Name = "ddim"; c.Eta = 1.5 },
	} {
		c := good
		change(&c)
		if _, err := Table(s, Eps, c); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
	if _, err := Table(s, "score", good); err == nil {
		t.Error("objective score: want an error")
	}
	if rows := table(t, s, Eps, Config{Name: "ddpm", Spacing: "2,3", Variance: "fixed_small"}); len(rows) != 5 {
		t.Errorf("sections 2,3 keep %d steps", len(rows))
	}
}
