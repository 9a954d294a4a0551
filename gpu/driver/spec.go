package driver

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// Kind is which driver a Spec asks for.
type Kind int

// The kinds of driver.
const (
	Auto Kind = iota // NVIDIA's where a GPU is expected, else the host device
	CUDA
	Host
	PTX // the host device with another executor: it interprets the PTX of the kernels
)

// Order is the order in which the host device runs the threads of a block (GPU tiles) and the blocks of a grid.
type Order int

// The orders: by index; against it; with one warp running up to each barrier before the others start; pseudo-random.
const (
	Forward Order = iota
	Reverse
	Ahead
	Random
)

// Fault is an error that the host device makes up, to test what is built on it.
type Fault int

// The faults. Each hits the FaultAt-th operation of its kind in the process, counted from 1.
const (
	NoFault     Fault = iota
	AllocFault        // an allocation: out of memory
	CopyFault         // a copy: uncorrectable memory error
	LaunchFault       // a kernel: launch failed
	LostFault         // a kernel or copy: its device falls off the bus and every later call fails
	HangFault         // a kernel: never ends
)

var (
	orderNames = []string{"forward", "reverse", "ahead", "random"}
	faultNames = []string{"", "alloc", "copy", "launch", "lost", "hang"}
)

// Spec says which devices a process uses. The fields below Ordinals are settings of the host device.
type Spec struct {
	Kind     Kind
	Ordinals []int // CUDA devices by ordinal; nil for all

	Devices  int    // number of host devices, at least 1
	Memory   int64  // bytes of memory per device; 0: most of the machine's, divided by Devices
	Threads  int    // OS threads per device; 0: the cores divided by Devices
	GPUTiles bool   // run the kernels in the GPU's configuration, on fibers, instead of the CPU's
	Order    Order  // of threads and blocks
	Seed     uint64 // of Random
	Lazy     bool   // queued work runs only when something waits for it
	NoPeers  bool   // devices cannot reach each other's memory, as GPUs of which the driver copies by way of the host
	Dry      bool   // kernels are checked and noted, not run: see Noted
	Fault    Fault
	FaultAt  uint64
}

// ParseSpec reads a device spec:
//
//	auto
//	cuda[:0,1]
//	host[:N][,memory=64MiB][,tiles=gpu][,order=forward|reverse|ahead|random:SEED][,lazy][,nopeers][,dry][,threads=N][,fault=KIND:N]
//	ptx[:N][,SETTINGS of host but tiles]
//
// with KIND one of alloc, copy, launch, lost and hang. An empty spec is auto.
func ParseSpec(text string) (Spec, error) {
	fail := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("devices %q: %s", text, fmt.Sprintf(format, args...))
	}
	words := strings.Split(text, ",")
	kind, argument, hasArgument := strings.Cut(words[0], ":")
	switch kind {
	case "", "auto":
		if hasArgument || len(words) > 1 {
			return fail("auto takes no settings")
		}
		return Spec{Kind: Auto, Devices: 1}, nil
	case "cuda":
		s := Spec{Kind: CUDA}
		if !hasArgument {
			if len(words) > 1 {
				return fail("write cuda or cuda:0,1")
			}
			return s, nil
		}
		words[0] = argument
		for _, word := range words {
			n, err := strconv.ParseUint(word, 10, 16)
			if err != nil {
				return fail("%q is not a device number", word)
			}
			for _, seen := range s.Ordinals {
				if seen == int(n) {
					return fail("device %d is named twice", n)
				}
			}
			s.Ordinals = append(s.Ordinals, int(n))
		}
		return s, nil
	case "host":
		return parseHost(Host, text, argument, hasArgument, words[1:])
	case "ptx":
		return parseHost(PTX, text, argument, hasArgument, words[1:])
	}
	return fail("want auto, cuda[:0,1], host[:N] or ptx[:N]")
}

func parseHost(of Kind, text, count string, hasCount bool, settings []string) (Spec, error) {
	fail := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("devices %q: %s", text, fmt.Sprintf(format, args...))
	}
	s := Spec{Kind: of, Devices: 1}
	if hasCount {
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 || n > 64 {
			return fail("%q is not a number of devices from 1 to 64", count)
		}
		s.Devices = n
	}
	for _, setting := range settings {
		key, value, hasValue := strings.Cut(setting, "=")
		name, number, hasNumber := strings.Cut(value, ":")
		switch {
		case key == "memory" && hasValue:
			bytes, err := humanize.ParseBytes(value)
			if err != nil || bytes == 0 || bytes > 1<<50 {
				return fail("memory=%s is not a size such as 64MiB", value)
			}
			s.Memory = int64(bytes)
		case key == "tiles" && of == Host && (value == "gpu" || value == "host"):
			s.GPUTiles = value == "gpu"
		case key == "order" && hasValue:
			order := indexOf(orderNames, name)
			if order < 0 || hasNumber != (Order(order) == Random) {
				return fail("order=%s: want forward, reverse, ahead or random:SEED", value)
			}
			s.Order = Order(order)
			if hasNumber {
				seed, err := strconv.ParseUint(number, 10, 64)
				if err != nil {
					return fail("order=%s: %q is not a seed", value, number)
				}
				s.Seed = seed
			}
		case setting == "lazy":
			s.Lazy = true
		case setting == "nopeers":
			s.NoPeers = true
		case setting == "dry":
			s.Dry = true
		case key == "threads" && hasValue:
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > 1024 {
				return fail("threads=%s is not a number from 1 to 1024", value)
			}
			s.Threads = n
		case key == "fault" && hasValue:
			kind := indexOf(faultNames, name)
			n, err := strconv.ParseUint(number, 10, 64)
			if kind <= 0 || err != nil || n == 0 {
				return fail("fault=%s: want alloc, copy, launch, lost or hang, a colon and a number from 1", value)
			}
			s.Fault, s.FaultAt = Fault(kind), n
		default:
			return fail("unknown setting %q", setting)
		}
	}
	return s, nil
}

func indexOf(names []string, name string) int {
	for i, n := range names {
		if n == name {
			return i
		}
	}
	return -1
}

// String writes the spec so that ParseSpec reads it back.
func (s Spec) String() string {
	switch s.Kind {
	case CUDA:
		text := "cuda"
		for i, n := range s.Ordinals {
			text += string(":,"[min(i, 1)]) + strconv.Itoa(n)
		}
		return text
	case Host, PTX:
		text := map[Kind]string{Host: "host:", PTX: "ptx:"}[s.Kind] + strconv.Itoa(max(1, s.Devices))
		if s.Memory > 0 {
			text += ",memory=" + strconv.FormatInt(s.Memory, 10) + "B"
		}
		if s.GPUTiles {
			text += ",tiles=gpu"
		}
		if s.Order != Forward {
			text += ",order=" + orderNames[s.Order]
			if s.Order == Random {
				text += ":" + strconv.FormatUint(s.Seed, 10)
			}
		}
		if s.Lazy {
			text += ",lazy"
		}
		if s.NoPeers {
			text += ",nopeers"
		}
		if s.Dry {
			text += ",dry"
		}
		if s.Threads > 0 {
			text += ",threads=" + strconv.Itoa(s.Threads)
		}
		if s.Fault != NoFault {
			text += ",fault=" + faultNames[s.Fault] + ":" + strconv.FormatUint(s.FaultAt, 10)
		}
		return text
	}
	return "auto"
}
