package main

import (
	"reflect"
	"testing"

	"ddgpu/layers"
)

type testConfig struct {
	Steps   int64   `yaml:"steps"`
	Rate    float64 `yaml:"rate"`
	Flip    bool    `yaml:"flip"`
	Network struct {
		Channels []int `yaml:"channels"`
		Groups   int   `yaml:"groups"`
	} `yaml:"network"`
}

func TestOverlayKeepsWhatIsNotNamed(t *testing.T) {
	var c testConfig
	for _, text := range []string{
		"steps: 10\nrate: 1e-3\nnetwork:\n  channels: [1, 2, 3]\n  groups: 4\n",
		"", "# nothing\n",
		"steps: 20 # more\nnetwork:\n  channels: [7]\n",
	} {
		if err := overlay("x.yaml", []byte(text), &c); err != nil {
			t.Fatal(err)
		}
	}
	want := testConfig{Steps: 20, Rate: 1e-3}
	want.Network.Channels, want.Network.Groups = []int{7}, 4
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

func TestOverlayRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"stepz: 1\n":                     `x.yaml:1: unknown key "stepz"; did you mean "steps"?`,
		"steps: 1\n\nlearning: 2\n":      `x.yaml:3: unknown key "learning"`,
		"network:\n  group: 3\n":         `x.yaml:2: unknown key "group"; did you mean "groups"?`,
		"network:\n  steps: 3\n":         `x.yaml:2: unknown key "steps"`,
		"steps: 1.5\n":                   `x.yaml:1: 1.5 is not a whole number`,
		"network: {channels: [1, 2.5]}":  `x.yaml:1: 2.5 is not a whole number`,
		"steps: 1\nsteps: 2\n":           `x.yaml:2: mapping key "steps" already defined at [1:1]`,
		"steps: 1\n---\nsteps: 2\n":      `x.yaml:3: a configuration is one YAML document, this is a second one`,
		"flip: perhaps\n":                `x.yaml:1: "perhaps" is given where true or false is wanted`,
		"steps: many\n":                  `x.yaml:1: "many" is given where a whole number is wanted`,
		"network: {groups: [1]}\n":       `x.yaml:1: a list is given where a whole number is wanted`,
		"network:\n  groups:\n    - 1\n": `x.yaml:3: a list is given where a whole number is wanted`,
		"network:\n  groups: {a: 1}\n":   `x.yaml:2: a mapping is given where a whole number is wanted`,
		"- 1\n":                          `x.yaml:1: sequence was used where mapping is expected`,
		"steps: [1\n":                    `x.yaml:1: sequence end token ']' not found`,
		"steps: 9999999999999999999999 ": `x.yaml:1: 9999999999999999999999 is out of range for a whole number`,
	} {
		err := overlay("x.yaml", []byte(text), &testConfig{})
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		} else if exitCode(err) != exitUsage {
			t.Errorf("%q: exit code %d, want %d", text, exitCode(err), exitUsage)
		}
	}
}

// Whatever a file holds, its error is one line, and what is read is printed as a file that reads the same.
func FuzzOverlay(f *testing.F) {
	for _, name := range presetNames() {
		text, err := presetText(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("a: &a [1]\nb: *a\n<<: *a\n")
	f.Add("? [1]\n: {x: !!int 3}\n")
	f.Add("model: {sample_size: [8, 16], num_class_embeds: null}")
	f.Fuzz(func(t *testing.T, text string) {
		config := emptyConfig()
		if err := overlay("x.yaml", []byte(text), &config); err != nil {
			if exitCode(err) != exitUsage {
				t.Errorf("exit code %d: %v", exitCode(err), err)
			}
			return
		}
		if config.Validate() != nil {
			return
		}
		printed, err := configYAML(config)
		if err != nil {
			t.Fatal(err)
		}
		again := emptyConfig()
		if err := overlay("printed.yaml", printed, &again); err != nil || !reflect.DeepEqual(again, config) {
			t.Errorf("%v\n%+v\n%+v\n%s", err, config, again, printed)
		}
	})
}

func TestEditDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"steps", "stepz", 1}, {"flaw", "lawn", 2}} {
		if got := editDistance(test.a, test.b); got != test.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestJSONErrorsAreInWords(t *testing.T) {
	for text, want := range map[string]string{
		`{"layers_per_block": "two"}`:      "layers_per_block: text is given where a whole number is wanted",
		`{"layers_per_block": 1.5}`:        "layers_per_block: 1.5 is given where a whole number is wanted",
		`{"block_out_channels": {"a": 1}}`: "block_out_channels: a mapping is given where a list is wanted",
		`{"center_input_sample": [1]}`:     "center_input_sample: a list is given where true or false is wanted",
		`{"norm_eps": true}`:               "norm_eps: true or false is given where a number is wanted",
		`[1]`:                              "a list is given where a mapping is wanted",
	} {
		_, err := layers.ParseUNet2DConfig([]byte(text))
		if err = jsonError(err); err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
	}
	if _, err := layers.ParseUNet2DConfig([]byte("{")); jsonError(err) != err {
		t.Errorf("another error became %v", jsonError(err))
	}
}
