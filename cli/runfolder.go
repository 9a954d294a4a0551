package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// runFolder is what a training leaves behind:
//
//	config.yaml        the resolved configuration
//	metrics.jsonl      one line per step
//	loss.png           training and validation loss
//	samples/           a grid of samples for each sampling step
//	checkpoints/       written by the trainer
type runFolder struct {
	path string
	lock *os.File
}

// openRun creates the folder where it is missing and locks it, so that two trainings cannot write into one folder. The
// lock ends with the process, however it ends.
func openRun(path string) (*runFolder, error) {
	r := &runFolder{path: path}
	if err := os.MkdirAll(r.Samples(), 0o755); err != nil {
		return nil, fmt.Errorf("creating the run folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the run folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, usagef("%s is being written by another training; choose another --out", path)
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	r.lock = lock
	return r, nil
}

func (r *runFolder) Close() error { return r.lock.Close() }

func (r *runFolder) Config() string      { return filepath.Join(r.path, configName) }
func (r *runFolder) Metrics() string     { return filepath.Join(r.path, "metrics.jsonl") }
func (r *runFolder) LossCurve() string   { return filepath.Join(r.path, "loss.png") }
func (r *runFolder) Samples() string     { return filepath.Join(r.path, "samples") }
func (r *runFolder) Checkpoints() string { return filepath.Join(r.path, "checkpoints") }

// SampleGrid is the grid drawn after a step. Eight digits keep the names in order.
func (r *runFolder) SampleGrid(step int64) string {
	return filepath.Join(r.Samples(), fmt.Sprintf("step-%08d.png", step))
}

const configName = "config.yaml"

// writeFile writes a file completely or not at all. What is not a file (/dev/stdout, a pipe) is written to as it is.
func writeFile(path string, encode func(io.Writer) error) error {
	if stat, err := os.Stat(path); err == nil && !stat.Mode().IsRegular() {
		return writeThrough(path, encode)
	}
	file, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer file.Cleanup()
	if err := encode(file); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func writeThrough(path string, encode func(io.Writer) error) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		err = join(encode(file), file.Close())
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
