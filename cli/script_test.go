package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ddgpu/diffusion/checkpoint"
)

// TestMain lets the scripts run this test's binary as the program ddgpu, in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv(neverFinish) != "" {
		trainForever()
	}
	testscript.Main(m, map[string]func(){"ddgpu": main, "fakepytorch": fakePyTorch})
}

// TestScripts runs testdata/script/*.txtar: the command line as a user sees it. Beside testscript's own commands there are
//
//	fails CODE args…      ddgpu args must end with that exit code and say why on one line of stderr
//	await FILE PATTERN    waits until the file, or one of a pattern of names, has a match
//	pictures DIR N SIZE   writes N random PNG files of SIZE×SIZE pixels
//	flip FILE             changes one bit in the middle of a file
//	cut FILE N            keeps the first N bytes
//	bomb FILE             writes a PNG of a few hundred bytes that claims 60,000 × 60,000 pixels
//	fakecuda DIR          builds a libcuda.so.1 that finds no GPU
//	random FILE DIM…      writes random float32 numbers, in (0, 1), as a .npy of that shape
//	labels FILE K…        writes those whole numbers as a .npy
//	hash RUN              remembers the hash of the run's newest checkpoint
//	samehash RUN          requires that hash of this run
//	murder N FILE args…   runs ddgpu args N times and kills it each time at some moment after FILE has grown
//
// The environment has $REPO, the repository; tiny.yaml, a small configuration, lies in the folder; and devices are host unless a script says
// otherwise.
func TestScripts(t *testing.T) {
	repo, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("REPO", repo)
			env.Setenv("DDGPU_DEVICES", "host")
			tiny, err := os.ReadFile("testdata/tiny.yaml")
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "tiny.yaml"), tiny, 0o644)
		},
		Condition: func(name string) (bool, error) {
			if name != "tmpfs" { // whether a small disk can be made for one process
				return false, fmt.Errorf("unknown condition %s", name)
			}
			return exec.Command("unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt").Run() == nil, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"fails":    scriptFails,
			"await":    scriptAwait,
			"pictures": scriptPictures,
			"flip":     scriptFlip,
			"cut":      scriptCut,
			"bomb":     scriptBomb,
			"fakecuda": scriptFakeCUDA,
			"random":   scriptRandom,
			"labels":   scriptLabels,
			"hash":     scriptHash,
			"samehash": scriptSameHash,
			"murder":   scriptMurder,
		},
	})
}

func scriptFails(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("ddgpu", args[1:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("ddgpu %s: %v, want exit code %d", strings.Join(args[1:], " "), err, want)
	}
	if exit.ExitCode() != want {
		ts.Fatalf("exit code %d, want %d", exit.ExitCode(), want)
	}
	if text := ts.ReadFile("stderr"); strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "ddgpu: ") {
		ts.Fatalf("the reason is not one line that begins with ddgpu: %q", text)
	}
}

func scriptAwait(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[1])
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		files, err := filepath.Glob(ts.MkAbs(args[0]))
		ts.Check(err)
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil && pattern.Match(text) {
				return
			}
		}
	}
	ts.Fatalf("%s has no match of %s after a minute", args[0], args[1])
}

// newestHash is the hash that a run's newest checkpoint names, after all of the checkpoint has been verified.
func newestHash(ts *testscript.TestScript, run string) string {
	e, ok, err := checkpoint.Latest(filepath.Join(ts.MkAbs(run), "checkpoints"))
	ts.Check(err)
	if !ok {
		ts.Fatalf("%s has no checkpoint", run)
	}
	c, err := checkpoint.Open(e.Path)
	ts.Check(err)
	return c.Manifest.Hash
}

func scriptHash(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv("HASH", newestHash(ts, args[0]))
}

func scriptSameHash(ts *testscript.TestScript, _ bool, args []string) {
	if got, want := newestHash(ts, args[0]), ts.Getenv("HASH"); got != want {
		ts.Fatalf("the newest checkpoint of %s has the hash %s, want %s", args[0], got, want)
	}
}

func scriptMurder(ts *testscript.TestScript, _ bool, args []string) {
	times, err := strconv.Atoi(args[0])
	ts.Check(err)
	grown := ts.MkAbs(args[1])
	for i := range times {
		before, _ := os.Stat(grown)
		path, err := exec.LookPath("ddgpu")
		ts.Check(err)
		child := exec.Command(path, args[2:]...)
		child.Dir = ts.MkAbs(".")
		child.Env = append(os.Environ(), "DDGPU_DEVICES=host")
		ts.Check(child.Start())
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			now, err := os.Stat(grown)
			if err == nil && (before == nil || now.ModTime().After(before.ModTime())) {
				break
			}
			if time.Now().After(deadline) {
				_ = child.Process.Kill()
				ts.Fatalf("%s has not grown for a minute", args[1])
			}
		}
		wait := time.Duration(rand.IntN(200)) * time.Millisecond
		time.Sleep(wait)
		ts.Check(child.Process.Kill())
		if err := child.Wait(); err == nil {
			ts.Fatalf("run %d had ended before it was killed, %v after its first step: it needs more steps", i, wait)
		}
		ts.Logf("killed %v after %s had grown", wait, args[1])
	}
}
