package driver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/NVIDIA/go-nvml/pkg/nvml" // as in the program: its link flags export every visible symbol
)

// openVariable tells the test program to open a spec and print what came of it.
const openVariable = "DDGPU_TEST_OPEN"

// TestOpenedElsewhere is the program that TestLibcuda starts, with another libcuda.so.1 in its way.
func TestOpenedElsewhere(_ *testing.T) {
	spec := os.Getenv(openVariable)
	if spec == "" {
		return // not started by TestLibcuda
	}
	deviceRoot = os.Getenv(openVariable + "_ROOT")
	wslDriver = filepath.Join(deviceRoot, "wsl.so")
	procVersion = filepath.Join(deviceRoot, "version")
	notice, err := Open(spec)
	code, _ := ResultOf(err)
	fmt.Printf("host %v, notice %q, code %d, error %q\n", HostDevice(), notice, int(code), fmt.Sprint(err))
	Close()
}

// fakeLibcuda is an NVIDIA driver that has every entry point and whose cuInit and cuDeviceGetCount give what is asked for. Its cuInit calls
// an entry point of its own, which must not be found in the program instead.
const fakeLibcuda = `
#define CU_REQUIRED(name, params, args) int name() { return 0; }
#define CU_OPTIONAL CU_REQUIRED
#define CU_INIT(name, params, args)
int cuDriverGetVersion(int* version);
int cuInit(unsigned flags) {
  int version;
  return INIT ? INIT : cuDriverGetVersion(&version);
}
#define cuDeviceGetCount unused_count
#define cuDriverGetVersion unused_version
#include "cuda_entries.h"
#undef cuDeviceGetCount
#undef cuDriverGetVersion
int cuDriverGetVersion(int* version) { *version = 11040; return 0; }
int cuDeviceGetCount(int* count) { *count = COUNT; return 0; }
int cuGetErrorName(int code, const char** name) { *name = code == 100 ? "CUDA_ERROR_NO_DEVICE" : "ANOTHER"; return 0; }
`

// How the process opens where there is no libcuda.so.1, one that fails, one without GPUs, an old one, and one with a GPU.
func TestLibcuda(t *testing.T) {
	const automatic = "no NVIDIA GPU on this machine: running on the CPU (host device)"
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, source string // of libcuda.so.1
		nodes        string // device nodes; wsl.so stands for the library that Windows lends
		variable     string // that a launcher sets
		spec         string
		want         string
	}{
		{name: "none, auto", spec: "auto", want: fmt.Sprintf("host true, notice %q, code 0", automatic)},
		{name: "none, cuda", spec: "cuda", want: `host false, notice "", code 303, error "NVIDIA's driver library cannot be loaded: `},
		{name: "none, auto, a node", nodes: "nvidia0", spec: "auto", want: `nvidia0 exists; --devices host runs on the CPU)`},
		{name: "none, auto, a Jetson", nodes: "nvgpu", spec: "auto", want: `nvgpu exists; --devices host runs on the CPU)`},
		{name: "none, auto, an older Jetson", nodes: "nvhost-gpu", spec: "auto", want: `nvhost-gpu exists; --devices host runs on the CPU)`},
		{name: "none, auto, another maker's GPU under WSL", nodes: "dxg", spec: "auto", want: "host true"},
		{name: "none, auto, WSL", nodes: "dxg wsl.so", spec: "auto", want: `wsl.so exist; --devices host runs on the CPU)`},
		{name: "none, auto, assigned", variable: "CUDA_VISIBLE_DEVICES=0", spec: "auto", want: `(CUDA_VISIBLE_DEVICES=0; --devices host`},
		{name: "none, auto, none assigned", variable: "CUDA_VISIBLE_DEVICES=", spec: "auto", want: "host true"},
		{name: "fails, auto", source: "-DINIT=100 -DCOUNT=0", spec: "auto", want: "host true"},
		{name: "fails, cuda", source: "-DINIT=100 -DCOUNT=0", spec: "cuda",
			want: `code 100, error "NVIDIA's driver does not start: cuInit returned CUDA_ERROR_NO_DEVICE: nvidia-smi shows`},
		{name: "fails, auto, a node", source: "-DINIT=100 -DCOUNT=0", nodes: "nvidiactl", spec: "auto", want: "nvidiactl exists"},
		{name: "no GPU, cuda", source: "-DINIT=0 -DCOUNT=0", spec: "cuda", want: `code 100, error "NVIDIA's driver finds no GPU: nvidia-smi shows`},
		{name: "no GPU, hidden", source: "-DINIT=100 -DCOUNT=0", variable: "CUDA_VISIBLE_DEVICES=9", spec: "cuda",
			want: `CUDA_VISIBLE_DEVICES=9 leaves none`},
		{name: "no fabric manager", source: "-DINIT=802 -DCOUNT=1", spec: "cuda", want: `nvidia-fabricmanager`},
		{name: "another kernel module", source: "-DINIT=803 -DCOUNT=1", spec: "cuda",
			want: `libcuda.so.1, the kernel module 535.161.08)`},
		{name: "forward compatibility", source: "-DINIT=804 -DCOUNT=1", spec: "cuda", want: `take its folder out of LD_LIBRARY_PATH`},
		{name: "stub", source: "-DINIT=34 -DCOUNT=1", spec: "cuda", want: `is the CUDA toolkit's stub`},
		{name: "a GPU, cuda", source: "-DINIT=0 -DCOUNT=1", spec: "cuda", want: `host false, notice "", code 0, error "<nil>"`},
		{name: "a GPU, auto", source: "-DINIT=0 -DCOUNT=1", nodes: "nvidia0", spec: "auto", want: `host false, notice "", code 0`},
		{name: "old, cuda", source: "-DINIT=0 -DCOUNT=1 -DcuLaunchKernel=renamed", spec: "cuda",
			want: `code 302, error "NVIDIA's driver is older than CUDA 11.4: libcuda.so.1 has no cuLaunchKernel: ` +
				`it must be NVIDIA driver 470.42.01 or newer (CUDA 11.4) (the library is `},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			if c.source != "" {
				file := filepath.Join(folder, "cuda.c")
				if err := os.WriteFile(file, []byte(fakeLibcuda), 0o644); err != nil {
					t.Fatal(err)
				}
				arguments := append(strings.Fields(c.source), "-shared", "-fPIC", "-w", "-I", here, "-o", filepath.Join(folder, "libcuda.so.1"), file)
				compiler := os.Getenv("CC")
				if compiler == "" {
					compiler = "cc"
				}
				if out, err := exec.Command(compiler, arguments...).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			root := filepath.Join(folder, "dev")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			const module = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Wed Jan 1 00:00:00 UTC 2025\nGCC version:  gcc 12.2.0\n"
			if err := os.WriteFile(filepath.Join(root, "version"), []byte(module), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, node := range strings.Fields(c.nodes) {
				if err := os.WriteFile(filepath.Join(root, node), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			command := exec.Command(os.Args[0], "-test.run=^TestOpenedElsewhere$")
			for _, variable := range os.Environ() {
				name, _, _ := strings.Cut(variable, "=")
				switch name {
				case "CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "GPU_DEVICE_ORDINAL", "NVIDIA_VISIBLE_DEVICES":
				default:
					command.Env = append(command.Env, variable)
				}
			}
			command.Env = append(command.Env, openVariable+"="+c.spec, openVariable+"_ROOT="+root, "LD_LIBRARY_PATH="+folder)
			if c.variable != "" {
				command.Env = append(command.Env, c.variable)
			}
			out, err := command.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if !strings.Contains(string(out), c.want) {
				t.Errorf("got\n%swant\n%s", out, c.want)
			}
		})
	}
}
