package main

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"ddgpu/diffusion"
	"ddgpu/layers"
)

// preset resolves an embedded preset as the command line does.
func preset(t *testing.T, name string) diffusion.Config {
	t.Helper()
	config := emptyConfig()
	if err := overlayPreset(name, &config); err != nil {
		t.Fatal(err)
	}
	return config
}

func TestPresets(t *testing.T) {
	for _, name := range presetNames() {
		config := preset(t, name)
		if config.Name != name {
			t.Errorf("%s: its name is %q", name, config.Name)
		}
		if err := config.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := config.Model.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		text, err := configYAML(config)
		if err != nil {
			t.Fatal(err)
		}
		again := diffusion.DefaultConfig()
		if err := overlay("again", text, &again); err != nil {
			t.Fatalf("%s: printed and read: %v", name, err)
		}
		if !reflect.DeepEqual(again, config) {
			t.Errorf("%s: printed and read:\n got %+v\nwant %+v", name, again, config)
		}
	}
}

func TestCIFAR10PresetIsThePaper(t *testing.T) {
	config := preset(t, "cifar10-ddpm")
	model := layers.CIFAR10DDPM()
	model.Dropout = 0.1
	if !reflect.DeepEqual(config.Model, model) {
		t.Errorf("model:\n got %+v\nwant %+v", config.Model, model)
	}
	if rate := config.LearningRateAt(2500); rate != 1e-4 {
		t.Errorf("learning rate halfway through the warm-up is %v, want 1e-4", rate)
	}
	if decay := config.EMADecayAt(1); decay != 0.9999 {
		t.Errorf("EMA decay of the first update is %v, want 0.9999", decay)
	}
}

// ddgpu runs the program in this process.
func ddgpu(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{"ddgpu"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestOverridesReachTheirKey(t *testing.T) {
	for _, test := range []struct{ flag, value, line string }{
		{"--steps", "17", "  steps: 17\n"},
		{"--batch", "24", "  batch: 24\n"},
		{"--micro-batches", "4", "  micro_batches: 4\n"},
		{"--precision", "fp64", "precision: fp64\n"},
		{"--seed", "18446744073709551615", "seed: 18446744073709551615\n"},
		{"--save-every", "31", "  save_every: 31\n"},
		{"--sample-every", "32", "  sample_every: 32\n"},
		{"--eval-every", "33", "  eval_every: 33\n"},
		{"--log-every", "34", "  log_every: 34\n"},
		{"--keep", "35", "  keep: 35\n"},
		{"--data", "some/folder", "  path: some/folder\n"},
		{"--set", "optimizer.learning_rate=0.125", "  learning_rate: 0.125\n"},
		{"--set", "model.block_out_channels=[8, 16, 24, 40]", "    - 8\n    - 16\n    - 24\n    - 40\n"},
		{"--set", "objective=v", "objective: v\n"},
	} {
		code, stdout, stderr := ddgpu("config", "--preset", "cifar10-ddpm", test.flag, test.value)
		if code != 0 || !strings.Contains(stdout, test.line) {
			t.Errorf("%s %s: exit code %d, %s; the configuration lacks %q", test.flag, test.value, code, stderr, test.line)
		}
	}
}

func TestUsageErrorsAreOneLine(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"confg", `ddgpu: unknown command "confg"; did you mean "config"?`},
		{"--hlep", `ddgpu: unknown option --hlep; did you mean "--help"?`},
		{"config --prset x", `ddgpu: unknown option --prset; did you mean "--preset"?`},
		{"config --preset", `ddgpu: option needs a value: --preset`},
		{"config --preset cifar10-dppm", `ddgpu: unknown preset "cifar10-dppm"; did you mean "cifar10-ddpm"?; the presets are `},
		{"config --preset cifar10-ddpm --steps many", `ddgpu: --steps "many": want a whole number`},
		{"config --preset cifar10-ddpm --steps 99999999999999999999", `ddgpu: --steps "99999999999999999999": want a whole number`},
		{"config --preset cifar10-ddpm --seed -1", `ddgpu: --seed "-1": want a whole number, 0 … 2⁶⁴−1`},
		{"config --preset cifar10-ddpm --recompute=maybe", `ddgpu: --recompute "maybe": want true or false`},
		{"sample --eta a:b", `ddgpu: --eta "a:b": want a number`},
		{"train --hang-timeout soon", `ddgpu: --hang-timeout "soon": want a time such as 90s or 10m`},
		{"config --preset cifar10-ddpm more", `ddgpu: config: unexpected argument "more": options begin with --`},
		{"config --preset cifar10-ddpm --steps 0", `ddgpu: configuration: train.steps is 0, it must be positive`},
		{"config --preset cifar10-ddpm --set train.stepz=3", `ddgpu: --set train.stepz=3: unknown key "stepz"; did you mean "steps"?`},
		{"config --preset cifar10-ddpm --set train", `ddgpu: --set train: want KEY=VALUE`},
		{"config --preset cifar10-ddpm --set model.layers_per_block=0", `ddgpu: unet configuration: layers_per_block is 0, want at least 1`},
		{"config --config /nowhere.yaml", `ddgpu: reading the configuration: open /nowhere.yaml: no such file or directory`},
		{"config --config /dev/zero", `ddgpu: reading the configuration: /dev/zero has more than 1.0 MiB: it is no configuration`},
		{"config --steps 3", `ddgpu: nothing to do: name a configuration with --preset (`},
	} {
		code, _, stderr := ddgpu(strings.Fields(test.args)...)
		if code != exitUsage || !strings.HasPrefix(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d\n got %swant %s", test.args, code, stderr, test.want)
		}
	}
}
