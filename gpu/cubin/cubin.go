// Package cubin keeps machine code that a CUDA driver made of PTX, so that the next process need not wait for the compiler.
//
// A [Cache] is a folder with one file for each [Key], which stands for everything that the code depends on. Many processes, also of
// several machines, can use one folder: files appear whole, by renaming, and are removed whole. A file that is damaged is removed and counts
// as absent. The folder stays below a size: the entries that were used least recently go first.
package cubin

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

const (
	suffix   = ".cubin"
	magic    = "ddgpu cubin 1\n"
	maxEntry = 64 << 20 // bytes of code
	// Limit is how large the folder of a cache may grow, in bytes.
	Limit = 256 << 20
)

// header is what precedes the code in a file: the magic, the key, the code's length as 8 bytes little endian, and its SHA-256.
const header = len(magic) + 2*sha256.Size + 8

// Key names an entry: the SHA-256 of what the code depends on.
type Key [sha256.Size]byte

// KeyOf makes a key of texts. Other texts, or the same ones divided otherwise, have another key.
func KeyOf(parts ...string) Key {
	h := sha256.New()
	var n [8]byte
	for _, part := range parts {
		binary.LittleEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	return Key(h.Sum(nil))
}

// Cache is a folder of machine code.
type Cache struct {
	folder string
	limit  int64
	remove func(path string) error // os.Remove; tests set it
}

// New makes a cache of a folder, which need not exist before something is put there.
func New(folder string) *Cache { return &Cache{folder, Limit, os.Remove} }

// Folder is where the cache lies.
func (c *Cache) Folder() string { return c.folder }

func (c *Cache) path(k Key) string { return filepath.Join(c.folder, hex.EncodeToString(k[:])+suffix) }

// Get gives the code of a key. Where there is none, or none that can be used, the error is fs.ErrNotExist or says what was wrong with it.
func (c *Cache) Get(k Key) ([]byte, error) {
	f, err := os.Open(c.path(k))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file, err := io.ReadAll(io.LimitReader(f, int64(header)+maxEntry+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	code, err := decode(file, k)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", f.Name(), err), c.Remove(k))
	}
	now := time.Now()
	_ = os.Chtimes(f.Name(), now, now) // in a folder that cannot be written the order of use is not kept
	return code, nil
}

// decode checks a file of an entry and gives its code.
func decode(file []byte, k Key) ([]byte, error) {
	if len(file) < header || string(file[:len(magic)]) != magic {
		return nil, errors.New("is not compiled kernels")
	}
	at := file[len(magic):]
	key, size, sum, code := at[:sha256.Size], binary.LittleEndian.Uint64(at[sha256.Size:]), at[sha256.Size+8:][:sha256.Size], file[header:]
	switch {
	case !bytes.Equal(key, k[:]):
		return nil, errors.New("is another entry")
	case size > maxEntry || uint64(len(code)) != size:
		return nil, fmt.Errorf("has %d bytes of code, not %d", len(code), size)
	case sha256.Sum256(code) != [sha256.Size]byte(sum):
		return nil, errors.New("is damaged")
	}
	return code, nil
}

func encode(code []byte, k Key) []byte {
	file := make([]byte, 0, header+len(code))
	file = append(file, magic...)
	file = append(file, k[:]...)
	file = binary.LittleEndian.AppendUint64(file, uint64(len(code)))
	sum := sha256.Sum256(code)
	return append(append(file, sum[:]...), code...)
}

// Put keeps the code of a key, and removes old entries where there are too many. Those that this user may not remove, in a folder that several share,
// stay.
func (c *Cache) Put(k Key, code []byte) error {
	if len(code) > maxEntry {
		return fmt.Errorf("%d bytes of code are too many to keep", len(code))
	}
	if err := os.MkdirAll(c.folder, 0o700); err != nil {
		return err
	}
	if err := renameio.WriteFile(c.path(k), encode(code, k), 0o600, renameio.WithTempDir(c.folder)); err != nil {
		return err
	}
	c.evict(k)
	return nil
}

// Remove takes an entry out of the cache; one that is not there is no error.
func (c *Cache) Remove(k Key) error {
	if err := c.remove(c.path(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// abandoned is the age of a file that a process left behind half-written.
const abandoned = time.Hour

// evict removes what was used least recently until the folder is below its limit, but not the entry just put, and what was left behind.
func (c *Cache) evict(just Key) {
	entries, err := os.ReadDir(c.folder)
	if err != nil {
		return
	}
	type file struct {
		path string
		size int64
		used time.Time
	}
	var files []file
	var total int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // removed by another process, or not of this cache
		}
		f := file{filepath.Join(c.folder, e.Name()), info.Size(), info.ModTime()}
		switch {
		case strings.HasSuffix(e.Name(), suffix) && !strings.HasPrefix(e.Name(), "."):
			files, total = append(files, f), total+f.size
		case strings.HasPrefix(e.Name(), ".") && strings.Contains(e.Name(), suffix) && time.Since(f.used) > abandoned:
			_ = c.remove(f.path)
		}
	}
	slices.SortFunc(files, func(a, b file) int { return a.used.Compare(b.used) })
	for _, f := range files {
		if total <= c.limit {
			break
		}
		if f.path == c.path(just) {
			continue
		}
		if err := c.remove(f.path); err == nil || errors.Is(err, fs.ErrNotExist) {
			total -= f.size
		}
	}
}
