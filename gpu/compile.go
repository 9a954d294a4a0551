package gpu

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"gorgonia.org/cu"

	"ddgpu/gpu/cubin"
	"ddgpu/gpu/driver"
)

// Compilation is PTX that the driver's compiler turned into machine code.
type Compilation struct {
	Module string
	Device *Device
	Took   time.Duration
	// Kept is nil when the code is cached for later processes, or why it is not.
	Kept error
}

// Chip is what the code was made for, such as sm_90.
func (c Compilation) Chip() string { return c.Device.chip() }

func (c Compilation) String() string {
	text := fmt.Sprintf("compiled %s for %s (%s) in %.1f s", c.Module, c.Device.Name, c.Chip(), c.Took.Seconds())
	if c.Kept != nil {
		return text + ", not cached: " + c.Kept.Error()
	}
	return text + ", cached"
}

// chip names the device's architecture as ptxas does.
func (d *Device) chip() string { return fmt.Sprintf("sm_%d%d", d.Major, d.Minor) }

// jitOptions are the options of the driver's compiler, as far as they change the code.
const jitOptions = "line information"

// compiler gives the devices of a machine the machine code of PTX: from the cache's folder, or compiled once for all devices of one chip.
type compiler struct {
	machine *Machine
	direct  bool         // PTX is loaded as it is
	cache   *cubin.Cache // nil where there is none
	none    error        // why
	driver  string

	mutex sync.Mutex
	codes map[cubin.Key]*code
}

// code is the machine code of one module for one chip, nil before it is known.
type code struct {
	mutex sync.Mutex
	image []byte
}

// newCompiler makes the compiler of an open driver. The host device runs PTX as it is, unless a cache is asked for.
func newCompiler(m *Machine, getenv func(string) string) *compiler {
	c := &compiler{machine: m, driver: driver.Identity(), codes: map[cubin.Key]*code{}}
	folder, err := cacheFolder(getenv)
	if err != nil {
		c.none = err
	} else {
		c.cache = cubin.New(folder)
	}
	c.direct = m.Host && getenv("DDGPU_CACHE") == ""
	return c
}

// cacheFolder is where compiled kernels are kept: $DDGPU_CACHE, $XDG_CACHE_HOME/ddgpu or ~/.cache/ddgpu.
func cacheFolder(getenv func(string) string) (string, error) {
	switch value := getenv("DDGPU_CACHE"); {
	case value == "off":
		return "", errors.New("DDGPU_CACHE=off")
	case value != "":
		return value, nil
	case getenv("CUDA_CACHE_DISABLE") == "1":
		return "", errors.New("CUDA_CACHE_DISABLE=1")
	}
	if folder := getenv("XDG_CACHE_HOME"); filepath.IsAbs(folder) {
		return filepath.Join(folder, "ddgpu"), nil
	}
	home := getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", errors.New("there is no home folder; DDGPU_CACHE can name one for the cache")
	}
	return filepath.Join(home, ".cache", "ddgpu"), nil
}

func (c *compiler) load(d *Device, name, ptx string) (cu.Module, error) {
	if c.direct {
		return driver.LoadModule(ptx)
	}
	key := cubin.KeyOf(ptx, c.driver, d.chip(), jitOptions)
	known := c.code(key)
	known.mutex.Lock() // other devices of the chip wait for the first one's compiler
	defer known.mutex.Unlock()
	if known.image == nil {
		known.image = c.cached(key)
	}
	if known.image != nil {
		m, err := driver.LoadCode(known.image)
		if !refused(err) {
			return m, err
		}
		known.image = nil // whole, but not what this driver takes
	}
	start := time.Now()
	image, err := driver.Compile(ptx)
	if errors.Is(err, driver.NotSupported) {
		return driver.LoadModule(ptx)
	}
	if err != nil {
		return cu.Module{}, err
	}
	told := Compilation{Module: name, Device: d, Took: time.Since(start), Kept: c.keep(key, image)}
	m, err := driver.LoadCode(image)
	if err != nil {
		return m, err
	}
	known.image = image
	c.tell(told)
	return m, nil
}

func (c *compiler) tell(told Compilation) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if f := c.machine.OnCompile; f != nil {
		f(told)
	}
}

func (c *compiler) code(key cubin.Key) *code {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.codes[key] == nil {
		c.codes[key] = &code{}
	}
	return c.codes[key]
}

// cached is the code in the cache, nil where it has none that can be used: then it is compiled, which says nothing that a user could mend.
func (c *compiler) cached(key cubin.Key) []byte {
	if c.cache == nil {
		return nil
	}
	image, err := c.cache.Get(key)
	if err != nil {
		return nil
	}
	return image
}

func (c *compiler) keep(key cubin.Key, image []byte) error {
	if c.cache == nil {
		return c.none
	}
	if err := c.cache.Put(key, image); err != nil {
		return fmt.Errorf("%w; DDGPU_CACHE can name another folder", err)
	}
	return nil
}

// refused says whether an error is about the code, not about the device.
func refused(err error) bool {
	result, ok := driver.ResultOf(err)
	return ok && slices.Contains([]driver.Result{driver.InvalidImage, driver.NoBinaryForGPU, driver.InvalidPTX, driver.UnsupportedPTXVersion}, result)
}
