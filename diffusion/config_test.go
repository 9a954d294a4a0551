package diffusion

import (
	"errors"
	"math"
	"strings"
	"testing"

	"ddgpu/layers"
)

func testConfig() Config {
	c := DefaultConfig()
	c.Model = layers.CIFAR10DDPM()
	return c
}

func TestDefaultsAreValid(t *testing.T) {
	c := testConfig()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestValidateNamesTheKey(t *testing.T) {
	for key, change := range map[string]func(*Config){
		"precision":                     func(c *Config) { c.Precision = "bf8" },
		"objective":                     func(c *Config) { c.Objective = "score" },
		"conditioning":                  func(c *Config) { c.Conditioning = "t" },
		"model":                         func(c *Config) { c.Model.BlockOutChannels = nil },
		"model.in_channels":             func(c *Config) { c.Model.InChannels, c.Model.OutChannels = 2, 2 },
		"model.out_channels":            func(c *Config) { c.Model.OutChannels = 6 },
		"data":                          func(c *Config) { c.Data.Format = "tar" },
		"schedule":                      func(c *Config) { c.Schedule.Steps = 0 },
		"sampler":                       func(c *Config) { c.Sampler.Steps = 1001 },
		"optimizer.name":                func(c *Config) { c.Optimizer.Name = "sgd" },
		"optimizer.decay":               func(c *Config) { c.Optimizer.Decay = "step" },
		"optimizer.learning_rate":       func(c *Config) { c.Optimizer.LearningRate = math.NaN() },
		"optimizer.beta1":               func(c *Config) { c.Optimizer.Beta1 = 1 },
		"optimizer.beta2":               func(c *Config) { c.Optimizer.Beta2 = -0.1 },
		"optimizer.epsilon":             func(c *Config) { c.Optimizer.Epsilon = 0 },
		"optimizer.weight_decay":        func(c *Config) { c.Optimizer.WeightDecay = -1 },
		"optimizer.max_grad_norm":       func(c *Config) { c.Optimizer.MaxGradNorm = math.Inf(1) },
		"optimizer.final_learning_rate": func(c *Config) { c.Optimizer.FinalLearningRate = 1 },
		"optimizer.warmup_steps":        func(c *Config) { c.Optimizer.WarmupSteps = -1 },
		"ema.decay":                     func(c *Config) { c.EMA.Decay = 1 },
		"train.steps":                   func(c *Config) { c.Train.Steps = 0 },
		"train.batch":                   func(c *Config) { c.Train.Batch = 0 },
		"train.shards":                  func(c *Config) { c.Train.Shards = 6 },
		"train.micro_batches":           func(c *Config) { c.Train.MicroBatches = 16 },
		"train.save_every":              func(c *Config) { c.Train.SaveEvery = -1 },
		"train.samples":                 func(c *Config) { c.Train.Samples = 0 },
	} {
		c := testConfig()
		change(&c)
		err := c.Validate()
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Key != key || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", key, err)
		}
	}
}

func TestLearningRate(t *testing.T) {
	c := testConfig()
	c.Train.Steps = 110
	o := &c.Optimizer
	o.LearningRate, o.FinalLearningRate, o.WarmupSteps = 1e-3, 1e-4, 10
	for _, row := range []struct {
		decay string
		k     int
		want  float64
	}{
		{"constant", 1, 1e-4}, {"constant", 10, 1e-3}, {"constant", 110, 1e-3},
		{"linear", 5, 5e-4}, {"linear", 11, 1e-3}, {"linear", 110, 1e-4}, {"linear", 200, 1e-4},
		{"cosine", 11, 1e-3}, {"cosine", 110, 1e-4},
		{"cosine", 44, 1e-4 + 9e-4*(1+math.Cos(math.Pi/3))/2},
	} {
		o.Decay = row.decay
		if got := c.LearningRateAt(row.k); math.Abs(got-row.want) > 1e-12 {
			t.Errorf("%s at %d: %g, want %g", row.decay, row.k, got, row.want)
		}
	}
}

func TestEMADecay(t *testing.T) {
	c := testConfig()
	c.EMA = EMAConfig{Decay: 0.999, Warmup: true}
	for k, want := range map[int]float64{1: 2.0 / 11, 90: 91.0 / 100, 100000: 0.999} {
		if got := c.EMADecayAt(k); got != want {
			t.Errorf("warm-up at %d: %g, want %g", k, got, want)
		}
	}
	c.EMA.Warmup = false
	if got := c.EMADecayAt(1); got != 0.999 {
		t.Errorf("constant: %g", got)
	}
}

func TestIdentity(t *testing.T) {
	a, b := testConfig(), testConfig()
	b.Name, b.Data.Path, b.Data.Format, b.Train.MicroBatches, b.Train.Keep = "x", "/elsewhere", "idx", 4, 9
	b.Train.Samples, b.Train.LogEvery = 9, 3
	a1, err1 := a.checkpointJSON()
	b1, err2 := b.checkpointJSON()
	if err1 != nil || err2 != nil || string(a1) != string(b1) {
		t.Errorf("labels, paths and cadence must not change a checkpoint: %v, %v", err1, err2)
	}
	b.Train.Steps = 7
	if Difference(a, b) != "" {
		t.Errorf("labels, paths and cadence must not change the identity: %s", Difference(a, b))
	}
	b.Model.BlockOutChannels = []int{128, 256, 256, 512}
	b.Seed = 3
	if got := Difference(a, b); got != "model.block_out_channels was [128 256 256 256] and is [128 256 256 512]" {
		t.Errorf("difference: %q", got)
	}
}
