package main

import (
	"fmt"
	"os"
	"path/filepath"

	"ddgpu/diffusion"
	"ddgpu/diffusion/checkpoint"
)

// openRunFor opens and locks the run folder of a training and finds the checkpoint that it continues from, "" for none. The folder must belong to
// this configuration, or hold nothing to continue. Where its run went on for longer than is asked for, this is another run, in a folder
// beside it, which the notice names.
func openRunFor(out, resume string, config diffusion.Config) (folder *runFolder, from, notice string, err error) {
	if folder, err = openRun(out); err != nil {
		return nil, "", "", err
	}
	newest, found, err := checkpoint.Latest(folder.Checkpoints())
	if err == nil && found && resume != "never" {
		err = checkOwner(folder, config)
	}
	if err != nil {
		folder.Close()
		return nil, "", "", err
	}
	named := resume != "auto" && resume != "never"
	switch {
	case named && found && !sameFile(folder.Checkpoints(), filepath.Dir(resume)):
		folder.Close()
		return nil, "", "", usagef("%s has checkpoints of its own: to continue from %s, choose another --out", out, resume)
	case named:
		return folder, resume, "", nil
	case !found:
		return folder, "", "", nil
	case resume == "never":
		folder, err = folder.startOver()
		return folder, "", "", err
	case newest.Step > int64(config.Train.Steps):
		beside := folder.spareName()
		notice = fmt.Sprintf("%s has been trained for %d steps, more than the %d asked for: it stays as it is, this run goes to %s",
			folder.path, newest.Step, config.Train.Steps, beside)
		folder.Close()
		folder, err = openRun(beside)
		return folder, "", notice, err
	}
	return folder, newest.Path, "", nil
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// checkOwner refuses a folder whose checkpoints another configuration made.
func checkOwner(folder *runFolder, config diffusion.Config) error {
	advice := fmt.Sprintf("choose another folder with --out, or start over with --resume never, which keeps this one as %s", folder.spareName())
	was := emptyConfig()
	if !exists(folder.Config()) {
		return nil // the trainer compares with the checkpoint
	}
	if err := overlayFile(folder.Config(), &was); err != nil {
		return err
	}
	if d := diffusion.Difference(was, config); d != "" {
		return usagef("%s was trained with another configuration (%s): %s", folder.path, d, advice)
	}
	return nil
}

// spareName is the first of PATH.1, PATH.2, … that is free.
func (r *runFolder) spareName() string {
	for n := 1; ; n++ {
		if name := fmt.Sprintf("%s.%d", r.path, n); !exists(name) {
			return name
		}
	}
}

// startOver gives the folder another name and opens an empty one in its place.
func (r *runFolder) startOver() (*runFolder, error) {
	name := r.spareName()
	if err := os.Rename(r.path, name); err != nil {
		r.Close()
		return nil, fmt.Errorf("keeping the earlier run: %w", err)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("closing the earlier run: %w", err)
	}
	return openRun(r.path)
}
