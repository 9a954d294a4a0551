package gpu

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"gorgonia.org/cu"
)

// NVML is NVIDIA's management library: what a driver tells about a GPU that the CUDA API does not. It is loaded when opened, never needed.
type NVML struct{ library nvml.Interface }

// ErrNoNVML is a machine without libnvidia-ml.so.1: one without NVIDIA's driver, or a container that was not given it.
var ErrNoNVML = errors.New("NVIDIA's management library libnvidia-ml.so.1 is not installed")

// NVMLError is a call that NVML refused.
type NVMLError struct {
	Op   string // what was asked: "temperature"
	Code int    // nvmlReturn_t
}

func (e *NVMLError) Error() string {
	return fmt.Sprintf("asking NVML for the %s: %s", e.Op, nvml.Return(e.Code).Error())
}

// OpenNVML loads the library. Without it the error is [ErrNoNVML].
func OpenNVML() (*NVML, error) { return OpenNVMLWith(nvml.New()) }

// OpenNVMLWith is OpenNVML for another implementation of it: a mock in tests.
func OpenNVMLWith(library nvml.Interface) (*NVML, error) {
	switch code := library.Init(); code {
	case nvml.SUCCESS:
		return &NVML{library}, nil
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return nil, ErrNoNVML
	default:
		return nil, &NVMLError{"start", int(code)}
	}
}

// Close unloads the library.
func (n *NVML) Close() error { return asked("end", n.library.Shutdown()) }

// DriverVersion is the version of the kernel driver, such as 550.54.15.
func (n *NVML) DriverVersion() (string, error) {
	version, code := n.library.SystemGetDriverVersion()
	return version, asked("driver version", code)
}

// Facts is what NVML knows about one GPU at a moment. A nil pointer is a fact that this GPU does not tell.
type Facts struct {
	UUID        string   `json:"uuid,omitempty"`
	GPU         string   `json:"gpu_uuid,omitempty"`   // of the GPU that the device is a part of
	UsedBytes   *uint64  `json:"used_bytes,omitempty"` // by all processes
	Celsius     *uint32  `json:"celsius,omitempty"`
	Watts       *float64 `json:"watts,omitempty"`
	WattLimit   *float64 `json:"watt_limit,omitempty"`
	Utilization *uint32  `json:"utilization_percent,omitempty"` // share of the last moments in which a kernel ran
}

// Facts asks about a device by its UUID, since NVML counts GPUs in another order than CUDA does and does not know CUDA_VISIBLE_DEVICES; or by
// its PCI address, as [Device.PCI] gives it, where the UUID is not known. Sensors of a part of a GPU are those of the whole.
func (n *NVML) Facts(uuid, pci string) (Facts, error) {
	f := Facts{UUID: uuid}
	d, code := n.library.DeviceGetHandleByUUID(uuid)
	if code != nvml.SUCCESS {
		if d, code = n.library.DeviceGetHandleByPciBusId(pci); code != nvml.SUCCESS {
			return f, asked("GPU "+uuid+" at "+pci, code)
		}
	}
	if memory, code := d.GetMemoryInfo(); code == nvml.SUCCESS {
		f.UsedBytes = &memory.Used
	}
	if strings.HasPrefix(uuid, "MIG-") {
		if whole, code := d.GetDeviceHandleFromMigDeviceHandle(); code == nvml.SUCCESS {
			d = whole
			f.GPU, _ = d.GetUUID()
		}
	}
	if celsius, code := d.GetTemperature(nvml.TEMPERATURE_GPU); code == nvml.SUCCESS {
		f.Celsius = &celsius
	}
	f.Watts = watts(d.GetPowerUsage())
	f.WattLimit = watts(d.GetEnforcedPowerLimit())
	if rates, code := d.GetUtilizationRates(); code == nvml.SUCCESS {
		f.Utilization = &rates.Gpu
	}
	return f, nil
}

// Listed is a device that NVML lists: a GPU, or a part of one that is divided.
type Listed struct {
	GPU  int    `json:"gpu"` // NVML's number, which nvidia-smi shows
	Name string `json:"name"`
	UUID string `json:"uuid"`
}

// Hidden lists the machine's devices that are not among the visible UUIDs of [Machine.UUIDs], so not seen by CUDA in this process.
func (n *NVML) Hidden(visible []string) ([]Listed, error) {
	count, code := n.library.DeviceGetCount()
	if err := asked("number of GPUs", code); err != nil {
		return nil, err
	}
	var hidden []Listed
	add := func(gpu int, d nvml.Device) error {
		l := Listed{GPU: gpu}
		if l.Name, code = d.GetName(); code != nvml.SUCCESS {
			l.Name = "GPU" // of a kind that does not tell
		}
		if l.UUID, code = d.GetUUID(); code != nvml.SUCCESS {
			return asked(fmt.Sprintf("UUID of GPU %d", gpu), code)
		}
		if !slices.Contains(visible, l.UUID) {
			hidden = append(hidden, l)
		}
		return nil
	}
	for i := range count {
		d, code := n.library.DeviceGetHandleByIndex(i)
		if code == nvml.ERROR_NO_PERMISSION { // a container or cgroup keeps it from this process
			continue
		}
		if err := asked(fmt.Sprintf("GPU %d", i), code); err != nil {
			return nil, err
		}
		devices := []nvml.Device{d}
		if mode, _, code := d.GetMigMode(); code == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE {
			devices = parts(d)
		}
		for _, d := range devices {
			if err := add(i, d); err != nil {
				return nil, err
			}
		}
	}
	return hidden, nil
}

// parts are the devices that a GPU is divided into.
func parts(d nvml.Device) []nvml.Device {
	most, code := d.GetMaxMigDeviceCount()
	if code != nvml.SUCCESS {
		return nil
	}
	var found []nvml.Device
	for i := range most {
		if part, code := d.GetMigDeviceHandleByIndex(i); code == nvml.SUCCESS {
			found = append(found, part)
		}
	}
	return found
}

func watts(milliwatts uint32, code nvml.Return) *float64 {
	if code != nvml.SUCCESS {
		return nil
	}
	w := float64(milliwatts) / 1000
	return &w
}

func asked(op string, code nvml.Return) error {
	if code == nvml.SUCCESS {
		return nil
	}
	return &NVMLError{op, int(code)}
}

// PCI is the device's address on the bus, such as 0000:3b:00.0. It needs no Do.
func (d *Device) PCI() (string, error) {
	var at [3]int
	for i, attribute := range []cu.DeviceAttribute{cu.PciDomainID, cu.PciBusID, cu.PciDeviceID} {
		var err error
		if at[i], err = d.cu.Attribute(attribute); err != nil {
			return "", failed("asking for the PCI address", d.Index, err)
		}
	}
	return fmt.Sprintf("%04x:%02x:%02x.0", at[0], at[1], at[2]), nil
}
