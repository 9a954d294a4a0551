package kernels

import (
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"

	"ddgpu/gpu"
)

func TestLoad(t *testing.T) {
	for _, spec := range []string{"host", "host,tiles=gpu"} {
		for _, r := range []Precision{FP32, FP64} {
			OnDevice(t, spec, r, func(_ *gpu.Device, q *Queue) error {
				for _, k := range declared {
					if k.tensor {
						continue
					}
					if threads := q.geometry(k)[0]; threads < 1 || threads > 1024 {
						t.Errorf("%s %v: kernel %s has blocks of %d threads", spec, r, k.name, threads)
					}
				}
				return nil
			})
		}
	}
}

func TestLauncherThatForgotAnArgument(t *testing.T) {
	wrong := declare("add", "pppi")
	defer func() { declared = declared[:wrong.index] }()
	m, err := gpu.Open("host")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	err = m.Devices[0].Do(func() error {
		_, err := Load(m.Devices[0], FP32)
		return err
	})
	if err == nil || err.Error() != `kernel add takes the parameters "llll", its launcher passes "pppi"` {
		t.Errorf("got %v", err)
	}
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
