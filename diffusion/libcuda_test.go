package diffusion

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ddgpu/gpu"
)

// libcudaSource is the part of a libcuda.so.1 around the host device: the entry points as NVIDIA's driver has them, in front of the host device's
// dispatch, whose own have the names inner_…
const libcudaSource = `
#include "dispatch/dispatch.h"
#define CU_REQUIRED(name, params, args) \
  CUresult inner_##name params;         \
  CUresult name params { return inner_##name args; }
#define CU_OPTIONAL CU_REQUIRED
#define CU_INIT(name, params, args)
#include "cuda_entries.h"
CUresult cuInit(unsigned flags) {
  static ddgpu_host_config config;
  static char error[256];
  static int opened;
  if (opened) return CUDA_SUCCESS;
  config.devices = 2;
  config.ptx = PTX;
  const CUresult code = ddgpu_open_host(&config, error, sizeof error);
  opened = code == CUDA_SUCCESS;
  return code;
}
`

// buildLibcuda makes a libcuda.so.1 that is the host device, and returns its folder.
func buildLibcuda(t *testing.T, flags ...string) string {
	t.Helper()
	const driver, library = "../gpu/driver", "../build/host/lib/libcuda.a"
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	entries := must(os.ReadFile(filepath.Join(driver, "cuda_entries.h")))(t)
	var names strings.Builder
	for _, m := range regexp.MustCompile(`(?m)^CU_(?:REQUIRED|OPTIONAL|INIT)\((\w+),`).FindAllSubmatch(entries, -1) {
		fmt.Fprintf(&names, "%s inner_%s\n", m[1], m[1])
	}
	ok(t, os.WriteFile(in("names"), []byte(names.String()), 0o644))
	ok(t, os.WriteFile(in("libcuda.c"), []byte(libcudaSource), 0o644))
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "cc"
	}
	for _, command := range [][]string{
		{"objcopy", "--redefine-syms=" + in("names"), library, in("inner.a")},
		append([]string{compiler, "-shared", "-fPIC", "-w", "-I", driver, "-o", in("libcuda.so.1"), in("libcuda.c"), in("inner.a"), "-l:libstdc++.a", "-lm", "-lpthread", "-ldl"}, flags...),
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	return folder
}

// onlibcuda says what TestOnLibcuda does, in a program of its own: a device spec and a precision.
const onLibcuda = "DDGPU_TEST_ON_LIBCUDA"

// TestOnLibcuda is the program that TestThroughLibcuda starts, with a libcuda.so.1 in its way.
func TestOnLibcuda(t *testing.T) {
	spec, precision, _ := strings.Cut(os.Getenv(onLibcuda), " ")
	if spec == "" {
		return // not started by TestThroughLibcuda
	}
	m, err := gpu.Open(spec)
	if err != nil {
		fmt.Printf("not opened: %v\n", err)
		return
	}
	compiled := make(chan struct{}, 1000)
	m.OnCompile = func(gpu.Compilation) { compiled <- struct{}{} }
	c := throughLibcuda(precision)
	images, heldOut := sets(c)
	trainer, err := NewTrainer(m, c, images, heldOut)
	if err != nil {
		fmt.Printf("no trainer: %v\n", err)
		ok(t, m.Close())
		return
	}
	ok(t, trainer.Close())
	fmt.Printf("host %v, notice %q, compiled %v\n", m.Host, m.Notice, len(compiled) > 0)
	ok(t, m.Close())
	o := train(t, spec, c, 0)
	fmt.Printf("hash %s, validation %v, images %v\n", o.hash, o.val, o.images)
}

func throughLibcuda(precision string) Config {
	c := tiny()
	c.Precision, c.Train.Steps = precision, 2
	return c
}

// TestThroughLibcuda trains by way of a libcuda.so.1, as on a machine with GPUs: what the program does where it does not know that the devices are
// the host's. The library is the host device behind the names of NVIDIA's driver, once with the kernels that were compiled for the CPU, once, as a
// chip of compute capability 8.0, with an interpreter of the PTX.
func TestThroughLibcuda(t *testing.T) {
	compiled, interpreting := buildLibcuda(t, "-DPTX=0"), buildLibcuda(t, "-DPTX=1")
	for _, v := range []struct {
		library, spec, precision string
		host                     string   // devices and precision that leave the same bits
		want                     []string // of the first start, of the second one
	}{
		{compiled, "cuda", "fp32", "host fp32", []string{`host false, notice "", compiled true`, `host false, notice "", compiled false`}},
		{compiled, "cuda:1", "auto", "host fp32", []string{`host false, notice "", compiled true`}},
		{interpreting, "cuda", "auto", "ptx bf16", []string{`host false, notice "", compiled true`}},
		{compiled, "cuda", "bf16", "", []string{"no trainer: configuration: precision bf16 needs a GPU of compute capability 8.0 or newer, device 0 (host device 0 ("}},
		{compiled, "cuda:0,2", "fp32", "", []string{"not opened: cuda:0,2: there is no device 2, NVIDIA's driver shows 2, counted from 0"}},
	} {
		cache := t.TempDir()
		for start, want := range v.want {
			command := exec.Command(os.Args[0], "-test.run=^TestOnLibcuda$")
			command.Env = append(os.Environ(), onLibcuda+"="+v.spec+" "+v.precision, "LD_LIBRARY_PATH="+v.library, "DDGPU_CACHE="+cache)
			out, err := command.CombinedOutput()
			if spec, precision, ran := strings.Cut(v.host, " "); ran {
				o := train(t, spec, throughLibcuda(precision), 0)
				want += fmt.Sprintf("\nhash %s, validation %v, images %v\n", o.hash, o.val, o.images)
			}
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s %s, start %d: %v\ngot\n%swant\n%s", v.spec, v.precision, start, err, out, want)
			}
		}
	}
}
