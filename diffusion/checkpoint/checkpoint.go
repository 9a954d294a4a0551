// Package checkpoint keeps the states of a run on disk, each a folder that is complete or absent:
//
//	checkpoints/step-00001000/
//	    model.safetensors      one file per set of tensors, under their public names
//	    ema.safetensors
//	    …
//	    config.json            what was trained
//	    manifest.json          the step, and size and SHA-256 of every file
//
// The manifest's hash covers all of it and depends on nothing but the content: no time, no host,
// no path. Equal hashes are equal checkpoints, to the bit.
package checkpoint

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"ddgpu/diffusion/safetensors"
)

// Format is the version of the layout that Save writes and Open reads.
const Format = 1

const (
	manifestName = "manifest.json"
	configName   = "config.json"
	extension    = ".safetensors"
	maxJSON      = 64 << 20 // bytes of a manifest or configuration
)

// Error is a checkpoint that cannot be used: damaged, foreign or not one at all.
type Error struct {
	Path string
	Err  error
}

func (e *Error) Error() string { return "checkpoint " + e.Path + ": " + e.Err.Error() }

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

func bad(path, format string, args ...any) error { return &Error{path, fmt.Errorf(format, args...)} }

// Set is a named list of tensors, one file of a checkpoint. Tensors is called when the file is
// written, so that no two sets need be in memory.
type Set struct {
	Name    string
	Tensors func() ([]safetensors.Tensor, error)
}

// State is what Save writes.
type State struct {
	Step   int64
	Config []byte // JSON
	Sets   []Set
}

// Manifest is manifest.json.
type Manifest struct {
	Format int    `json:"format"`
	Step   int64  `json:"step"`
	Files  []File `json:"files"` // by name
	// Hash is the SHA-256 of the manifest with an empty Hash.
	Hash string `json:"hash"`
}

// File is one file of a checkpoint.
type File struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func (m Manifest) encode() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	return append(b, '\n'), err
}

// computeHash is what Hash must be.
func (m Manifest) computeHash() (string, error) {
	m.Hash = ""
	b, err := m.encode()
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// Save writes the state as a folder of dir and then removes all but the keep newest ones (0
// keeps all). It returns the folder and the manifest's hash.
//
// Everything is written to a temporary folder and synced to disk before one rename makes it
// visible; a crash at any moment leaves the earlier checkpoints and at most a temporary folder,
// which the next Save removes.
func Save(dir string, s State, keep int) (path, hash string, err error) {
	name := fmt.Sprintf("step-%08d", s.Step)
	path = filepath.Join(dir, name)
	fail := func(err error) (string, string, error) {
		return "", "", fmt.Errorf("saving checkpoint %s: %w", path, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fail(err)
	}
	if err := removeTemporary(dir); err != nil {
		return fail(err)
	}
	temporary := filepath.Join(dir, "."+name+".tmp")
	if err := os.Mkdir(temporary, 0o755); err != nil {
		return fail(err)
	}
	stage("created")
	hash, err = writeFolder(temporary, s)
	if err != nil {
		os.RemoveAll(temporary) // best effort: on a full disk the room matters
		return fail(err)
	}
	stage("written")
	if _, err := os.Stat(path); err == nil {
		if err := hide(dir, name); err != nil { // the same step again, after a resume from before it
			return fail(err)
		}
	}
	stage("hidden")
	if err := os.Rename(temporary, path); err != nil {
		return fail(err)
	}
	stage("renamed")
	if err := syncFolder(dir); err != nil {
		return fail(err)
	}
	stage("synced")
	if err := removeTemporary(dir); err != nil {
		return fail(err)
	}
	return path, hash, prune(dir, keep)
}

// stage and create let the tests crash between any two steps and fill the disk.
var (
	stage  = func(string) {}
	create = os.Create
)

func writeFolder(dir string, s State) (hash string, err error) {
	m := Manifest{Format: Format, Step: s.Step}
	add := func(name string, write func(io.Writer) error) error {
		f, err := writeFile(filepath.Join(dir, name), write)
		if err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
		m.Files = append(m.Files, f)
		stage(name)
		return nil
	}
	for _, set := range s.Sets {
		err := add(set.Name+extension, func(w io.Writer) error {
			tensors, err := set.Tensors()
			if err != nil {
				return err
			}
			return safetensors.Write(w, tensors, map[string]string{"format": "pt"})
		})
		if err != nil {
			return "", err
		}
	}
	if err := add(configName, func(w io.Writer) error { _, err := w.Write(s.Config); return err }); err != nil {
		return "", err
	}
	slices.SortFunc(m.Files, func(a, b File) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	if m.Hash, err = m.computeHash(); err != nil {
		return "", err
	}
	if _, err := writeFile(filepath.Join(dir, manifestName), func(w io.Writer) error {
		b, err := m.encode()
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}); err != nil {
		return "", fmt.Errorf("writing %s: %w", manifestName, err)
	}
	return m.Hash, syncFolder(dir)
}

// writeFile writes a file, syncs it, and hashes what it wrote.
func writeFile(path string, write func(io.Writer) error) (File, error) {
	f, err := create(path)
	if err != nil {
		return File{}, err
	}
	sum := sha256.New()
	count := &counter{}
	buffered := bufio.NewWriterSize(f, 1<<20)
	err = write(io.MultiWriter(buffered, sum, count))
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return File{filepath.Base(path), count.n, hex.EncodeToString(sum.Sum(nil))}, err
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// syncFolder makes the names in a folder durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}

// A name that begins with a dot is no checkpoint: it is being written or being removed.
var (
	temporaryName  = regexp.MustCompile(`^\.step-\d+\.(tmp|old)$`)
	checkpointName = regexp.MustCompile(`^step-(\d{8,18})$`)
)

func removeTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if temporaryName.MatchString(e.Name()) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// hide takes a checkpoint out of sight in one step, so that it never looks like a whole one
// while its files are removed.
func hide(dir, name string) error {
	return os.Rename(filepath.Join(dir, name), filepath.Join(dir, "."+name+".old"))
}

// prune removes all but the keep newest checkpoints.
func prune(dir string, keep int) error {
	all, err := List(dir)
	if err != nil || keep <= 0 {
		return err
	}
	for i := 0; i < len(all)-keep; i++ {
		if err := hide(dir, filepath.Base(all[i].Path)); err != nil {
			return fmt.Errorf("removing checkpoint %s: %w", all[i].Path, err)
		}
		stage("pruned")
	}
	return removeTemporary(dir)
}

// Entry is a checkpoint of a run by its place.
type Entry struct {
	Step int64
	Path string
}

// List gives the checkpoints of dir, the oldest first. A folder that does not exist has none.
func List(dir string) ([]Entry, error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing checkpoints: %w", err)
	}
	var list []Entry
	for _, n := range names {
		if match := checkpointName.FindStringSubmatch(n.Name()); match != nil && n.IsDir() {
			step, err := strconv.ParseInt(match[1], 10, 64)
			if err == nil {
				list = append(list, Entry{step, filepath.Join(dir, n.Name())})
			}
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return int(a.Step - b.Step) })
	return list, nil
}

// Latest is the newest checkpoint of dir, or ok = false if there is none.
func Latest(dir string) (e Entry, ok bool, err error) {
	all, err := List(dir)
	if err != nil || len(all) == 0 {
		return Entry{}, false, err
	}
	return all[len(all)-1], true, nil
}
