package diffusion

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"sort"
	"strings"

	"ddgpu/diffusion/data"
	"ddgpu/diffusion/sampler"
	"ddgpu/diffusion/schedule"
	"ddgpu/layers"
)

// Config is everything that decides what a run computes, and how often it reports. Where it
// runs (devices, run folder) is not in it: the same Config gives the same bits anywhere.
type Config struct {
	// Name of the preset or experiment; only a label.
	Name string `yaml:"name" json:"name"`
	// Seed of the initial weights, the order of the images, and all noise.
	Seed uint64 `yaml:"seed" json:"seed"`
	// Precision of the kernels: fp32, tf32, bf16, fp64 on the host device, or auto, which ResolvePrecision decides.
	Precision string `yaml:"precision" json:"precision"`

	Model    layers.UNet2DConfig `yaml:"model" json:"model"`
	Data     data.Config         `yaml:"data" json:"data"`
	Schedule schedule.Config     `yaml:"schedule" json:"schedule"`
	// Objective is what the network predicts: eps, x0 or v.
	Objective sampler.Objective `yaml:"objective" json:"objective"`
	// Conditioning is what the network is told of step n: index (n) or rescaled (n·1000/T).
	Conditioning string          `yaml:"conditioning" json:"conditioning"`
	Optimizer    OptimizerConfig `yaml:"optimizer" json:"optimizer"`
	EMA          EMAConfig       `yaml:"ema" json:"ema"`
	Train        TrainConfig     `yaml:"train" json:"train"`
	Sampler      sampler.Config  `yaml:"sampler" json:"sampler"`
}

// OptimizerConfig is Adam or AdamW with clipping of the global gradient norm, a linear warm-up of
// the learning rate, and its decay.
type OptimizerConfig struct {
	Name         string  `yaml:"name" json:"name"` // adam or adamw (decoupled weight decay)
	LearningRate float64 `yaml:"learning_rate" json:"learning_rate"`
	Beta1        float64 `yaml:"beta1" json:"beta1"`
	Beta2        float64 `yaml:"beta2" json:"beta2"`
	Epsilon      float64 `yaml:"epsilon" json:"epsilon"`
	WeightDecay  float64 `yaml:"weight_decay" json:"weight_decay"`
	MaxGradNorm  float64 `yaml:"max_grad_norm" json:"max_grad_norm"` // 0 does not clip
	WarmupSteps  int     `yaml:"warmup_steps" json:"warmup_steps"`
	// Decay is constant, linear or cosine, from the end of the warm-up to the last step.
	Decay string `yaml:"decay" json:"decay"`
	// FinalLearningRate is where linear and cosine end.
	FinalLearningRate float64 `yaml:"final_learning_rate" json:"final_learning_rate"`
}

// EMAConfig is the exponential moving average of the weights that sampling and validation use.
type EMAConfig struct {
	Decay float64 `yaml:"decay" json:"decay"`
	// Warmup uses min(decay, (1+k)/(10+k)) at update k = 1, 2, …
	Warmup bool `yaml:"warmup" json:"warmup"`
}

// TrainConfig is how long and how often.
type TrainConfig struct {
	Steps int `yaml:"steps" json:"steps"`
	// Batch is the global batch: images per step over all devices.
	Batch int `yaml:"batch" json:"batch"`
	// Shards cuts the batch into so many virtual shards, the unit of the fixed-order gradient
	// sum. A power of two, a multiple of the number of devices.
	Shards int `yaml:"shards" json:"shards"`
	// MicroBatches accumulates a step's gradient over so many equal parts, to save memory. A
	// power of two; it does not change the result by a bit.
	MicroBatches int `yaml:"micro_batches" json:"micro_batches"`
	// Recompute keeps fewer activations and computes the others again in the backward pass, to save
	// memory; it does not change the result by a bit.
	Recompute bool `yaml:"recompute" json:"recompute"`
	// The rest says every how many steps something happens; 0 is never. A run always saves at its end.
	LogEvery    int `yaml:"log_every" json:"log_every"`
	SaveEvery   int `yaml:"save_every" json:"save_every"`
	SampleEvery int `yaml:"sample_every" json:"sample_every"`
	EvalEvery   int `yaml:"eval_every" json:"eval_every"`
	// Keep is how many checkpoints remain, the newest; 0 keeps all.
	Keep int `yaml:"keep" json:"keep"`
	// Samples is how many images a sample grid has, EvalImages how many held-out images the
	// validation loss uses at most (0: all).
	Samples    int `yaml:"samples" json:"samples"`
	EvalImages int `yaml:"eval_images" json:"eval_images"`
}

// DefaultConfig is what a key has that neither preset, file nor flag sets. It has no model.
func DefaultConfig() Config {
	return Config{
		Precision:    "auto",
		Schedule:     schedule.Config{Name: "linear", Steps: 1000},
		Objective:    sampler.Eps,
		Conditioning: "index",
		Optimizer: OptimizerConfig{
			Name: "adam", LearningRate: 2e-4, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, MaxGradNorm: 1, Decay: "constant",
		},
		EMA: EMAConfig{Decay: 0.9999, Warmup: true},
		Train: TrainConfig{
			Steps: 10000, Batch: 64, Shards: 8, MicroBatches: 1, LogEvery: 10, SaveEvery: 1000, SampleEvery: 1000,
			EvalEvery: 1000, Keep: 3, Samples: 64, EvalImages: 1000,
		},
		Sampler: sampler.Default(),
		Data:    data.DefaultConfig(),
	}
}

// ConfigError is a configuration that cannot be run; Key is the YAML path of the value.
type ConfigError struct {
	Key    string
	Reason string
}

func (e *ConfigError) Error() string { return "configuration: " + e.Key + " " + e.Reason }

// Validate says what is wrong with c, as a *ConfigError, before anything is opened or allocated.
func (c *Config) Validate() error {
	var first error
	check := func(ok bool, key, format string, args ...any) {
		if !ok && first == nil {
			first = &ConfigError{Key: key, Reason: fmt.Sprintf(format, args...)}
		}
	}
	oneOf := func(key, value string, allowed ...string) {
		for _, a := range allowed {
			if value == a {
				return
			}
		}
		check(false, key, "is %q, it must be one of %v", value, allowed)
	}
	inRange := func(key string, v, lo, hi float64) {
		check(v >= lo && v <= hi, key, "is %g, it must be in [%g, %g]", v, lo, hi)
	}
	powerOfTwo := func(n int) bool { return n > 0 && n&(n-1) == 0 }

	oneOf("precision", c.Precision, "auto", "fp32", "tf32", "bf16", "fp64")
	oneOf("objective", string(c.Objective), "eps", "x0", "v")
	oneOf("conditioning", c.Conditioning, "index", "rescaled")

	o := c.Optimizer
	oneOf("optimizer.name", o.Name, "adam", "adamw")
	oneOf("optimizer.decay", o.Decay, "constant", "linear", "cosine")
	check(o.LearningRate > 0 && o.LearningRate < 1, "optimizer.learning_rate", "is %g, it must be inside (0, 1)", o.LearningRate)
	inRange("optimizer.beta1", o.Beta1, 0, 1-1e-9)
	inRange("optimizer.beta2", o.Beta2, 0, 1-1e-9)
	check(o.Epsilon > 0, "optimizer.epsilon", "is %g, it must be positive", o.Epsilon)
	inRange("optimizer.weight_decay", o.WeightDecay, 0, math.MaxFloat64)
	inRange("optimizer.max_grad_norm", o.MaxGradNorm, 0, math.MaxFloat64)
	inRange("optimizer.final_learning_rate", o.FinalLearningRate, 0, max(o.LearningRate, 0))
	check(o.WarmupSteps >= 0, "optimizer.warmup_steps", "is %d, it must not be negative", o.WarmupSteps)
	inRange("ema.decay", c.EMA.Decay, 0, 1-1e-12)

	t := c.Train
	check(t.Steps > 0, "train.steps", "is %d, it must be positive", t.Steps)
	check(t.Batch > 0 && t.Batch <= 1<<20, "train.batch", "is %d, it must be 1 … %d", t.Batch, 1<<20)
	check(powerOfTwo(t.Shards) && t.Shards <= 1024, "train.shards", "is %d, it must be a power of two up to 1024", t.Shards)
	check(powerOfTwo(t.MicroBatches) && t.MicroBatches <= t.Shards, "train.micro_batches",
		"is %d, it must be a power of two and at most train.shards (%d)", t.MicroBatches, t.Shards)
	for _, every := range []struct {
		key string
		n   int
	}{
		{"log_every", t.LogEvery}, {"save_every", t.SaveEvery}, {"sample_every", t.SampleEvery},
		{"eval_every", t.EvalEvery}, {"keep", t.Keep}, {"eval_images", t.EvalImages},
	} {
		check(every.n >= 0, "train."+every.key, "is %d, it must not be negative", every.n)
	}
	check(t.Samples > 0 && t.Samples <= 1<<16, "train.samples", "is %d, it must be 1 … %d", t.Samples, 1<<16)
	if first != nil {
		return first
	}
	if err := c.Model.Validate(); err != nil {
		return &ConfigError{Key: "model", Reason: err.Error()}
	}
	check(c.Model.InChannels == c.Model.OutChannels, "model.out_channels",
		"is %d, it must equal in_channels (%d): the network predicts one value for each", c.Model.OutChannels, c.Model.InChannels)
	check(c.Model.InChannels == 1 || c.Model.InChannels == 3, "model.in_channels",
		"is %d, images have 1 (grey) or 3 (colour)", c.Model.InChannels)
	if first != nil {
		return first
	}
	s, err := schedule.New(c.Schedule)
	if err != nil {
		return &ConfigError{Key: "schedule", Reason: "is refused: " + strings.TrimPrefix(err.Error(), "schedule: ")}
	}
	if _, err := sampler.Table(s, c.Objective, c.Sampler); err != nil {
		return &ConfigError{Key: "sampler", Reason: "is refused: " + strings.TrimPrefix(err.Error(), "sampler: ")}
	}
	if err := c.Data.Validate(); err != nil {
		return &ConfigError{Key: "data", Reason: err.Error()}
	}
	return nil
}

// LearningRateAt is the learning rate of update k = 1 … train.steps: linear from 0 over the
// warm-up, then the decay from learning_rate to final_learning_rate.
func (c *Config) LearningRateAt(k int) float64 {
	o := c.Optimizer
	if k <= o.WarmupSteps {
		return o.LearningRate * float64(k) / float64(o.WarmupSteps)
	}
	progress := 1.0
	if span := c.Train.Steps - o.WarmupSteps; span > 1 {
		progress = min(1, float64(k-o.WarmupSteps-1)/float64(span-1))
	}
	switch o.Decay {
	case "linear":
		return o.LearningRate + (o.FinalLearningRate-o.LearningRate)*progress
	case "cosine":
		return o.FinalLearningRate + (o.LearningRate-o.FinalLearningRate)*(1+math.Cos(math.Pi*progress))/2
	default:
		return o.LearningRate
	}
}

// EMADecayAt is the decay of update k = 1, 2, …: ema.decay, or min(decay, (1+k)/(10+k)) with warm-up.
func (c *Config) EMADecayAt(k int) float64 {
	if !c.EMA.Warmup {
		return c.EMA.Decay
	}
	return min(c.EMA.Decay, float64(1+k)/float64(10+k))
}

// Identity is c without what does not change a training step's arithmetic: labels, paths, the
// format of the images' files, how the work is cut, how often something is reported, and the
// sampler; and without train.steps, so that a run can go on for longer (with linear or cosine
// decay the learning rate then follows the longer decay from there).
// Only a run with the same Identity resumes from a checkpoint.
func (c *Config) Identity() Config {
	id := *c
	id.Name = ""
	id.Data.Path, id.Data.Format = "", ""
	id.Sampler = sampler.Config{}
	t := c.Train
	id.Train = TrainConfig{Batch: t.Batch, Shards: t.Shards}
	return id
}

// JSON is c in JSON with the same keys as in YAML; the same Config gives the same bytes.
func (c *Config) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing configuration as JSON: %w", err)
	}
	return append(b, '\n'), nil
}

// Difference names the first key, in alphabetical order, in which two identities differ, with
// both values, or is empty.
func Difference(was, now Config) string {
	var a, b any
	for _, side := range []struct {
		c    Config
		into *any
	}{{was, &a}, {now, &b}} {
		id := side.c.Identity()
		text, err := id.JSON()
		if err == nil {
			err = json.Unmarshal(text, side.into)
		}
		if err != nil {
			return err.Error()
		}
	}
	return difference("", a, b)
}

func difference(path string, a, b any) string {
	am, aok := a.(map[string]any)
	bm, bok := b.(map[string]any)
	if !aok || !bok {
		if reflect.DeepEqual(a, b) {
			return ""
		}
		return fmt.Sprintf("%s was %v and is %v", path, a, b)
	}
	keys := make([]string, 0, len(am))
	for k := range am {
		keys = append(keys, k)
	}
	for k := range bm {
		if _, both := am[k]; !both {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	for _, k := range keys {
		name := k
		if path != "" {
			name = path + "." + k
		}
		if d := difference(name, am[k], bm[k]); d != "" {
			return d
		}
	}
	return ""
}
