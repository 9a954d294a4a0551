// Command ddgpu trains and samples denoising diffusion models with hand-written CUDA kernels, on NVIDIA GPUs or, with the same kernels,
// on the CPU. This package holds flags, configuration files, progress and reports, and no mathematics.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is the whole program: it returns the exit code and writes one line for an error.
func run(args []string, stdout, stderr io.Writer) int {
	err := newApp(stdout, stderr).Run(args)
	if err != nil {
		fmt.Fprintln(stderr, "ddgpu: "+strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " · "))
	}
	return exitCode(err)
}

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:      "ddgpu",
		Usage:     "train and sample diffusion models with hand-written CUDA kernels",
		Version:   version(),
		Writer:    stdout,
		ErrWriter: stderr,
		Commands: []*cli.Command{
			trainCommand(),
			sampleCommand(),
			forwardCommand(),
			devicesCommand(),
			selftestCommand(),
			benchCommand(),
			launchesCommand(),
			gpuCheckCommand(),
			configCommand(),
		},
		Description: `Start with
   ddgpu train --preset quickstart      a small network, trained in minutes
   ddgpu sample --model runs/quickstart pictures from it
   ddgpu selftest                       every kernel against float64 references

Exit codes: 0 done, 1 error, 2 usage or configuration, 75 stopped on request and resumable, 76 diverged, 77 out of device memory,
78 bad data, 79 device fault, 80 hang.`,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,                         // a value may be a list: --set a=[1,2]
		ExitErrHandler:            func(*cli.Context, error) {}, // run alone decides the exit code
		OnUsageError:              unknownFlag,
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return usagef("unknown command %q%s", name, suggest(name, commandNames(c.App)))
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, command := range app.Commands {
		prepare(command)
	}
	return app
}

// prepare gives a command what all have: errors of one line, and no arguments but flags.
func prepare(command *cli.Command) {
	command.OnUsageError = unknownFlag
	command.HideHelpCommand = true
	action := command.Action
	command.Action = func(c *cli.Context) error {
		if c.Args().Present() {
			return usagef("%s: unexpected argument %q: options begin with --", command.Name, c.Args().First())
		}
		return action(c)
	}
}

// unknownFlag turns a parse error of the flags into one line that names the nearest flag.
func unknownFlag(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	flags := c.App.Flags
	if c.Command != nil {
		flags = c.Command.Flags
	}
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		name = strings.TrimLeft(name, "-")
		var known []string
		for _, f := range flags {
			known = append(known, "--"+f.Names()[0])
		}
		return usagef("unknown option --%s%s", name, suggest("--"+name, known))
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		return usagef("--%s %s: want %s", m[2], m[1], wantedBy(flags, m[2]))
	}
	return usagef("%s", strings.NewReplacer("flag -", "option --", "flag needs an argument: -", "option needs a value: --").Replace(text))
}

// badValue is what the flag package says of a value that does not have a flag's type, with the value in quotes and the flag's name.
var badValue = regexp.MustCompile(`^invalid (?:boolean )?value (".*") for (?:flag )?-+([^ :]+): `)

// wantedBy is what a flag's value has to be.
func wantedBy(flags []cli.Flag, name string) string {
	at := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if at < 0 {
		return "another value"
	}
	switch flags[at].(type) {
	case *cli.IntFlag:
		return "a whole number"
	case *cli.Uint64Flag:
		return "a whole number, 0 … 2⁶⁴−1"
	case *cli.Float64Flag:
		return "a number"
	case *cli.BoolFlag:
		return "true or false"
	case *cli.DurationFlag:
		return "a time such as 90s or 10m"
	}
	return "another value"
}

// require refuses a command line without an option that has no default.
func require(c *cli.Context, names ...string) error {
	for _, name := range names {
		if c.String(name) == "" {
			return usagef("%s: --%s is missing; see ddgpu %s --help", c.Command.Name, name, c.Command.Name)
		}
	}
	return nil
}

func commandNames(app *cli.App) (names []string) {
	for _, command := range app.Commands {
		names = append(names, command.Name)
	}
	return names
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, modified := "unknown", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				modified = ", modified"
			}
		}
	}
	return fmt.Sprintf("%s (%s%s)", revision, info.GoVersion, modified)
}

// interruptible returns a context that the first SIGINT or SIGTERM cancels. From then on a second one has its usual effect and ends the
// process at once, whatever the devices do.
func interruptible(onStop func()) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			signal.Stop(signals)
			onStop()
			cancel()
		case <-ctx.Done():
			signal.Stop(signals)
		}
	}()
	return ctx, cancel
}
