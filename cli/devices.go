package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"ddgpu/gpu"
	"ddgpu/gpu/driver"
)

// deviceRow is one device as "ddgpu devices --json" prints it.
type deviceRow struct {
	Index             int        `json:"index"`
	Name              string     `json:"name"`
	UUID              string     `json:"uuid"`
	MemoryBytes       int64      `json:"memory_bytes"`
	FreeBytes         int64      `json:"free_bytes"`
	ComputeCapability string     `json:"compute_capability"`
	Multiprocessors   int        `json:"multiprocessors"`
	PCI               string     `json:"pci,omitempty"`
	NVML              *gpu.Facts `json:"nvml,omitempty"`
}

// deviceReport is all that "ddgpu devices" knows.
type deviceReport struct {
	Driver  string      `json:"driver"`         // cuda or host
	CUDA    string      `json:"cuda"`           // version of the CUDA API that the driver has
	Version string      `json:"driver_version"` // of the kernel driver; empty where NVML is absent
	Notices []string    `json:"notices"`
	Devices []deviceRow `json:"devices"`
	// Hidden are the machine's devices that CUDA does not see in this process, and Visible the value of CUDA_VISIBLE_DEVICES.
	Hidden  []gpu.Listed `json:"hidden,omitempty"`
	Visible *string      `json:"cuda_visible_devices,omitempty"`
}

func devicesCommand() *cli.Command {
	return &cli.Command{
		Name:  "devices",
		Usage: "list the devices that kernels can run on",
		Description: `Prints each device's number, name, UUID, memory, compute capability and driver, and what NVIDIA's management library adds where it is
installed, with the GPUs that CUDA_VISIBLE_DEVICES hides. Where NVIDIA's driver cannot be used it says why and lists the host device, which runs the same kernels on the CPU.

Examples:
   ddgpu devices
   ddgpu devices --devices host:4 --json`,
		Flags: []cli.Flag{devicesFlag(), jsonFlag("print one JSON object")},
		Action: func(c *cli.Context) error {
			report, err := listDevices(c)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, report)
			}
			return report.table(c.App.Writer)
		},
	}
}

func jsonFlag(usage string) cli.Flag { return &cli.BoolFlag{Name: "json", Usage: usage} }

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func listDevices(c *cli.Context) (*deviceReport, error) {
	spec, err := deviceSpec(c)
	if err != nil {
		return nil, err
	}
	report := &deviceReport{Notices: []string{}, Devices: []deviceRow{}}
	m, err := gpu.Open(c.String("devices"))
	var unusable *driver.OpenError
	if spec.Kind == driver.Auto && errors.As(err, &unusable) {
		report.Notices = append(report.Notices, err.Error())
		m, err = gpu.Open("host")
	}
	if err != nil {
		return nil, fmt.Errorf("opening devices: %w", err)
	}
	nvml, err := report.openNVML(m)
	if err == nil {
		err = report.fill(m, nvml)
	}
	if nvml != nil {
		err = join(err, nvml.Close())
	}
	return report, join(err, m.Close())
}

// openNVML opens NVIDIA's management library where the devices are NVIDIA's. Without it there is a notice.
func (r *deviceReport) openNVML(m *gpu.Machine) (*gpu.NVML, error) {
	if m.Host {
		return nil, nil
	}
	nvml, err := gpu.OpenNVML()
	if err != nil {
		r.Notices = append(r.Notices, err.Error())
		return nil, nil
	}
	return nvml, nil
}

// fill asks the devices, and NVML about them where it is not nil.
func (r *deviceReport) fill(m *gpu.Machine, nvml *gpu.NVML) error {
	if m.Notice != "" {
		r.Notices = append(r.Notices, m.Notice)
	}
	version := driver.LinkedVersion()
	r.Driver, r.CUDA, r.Version = "cuda", fmt.Sprintf("%d.%d", version/1000, version%1000/10), driver.KernelModule()
	if m.Host {
		r.Driver, r.Version = "host", ""
	}
	if value, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set && !m.Host {
		r.Visible = &value
	}
	if nvml != nil {
		if err := r.machine(m, nvml); err != nil {
			r.Notices = append(r.Notices, err.Error())
		}
	}
	for _, d := range m.Devices {
		row := deviceRow{Index: d.Index, Name: d.Name, UUID: d.UUID, MemoryBytes: d.Total, Multiprocessors: d.Multiprocessors,
			ComputeCapability: fmt.Sprintf("%d.%d", d.Major, d.Minor)}
		err := d.Do(func() (err error) {
			row.FreeBytes, _, err = d.MemInfo()
			return err
		})
		if err != nil {
			return err
		}
		if !m.Host {
			if row.PCI, err = d.PCI(); err != nil {
				return err
			}
		}
		if nvml != nil {
			if facts, err := nvml.Facts(d.UUID, row.PCI); err == nil {
				row.NVML = &facts
			} else {
				r.Notices = append(r.Notices, err.Error())
			}
		}
		r.Devices = append(r.Devices, row)
	}
	return nil
}

// machine asks NVML what is not of one device.
func (r *deviceReport) machine(m *gpu.Machine, nvml *gpu.NVML) (err error) {
	if r.Version, err = nvml.DriverVersion(); err != nil {
		return err
	}
	visible, err := m.UUIDs()
	if err != nil {
		return err
	}
	r.Hidden, err = nvml.Hidden(visible)
	return err
}

func (r *deviceReport) table(w io.Writer) error {
	for _, notice := range r.Notices {
		fmt.Fprintln(w, notice)
	}
	text := "driver: the host device, CUDA " + r.CUDA
	if r.Driver == "cuda" {
		text = "driver: NVIDIA's " + strings.TrimSpace(r.Version+" for CUDA "+r.CUDA)
	}
	fmt.Fprintln(w, text)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	heads := r.factHeads()
	fmt.Fprintln(t, "device\tname\tmemory\tfree\tcompute capability\tmultiprocessors\t"+heads+"UUID")
	for _, d := range r.Devices {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%d\t%s%s\n", d.Index, d.Name, humanize.IBytes(uint64(d.MemoryBytes)),
			humanize.IBytes(uint64(d.FreeBytes)), d.ComputeCapability, d.Multiprocessors, d.facts(heads), d.UUID)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	why := "CUDA does not see"
	if r.Visible != nil {
		why = "CUDA_VISIBLE_DEVICES=" + *r.Visible + " hides"
	}
	for _, h := range r.Hidden {
		fmt.Fprintf(w, "%s GPU %d of nvidia-smi: %s, %s\n", why, h.GPU, h.Name, h.UUID)
	}
	return nil
}

// factHeads are the heads of NVML's columns, where any device has them.
func (r *deviceReport) factHeads() string {
	if slices.ContainsFunc(r.Devices, func(d deviceRow) bool { return d.NVML != nil }) {
		return "PCI\ttemperature\tpower\tbusy\t"
	}
	return ""
}

// facts fills NVML's columns, of which there are none where heads is empty.
func (d deviceRow) facts(heads string) string {
	if heads == "" {
		return ""
	}
	f := gpu.Facts{}
	if d.NVML != nil {
		f = *d.NVML
	}
	return strings.Join([]string{
		d.PCI,
		fact("%d °C", f.Celsius),
		fact("%.0f", f.Watts) + fact(" of %.0f W", f.WattLimit),
		fact("%d%%", f.Utilization),
		"",
	}, "\t")
}

// fact is a value that a GPU may not tell.
func fact[T any](format string, v *T) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(format, *v)
}
