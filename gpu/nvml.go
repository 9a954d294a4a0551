package gpu

import (
	"errors"
	"fmt"

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
func OpenNVML() (*NVML, error) { return openNVML(nvml.New()) }

func openNVML(library nvml.Interface) (*NVML, error) {
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
	UsedBytes   *uint64  `json:"used_bytes,omitempty"` // by all processes
	Celsius     *uint32  `json:"celsius,omitempty"`
	Watts       *float64 `json:"watts,omitempty"`
	WattLimit   *float64 `json:"watt_limit,omitempty"`
	Utilization *uint32  `json:"utilization_percent,omitempty"` // share of the last moments in which a kernel ran
}

// Facts asks about the GPU at a PCI address, as [Device.PCI] gives it.
func (n *NVML) Facts(pci string) (Facts, error) {
	var f Facts
	d, code := n.library.DeviceGetHandleByPciBusId(pci)
	if err := asked("GPU at "+pci, code); err != nil {
		return f, err
	}
	if f.UUID, code = d.GetUUID(); code != nvml.SUCCESS {
		f.UUID = ""
	}
	if memory, code := d.GetMemoryInfo(); code == nvml.SUCCESS {
		f.UsedBytes = &memory.Used
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
