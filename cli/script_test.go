package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the scripts run this test's binary as the program ddgpu, in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv(neverFinish) != "" {
		trainForever()
	}
	testscript.Main(m, map[string]func(){"ddgpu": main})
}

// TestScripts runs testdata/script/*.txtar: the command line as a user sees it. Beside testscript's own commands there are
//
//	fails CODE args…      ddgpu args must end with that exit code and say why on one line of stderr
//	await FILE PATTERN    waits until the file has a match
//	pictures DIR N SIZE   writes N random PNG files of SIZE×SIZE pixels
//	flip FILE             changes one bit in the middle of a file
//	cut FILE N            keeps the first N bytes
//	bomb FILE             writes a PNG of a few hundred bytes that claims 60,000 × 60,000 pixels
//	fakecuda DIR          builds a libcuda.so.1 that finds no GPU
//
// The environment has $REPO, the repository, and devices are host unless a script says otherwise.
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
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"fails":    scriptFails,
			"await":    scriptAwait,
			"pictures": scriptPictures,
			"flip":     scriptFlip,
			"cut":      scriptCut,
			"bomb":     scriptBomb,
			"fakecuda": scriptFakeCUDA,
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
		if text, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && pattern.Match(text) {
			return
		}
	}
	ts.Fatalf("%s has no match of %s after a minute", args[0], args[1])
}
