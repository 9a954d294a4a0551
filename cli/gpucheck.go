package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

func gpuCheckCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "check and time everything on this machine's devices, and write a page about it",
		Description: `Runs, each as a process of its own so that none can end the others: the selftest of every kernel in every precision that the
devices have; the benchmark; the benchmark against PyTorch where python3 has torch; a bounded training of the quickstart, whose loss is checked;
the same training on one and on several devices, which must give the same bits; and NVIDIA's compute-sanitizer where it is installed. On
the host device all of it is shorter. The page is FOLDER/DEVICE-DATE.md; exit code 1 if anything failed.

Examples:
   ddgpu check
   ddgpu check --devices cuda:0 --part selftest --part same`,
		Flags: []cli.Flag{
			devicesFlag(),
			&cli.StringFlag{Name: "out", Value: filepath.Join("docs", "results"), Usage: "`FOLDER` of the page"},
			&cli.StringSliceFlag{Name: "part", Usage: "only the `PART`: " + strings.Join(partNames(), ", ") + " (repeatable)"},
			&cli.DurationFlag{Name: "limit", Value: 10 * time.Minute, Usage: "stop what is not done after `TIME`"},
		},
		Action: runGPUCheck,
	}
}

// errNotHere says that a part cannot be run on this machine, which is no failure.
type errNotHere string

func (e errNotHere) Error() string { return string(e) }

// verdict is how a part ended.
type verdict string

const (
	passed  verdict = "passed"
	failed  verdict = "FAILED"
	notHere verdict = "not here"
)

// checkPart is one part of the check. Its function returns what the page says about it.
type checkPart struct {
	name  string
	title string
	limit time.Duration
	run   func(g *gpuCheck, ctx context.Context) (section, error)
}

// section is what a part found: a line for the table of parts, and Markdown below it.
type section struct {
	line, text string
}

// partResult is a part that was run.
type partResult struct {
	checkPart
	section
	verdict verdict
	problem string
	took    time.Duration
}

// gpuCheck is the work of "ddgpu check".
type gpuCheck struct {
	devices string // the spec of all devices
	report  deviceReport
	folder  string // for runs, removed afterwards
	// command runs a program and returns what it printed; err holds the last lines of its error output.
	command func(ctx context.Context, name string, args ...string) ([]byte, error)
	self    string // this program
	show    io.Writer
}

func (g *gpuCheck) host() bool { return g.report.Driver == "host" }

// ddgpu runs this program.
func (g *gpuCheck) ddgpu(ctx context.Context, args ...string) ([]byte, error) {
	return g.command(ctx, g.self, args...)
}

// ddgpuJSON runs this program and reads the JSON that it prints. Where both fail, the program's error says more.
func (g *gpuCheck) ddgpuJSON(ctx context.Context, into any, args ...string) error {
	out, err := g.ddgpu(ctx, args...)
	if jsonErr := json.Unmarshal(out, into); err == nil && jsonErr != nil {
		return fmt.Errorf("ddgpu %s printed no JSON: %w", strings.Join(args, " "), jsonErr)
	}
	return err
}

func runGPUCheck(c *cli.Context) error {
	parts, err := chosenParts(c.StringSlice("part"))
	if err != nil {
		return err
	}
	if _, err := deviceSpec(c); err != nil {
		return err
	}
	g := &gpuCheck{devices: c.String("devices"), command: runProgram, show: c.App.Writer}
	if g.self, err = os.Executable(); err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	if g.folder, err = os.MkdirTemp("", "ddgpu-check"); err != nil {
		return err
	}
	defer os.RemoveAll(g.folder)
	ctx, release := interruptible(func() {})
	defer release()
	ctx, cancel := context.WithTimeout(ctx, c.Duration("limit"))
	defer cancel()

	start, machine := time.Now(), g.machine(ctx)
	if err := g.ddgpuJSON(ctx, &g.report, "devices", "--devices", g.devices, "--json"); err != nil {
		return err
	}
	results := g.runParts(ctx, parts)
	if errors.Is(ctx.Err(), context.Canceled) {
		return errors.New("interrupted: no page is written")
	}
	page := checkPage{report: g.report, machine: machine, results: results, start: start, took: time.Since(start)}
	path := filepath.Join(c.String("out"), page.fileName())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("making the folder of the page: %w", err)
	}
	if err := writeFile(path, page.write); err != nil {
		return err
	}
	fmt.Fprintf(g.show, "%s\n%s\n", page.summary(), path)
	if bad := page.failed(); len(bad) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(bad, ", "))
	}
	return nil
}

// runParts runs one part after another, whatever becomes of each.
func (g *gpuCheck) runParts(ctx context.Context, parts []checkPart) []partResult {
	var results []partResult
	for _, p := range parts {
		if errors.Is(ctx.Err(), context.Canceled) {
			break
		}
		fmt.Fprintf(g.show, "%-14s ", p.name)
		start := time.Now()
		r := partResult{checkPart: p, verdict: passed}
		of, cancel := context.WithTimeout(ctx, p.limit)
		var err error
		r.section, err = p.run(g, of)
		var no errNotHere
		switch {
		case errors.As(err, &no):
			r.verdict, r.problem = notHere, err.Error()
		case err != nil && errors.Is(ctx.Err(), context.Canceled):
			r.verdict, r.problem = failed, "interrupted"
		case err != nil && of.Err() != nil:
			r.verdict, r.problem = failed, fmt.Sprintf("not done after %s: %v", time.Since(start).Round(time.Second), err)
		case err != nil:
			r.verdict, r.problem = failed, err.Error()
		}
		cancel()
		r.took = time.Since(start)
		results = append(results, r)
		text := r.line
		if r.problem != "" {
			text = firstLine(r.problem)
		}
		fmt.Fprintf(g.show, "%-8s %6.1f s  %s\n", r.verdict, r.took.Seconds(), text)
	}
	return results
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// chosenParts are the parts that --part names, or all.
func chosenParts(names []string) ([]checkPart, error) {
	if len(names) == 0 {
		return checkParts, nil
	}
	var parts []checkPart
	for _, name := range names {
		if !slices.Contains(partNames(), name) {
			return nil, usagef("--part %s: want one of %s%s", name, strings.Join(partNames(), ", "), suggest(name, partNames()))
		}
	}
	for _, p := range checkParts {
		if slices.Contains(names, p.name) {
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// lastLines is how many lines of a program's error output an error quotes.
const lastLines = 12

// runProgram runs a program; a context that ends kills it.
func runProgram(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out, problems bytes.Buffer
	c := exec.CommandContext(ctx, name, args...)
	c.Stdout, c.Stderr = &out, &problems
	c.WaitDelay = time.Second
	err := c.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, tailOf(problems.String(), lastLines))
	}
	return out.Bytes(), err
}
