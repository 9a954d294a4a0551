package gpu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ddgpu/gpu/cubin"
	"ddgpu/gpu/driver"
)

const addPTX = "../kernels/ptx/sm_70/add.ptx"

// loading opens a machine, loads a module on each device at the same time, and gives what was compiled and the first device's error.
func loading(t *testing.T, spec, ptx string) (compiled []Compilation, err error) {
	t.Helper()
	m, err := Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	told := make(chan Compilation, 100)
	m.OnCompile = func(c Compilation) { told <- c }
	err = m.Each(func(d *Device) error {
		module, err := d.LoadModule("add", ptx)
		if err != nil {
			return err
		}
		if geometry, err := module.Ints("add_geometry"); err != nil || len(geometry) != 2 {
			t.Errorf("device %d: geometry %v, %v", d.Index, geometry, err)
		}
		_, err = module.Function("add")
		return errors.Join(err, module.Close())
	})
	close(told)
	for c := range told {
		compiled = append(compiled, c)
	}
	return compiled, err
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// entries are the files of a cache.
func entries(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCompileOnce(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "cache")
	t.Setenv("DDGPU_CACHE", folder)
	ptx := readFile(t, addPTX)
	compiled, err := loading(t, "host:3", ptx)
	if err != nil || len(compiled) != 1 || compiled[0].Kept != nil {
		t.Fatalf("three devices of one chip: compiled %v, %v", compiled, err)
	}
	for _, want := range []string{"compiled add for host device ", " (sm_", ") in 0.", " s, cached"} {
		if !strings.Contains(compiled[0].String(), want) {
			t.Errorf("%q says nothing of %q", compiled[0], want)
		}
	}
	files := entries(t, folder)
	if len(files) != 1 {
		t.Fatalf("the cache has %v", files)
	}
	if compiled, err := loading(t, "host:2", ptx); err != nil || len(compiled) != 0 {
		t.Errorf("again: compiled %v, %v", compiled, err)
	}
	if compiled, err := loading(t, "host", ptx+"\n// another text"); err != nil || len(compiled) != 1 || len(entries(t, folder)) != 2 {
		t.Errorf("another text: compiled %v, %v, the cache has %v", compiled, err, entries(t, folder))
	}

	// A damaged file, and one that is whole but whose code the driver does not take.
	whole := readFile(t, files[0])
	key := cubin.KeyOf(ptx, "host device", compiled[0].Chip(), jitOptions)
	for name, spoil := range map[string]func() error{
		"damaged": func() error { return os.WriteFile(files[0], []byte(whole[:len(whole)-1]), 0o600) },
		"refused": func() error { return cubin.New(folder).Put(key, []byte("no machine code")) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if compiled, err := loading(t, "host:2", ptx); err != nil || len(compiled) != 1 || compiled[0].Kept != nil {
			t.Errorf("%s: compiled %v, %v", name, compiled, err)
		}
		if readFile(t, files[0]) != whole {
			t.Errorf("%s: the file is not as it was", name)
		}
	}
}

// Without a folder that can be written, every process compiles.
func TestCompileWithoutCache(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{
		filepath.Join(file, "cache"): "not a directory; DDGPU_CACHE can name another folder",
		"off":                        "DDGPU_CACHE=off",
	} {
		t.Setenv("DDGPU_CACHE", value)
		for range 2 {
			compiled, err := loading(t, "host:2", readFile(t, addPTX))
			if err != nil || len(compiled) != 1 || compiled[0].Kept == nil {
				t.Fatalf("compiled %v, %v", compiled, err)
			}
			if text := compiled[0].String(); !strings.Contains(text, "s, not cached: ") || !strings.HasSuffix(text, want) {
				t.Errorf("%q does not end with %q", text, want)
			}
		}
	}
}

func TestCompileErrors(t *testing.T) {
	t.Setenv("DDGPU_CACHE", t.TempDir())
	for ptx, want := range map[string]driver.Result{
		"no PTX": driver.InvalidPTX,
		strings.Replace(readFile(t, addPTX), ".version 6.3", ".version 8.0", 1): driver.UnsupportedPTXVersion,
		".version 6.3\n.target sm_70\n.visible .entry nobody_wrote_this()":      driver.NoBinaryForGPU,
	} {
		compiled, err := loading(t, "host", ptx)
		if !errors.Is(err, want) || len(compiled) != 0 {
			t.Errorf("compiled %v, got %v, want %v", compiled, err, want)
		}
		var e *Error
		if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), "loading kernels add on device 0: ") || !strings.Contains(err.Error(), "): ") {
			t.Errorf("%v", err)
		}
	}
	if files := entries(t, os.Getenv("DDGPU_CACHE")); len(files) != 0 {
		t.Errorf("the cache has %v", files)
	}
}

func TestHostDeviceCompilesNothing(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("DDGPU_CACHE", "")
	if compiled, err := loading(t, "host", readFile(t, addPTX)); err != nil || len(compiled) != 0 || len(entries(t, home)) != 0 {
		t.Errorf("compiled %v, %v; at home there is %v", compiled, err, entries(t, home))
	}
}

func TestCacheFolder(t *testing.T) {
	for _, c := range []struct {
		variables map[string]string
		want      string // or a part of the reason why there is none
	}{
		{map[string]string{"HOME": "/home/ada"}, "/home/ada/.cache/ddgpu"},
		{map[string]string{"HOME": "/home/ada", "XDG_CACHE_HOME": "/cache"}, "/cache/ddgpu"},
		{map[string]string{"HOME": "/home/ada", "XDG_CACHE_HOME": "relative"}, "/home/ada/.cache/ddgpu"},
		{map[string]string{"HOME": "/home/ada", "XDG_CACHE_HOME": "/cache", "DDGPU_CACHE": "/scratch/kernels"}, "/scratch/kernels"},
		{map[string]string{"HOME": "/home/ada", "CUDA_CACHE_DISABLE": "1"}, "CUDA_CACHE_DISABLE=1"},
		{map[string]string{"CUDA_CACHE_DISABLE": "1", "DDGPU_CACHE": "/scratch"}, "/scratch"},
		{map[string]string{"HOME": "/home/ada", "DDGPU_CACHE": "off"}, "DDGPU_CACHE=off"},
		{map[string]string{}, "there is no home folder"},
	} {
		folder, err := cacheFolder(func(name string) string { return c.variables[name] })
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && folder != c.want {
			t.Errorf("%v: %q, %v; want %s", c.variables, folder, err, c.want)
		}
	}
}
