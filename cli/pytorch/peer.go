// Package pytorch runs PyTorch beside ddgpu, in a Python process of its own that the scripts in this folder make a server: one process, one
// request at a time, one JSON object a line in each direction (peer.py has the protocol).
//
//	p, err := pytorch.Start(ctx, pytorch.Options{Python: "python3", Device: "cpu", Threads: 2, Precision: "fp32"})
//	prepared, err := p.Prepare(ctx, pytorch.Work{Kind: "conv_forward", …})
//	took, err := p.Run(ctx, "eager", 10)
package pytorch

import (
	"bufio"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

//go:embed *.py
var scripts embed.FS

// Options say what to start.
type Options struct {
	Python    string // a command
	Device    string // as PyTorch names it: cpu, cuda:0
	Threads   int
	Precision string        // fp32, tf32 or bf16
	Start     time.Duration // how long importing PyTorch may take; 0: 5 minutes
	Answer    time.Duration // how long an answer may take beyond what its request allows; 0: 10 minutes
	Note      func(string)  // called with what a request is at; may be nil
}

// Facts are what PyTorch says of itself.
type Facts struct {
	Versions map[string]string `json:"versions"` // by package
	Device   string            `json:"device"`
	Threads  int               `json:"threads"`
}

// Peer is a running process. Its methods are called one at a time.
type Peer struct {
	Facts Facts

	options Options
	command *exec.Cmd
	folder  string // of the scripts
	stdin   io.WriteCloser
	lines   chan string // of stdout; closed at its end
	broken  error       // why lines ended, beyond the end itself; read after that
	stderr  tail
	exited  chan struct{} // closed when the process has ended
	id      int
}

// StartError is a Python that cannot serve: it is not there, or a package is missing.
type StartError struct {
	Python  string
	Missing string // package, or empty
	Err     error
}

func (e *StartError) Error() string {
	switch e.Missing {
	case "":
		if errors.Is(e.Err, os.ErrNotExist) || errors.Is(e.Err, exec.ErrNotFound) {
			return fmt.Sprintf("there is no program %s", e.Python)
		}
		return fmt.Sprintf("starting %s: %v", e.Python, e.Err)
	case "torch", "diffusers", "safetensors", "numpy":
		return fmt.Sprintf("%s has no package %s: install what is needed with: %s -m pip install torch diffusers safetensors", e.Python, e.Missing, e.Python)
	case "denoising_diffusion_pytorch":
		return fmt.Sprintf("%s has no denoising-diffusion-pytorch: install it with: %s -m pip install denoising-diffusion-pytorch", e.Python, e.Python)
	}
	return fmt.Sprintf("%s has no package %s: install it with: %s -m pip install %s", e.Python, e.Missing, e.Python, e.Missing)
}

func (e *StartError) Unwrap() error { return e.Err }

// Start starts the process and waits until PyTorch is there.
func Start(ctx context.Context, o Options) (*Peer, error) {
	if o.Start == 0 {
		o.Start = 5 * time.Minute
	}
	if o.Answer == 0 {
		o.Answer = 10 * time.Minute
	}
	p := &Peer{options: o, lines: make(chan string, 1), exited: make(chan struct{})}
	if err := p.start(); err != nil {
		return nil, err
	}
	err := p.ask(ctx, o.Start, map[string]any{"do": "hello", "device": o.Device, "threads": o.Threads, "precision": o.Precision}, &p.Facts)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Peer) start() (err error) {
	if p.folder, err = os.MkdirTemp("", "ddgpu-pytorch-"); err != nil {
		return fmt.Errorf("making a folder for the scripts of PyTorch: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(p.folder))
		}
	}()
	if err := os.CopyFS(p.folder, scripts); err != nil {
		return fmt.Errorf("writing the scripts of PyTorch: %w", err)
	}
	p.command = exec.Command(p.options.Python, "-u", filepath.Join(p.folder, "peer.py"))
	p.command.Env = environment(os.Environ(), p.options.Threads)
	p.command.Stderr = &p.stderr
	// A group of its own: an interrupt of the terminal reaches ddgpu alone, which ends the group, workers of a compilation included.
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A worker that outlives the process would hold its stderr open.
	p.command.WaitDelay = time.Second
	if p.stdin, err = p.command.StdinPipe(); err != nil {
		return err
	}
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.command.Start(); err != nil {
		return &StartError{Python: p.options.Python, Err: unwrapped(err)}
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(stdout)
	}()
	go func() {
		<-read
		_ = p.command.Wait() // what it says is in stderr
		close(p.exited)
	}()
	return nil
}

// unwrapped is the reason in an error of package exec, which repeats the name of the command.
func unwrapped(err error) error {
	if e := new(exec.Error); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// environment is what the process gets: the threads of every library it may load, and nothing that tunes OpenBLAS for someone else.
func environment(of []string, threads int) []string {
	env := slices.DeleteFunc(slices.Clone(of), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONPATH", "PYTHONSTARTUP"}, name)
	})
	for _, name := range []string{"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"} {
		env = append(env, name+"="+strconv.Itoa(threads))
	}
	return env
}

// maxLine bounds a line of an answer, so that a process that answers without end cannot fill memory.
const maxLine = 1 << 20

func (p *Peer) read(stdout io.Reader) {
	s := bufio.NewScanner(stdout)
	s.Buffer(make([]byte, 1<<12), maxLine)
	for s.Scan() {
		p.lines <- s.Text()
	}
	p.broken = s.Err()
	close(p.lines)
	_, _ = io.Copy(io.Discard, stdout)
}

// answer is a line of the process.
type answer struct {
	ID      int             `json:"id"`
	Result  json.RawMessage `json:"result"`
	Error   string          `json:"error"`
	Missing string          `json:"missing"`
	Note    string          `json:"note"`
}

// parseAnswer reads a line of the process as an answer to a request.
func parseAnswer(text string, id int) (answer, error) {
	var a answer
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return a, fmt.Errorf("the answer %.80q is not JSON as expected", text)
	}
	if a.ID != id {
		return a, fmt.Errorf("an answer to request %d, want %d", a.ID, id)
	}
	return a, nil
}

// ask sends a request and decodes the result of its answer. After any error but an *OperationError the process is of no more use.
func (p *Peer) ask(ctx context.Context, limit time.Duration, request map[string]any, into any) error {
	p.id++
	request["id"] = p.id
	doing := request["do"].(string)
	line, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("asking PyTorch to %s: %w", doing, err)
	}
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		return p.failed(doing, errors.New("it has ended"))
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return p.failed(doing, fmt.Errorf("no answer within %v", limit))
		case text, ok := <-p.lines:
			if !ok {
				if p.broken != nil {
					return p.failed(doing, p.broken)
				}
				return p.failed(doing, errors.New("it has ended"))
			}
			a, err := parseAnswer(text, p.id)
			if err != nil {
				return p.failed(doing, err)
			}
			switch {
			case a.Note != "":
				if p.options.Note != nil {
					p.options.Note(a.Note)
				}
				continue
			case a.Missing != "":
				return &StartError{Python: p.options.Python, Missing: a.Missing, Err: errors.New(a.Error)}
			case a.Error != "":
				return &OperationError{doing, a.Error}
			}
			if err := json.Unmarshal(a.Result, into); err != nil {
				return p.failed(doing, fmt.Errorf("the result %.80q is not as expected", a.Result))
			}
			return nil
		}
	}
}

// OperationError is an error that Python reports of a request; the process goes on.
type OperationError struct{ Doing, Reason string }

func (e *OperationError) Error() string {
	return fmt.Sprintf("PyTorch, asked to %s: %s", e.Doing, e.Reason)
}

// failed ends the process and adds what it had to say.
func (p *Peer) failed(doing string, err error) error {
	p.kill()
	said := p.stderr.last(3)
	if said != "" {
		said = "; it said: " + said
	}
	return fmt.Errorf("PyTorch (%s), asked to %s: %w%s", p.options.Python, doing, err, said)
}

func (p *Peer) kill() {
	_ = syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL) // already gone: nothing to do
	for range p.lines {                                       // the reader ends with what is left
	}
	<-p.exited
}

// Close ends the process.
func (p *Peer) Close() error {
	p.kill()
	return os.RemoveAll(p.folder)
}

// tail keeps the end of what is written to it.
type tail struct {
	mutex sync.Mutex
	text  []byte
}

const tailBytes = 1 << 13

func (t *tail) Write(b []byte) (int, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.text = append(t.text, b...)
	if extra := len(t.text) - tailBytes; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
	return len(b), nil
}

// last is the last n lines, in one.
func (t *tail) last(n int) string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	lines := strings.FieldsFunc(string(t.text), func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(lines[max(0, len(lines)-n):], " · ")
}
