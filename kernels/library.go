// Package kernels holds the CUDA sources, the PTX that they compile to, and a typed launcher for each.
//
// A [Library] is the kernels loaded on one device in one precision; a [Queue] launches them on one stream:
//
//	library, err := kernels.Load(device, kernels.FP32)
//	q := library.NewQueue(stream)
//	q.ConvForward(shape, y, x, w, kernels.Epilogue{Bias: b})
//	q.SiLUForward(n, z, y)
//	err = q.Err()
//
// Launchers return nothing: a queue keeps its first error, and launches nothing after it. All calls are made inside [gpu.Device.Do].
//
// Every kernel assigns its output; none accumulates into memory that another launch wrote. Sums have a fixed order that depends on the
// shape of one image and on the size of a shard, never on the batch, the device or its number of multiprocessors, so that a result has the
// same bits however the work is divided.
package kernels

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"ddgpu/gpu"
	"ddgpu/gpu/driver"
)

//go:embed ptx/*/*.ptx
var ptxFiles embed.FS

// declaration is what a launcher passes to a kernel: one letter for each parameter, p for a pointer, i for a 32-bit integer, l for a 64-bit
// integer, r for a number of the type that sums have.
type declaration struct {
	name   string
	params string
	index  int
	tensor bool // exists on tensor cores only
}

var declared []declaration

// declare names a kernel that launchers use. Load checks it against the PTX entry of that name.
func declare(name, params string) declaration {
	d := declaration{name: name, params: params, index: len(declared)}
	declared = append(declared, d)
	return d
}

// declareTensor names a kernel of the builds for tensor cores; the others need not have it.
func declareTensor(name, params string) declaration {
	d := declare(name, params)
	d.tensor = true
	declared[d.index] = d
	return d
}

// Library is the kernels loaded on one device.
type Library struct {
	device    *gpu.Device
	precision Precision
	modules   []*gpu.Module
	kernels   []kernel // by declaration.index
}

// Declared is the names of all kernels that launchers use: those of every build, or those that only the builds for tensor cores have.
func Declared(tensor bool) []string {
	var names []string
	for _, k := range declared {
		if k.tensor == tensor {
			names = append(names, k.name)
		}
	}
	return names
}

type kernel struct {
	function *gpu.Function
	geometry []int32
	launches int64
}

// builds are the folders that hold a precision's PTX; a file of a folder hides those of its name in the next ones.
func (p Precision) builds() []string {
	switch p {
	case TF32:
		return []string{"sm_80_tf32", "sm_70"}
	case BF16:
		return []string{"sm_80_bf16"}
	}
	return []string{"sm_70"}
}

// Load loads all kernels on a device, inside its Do.
func Load(d *gpu.Device, p Precision) (*Library, error) {
	l := &Library{device: d, precision: p, kernels: make([]kernel, len(declared))}
	found := map[string]bool{}
	loaded := map[string]bool{}
	for _, build := range p.builds() {
		files, err := fs.Glob(ptxFiles, path.Join("ptx", build, "*.ptx"))
		if err != nil || len(files) == 0 {
			return nil, errors.New("the program was built without kernels")
		}
		for _, file := range files {
			name := strings.TrimSuffix(path.Base(file), ".ptx")
			if loaded[name] {
				continue
			}
			loaded[name] = true
			text, err := ptxFiles.ReadFile(file)
			if err != nil {
				return nil, err
			}
			if err := l.load(name, hostComment(p, build)+string(text), found); err != nil {
				return nil, errors.Join(err, l.Close())
			}
		}
	}
	for _, k := range declared {
		if !found[k.name] && !k.tensor {
			return nil, errors.Join(fmt.Errorf("kernel %s is in none of the PTX files", k.name), l.Close())
		}
	}
	return l, nil
}

// hostComment tells the host device which of its builds of a kernel serves; a comment to everyone else.
func hostComment(p Precision, build string) string {
	if p == FP32 || p == TF32 && build == "sm_70" {
		return ""
	}
	return "// ddgpu precision=" + p.String() + "\n"
}

func (l *Library) load(name, ptx string, found map[string]bool) error {
	entries, err := entriesOf(ptx)
	if err != nil {
		return fmt.Errorf("kernels %s: %w", name, err)
	}
	m, err := l.device.LoadModule(name, ptx)
	if err != nil {
		return err
	}
	l.modules = append(l.modules, m)
	for _, k := range declared {
		params, ok := entries[k.name]
		if !ok {
			continue
		}
		if params != strings.ReplaceAll(k.params, "p", "l") {
			return fmt.Errorf("kernel %s takes the parameters %q, its launcher passes %q", k.name, params, k.params)
		}
		f, err := m.Function(k.name)
		if k.tensor && errors.Is(err, driver.NotFound) {
			continue // the CPU's configuration of the host device has no tensor cores
		}
		if err != nil {
			return err
		}
		found[k.name] = true
		geometry, err := m.Ints(k.name + "_geometry")
		if err != nil {
			return err
		}
		l.kernels[k.index] = kernel{function: f, geometry: geometry}
	}
	return nil
}

var (
	entryPattern = regexp.MustCompile(`(?s)\.entry\s+(\w+)\s*\(([^)]*)\)`)
	paramPattern = regexp.MustCompile(`\.param\s+\.(\w+)`)
)

// entriesOf reads the entries of PTX text with their parameters as declare writes them, where a pointer is a 64-bit integer.
func entriesOf(ptx string) (map[string]string, error) {
	entries := map[string]string{}
	for _, m := range entryPattern.FindAllStringSubmatch(ptx, -1) {
		params := ""
		for _, p := range paramPattern.FindAllStringSubmatch(m[2], -1) {
			switch p[1] {
			case "u64", "s64", "b64":
				params += "l"
			case "u32", "s32", "b32":
				params += "i"
			case "f32":
				params += "r"
			default:
				return nil, fmt.Errorf("entry %s has a parameter of type %s", m[1], p[1])
			}
		}
		entries[m[1]] = params
	}
	return entries, nil
}

// Close unloads the kernels.
func (l *Library) Close() error {
	var errs []error
	for _, m := range l.modules {
		errs = append(errs, m.Close())
	}
	l.modules = nil
	return errors.Join(errs...)
}

// Precision is what the kernels were loaded for.
func (l *Library) Precision() Precision { return l.precision }

// Device is where the kernels are loaded.
func (l *Library) Device() *gpu.Device { return l.device }

// Launches is how often each kernel has been launched, by name, without those that never were.
func (l *Library) Launches() map[string]int64 {
	counts := map[string]int64{}
	for _, k := range declared {
		if n := l.kernels[k.index].launches; n > 0 {
			counts[k.name] = n
		}
	}
	return counts
}
