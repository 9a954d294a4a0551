package gpu_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"ddgpu/gpu"
	"ddgpu/gpu/driver"
)

func open(t testing.TB, spec string) *gpu.Machine {
	t.Helper()
	m, err := gpu.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func do(t testing.TB, d *gpu.Device, f func() error) {
	t.Helper()
	if err := d.Do(f); err != nil {
		t.Fatal(err)
	}
}

// steps runs functions until one fails.
func steps(fs ...func() error) error {
	for i, f := range fs {
		if err := f(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func TestDevices(t *testing.T) {
	m := open(t, "host:3,memory=64MiB")
	if len(m.Devices) != 3 || !m.Host || m.Notice != "" {
		t.Fatalf("%+v", m)
	}
	for i, d := range m.Devices {
		if d.Index != i || d.Name == "" || d.Total != 64<<20 || d.Major < 7 || d.Multiprocessors < 1 {
			t.Errorf("device %d: %+v", i, d)
		}
	}
}

func TestOutsideOfDo(t *testing.T) {
	d := open(t, "host").Devices[0]
	_, err := d.Alloc("a test", 100)
	if !errors.Is(err, driver.InvalidContext) {
		t.Errorf("got %v", err)
	}
}

func TestAFunctionThatEndsItsGoroutineHoldsNobodyUp(t *testing.T) {
	m, err := gpu.Open("host")
	if err != nil {
		t.Fatal(err)
	}
	d := m.Devices[0]
	if err := d.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error of the call")
	}
	if err := d.Do(func() error { return nil }); err == nil {
		t.Error("no error of the next call")
	}
	if err := m.Close(); err == nil {
		t.Error("no error of Close")
	}
}

// Not a panic, however often.
func TestCallsAfterCloseAreErrors(t *testing.T) {
	m, err := gpu.Open("host:2")
	if err != nil {
		t.Fatal(err)
	}
	devices := m.Devices
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		for _, d := range devices {
			if err := d.Do(func() error { t.Error("it ran"); return nil }); err == nil {
				t.Error("no error")
			}
		}
	}
}

func TestOutOfMemorySaysWhatFor(t *testing.T) {
	d := open(t, "host,memory=1MiB").Devices[0]
	do(t, d, func() error {
		if _, err := d.Alloc("a first tensor", 600<<10); err != nil {
			return err
		}
		_, err := d.Alloc("activations of down.1", 2<<20)
		var memory *gpu.MemoryError
		if !errors.As(err, &memory) || !errors.Is(err, driver.OutOfMemory) {
			t.Fatalf("got %v", err)
		}
		want := "allocating 2.0 MiB for activations of down.1 on device 0: out of memory, 424 KiB of 1.0 MiB free"
		if err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
		return nil
	})
}

// A round trip host → device 0 → device 1 → host, ordered by events alone.
func TestCopiesBetweenDevices(t *testing.T) {
	for _, spec := range []string{"host:2", "host:2,lazy", "host:2,nopeers"} {
		m := open(t, spec)
		a, b := m.Devices[0], m.Devices[1]
		const n = 1 << 20
		var source, target []byte
		var onA, onB gpu.Ptr
		var sent *gpu.Event
		do(t, a, func() (err error) {
			if source, err = a.AllocPinned("a test", n); err != nil {
				return err
			}
			for i := range source {
				source[i] = byte(i * 7)
			}
			if onA, err = a.Alloc("a test", n); err != nil {
				return err
			}
			if sent, err = a.NewEvent(); err != nil {
				return err
			}
			s, err := a.NewStream()
			if err != nil {
				return err
			}
			return steps(func() error { return s.Upload(onA, source) }, func() error { return s.Record(sent) })
		})
		do(t, b, func() (err error) {
			if target, err = b.AllocPinned("a test", n); err != nil {
				return err
			}
			if onB, err = b.Alloc("a test", n); err != nil {
				return err
			}
			s, err := b.NewStream()
			if err != nil {
				return err
			}
			return steps(func() error { return s.Wait(sent) }, func() error { return s.CopyPeer(onB, b, onA, a, n) },
				func() error { return s.Download(target, onB) }, s.Sync)
		})
		if !bytes.Equal(source, target) {
			t.Errorf("%s: the bytes that came back differ", spec)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestGraphReplays(t *testing.T) {
	d := open(t, "host").Devices[0]
	do(t, d, func() error {
		s, err := d.NewStream()
		if err != nil {
			return err
		}
		from, err := d.Alloc("a test", 16)
		if err != nil {
			return err
		}
		to, err := d.Alloc("a test", 16)
		if err != nil {
			return err
		}
		g, err := s.Capture(func() error { return s.Copy(to, from, 16) })
		if err != nil {
			return err
		}
		if g.Nodes != 1 {
			t.Errorf("%d nodes", g.Nodes)
		}
		got := make([]byte, 16)
		for i := byte(1); i < 4; i++ {
			want := bytes.Repeat([]byte{i}, 16)
			if err := steps(func() error { return d.Write(from, want) }, func() error { return g.Launch(s) }, s.Sync,
				func() error { return d.Read(got, to) }); err != nil {
				return err
			}
			if !bytes.Equal(got, want) {
				t.Errorf("replay %d: got %v", i, got)
			}
		}
		return g.Close()
	})
}

func TestFailedCaptureLeavesTheStreamUsable(t *testing.T) {
	d := open(t, "host").Devices[0]
	do(t, d, func() error {
		s, err := d.NewStream()
		if err != nil {
			return err
		}
		reason := errors.New("no such layer")
		if _, err := s.Capture(func() error { return reason }); !errors.Is(err, reason) {
			t.Errorf("got %v", err)
		}
		if _, err := s.Capture(func() error { _, err := d.Alloc("a test", 8); return err }); !errors.Is(err, driver.CaptureUnsupported) {
			t.Errorf("an allocation inside a capture: %v", err)
		}
		return s.Sync()
	})
}

func TestEventsTakeTheTime(t *testing.T) {
	d := open(t, "host").Devices[0]
	do(t, d, func() error {
		s, err := d.NewStream()
		if err != nil {
			return err
		}
		p, err := d.Alloc("a test", 64<<20)
		if err != nil {
			return err
		}
		start, err := d.NewEvent()
		if err != nil {
			return err
		}
		end, err := d.NewEvent()
		if err != nil {
			return err
		}
		err = steps(func() error { return s.Record(start) }, func() error { return s.Zero(p, 64<<20) }, func() error { return s.Record(end) }, end.Sync)
		if err != nil {
			return err
		}
		if took, err := end.Since(start); err != nil || took <= 0 {
			t.Errorf("clearing 64 MiB took %v, %v", took, err)
		}
		return nil
	})
}

func TestModuleErrorsNameTheKernels(t *testing.T) {
	d := open(t, "host").Devices[0]
	do(t, d, func() error {
		_, err := d.LoadModule("broken", "not PTX")
		if !errors.Is(err, driver.InvalidPTX) || !strings.Contains(err.Error(), "broken") {
			t.Errorf("got %v", err)
		}
		text, err := os.ReadFile("../kernels/ptx/sm_70/add.ptx")
		if err != nil {
			return err
		}
		m, err := d.LoadModule("add", string(text))
		if err != nil {
			return err
		}
		if _, err := m.Function("subtract"); !errors.Is(err, driver.NotFound) || !strings.Contains(err.Error(), "subtract") {
			t.Errorf("got %v", err)
		}
		return m.Close()
	})
}

func TestFaultIsSticky(t *testing.T) {
	m := open(t, "host,fault=copy:2")
	d := m.Devices[0]
	err := d.Do(func() error {
		p, err := d.Alloc("a test", 8)
		if err != nil {
			return err
		}
		b := make([]byte, 8)
		if err := d.Write(p, b); err != nil {
			return err
		}
		if err := d.Write(p, b); !errors.Is(err, driver.ECCUncorrectable) {
			t.Errorf("the second copy: %v", err)
		}
		if err := d.Write(p, b); !errors.Is(err, driver.ECCUncorrectable) {
			t.Errorf("after the fault: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMemoryLimit(t *testing.T) {
	m, err := gpu.Open("host:2")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.LimitMemory(1000); err != nil {
		t.Fatal(err)
	}
	err = m.Each(func(d *gpu.Device) error {
		p, err := d.Alloc("most of it", 900)
		if err != nil {
			return err
		}
		var full *gpu.MemoryError
		if _, err := d.Alloc("the rest", 101); !errors.As(err, &full) || !errors.Is(err, driver.OutOfMemory) {
			t.Errorf("one byte beyond the limit: %v", err)
		} else if want := fmt.Sprintf("allocating 101 B for the rest on device %d: out of memory, 100 B of the memory limit of 1000 B free", d.Index); err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		rest, err := d.Alloc("the rest", 100)
		if err != nil {
			return err
		}
		if d.Allocated() != 1000 {
			t.Errorf("%d bytes are allocated", d.Allocated())
		}
		if err := errors.Join(d.Free(p), d.Free(rest)); err != nil {
			return err
		}
		if d.Allocated() != 0 {
			t.Errorf("%d bytes are allocated after all was freed", d.Allocated())
		}
		p, err = d.Alloc("all of it", 1000)
		return errors.Join(err, d.Free(p))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func Example() {
	machine, err := gpu.Open("host:1,memory=1MiB")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer machine.Close()
	device := machine.Devices[0]
	err = device.Do(func() error {
		p, err := device.Alloc("four numbers", 16)
		if err != nil {
			return err
		}
		if err := device.Write(p, gpu.Bytes([]float32{1, 2, 3, 4})); err != nil {
			return err
		}
		back := make([]float32, 4)
		err = device.Read(gpu.Bytes(back), p)
		fmt.Println(back)
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: [1 2 3 4]
}
