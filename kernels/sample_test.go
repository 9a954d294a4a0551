package kernels_test

import (
	"math"
	"strings"
	"testing"

	"ddgpu/diffusion/sampler"
	"ddgpu/diffusion/schedule"
	"ddgpu/kernels"
)

// Steps of diffusers' DDPMScheduler and DDIMScheduler. They were given their noise, the kernel draws its own: the difference is known.
func TestSampleUpdateGolden(t *testing.T) {
	type attributes struct {
		Op         string
		Schedule   string `json:"beta_schedule"`
		T          int    `json:"num_train_timesteps"`
		Steps      int    `json:"num_inference_steps"`
		Timestep   int    `json:"timestep"`
		Variance   string `json:"variance_type"`
		Prediction string `json:"prediction_type"`
		Clip       bool   `json:"clip_sample"`
		Rederive   bool   `json:"use_clipped_model_output"`
		Eta        float64
	}
	objectives := map[string]sampler.Objective{"epsilon": sampler.Eps, "sample": sampler.X0, "v_prediction": sampler.V}
	const images, perImage = 2, 60
	for _, spec := range tiles {
		for _, r := range []kernels.Precision{kernels.FP32, kernels.FP64} {
			withKernels(t, spec, r, func(h *harness) {
				golden(t, "diffusion.safetensors", "dd", func(name string, c attributes, values func(string) []float64) {
					s, err := schedule.New(schedule.Config{Name: c.Schedule, Steps: c.T})
					if err != nil {
						t.Error(err)
						return
					}
					rows, err := sampler.Table(s, objectives[c.Prediction], sampler.Config{Name: strings.TrimSuffix(c.Op, "_step"),
						Steps: c.Steps, Spacing: "leading", Variance: c.Variance, Eta: c.Eta, ClipX0: c.Clip, RederiveEps: c.Rederive})
					if err != nil {
						t.Error(err)
						return
					}
					state := kernels.StepState{Seed: 99, First: 1000}
					var table []float64
					var sigma float64
					for i, row := range rows {
						table = append(table, float64(row.Index), row.A, row.B, row.C, row.D, row.E, row.Sigma, row.Clip)
						if row.Index == c.Timestep {
							state.Step, sigma = uint64(i), row.Sigma
						}
					}
					want, noise := values("prev_sample"), values("noise")
					for i := range images {
						z := make([]float64, perImage)
						kernels.Stream{Seed: state.Seed, Purpose: kernels.DrawSampling, Image: state.First + uint64(i), Step: state.Step}.Normals(z)
						for e := range z {
							want[i*perImage+e] += sigma * (z[e] - noise[i*perImage+e])
						}
					}
					x, input, tableAt, stateAt := h.reals(values("sample")), h.poison(images*perImage), h.reals(table), h.state(state)
					h.SampleUpdate(images, perImage, x, input, h.reals(values("model_output")), tableAt, stateAt)
					near(t, spec+" "+name, h.read(x, images*perImage), want, bound(r))
					near(t, spec+" "+name+" input", h.read(input, images*perImage), want, bound(r))
					times := h.poison(images)
					h.SampleTime(images, times, tableAt, stateAt)
					if got := h.read(times, images); got[0] != float64(c.Timestep) || got[1] != got[0] {
						t.Errorf("%s %s: times %v, want %d", spec, name, got, c.Timestep)
					}
				})
			})
		}
	}
}

// What is not a number passes the clip, and touches nothing but itself.
func TestSampleUpdateNaN(t *testing.T) {
	const perImage, bad = 150, 77
	for _, spec := range tiles {
		withKernels(t, spec, kernels.FP32, func(h *harness) {
			out := make([]float64, perImage)
			out[bad], out[bad+1], out[bad+2] = math.NaN(), 1e30, -1e30
			for _, sigma := range []float64{0, 1} {
				x := h.reals(make([]float64, perImage))
				table := h.reals([]float64{0, 1, 1, 1, 0, 0, sigma, 1})
				h.SampleUpdate(1, perImage, x, h.poison(perImage), h.reals(out), table, h.state(kernels.StepState{}))
				got := h.read(x, perImage)
				for i, v := range got {
					if math.IsNaN(v) != (i == bad) {
						t.Errorf("%s, sigma %g: element %d is %g", spec, sigma, i, v)
						return
					}
				}
				if sigma == 0 && (got[bad+1] != 1 || got[bad+2] != -1) {
					t.Errorf("%s: clipped to %g and %g", spec, got[bad+1], got[bad+2])
				}
			}
		})
	}
}
