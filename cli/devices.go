package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
}

func devicesCommand() *cli.Command {
	return &cli.Command{
		Name:  "devices",
		Usage: "list the devices that kernels can run on",
		Description: `Prints each device's number, name, memory, compute capability and driver, and what NVIDIA's management library adds where it is
installed. Where NVIDIA's driver cannot be used it says why and lists the host device, which runs the same kernels on the CPU.

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
	return report, join(report.fill(m), m.Close())
}

func (r *deviceReport) fill(m *gpu.Machine) error {
	if m.Notice != "" {
		r.Notices = append(r.Notices, m.Notice)
	}
	version := driver.LinkedVersion()
	r.Driver, r.CUDA = "cuda", fmt.Sprintf("%d.%d", version/1000, version%1000/10)
	var nvml *gpu.NVML
	if m.Host {
		r.Driver = "host"
	} else {
		var err error
		if nvml, err = gpu.OpenNVML(); err == nil {
			defer nvml.Close()
			r.Version, err = nvml.DriverVersion()
		}
		if err != nil {
			r.Notices = append(r.Notices, err.Error())
		}
	}
	for _, d := range m.Devices {
		row := deviceRow{Index: d.Index, Name: d.Name, MemoryBytes: d.Total, ComputeCapability: fmt.Sprintf("%d.%d", d.Major, d.Minor),
			Multiprocessors: d.Multiprocessors}
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
			if facts, err := nvml.Facts(row.PCI); err == nil {
				row.NVML = &facts
			} else {
				r.Notices = append(r.Notices, err.Error())
			}
		}
		r.Devices = append(r.Devices, row)
	}
	return nil
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
	fmt.Fprintln(t, "device\tname\tmemory\tfree\tcompute capability\tmultiprocessors\t"+r.factHeads())
	for _, d := range r.Devices {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%d\t%s\n", d.Index, d.Name, humanize.IBytes(uint64(d.MemoryBytes)),
			humanize.IBytes(uint64(d.FreeBytes)), d.ComputeCapability, d.Multiprocessors, d.facts())
	}
	return t.Flush()
}

// factHeads are the heads of NVML's columns, where any device has them.
func (r *deviceReport) factHeads() string {
	for _, d := range r.Devices {
		if d.NVML != nil {
			return "PCI\ttemperature\tpower\tbusy\t"
		}
	}
	return ""
}

func (d deviceRow) facts() string {
	if d.NVML == nil {
		return ""
	}
	return strings.Join([]string{
		d.PCI,
		fact("%d °C", d.NVML.Celsius),
		fact("%.0f", d.NVML.Watts) + fact(" of %.0f W", d.NVML.WattLimit),
		fact("%d%%", d.NVML.Utilization),
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
