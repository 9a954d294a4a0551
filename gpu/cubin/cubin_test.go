package cubin

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestKeyOf(t *testing.T) {
	seen := map[Key]string{}
	for _, parts := range [][]string{{}, {""}, {"", ""}, {"ab", "c"}, {"a", "bc"}, {"abc"}, {"abc", ""}} {
		k := KeyOf(parts...)
		if before, ok := seen[k]; ok {
			t.Errorf("%q and %s have one key", parts, before)
		}
		seen[k] = fmt.Sprintf("%q", parts)
	}
}

func TestPutGet(t *testing.T) {
	c := New(filepath.Join(t.TempDir(), "deep", "cubin"))
	for _, size := range []int{0, 1, 1000, 1 << 20} {
		k, code := KeyOf(fmt.Sprint(size)), randomBytes(size)
		if _, err := c.Get(k); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("before it was put: %v", err)
		}
		if err := c.Put(k, code); err != nil {
			t.Fatal(err)
		}
		got, err := c.Get(k)
		if err != nil || !bytes.Equal(got, code) {
			t.Fatalf("%d bytes came back as %d: %v", size, len(got), err)
		}
		if err := c.Remove(k); err != nil {
			t.Fatal(err)
		}
		if err := c.Remove(k); err != nil {
			t.Errorf("removing again: %v", err)
		}
		if _, err := c.Get(k); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("after it was removed: %v", err)
		}
	}
	if err := c.Put(KeyOf("large"), make([]byte, maxEntry+1)); err == nil {
		t.Error("an entry beyond the limit is kept")
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// Whatever happens to a file, its code is not given, and the file is gone.
func TestDamaged(t *testing.T) {
	k, code := KeyOf("kernels"), randomBytes(300)
	whole := encode(code, k)
	flip := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 1 << (at % 8)
		return b
	}
	files := map[string][]byte{"empty": {}, "header": whole[:header], "longer": append(bytes.Clone(whole), 0), "another": encode(code, KeyOf("other"))}
	for _, n := range []int{1, len(magic), header - 1, header + 1, len(whole) - 1} {
		files[fmt.Sprintf("cut to %d", n)] = whole[:n]
	}
	for at := range whole {
		files[fmt.Sprintf("bit of byte %d", at)] = flip(at)
	}
	c := New(t.TempDir())
	for name, file := range files {
		if err := os.WriteFile(c.path(k), file, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Get(k); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %d bytes of code, %v", name, len(got), err)
		}
		if _, err := os.Stat(c.path(k)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the file is still there", name)
		}
	}
	if got, err := decode(whole, k); err != nil || !bytes.Equal(got, code) {
		t.Errorf("undamaged: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	k := KeyOf("kernels")
	whole := encode([]byte("machine code"), k)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, file []byte) {
		if code, err := decode(file, k); err == nil && !bytes.Equal(encode(code, k), file) {
			t.Errorf("%q was read as %q", file, code)
		}
	})
}

func TestLimit(t *testing.T) {
	c := New(t.TempDir())
	c.limit = int64(3 * (header + 100))
	at := time.Now().Add(-24 * time.Hour)
	put := func(name string) {
		t.Helper()
		if err := c.Put(KeyOf(name), make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		at = at.Add(time.Minute)
		if err := os.Chtimes(c.path(KeyOf(name)), at, at); err != nil {
			t.Fatal(err)
		}
	}
	has := func(want string) {
		t.Helper()
		var got []string
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			if _, err := os.Stat(c.path(KeyOf(name))); err == nil {
				got = append(got, name)
			}
		}
		if strings.Join(got, "") != want {
			t.Errorf("the cache has %v, want %s", got, want)
		}
	}
	for name, age := range map[string]time.Duration{".x" + suffix + "1": 2 * abandoned, ".y" + suffix + "2": 0, "notes.txt": 2 * abandoned} {
		path := filepath.Join(c.folder, name)
		if err := os.WriteFile(path, make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	put("a")
	put("b")
	put("c")
	has("abc")
	if _, err := c.Get(KeyOf("a")); err != nil { // used now
		t.Fatal(err)
	}
	put("d")
	has("acd")
	put("e")
	has("ade")
	for name, want := range map[string]bool{".x" + suffix + "1": false, ".y" + suffix + "2": true, "notes.txt": true} {
		if _, err := os.Stat(filepath.Join(c.folder, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.limit = 1
	put("b")
	has("b")
}

// An entry of somebody else that may not be removed keeps nobody from putting his own, nor from removing the next one.
func TestLimitInSharedFolder(t *testing.T) {
	c := New(t.TempDir())
	c.limit = int64(2 * (header + 100))
	old := time.Now().Add(-time.Hour)
	for i, name := range []string{"theirs", "mine", "new"} {
		c.remove = func(path string) error {
			if path == c.path(KeyOf("theirs")) {
				return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrPermission}
			}
			return os.Remove(path)
		}
		if err := c.Put(KeyOf(name), make([]byte, 100)); err != nil {
			t.Errorf("putting %s: %v", name, err)
		}
		when := old.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(c.path(KeyOf(name)), when, when); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"theirs": true, "mine": false, "new": true} {
		if _, err := c.Get(KeyOf(name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCannotBeWritten(t *testing.T) {
	folder := t.TempDir()
	k := KeyOf("kernels")
	if err := os.WriteFile(filepath.Join(folder, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := New(filepath.Join(folder, "file", "cubin"))
	if err := c.Put(k, []byte("code")); err == nil {
		t.Error("an entry is kept below a file")
	}
	if _, err := c.Get(k); err == nil {
		t.Error("an entry is found below a file")
	}
}

// Many writers and readers of few keys: what is read is whole.
func TestTogether(t *testing.T) {
	folder := t.TempDir()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			c := New(folder)
			c.limit = 3 << 16
			for i := range 40 {
				name := fmt.Sprint((worker + i) % 5)
				code := bytes.Repeat([]byte(name), 1<<16)
				if err := c.Put(KeyOf(name), code); err != nil {
					t.Error(err)
				}
				got, err := c.Get(KeyOf(name))
				if err == nil && !bytes.Equal(got, code) || err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("entry %s: %d bytes, %v", name, len(got), err)
				}
			}
		}()
	}
	all.Wait()
}
