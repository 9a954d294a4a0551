package gpu

import (
	"errors"
	"fmt"
	"slices"
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
	n, err := OpenNVMLWith(server)
	if err != nil {
		t.Fatal(err)
	}
	if version, err := n.DriverVersion(); err != nil || version != "550.54.15" {
		t.Errorf("driver version %q, %v", version, err)
	}
	third := server.Devices[3].(*dgxa100.Device).UUID
	for _, at := range [][2]string{{third, "0000:04:00.0"}, {"GPU-unknown", "0000:03:00.0"}} {
		f, err := n.Facts(at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		if f.UsedBytes == nil || *f.UsedBytes != 7<<30 || f.Celsius == nil || *f.Celsius != 61 || f.Watts == nil || *f.Watts != 312.5 ||
			f.Utilization == nil || *f.Utilization != 97 {
			t.Errorf("%v: facts %+v", at, f)
		}
		if f.WattLimit != nil {
			t.Errorf("a power limit of %v W, which the GPU does not tell", *f.WattLimit)
		}
	}
	if f, err := n.Facts(server.Devices[4].(*dgxa100.Device).UUID, ""); err != nil || f.Celsius != nil || f.Watts != nil || f.Utilization != nil {
		t.Errorf("a GPU without sensors: %+v, %v", f, err)
	}
	var refused *NVMLError
	if _, err := n.Facts("GPU-unknown", "0000:99:00.0"); !errors.As(err, &refused) || refused.Code != int(nvml.ERROR_INVALID_ARGUMENT) {
		t.Errorf("a GPU that is not there: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestNVMLAbsent(t *testing.T) {
	if _, err := OpenNVMLWith(nvml.New(nvml.WithLibraryPath("/nowhere/libnvidia-ml.so.1"))); !errors.Is(err, ErrNoNVML) {
		t.Errorf("without the library: %v, want ErrNoNVML", err)
	}
	broken := &mock.Interface{InitFunc: func() nvml.Return { return nvml.ERROR_DRIVER_NOT_LOADED }}
	var refused *NVMLError
	if _, err := OpenNVMLWith(broken); !errors.As(err, &refused) || refused.Code != int(nvml.ERROR_DRIVER_NOT_LOADED) {
		t.Errorf("without the kernel driver: %v, want an *NVMLError", err)
	}
}

// divide makes a GPU of the mock a divided one, with parts of so many bytes in use, and returns their UUIDs.
func divide(server *dgxa100.Server, gpu int, used ...uint64) []string {
	whole := server.Devices[gpu].(*dgxa100.Device)
	whole.MigMode = nvml.DEVICE_MIG_ENABLE
	var parts []*mock.Device
	var uuids []string
	for i, bytes := range used {
		uuid := fmt.Sprintf("MIG-%d%d000000-0000-0000-0000-000000000000", gpu, i)
		uuids = append(uuids, uuid)
		parts = append(parts, &mock.Device{
			GetUUIDFunc:                            func() (string, nvml.Return) { return uuid, nvml.SUCCESS },
			GetNameFunc:                            func() (string, nvml.Return) { return "a part", nvml.SUCCESS },
			GetMemoryInfoFunc:                      func() (nvml.Memory, nvml.Return) { return nvml.Memory{Used: bytes}, nvml.SUCCESS },
			GetDeviceHandleFromMigDeviceHandleFunc: func() (nvml.Device, nvml.Return) { return whole, nvml.SUCCESS },
		})
	}
	whole.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	whole.GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i%2 == 1 || i/2 >= len(parts) { // the numbers of parts have gaps
			return nil, nvml.ERROR_NOT_FOUND
		}
		return parts[i/2], nvml.SUCCESS
	}
	byUUID := server.DeviceGetHandleByUUIDFunc
	server.DeviceGetHandleByUUIDFunc = func(uuid string) (nvml.Device, nvml.Return) {
		if i := slices.Index(uuids, uuid); i >= 0 {
			return parts[i], nvml.SUCCESS
		}
		return byUUID(uuid)
	}
	return uuids
}

func TestNVMLParts(t *testing.T) {
	server := machineOfEight()
	parts := divide(server, 3, 1<<30, 2<<30)
	n, err := OpenNVMLWith(server)
	if err != nil {
		t.Fatal(err)
	}
	f, err := n.Facts(parts[1], "")
	if err != nil || f.UsedBytes == nil || *f.UsedBytes != 2<<30 || f.Celsius == nil || *f.Celsius != 61 {
		t.Errorf("the second part: %+v, %v; want its own memory and the whole GPU's temperature", f, err)
	}
	if f.GPU != server.Devices[3].(*dgxa100.Device).UUID {
		t.Errorf("part of %q", f.GPU)
	}
}

// CUDA sees GPU 6 as its device 0 and one part of GPU 3 as its device 1: what NVML lists beyond is hidden.
func TestNVMLHidden(t *testing.T) {
	server := machineOfEight()
	parts := divide(server, 3, 0, 0)
	uuid := func(gpu int) string { return server.Devices[gpu].(*dgxa100.Device).UUID }
	byIndex := server.DeviceGetHandleByIndexFunc
	server.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i == 0 {
			return nil, nvml.ERROR_NO_PERMISSION
		}
		return byIndex(i)
	}
	n, err := OpenNVMLWith(server)
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := n.Hidden([]string{uuid(6), parts[0]})
	if err != nil {
		t.Fatal(err)
	}
	const name = "Mock NVIDIA A100-SXM4-40GB"
	want := []Listed{{1, name, uuid(1)}, {2, name, uuid(2)}, {3, "a part", parts[1]}, {4, name, uuid(4)}, {5, name, uuid(5)}, {7, name, uuid(7)}}
	if !slices.Equal(hidden, want) {
		t.Errorf("hidden\n%v\nwant\n%v", hidden, want)
	}
}

// The host device's UUIDs, as NVML would list them in another order.
func TestUUIDs(t *testing.T) {
	m, err := Open("host:3")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	uuids, err := m.UUIDs()
	if err != nil || len(uuids) != 3 {
		t.Fatalf("UUIDs %q, %v", uuids, err)
	}
	server := machineOfEight()
	for i, at := range []int{5, 3, 0} {
		server.Devices[at].(*dgxa100.Device).UUID = uuids[i]
	}
	n, err := OpenNVMLWith(server)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range m.Devices {
		if d.UUID != uuids[i] {
			t.Errorf("device %d is %s, the driver's is %s", i, d.UUID, uuids[i])
		}
		f, err := n.Facts(d.UUID, "")
		if err != nil || (f.Celsius != nil) != (i == 1) {
			t.Errorf("device %d: %+v, %v", i, f, err)
		}
	}
	if hidden, err := n.Hidden(uuids); err != nil || len(hidden) != 5 {
		t.Errorf("hidden %v, %v", hidden, err)
	}
}
