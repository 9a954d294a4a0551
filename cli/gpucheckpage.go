package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// checkPage is the Markdown page about a check.
type checkPage struct {
	report  deviceReport
	machine [][2]string
	results []partResult
	start   time.Time
	took    time.Duration
}

// machine is what the page says of the machine besides its devices.
func (g *gpuCheck) machine(ctx context.Context) [][2]string {
	rows := [][2]string{{"ddgpu", version()}}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		rows = append(rows, [2]string{"system", runtime.GOOS + " " + strings.TrimSpace(string(kernel)) + ", " + runtime.GOARCH})
	}
	rows = append(rows, [2]string{"processor", fmt.Sprintf("%s, %d cores", processor(), runtime.NumCPU())})
	if load, err := os.ReadFile("/proc/loadavg"); err == nil && len(strings.Fields(string(load))) > 2 {
		rows = append(rows, [2]string{"load before", strings.Fields(string(load))[0] + " in the minute before, of all programs"})
	}
	for _, tool := range []struct{ name, program, flag string }{{"NVIDIA's driver", "nvidia-smi", "--version"}, {"Python", "python3", "--version"}} {
		if out, err := g.command(ctx, tool.program, tool.flag); err == nil {
			rows = append(rows, [2]string{tool.name, strings.Join(strings.Fields(string(out)), " ")})
		}
	}
	return rows
}

var (
	marks    = regexp.MustCompile(`\((R|TM|r|tm)\)|@.*`)
	nonWords = regexp.MustCompile(`[^a-z0-9]+`)
)

// fileName is DEVICE-DATE.md, the device of the page by its name, the host device by that of the processor.
func (p *checkPage) fileName() string {
	name := "none"
	if len(p.report.Devices) > 0 {
		name = p.report.Devices[0].Name
	}
	if p.report.Driver == "host" {
		name = "host " + processor()
	}
	name = strings.Trim(nonWords.ReplaceAllString(strings.ToLower(marks.ReplaceAllString(name, " ")), "-"), "-")
	return name + "-" + p.start.UTC().Format(time.DateOnly) + ".md"
}

// failed names the parts that failed.
func (p *checkPage) failed() (names []string) {
	for _, r := range p.results {
		if r.verdict == failed {
			names = append(names, r.name)
		}
	}
	return names
}

func (p *checkPage) summary() string {
	count := map[verdict]int{}
	for _, r := range p.results {
		count[r.verdict]++
	}
	return fmt.Sprintf("%d parts passed, %d failed, %d not here; %s", count[passed], count[failed], count[notHere], p.took.Round(time.Second))
}

func (p *checkPage) write(w io.Writer) error {
	var t strings.Builder
	name := "the host device"
	if p.report.Driver != "host" && len(p.report.Devices) > 0 {
		name = fmt.Sprintf("%d × %s", len(p.report.Devices), p.report.Devices[0].Name)
	}
	fmt.Fprintf(&t, "# gpu-check on %s\n\n%s, by `./build.sh gpu-check`. %s.\n\n", name, p.start.UTC().Format("2006-01-02 15:04 UTC"), p.summary())
	t.WriteString("| part | verdict | took | |\n|---|---|---|---|\n")
	for _, r := range p.results {
		text := r.line
		if r.problem != "" {
			text = firstLine(r.problem)
		}
		fmt.Fprintf(&t, "| %s | %s | %.1f s | %s |\n", r.name, r.verdict, r.took.Seconds(), cell(text))
	}
	t.WriteString("\n## Machine\n\n| | |\n|---|---|\n")
	for _, row := range p.machine {
		fmt.Fprintf(&t, "| %s | %s |\n", row[0], cell(row[1]))
	}
	fmt.Fprintf(&t, "| driver | %s |\n", cell(strings.Join(strings.Fields(p.report.Driver+" "+p.report.Version+" for CUDA "+p.report.CUDA), " ")))
	for _, d := range p.report.Devices {
		fmt.Fprintf(&t, "| device %d | %s, %s, compute capability %s, %d multiprocessors |\n", d.Index, cell(d.Name), humanize.IBytes(uint64(d.MemoryBytes)),
			d.ComputeCapability, d.Multiprocessors)
	}
	for _, n := range p.report.Notices {
		fmt.Fprintf(&t, "| notice | %s |\n", cell(n))
	}
	for _, r := range p.results {
		if r.verdict == notHere {
			continue
		}
		fmt.Fprintf(&t, "\n## %s\n\n%s\n", r.title, strings.TrimSpace(r.text))
		if r.problem != "" {
			fmt.Fprintf(&t, "\nFailed:\n\n```\n%s\n```\n", strings.TrimSpace(r.problem))
		}
	}
	_, err := io.WriteString(w, t.String())
	return err
}

// cell is text that a cell of a Markdown table can hold.
func cell(text string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text) }
