package gpu

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// rangesSource is both kinds of library that ranges go to; each appends what it is told to a file.
const rangesSource = `
#include <stdint.h>
#include <stdio.h>
static void note(const char* what, const char* name) {
  FILE* f = fopen(LOG, "a");
  fprintf(f, "%s %s\n", what, name);
  fclose(f);
}
static int push(const char* name) { note("push", name); return 0; }
static int pop(void) { note("pop", "-"); return 0; }
#ifdef TOOL
typedef void (*function)(void);
struct callbacks { size_t size; int (*table)(int, function***, unsigned*); };
int InitializeInjectionNvtx2(const void* (*get)(uint32_t)) {
  const struct callbacks* c = get(1);
  function** table;
  unsigned size;
  if (c == NULL || c->size < sizeof *c || get(2) != NULL || get(3) == NULL) return 0;
  for (int module = 1; module <= 6; module++) {  // as a tool does that wants all there is
    if (!c->table(module, &table, &size)) return 0;
    for (unsigned i = 1; i < size; i++) *table[i] = 0;
  }
  if (c->table(7, &table, &size) || !c->table(1, &table, &size) || size != 16) return 0;
  *table[9] = (function)push;
  *table[11] = (function)pop;
  return 1;
}
#else
int nvtxRangePushA(const char* name) { return push(name); }
int nvtxRangePop(void) { return pop(); }
#endif
`

// compileRanges builds the library and returns its path and that of its log.
func compileRanges(t *testing.T, flags ...string) (library, log string) {
	t.Helper()
	folder := t.TempDir()
	source := filepath.Join(folder, "ranges.c")
	library, log = filepath.Join(folder, "ranges.so"), filepath.Join(folder, "log")
	if err := os.WriteFile(source, []byte(rangesSource), 0o600); err != nil {
		t.Fatal(err)
	}
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "cc"
	}
	args := append([]string{"-shared", "-fPIC", "-o", library, `-DLOG="` + log + `"`, source}, flags...)
	if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", compiler, err, out)
	}
	return library, log
}

// TestRanges: a tool that injects itself, and NVTX 2's library, are told of ranges; without either nothing happens.
func TestRanges(t *testing.T) {
	was := profiled
	defer func() { profiled = was }()
	tool, toolLog := compileRanges(t, "-DTOOL")
	library, libraryLog := compileRanges(t)
	for _, c := range []struct {
		tool, library, log string
		want               bool
	}{
		{tool, library, toolLog, true}, {"", library, libraryLog, true}, {"", "none.so", "", false}, {"none.so", "", "", false},
		{library, "", "", false}, // not a tool
	} {
		if got := loadRanges(c.tool, c.library); got != c.want {
			t.Errorf("%q, %q: %v", c.tool, c.library, got)
		}
		profiled = func() bool { return c.want }
		PushRange("outer")
		PushRange("down_blocks.0 forward")
		PopRange()
		PopRange()
		if !c.want {
			continue
		}
		text, err := os.ReadFile(c.log)
		if want := "push outer\npush down_blocks.0 forward\npop -\npop -\n"; err != nil || string(text) != want {
			t.Errorf("%s was told %q, %v", c.log, strings.TrimSpace(string(text)), err)
		}
	}
}
