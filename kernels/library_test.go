package kernels

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ddgpu/gpu"
)

func TestLoad(t *testing.T) {
	for _, spec := range []string{"host", "host,tiles=gpu"} {
		for _, p := range []Precision{FP32, TF32, FP64} {
			OnDevice(t, spec, p, func(_ *gpu.Device, q *Queue) error {
				for _, k := range declared {
					if k.tensor {
						continue
					}
					if threads := q.geometry(k)[0]; threads < 1 || threads > 1024 {
						t.Errorf("%s %v: kernel %s has blocks of %d threads", spec, p, k.name, threads)
					}
				}
				return q.Err()
			})
		}
	}
}

// What is not declared rightly is found: a name when the library is made, parameters when the module is loaded.
func TestDeclaredWrongly(t *testing.T) {
	OnDevice(t, "host", FP32, func(d *gpu.Device, _ *Queue) error {
		unknown := declare("nobody_wrote_this", "p")
		_, err := Load(d, FP32)
		declared = declared[:unknown.index]
		if err == nil || err.Error() != "kernel nobody_wrote_this is in none of the PTX files" {
			t.Errorf("got %v", err)
		}
		wrong := declare("add", "pppi")
		defer func() { declared = declared[:wrong.index] }()
		l, err := Load(d, FP32)
		if err != nil {
			return err
		}
		for range 2 {
			s, err := d.NewStream()
			if err != nil {
				return err
			}
			q := l.NewQueue(s)
			if g := q.geometry(wrong); g[0] != 1 || q.Err() == nil ||
				q.Err().Error() != `kernel add takes the parameters "llll", its launcher passes "pppi"` {
				t.Errorf("geometry %v, got %v", g, q.Err())
			}
		}
		return nil
	})
}

// Modules are loaded by the first launch, also one in a capture, during which the driver would not allow it.
func TestLoadedWhenNeeded(t *testing.T) {
	OnDevice(t, "host", FP32, func(d *gpu.Device, q *Queue) error {
		loaded := func(want ...string) {
			t.Helper()
			names := slices.Sorted(maps.Keys(q.library.modules))
			if !slices.Equal(names, want) {
				t.Errorf("%v are loaded, want %v", names, want)
			}
		}
		loaded()
		const n = 100
		p, err := d.Alloc("numbers", 4*n)
		if err != nil {
			return err
		}
		if err := d.Write(p, gpu.Bytes(slices.Repeat([]float32{1}, n))); err != nil {
			return err
		}
		q.Add(n, p, p, p) // 2
		loaded("add")
		g, err := q.Stream().Capture(func() error {
			q.Add(n, p, p, p)
			q.Scale(n, p, p, 3)
			return q.Err()
		})
		if err != nil {
			return err
		}
		loaded("add", "scale")
		if err := errors.Join(g.Launch(q.Stream()), g.Launch(q.Stream()), q.Stream().Sync()); err != nil { // 12, 72
			return err
		}
		back := make([]float32, n)
		if err := d.Read(gpu.Bytes(back), p); err != nil {
			return err
		}
		if back[0] != 72 || back[n-1] != 72 || g.Nodes != 2 {
			t.Errorf("a graph of %d operations gives %v … %v", g.Nodes, back[0], back[n-1])
		}
		if counts := q.library.Launches(); counts["add"] != 2 || counts["scale"] != 1 {
			t.Errorf("launches %v", counts)
		}
		return errors.Join(g.Close(), q.library.Close())
	})
}

// Profilers find the lines of the sources, by names that do not depend on where the program was built.
func TestPTXLines(t *testing.T) {
	files, err := fs.Glob(ptxFiles, "ptx/*/*.ptx")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	name := regexp.MustCompile(`(?m)^\s*\.file\s+\d+ "(.*)"$`)
	for _, file := range files {
		text, err := ptxFiles.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source := "./kernels/" + strings.TrimSuffix(path.Base(file), ".ptx") + ".cu"
		found := false
		for _, m := range name.FindAllStringSubmatch(string(text), -1) {
			found = found || m[1] == source
			if !strings.HasPrefix(m[1], "./kernels/") && !strings.HasPrefix(m[1], "clang/") {
				t.Errorf("%s names the file %s", file, m[1])
			}
		}
		if !found || !strings.Contains(string(text), "\t.loc\t") {
			t.Errorf("%s has no lines of %s", file, source)
		}
		if strings.Contains(string(text), "$L__tmp") {
			t.Errorf("%s has labels of line information, which change what ptxas makes of it", file)
		}
	}
}
