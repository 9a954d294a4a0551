package main

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/goccy/go-yaml"
	"github.com/urfave/cli/v2"

	"ddgpu/diffusion"
	"ddgpu/layers"
)

//go:embed presets/*.yaml
var presetFiles embed.FS

// presetNames lists the embedded presets in alphabetical order.
func presetNames() []string {
	files, err := fs.Glob(presetFiles, "presets/*.yaml")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(path.Base(f), ".yaml")
	}
	return files
}

func presetText(name string) ([]byte, error) {
	text, err := presetFiles.ReadFile("presets/" + name + ".yaml")
	if err != nil {
		return nil, usagef("unknown preset %q%s; the presets are %s", name, suggest(name, presetNames()), strings.Join(presetNames(), ", "))
	}
	return text, nil
}

// configFlags are the options that train and config share: where the configuration comes from, and what overrides it.
func configFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "preset", Usage: "configuration to start from: " + strings.Join(presetNames(), ", ")},
		&cli.StringFlag{Name: "config", Usage: "YAML `FILE` whose keys override the preset's"},
		&cli.StringSliceFlag{Name: "set", Usage: "override one `KEY=VALUE` by its path, e.g. optimizer.learning_rate=1e-3 (repeatable)"},
	}, overrideFlags()...)
}

// override is a flag that sets one key of the configuration.
type override struct {
	flag  cli.Flag
	apply func(*cli.Context, *diffusion.Config)
}

var overrides = []override{
	{&cli.StringFlag{Name: "data", Usage: "images: a `PATH` (IDX, CIFAR-10 binary, or a folder of PNG/JPEG) or fashion-mnist"},
		func(c *cli.Context, to *diffusion.Config) { to.Data.Path = c.String("data") }},
	{&cli.IntFlag{Name: "steps", Usage: "optimiser `STEPS` in total, those before a resume included"},
		func(c *cli.Context, to *diffusion.Config) { to.Train.Steps = c.Int("steps") }},
	{&cli.IntFlag{Name: "batch", Usage: "`IMAGES` per step over all devices"},
		func(c *cli.Context, to *diffusion.Config) { to.Train.Batch = c.Int("batch") }},
	{&cli.IntFlag{Name: "micro-batches", Usage: "accumulate each step over `N` parts, to save memory; same result to the bit"},
		func(c *cli.Context, to *diffusion.Config) { to.Train.MicroBatches = c.Int("micro-batches") }},
	{&cli.BoolFlag{Name: "recompute", Usage: "keep fewer activations and compute them again, to save memory; same result to the bit"},
		func(c *cli.Context, to *diffusion.Config) { to.Train.Recompute = c.Bool("recompute") }},
	{&cli.StringFlag{Name: "precision", Usage: "auto, fp32, tf32, bf16, or fp64 on the host device; auto is bf16 on GPUs that have it, else fp32"},
		func(c *cli.Context, to *diffusion.Config) { to.Precision = c.String("precision") }},
	{&cli.Uint64Flag{Name: "seed", Usage: "`SEED` of weights, image order and all noise"},
		func(c *cli.Context, to *diffusion.Config) { to.Seed = c.Uint64("seed") }},
	{&cli.IntFlag{Name: "save-every", Usage: "checkpoint every `STEPS`, 0 for only at the end"},
		func(c *cli.Context, to *diffusion.Config) { to.Train.SaveEvery = c.Int("save-every") }},
	{&cli.IntFlag{Name: "sample-every", Usage: "draw a grid of samples every `STEPS`, 0 for never"},
		func(c *cli.Context, to *diffusion.Config) { to.Train.SampleEvery = c.Int("sample-every") }},
	{&cli.IntFlag{Name: "eval-every", Usage: "compute the validation loss every `STEPS`, 0 for never"},
		func(c *cli.Context, to *diffusion.Config) { to.Train.EvalEvery = c.Int("eval-every") }},
	{&cli.IntFlag{Name: "log-every", Usage: "without a terminal, one JSON line every `STEPS`"},
		func(c *cli.Context, to *diffusion.Config) { to.Train.LogEvery = c.Int("log-every") }},
	{&cli.IntFlag{Name: "keep", Usage: "keep the newest `N` checkpoints, 0 for all"},
		func(c *cli.Context, to *diffusion.Config) { to.Train.Keep = c.Int("keep") }},
}

func overrideFlags() (flags []cli.Flag) {
	const ofConfiguration = "the configuration's"
	for _, o := range overrides {
		switch f := o.flag.(type) {
		case *cli.IntFlag:
			f.DefaultText = ofConfiguration
		case *cli.Uint64Flag:
			f.DefaultText = ofConfiguration
		case *cli.BoolFlag:
			f.DefaultText = ofConfiguration
		}
		flags = append(flags, o.flag)
	}
	return flags
}

// emptyConfig is what a configuration is where nothing is set.
func emptyConfig() diffusion.Config {
	config := diffusion.DefaultConfig()
	config.Model = layers.DefaultUNet2DConfig()
	return config
}

// resolve builds the configuration: defaults, then the preset, then --config, then --set, then the other flags. Without preset and file it
// starts from the configuration of the run folder, if that holds one.
func resolve(c *cli.Context, runConfig string) (diffusion.Config, error) {
	config := emptyConfig()
	var err error
	switch {
	case c.IsSet("preset"):
		err = overlayPreset(c.String("preset"), &config)
	case c.IsSet("config"):
		config.Name = strings.TrimSuffix(filepath.Base(c.String("config")), filepath.Ext(c.String("config")))
	case runConfig != "" && exists(runConfig):
		err = overlayFile(runConfig, &config)
	default:
		return config, usagef("nothing to do: name a configuration with --preset (%s) or --config FILE", strings.Join(presetNames(), ", "))
	}
	if err == nil && c.IsSet("config") {
		err = overlayFile(c.String("config"), &config)
	}
	if err != nil {
		return config, err
	}
	for _, assignment := range c.StringSlice("set") {
		if err := overlayKey(assignment, &config); err != nil {
			return config, err
		}
	}
	for _, o := range overrides {
		if c.IsSet(o.flag.Names()[0]) {
			o.apply(c, &config)
		}
	}
	if err := config.Model.Validate(); err != nil {
		return config, usageError{err}
	}
	return config, config.Validate()
}

func overlayPreset(name string, config *diffusion.Config) error {
	text, err := presetText(name)
	if err != nil {
		return err
	}
	return overlay("preset "+name, text, config)
}

func overlayFile(file string, config *diffusion.Config) error {
	text, err := readConfig(file)
	if err != nil {
		return usageError{fmt.Errorf("reading the configuration: %w", err)}
	}
	return overlay(file, text, config)
}

// maxConfig bounds the file of a configuration, in bytes.
const maxConfig = 1 << 20

// readConfig reads the file of a configuration, of maxConfig bytes at most.
func readConfig(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxConfig+1))
	if err == nil && len(text) > maxConfig {
		err = fmt.Errorf("%s has more than %s: it is no configuration", path, humanize.IBytes(maxConfig))
	}
	return text, err
}

// overlayKey sets a.b.c=value as the YAML {a: {b: {c: value}}} would.
func overlayKey(assignment string, config *diffusion.Config) error {
	key, value, ok := strings.Cut(assignment, "=")
	if !ok || key == "" {
		return usagef("--set %s: want KEY=VALUE", assignment)
	}
	depth := strings.Count(key, ".") + 1
	text := "{" + strings.ReplaceAll(key, ".", ": {") + ": " + value + strings.Repeat("}", depth)
	return overlay("--set "+assignment, []byte(text), config)
}

func configYAML(config diffusion.Config) ([]byte, error) {
	text, err := yaml.MarshalWithOptions(config, yaml.UseSingleQuote(false), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("writing the configuration as YAML: %w", err)
	}
	return text, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "list the presets, or print one as it resolves",
		Description: `Without options it lists the presets. With --preset, --config or both it prints the configuration that "ddgpu train" would
use with the same options: a file to start your own from. No device is opened.

Examples:
   ddgpu config
   ddgpu config --preset quickstart > mine.yaml
   ddgpu config --config mine.yaml --set optimizer.learning_rate=1e-3`,
		Flags: configFlags(),
		Action: func(c *cli.Context) error {
			if c.NumFlags() == 0 {
				return listPresets(c)
			}
			config, err := resolve(c, "")
			if err != nil {
				return err
			}
			text, err := configYAML(config)
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(text)
			return err
		},
	}
}

// listPresets prints each preset's name with the first sentence of the comment that it begins with.
func listPresets(c *cli.Context) error {
	for _, name := range presetNames() {
		text, err := presetText(name)
		if err != nil {
			return err
		}
		about, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		if _, err := fmt.Fprintf(c.App.Writer, "%-14s %s\n", name, about); err != nil {
			return err
		}
	}
	return nil
}
