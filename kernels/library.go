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
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"sync"

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

// Library is the kernels of one device. A module is loaded, and compiled if need be, when the first of its kernels is launched, or when a
// graph with it is captured.
type Library struct {
	device    *gpu.Device
	precision Precision
	compiled  bool                   // see LoadCompiled
	files     map[string]ptxFile     // by the name of an entry
	modules   map[string]*gpu.Module // those that are loaded, by the name of the file
	kernels   []kernel               // by declaration.index
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

// Load prepares the kernels for a device, inside its Do. That each is there is certain then; whether its parameters are those that its
// launcher passes is looked at when it is loaded.
func Load(d *gpu.Device, p Precision) (*Library, error) {
	files, err := p.files()
	if err != nil {
		return nil, err
	}
	for _, k := range declared {
		if _, found := files[k.name]; !found && !k.tensor {
			return nil, fmt.Errorf("kernel %s is in none of the PTX files", k.name)
		}
	}
	return &Library{device: d, precision: p, files: files, modules: map[string]*gpu.Module{}, kernels: make([]kernel, len(declared))}, nil
}

// LoadCompiled is Load of the kernels that were compiled for the CPU in the GPU's configuration, on a device that interprets PTX otherwise.
func LoadCompiled(d *gpu.Device, p Precision) (*Library, error) {
	l, err := Load(d, p)
	if err == nil {
		l.compiled = true
	}
	return l, err
}

// ptxFile is one of the embedded files.
type ptxFile struct{ name, build string }

func (f ptxFile) read() ([]byte, error) {
	return ptxFiles.ReadFile(path.Join("ptx", f.build, f.name+".ptx"))
}

var listings [len(precisionNames)]struct {
	once  sync.Once
	files map[string]ptxFile
	err   error
}

// files lists the entries of a precision, each with the file that it is in.
func (p Precision) files() (map[string]ptxFile, error) {
	l := &listings[p]
	l.once.Do(func() { l.files, l.err = p.list() })
	return l.files, l.err
}

func (p Precision) list() (map[string]ptxFile, error) {
	entries, seen := map[string]ptxFile{}, map[string]bool{}
	for _, build := range p.builds() {
		names, err := fs.Glob(ptxFiles, path.Join("ptx", build, "*.ptx"))
		if err != nil || len(names) == 0 {
			return nil, errors.New("the program was built without kernels")
		}
		for _, name := range names {
			f := ptxFile{strings.TrimSuffix(path.Base(name), ".ptx"), build}
			if seen[f.name] {
				continue
			}
			seen[f.name] = true
			text, err := f.read()
			if err != nil {
				return nil, err
			}
			for _, entry := range entryNames(text) {
				entries[entry] = f
			}
		}
	}
	return entries, nil
}

// entryNames finds the names of the entries of PTX text and looks at nothing else.
func entryNames(text []byte) (names []string) {
	for {
		var found bool
		if _, text, found = bytes.Cut(text, []byte(".entry ")); !found {
			return names
		}
		name, _, _ := bytes.Cut(text[:min(len(text), 256)], []byte("("))
		names = append(names, string(bytes.TrimSpace(name)))
	}
}

// kernel gives a kernel, after loading its module where that has not been done.
func (l *Library) kernel(k declaration) (*kernel, error) {
	loaded := &l.kernels[k.index]
	if loaded.function != nil {
		return loaded, nil
	}
	file, found := l.files[k.name]
	if found && l.modules[file.name] == nil {
		if err := l.load(file); err != nil {
			return nil, err
		}
	}
	if loaded.function == nil {
		return nil, fmt.Errorf("kernel %s is not made for %v on %s", k.name, l.precision, l.device.Name)
	}
	return loaded, nil
}

// has says whether a kernel of the builds for tensor cores is there.
func (l *Library) has(k declaration) bool {
	loaded := &l.kernels[k.index]
	if loaded.function != nil {
		return true
	}
	file, found := l.files[k.name]
	if !found || l.modules[file.name] != nil || l.load(file) != nil {
		return false
	}
	return loaded.function != nil
}

// hostComment tells the host device which of its builds of a kernel serves; a comment to everyone else.
func (l *Library) hostComment(build string) string {
	comment := ""
	if l.precision != FP32 && (l.precision != TF32 || build != "sm_70") {
		comment += " precision=" + l.precision.String()
	}
	if l.compiled {
		comment += " executor=compiled"
	}
	if comment == "" {
		return ""
	}
	return "// ddgpu" + comment + "\n"
}

// load loads a module with all of its kernels. One that fails is tried again when it is next needed.
func (l *Library) load(file ptxFile) error {
	text, err := file.read()
	if err != nil {
		return err
	}
	entries, err := entriesOf(string(text))
	if err != nil {
		return fmt.Errorf("kernels %s: %w", file.name, err)
	}
	var inside []declaration
	for _, k := range declared {
		params, found := entries[k.name]
		if !found || l.files[k.name] != file {
			continue
		}
		if params != strings.ReplaceAll(k.params, "p", "l") {
			return fmt.Errorf("kernel %s takes the parameters %q, its launcher passes %q", k.name, params, k.params)
		}
		inside = append(inside, k)
	}
	m, err := l.device.LoadModule(file.name, l.hostComment(file.build)+string(text))
	if err != nil {
		return err
	}
	for _, k := range inside {
		f, err := m.Function(k.name)
		if k.tensor && errors.Is(err, driver.NotFound) {
			continue // the CPU's configuration of the host device has no tensor cores
		}
		var geometry []int32
		if err == nil {
			geometry, err = m.Ints(k.name + "_geometry")
		}
		if err != nil {
			return errors.Join(err, m.Close())
		}
		l.kernels[k.index] = kernel{function: f, geometry: geometry}
	}
	l.modules[file.name] = m
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
	l.modules, l.kernels = map[string]*gpu.Module{}, make([]kernel, len(l.kernels))
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
