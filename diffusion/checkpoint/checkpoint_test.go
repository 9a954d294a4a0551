package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ddgpu/diffusion/safetensors"
)

func state(step int64) State {
	set := func(name string, scale float32) Set {
		return Set{name, func() ([]safetensors.Tensor, error) {
			return []safetensors.Tensor{
				safetensors.FromFloat32s("conv.weight", []int{2, 2}, []float32{1 * scale, 2, 3, float32(step)}),
				safetensors.FromFloat32s("conv.bias", []int{2}, []float32{-1, scale}),
			}, nil
		}}
	}
	return State{Step: step, Config: []byte(`{"seed": 1}`), Sets: []Set{set("model", 1), set("ema", 2)}}
}

func save(t testing.TB, dir string, step int64, keep int) string {
	t.Helper()
	path, _, err := Save(dir, state(step), keep)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func steps(t testing.TB, dir string) (list []int64) {
	t.Helper()
	all, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if c, err := Open(e.Path); err != nil || c.Manifest.Step != e.Step {
			t.Errorf("a checkpoint that is listed cannot be opened: %v", err)
		}
		list = append(list, e.Step)
	}
	return list
}

func TestSaveAndOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "checkpoints")
	path, hash, err := Save(dir, state(7), 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Manifest.Step != 7 || c.Manifest.Hash != hash || string(c.Config) != `{"seed": 1}` || len(c.Manifest.Files) != 3 {
		t.Errorf("%+v", c.Manifest)
	}
	f, err := c.Set("ema")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bias, err := f.Read("conv.bias")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := bias.Float32s(); err != nil || v[1] != 2 {
		t.Error(v, err)
	}
	if _, err := c.Set("moments"); !isBad(err, "moments") {
		t.Error(err)
	}
}

func TestHashIsOfTheContentAlone(t *testing.T) {
	_, a, err := Save(t.TempDir(), state(3), 0)
	if err != nil {
		t.Fatal(err)
	}
	reordered := state(3)
	reordered.Sets[0], reordered.Sets[1] = reordered.Sets[1], reordered.Sets[0]
	_, b, err := Save(t.TempDir(), reordered, 5)
	if err != nil {
		t.Fatal(err)
	}
	if a != b {
		t.Error("the same content has two hashes")
	}
	for name, change := range map[string]func(*State){
		"step":   func(s *State) { s.Step++ },
		"config": func(s *State) { s.Config = []byte(`{"seed": 2}`) },
		"set":    func(s *State) { s.Sets = s.Sets[:1] },
	} {
		s := state(3)
		change(&s)
		if _, c, err := Save(t.TempDir(), s, 0); err != nil || c == a {
			t.Errorf("another %s has the same hash (%v)", name, err)
		}
	}
}

func TestKeepNewest(t *testing.T) {
	dir := t.TempDir()
	for _, step := range []int64{5, 100, 20, 123456789, 40} {
		save(t, dir, step, 0)
	}
	if err := os.Mkdir(filepath.Join(dir, "notes"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(steps(t, dir)); got != "[5 20 40 100 123456789]" {
		t.Error(got)
	}
	save(t, dir, 123456790, 2)
	if got := fmt.Sprint(steps(t, dir)); got != "[123456789 123456790]" {
		t.Error(got)
	}
	e, ok, err := Latest(dir)
	if err != nil || !ok || e.Step != 123456790 {
		t.Error(e, ok, err)
	}
	if _, ok, err := Latest(filepath.Join(dir, "none")); ok || err != nil {
		t.Error(ok, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes")); err != nil {
		t.Error("Save removed what is not its own")
	}
}

// A crash at any stage leaves the checkpoints from before, whole, and perhaps the new one, whole.
func TestCrashAtEveryStage(t *testing.T) {
	var stages []string
	stage = func(name string) { stages = append(stages, name) }
	defer func() { stage = func(string) {} }()
	dir := t.TempDir()
	save(t, dir, 1, 2)
	save(t, dir, 2, 2)
	stages = nil
	save(t, dir, 3, 2)
	if len(stages) < 8 {
		t.Fatalf("stages %v", stages)
	}
	for _, again := range []bool{false, true} { // a new step, and a step that is there already
		for i := range stages {
			dir := t.TempDir()
			stage = func(string) {}
			save(t, dir, 1, 2)
			save(t, dir, 2, 2)
			step := int64(3)
			if again {
				step = 2
			}
			calls := 0
			stage = func(string) {
				if calls++; calls == i+1 {
					panic("crash")
				}
			}
			func() {
				defer func() { _ = recover() }()
				save(t, dir, step, 2)
			}()
			left := steps(t, dir)
			switch fmt.Sprint(left) {
			case "[1 2]", "[1 2 3]", "[2 3]":
			case "[1]":
				// Between hiding the old step 2 and showing the new one: absent, but never half.
				if !again {
					t.Errorf("crash %d: %v", i, left)
				}
			default:
				t.Errorf("crash %d: %v", i, left)
			}
			stage = func(string) {}
			save(t, dir, 4, 2)
			if got := steps(t, dir); got[len(got)-1] != 4 || len(got) != 2 {
				t.Errorf("after crash %d: %v", i, got)
			}
			names, err := os.ReadDir(dir)
			if err != nil || len(names) != 2 {
				t.Errorf("after crash %d: %v remain", i, names)
			}
		}
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 1, 1)
	defer func() { create = os.Create }()
	for full := range 4 { // model, ema, config, manifest
		n := 0
		create = func(path string) (*os.File, error) {
			if n++; n == full+1 {
				return os.OpenFile("/dev/full", os.O_WRONLY, 0)
			}
			return os.Create(path)
		}
		_, _, err := Save(dir, state(2), 1)
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "step-00000002") {
			t.Errorf("file %d: %v", full, err)
		}
		names, err := os.ReadDir(dir)
		if err != nil || len(names) != 1 || fmt.Sprint(steps(t, dir)) != "[1]" {
			t.Errorf("file %d: %v remain", full, names)
		}
	}
}

func TestErrorOfATensorIsPassedOn(t *testing.T) {
	s, reason := state(1), errors.New("device lost")
	s.Sets[1].Tensors = func() ([]safetensors.Tensor, error) { return nil, reason }
	if _, _, err := Save(t.TempDir(), s, 0); !errors.Is(err, reason) || !strings.Contains(err.Error(), "ema") {
		t.Error(err)
	}
}

func isBad(err error, says string) bool {
	var e *Error
	return errors.As(err, &e) && strings.Contains(err.Error(), says) && !strings.Contains(err.Error(), "\n")
}

func TestEveryFlippedByteIsFound(t *testing.T) {
	path := save(t, t.TempDir(), 9, 0)
	for _, name := range []string{"model.safetensors", "ema.safetensors", configName, manifestName} {
		file := filepath.Join(path, name)
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := range good {
			b := bytes.Clone(good)
			b[i] ^= 1
			if err := os.WriteFile(file, b, 0o644); err != nil {
				t.Fatal(err)
			}
			// A flip inside a file name of the manifest may be reported as that file.
			_, err := Open(path)
			if !isBad(err, name) && (name != manifestName || !isBad(err, "")) {
				t.Fatalf("%s, byte %d: %v", name, i, err)
			}
		}
		if err := os.WriteFile(file, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(path); err != nil {
		t.Error(err)
	}
}

// manifest replaces a checkpoint's manifest by one that has the hash it names.
func manifest(step int64, files ...File) func(dir string) error {
	return func(dir string) (err error) {
		m := Manifest{Format: Format, Step: step, Files: files}
		if m.Hash, err = m.computeHash(); err != nil {
			return err
		}
		b, err := m.encode()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, manifestName), b, 0o644)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string) error
		says   string
	}{
		"file missing":     {func(d string) error { return os.Remove(filepath.Join(d, "ema.safetensors")) }, "ema.safetensors is missing"},
		"file cut":         {func(d string) error { return os.Truncate(filepath.Join(d, "model.safetensors"), 50) }, "it has 50 bytes"},
		"manifest missing": {func(d string) error { return os.Remove(filepath.Join(d, manifestName)) }, "not a checkpoint"},
		"manifest no JSON": {func(d string) error { return os.WriteFile(filepath.Join(d, manifestName), []byte("x"), 0o644) }, "not readable"},
		"later format": {func(d string) error {
			return os.WriteFile(filepath.Join(d, manifestName), []byte(`{"format": 2}`), 0o644)
		}, "format 2"},
		"file outside":   {manifest(1, File{Name: "../x"}), "impossible file name"},
		"manifest twice": {manifest(1, File{Name: manifestName}), "impossible file name"},
		"step before 0":  {manifest(-1, File{Name: configName}), "impossible step -1"},
		"step too late":  {manifest(math.MaxInt64, File{Name: configName}), "impossible step"},
		"no config":      {manifest(1), "does not list config.json"},
	} {
		path := save(t, t.TempDir(), 1, 0)
		if err := c.change(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !isBad(err, c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !isBad(err, "not a checkpoint") {
		t.Error(err)
	}
}

func TestMatchNamesTheFirstDifference(t *testing.T) {
	info := func(name string, shape ...int) safetensors.Info {
		return safetensors.Info{Name: name, DType: safetensors.F32, Shape: shape}
	}
	want := []safetensors.Info{info("conv_in.weight", 8, 1, 3, 3), info("conv_in.bias", 8), info("conv_out.bias", 1)}
	for _, c := range []struct {
		have []safetensors.Info
		says string
	}{
		{[]safetensors.Info{want[2], want[0], want[1]}, ""},
		{[]safetensors.Info{info("conv_in.bias", 4), info("conv_in.weight", 4, 1, 3, 3)}, `"conv_in.weight" is F32 [4, 1, 3, 3], the network needs F32 [8, 1, 3, 3]`},
		{want[:2], `"conv_out.bias" is missing`},
		{append(want[:3:3], info("extra", 1)), `a tensor "extra"`},
		{[]safetensors.Info{want[0], {Name: "conv_in.bias", DType: safetensors.F64, Shape: []int{8}}, want[2]}, `"conv_in.bias" is F64`},
	} {
		err := Match(c.have, want)
		if (c.says == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%v; want %q", err, c.says)
		}
	}
}

func FuzzManifest(f *testing.F) {
	good, err := os.ReadFile(filepath.Join(save(f, f.TempDir(), 9, 0), manifestName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format": 1, "step": -1, "files": null, "hash": ""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text)
		if err != nil {
			return
		}
		if again, err := m.encode(); err != nil || !bytes.Equal(again, text) || m.Step < 0 || !m.lists(configName) {
			t.Errorf("%q is taken for %+v", text, m)
		}
	})
}
