package gpu

import (
	"errors"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
)

// machineOfEight is the mock of a DGX A100 in which GPU 3 also has sensors; the power limit is not told.
func machineOfEight() *dgxa100.Server {
	server := dgxa100.New()
	for i := range server.Devices {
		d := server.Devices[i].(*dgxa100.Device)
		d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
		d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
		d.GetEnforcedPowerLimitFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED }
	}
	d := server.Devices[3].(*dgxa100.Device)
	d.MemoryInfo.Used = 7 << 30
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 61, nvml.SUCCESS }
	d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 312_500, nvml.SUCCESS }
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 97}, nvml.SUCCESS }
	return server
}

func TestNVMLFacts(t *testing.T) {
	server := machineOfEight()
	n, err := openNVML(server)
	if err != nil {
		t.Fatal(err)
	}
	if version, err := n.DriverVersion(); err != nil || version != "550.54.15" {
		t.Errorf("driver version %q, %v", version, err)
	}
	f, err := n.Facts("0000:03:00.0")
	if err != nil {
		t.Fatal(err)
	}
	if f.UUID != server.Devices[3].(*dgxa100.Device).UUID {
		t.Errorf("the UUID is %s, which is another GPU's", f.UUID)
	}
	if f.UsedBytes == nil || *f.UsedBytes != 7<<30 || f.Celsius == nil || *f.Celsius != 61 || f.Watts == nil || *f.Watts != 312.5 ||
		f.Utilization == nil || *f.Utilization != 97 {
		t.Errorf("facts %+v", f)
	}
	if f.WattLimit != nil {
		t.Errorf("a power limit of %v W, which the GPU does not tell", *f.WattLimit)
	}
	if f, err := n.Facts("0000:04:00.0"); err != nil || f.Celsius != nil || f.Watts != nil || f.Utilization != nil {
		t.Errorf("a GPU without sensors: %+v, %v", f, err)
	}
	var refused *NVMLError
	if _, err := n.Facts("0000:99:00.0"); !errors.As(err, &refused) || refused.Code != int(nvml.ERROR_INVALID_ARGUMENT) {
		t.Errorf("a GPU that is not there: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestNVMLAbsent(t *testing.T) {
	if _, err := openNVML(nvml.New(nvml.WithLibraryPath("/nowhere/libnvidia-ml.so.1"))); !errors.Is(err, ErrNoNVML) {
		t.Errorf("without the library: %v, want ErrNoNVML", err)
	}
	broken := &mock.Interface{InitFunc: func() nvml.Return { return nvml.ERROR_DRIVER_NOT_LOADED }}
	var refused *NVMLError
	if _, err := openNVML(broken); !errors.As(err, &refused) || refused.Code != int(nvml.ERROR_DRIVER_NOT_LOADED) {
		t.Errorf("without the kernel driver: %v, want an *NVMLError", err)
	}
}
