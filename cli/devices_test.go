package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"

	"ddgpu/gpu"
)

// A machine of eight GPUs of which the process sees two, in another order than NVML lists them.
func TestDevicesOfNVML(t *testing.T) {
	m, err := gpu.Open("host:2")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	server := dgxa100.New()
	for i := range server.Devices {
		d := server.Devices[i].(*dgxa100.Device)
		d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return uint32(40 + i), nvml.SUCCESS }
		d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
		d.GetEnforcedPowerLimitFunc = func() (uint32, nvml.Return) { return 400_000, nvml.SUCCESS }
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 9}, nvml.SUCCESS }
	}
	server.Devices[6].(*dgxa100.Device).UUID = m.Devices[0].UUID
	server.Devices[2].(*dgxa100.Device).UUID = m.Devices[1].UUID
	n, err := gpu.OpenNVMLWith(server)
	if err != nil {
		t.Fatal(err)
	}
	var report deviceReport
	if err := report.fill(m, n); err != nil {
		t.Fatal(err)
	}
	value := "6,2"
	report.Visible = &value
	var out bytes.Buffer
	if err := report.table(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"46 °C - of 400 W 9% " + m.Devices[0].UUID, "42 °C - of 400 W 9% " + m.Devices[1].UUID,
		" CUDA_VISIBLE_DEVICES=6,2 hides GPU 7 of nvidia-smi: Mock NVIDIA A100-SXM4-40GB, GPU-"} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
			t.Errorf("the table says nothing of %q:\n%s", want, out.String())
		}
	}
	if hidden := strings.Count(out.String(), " hides "); hidden != 6 {
		t.Errorf("%d devices are hidden:\n%s", hidden, out.String())
	}
}
