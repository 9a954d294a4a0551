package sampler

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"ddgpu/diffusion/safetensors"
	"ddgpu/diffusion/schedule"
)

const golden = "../../testdata/golden/diffusion.safetensors"

func values(t *testing.T, f *safetensors.File, name string) []float64 {
	t.Helper()
	tensor, err := f.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	v, err := tensor.Float64s()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Schedules and single steps of diffusers' DDPMScheduler and DDIMScheduler, computed in float64.
func TestGoldenVectors(t *testing.T) {
	f, err := safetensors.Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[string]int{}
	for name, text := range f.Metadata {
		var c struct {
			Op         string
			Schedule   string  `json:"beta_schedule"`
			T          int     `json:"num_train_timesteps"`
			Steps      int     `json:"num_inference_steps"`
			Timestep   int     `json:"timestep"`
			Variance   string  `json:"variance_type"`
			Prediction string  `json:"prediction_type"`
			Clip       bool    `json:"clip_sample"`
			Rederive   bool    `json:"use_clipped_model_output"`
			Eta        float64 `json:"eta"`
		}
		if !strings.HasPrefix(text, "{") {
			continue
		}
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		switch c.Op {
		case "schedule", "ddpm_step", "ddim_step":
		default:
			continue
		}
		seen[c.Op]++
		t.Run(name, func(t *testing.T) {
			s, err := schedule.New(schedule.Config{Name: c.Schedule, Steps: c.T})
			if err != nil {
				t.Fatal(err)
			}
			if c.Op == "schedule" {
				compareSchedule(t, f, name, s)
				return
			}
			objective := map[string]Objective{"epsilon": Eps, "sample": X0, "v_prediction": V}[c.Prediction]
			rows := table(t, s, objective, Config{
				Name: strings.TrimSuffix(c.Op, "_step"), Steps: c.Steps, Spacing: "leading", Variance: c.Variance,
				Eta: c.Eta, ClipX0: c.Clip, RederiveEps: c.Rederive,
			})
			var row *Row
			for i := range rows {
				if rows[i].Index == c.Timestep {
					row = &rows[i]
				}
			}
			if row == nil {
				t.Fatalf("no row of step %d", c.Timestep)
			}
			x, out, z := values(t, f, name+".sample"), values(t, f, name+".model_output"), values(t, f, name+".noise")
			want, wantX0 := values(t, f, name+".prev_sample"), values(t, f, name+".pred_original_sample")
			for i := range x {
				near(t, fmt.Sprint("x ", i), row.Apply(x[i], out[i], z[i]), want[i], 1e-9)
				near(t, fmt.Sprint("x0 ", i), max(-row.Clip, min(row.Clip, row.A*x[i]+row.B*out[i])), wantX0[i], 1e-9)
			}
		})
	}
	if seen["schedule"] < 4 || seen["ddpm_step"] < 16 || seen["ddim_step"] < 15 {
		t.Errorf("the file has too few cases: %v", seen)
	}
}

func compareSchedule(t *testing.T, f *safetensors.File, name string, s *schedule.Schedule) {
	want := func(what string) []float64 { return values(t, f, name+"."+what) }
	betas, bars, variances := want("betas"), want("alphas_cumprod"), want("posterior_variance")
	logs, onX0s, onXs := want("posterior_log_variance"), want("posterior_mean_x0"), want("posterior_mean_x")
	for n := range s.T() {
		onX0, onX := s.PosteriorMean(n)
		for _, v := range []struct {
			what      string
			got, want float64
		}{
			{"β", s.Beta[n], betas[n]}, {"ᾱ", s.AlphaBar[n], bars[n]}, {"β̃", s.PosteriorVariance(n), variances[n]},
			{"log β̃", s.PosteriorLogVariance(n), logs[n]}, {"μ̃ on x0", onX0, onX0s[n]}, {"μ̃ on x", onX, onXs[n]},
		} {
			if math.Abs(v.got-v.want) > 1e-9*math.Abs(v.want) {
				t.Fatalf("%s of %d: %.17g, want %.17g", v.what, n, v.got, v.want)
			}
		}
	}
}
