package pytorch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// behaviour is the variable that makes the test's binary a process which answers in that way.
const behaviour = "DDGPU_TEST_PEER"

func TestMain(m *testing.M) {
	if how := os.Getenv(behaviour); how != "" {
		behave(how)
		return
	}
	os.Exit(m.Run())
}

// behave answers hello as PyTorch does, and every later request as `how` says.
func behave(how string) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var r struct {
			ID int
			Do string
		}
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			os.Exit(1)
		}
		if r.Do == "hello" && !strings.HasPrefix(how, "hello ") {
			fmt.Printf(`{"id": %d, "result": {"versions": {"torch": "2"}, "device": "CPU", "threads": %s}}`+"\n", r.ID, os.Getenv("OMP_NUM_THREADS"))
			continue
		}
		switch how = strings.TrimPrefix(how, "hello "); how {
		case "missing":
			fmt.Printf(`{"id": %d, "error": "No module named 'torch'", "missing": "torch"}`+"\n", r.ID)
		case "error":
			fmt.Printf(`{"id": %d, "error": "RuntimeError: no"}`+"\n", r.ID)
		case "dies":
			fmt.Fprintln(os.Stderr, "Traceback:\nMemoryError: all gone")
			os.Exit(1)
		case "garbage":
			fmt.Println("Hello, world")
		case "id":
			fmt.Printf(`{"id": %d, "result": {}}`+"\n", r.ID+1)
		case "type":
			fmt.Printf(`{"id": %d, "result": {"seconds": "two"}}`+"\n", r.ID)
		case "none":
			fmt.Printf(`{"id": %d}`+"\n", r.ID)
		case "zero":
			fmt.Printf(`{"id": %d, "result": {"seconds": 0}}`+"\n", r.ID)
		case "endless":
			for {
				fmt.Print(strings.Repeat("x", 1<<16))
			}
		case "silent":
			child := exec.Command("sleep", "600") // that keeps stderr open
			child.Stderr = os.Stderr
			if err := child.Start(); err != nil {
				os.Exit(1)
			}
			if err := os.WriteFile(os.Getenv("DDGPU_TEST_PIDS"), []byte(fmt.Sprint(os.Getpid(), " ", child.Process.Pid)), 0o644); err != nil {
				os.Exit(1)
			}
			time.Sleep(10 * time.Minute)
		default: // a mode that prepare gives
			fmt.Printf(`{"id": %d, "note": "working"}`+"\n", r.ID)
			fmt.Printf(`{"id": %d, "result": {"seconds": 0.5, "modes": [{"mode": %q}]}}`+"\n", r.ID, how)
		}
	}
}

func start(t *testing.T, how string, o Options) (*Peer, error) {
	t.Helper()
	t.Setenv(behaviour, how)
	o.Python, o.Device, o.Threads, o.Precision = os.Args[0], "cpu", 3, "fp32"
	p, err := Start(t.Context(), o)
	if p != nil {
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(p.folder); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is still there", p.folder)
			}
		})
	}
	return p, err
}

func TestAnswers(t *testing.T) {
	var notes []string
	p, err := start(t, "eager", Options{Note: func(s string) { notes = append(notes, s) }})
	if err != nil {
		t.Fatal(err)
	}
	if p.Facts.Versions["torch"] != "2" || p.Facts.Threads != 3 {
		t.Errorf("facts %+v", p.Facts)
	}
	modes, err := p.Prepare(t.Context(), Work{Kind: "conv_forward", Modes: []string{"eager"}, Limit: time.Second})
	if err != nil || len(modes) != 1 || modes[0].Mode != "eager" {
		t.Fatalf("%+v, %v", modes, err)
	}
	took, err := p.Run(t.Context(), "eager", 3)
	if err != nil || took != time.Second/2 {
		t.Fatalf("%v, %v", took, err)
	}
	if len(notes) != 2 || notes[0] != "working" {
		t.Errorf("notes %q", notes)
	}
}

func TestBrokenAnswers(t *testing.T) {
	for how, want := range map[string]string{
		"error": "PyTorch, asked to run: RuntimeError: no", "dies": "it has ended; it said: Traceback: · MemoryError: all gone",
		"garbage": `the answer "Hello, world" is not JSON`, "id": "an answer to request 3, want 2", "type": "is not as expected",
		"none": "is not as expected", "zero": "3 runs in 0 s", "endless": "token too long",
	} {
		t.Run(how, func(t *testing.T) {
			p, err := start(t, how, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = p.Run(t.Context(), "eager", 3); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}

func TestOtherModes(t *testing.T) {
	for _, modes := range [][]string{{"compile"}, {"eager", "compile"}} {
		p, err := start(t, "eager", Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Prepare(t.Context(), Work{Modes: modes}); err == nil || !strings.Contains(err.Error(), "in the answer, want") {
			t.Errorf("prepare %v: %v", modes, err)
		}
	}
}

func TestMissing(t *testing.T) {
	_, err := start(t, "hello missing", Options{})
	var missing *StartError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "-m pip install torch diffusers safetensors") {
		t.Errorf("no torch: %v", err)
	}
	_, err = Start(t.Context(), Options{Python: filepath.Join(t.TempDir(), "python3")})
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "there is no program") {
		t.Errorf("no Python: %v", err)
	}
}

// A process that does not answer is ended with its children, after the time that it has, or when the caller stops.
func TestSilence(t *testing.T) {
	for _, stop := range []bool{false, true} {
		pids := filepath.Join(t.TempDir(), "pids")
		t.Setenv("DDGPU_TEST_PIDS", pids)
		limit := 500 * time.Millisecond
		if stop {
			limit = time.Hour
		}
		p, err := start(t, "silent", Options{Answer: limit})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if stop {
			time.AfterFunc(500*time.Millisecond, cancel)
		}
		_, err = p.Run(ctx, "eager", 1)
		cancel()
		if stop && !errors.Is(err, context.Canceled) || !stop && (err == nil || !strings.Contains(err.Error(), "no answer within 500ms")) {
			t.Errorf("stopped %v: %v", stop, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(pids)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			gone := func() bool {
				status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				return err != nil || strings.Contains(string(status), ") Z ") || syscall.Kill(pid, 0) == syscall.ESRCH
			}
			for deadline := time.Now().Add(5 * time.Second); !gone(); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("process %d still runs", pid)
				}
			}
		}
	}
}

func TestEnvironment(t *testing.T) {
	env := environment([]string{"HOME=/h", "OPENBLAS_CORETYPE=Haswell", "OPENBLAS_L2_SIZE=1", "OMP_NUM_THREADS=64"}, 2)
	if env[0] != "HOME=/h" || strings.Contains(strings.Join(env, " "), "CORETYPE") || env[len(env)-3] != "OMP_NUM_THREADS=2" {
		t.Errorf("%q", env)
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add(`{"id": 1, "result": {"seconds": 1}}`)
	f.Add(`{"id": 1, "error": "no", "missing": "torch", "note": 3}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, text string) {
		if a, err := parseAnswer(text, 1); err == nil && a.ID != 1 {
			t.Errorf("%q has the id %d", text, a.ID)
		}
	})
}
