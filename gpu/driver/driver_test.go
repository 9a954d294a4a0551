package driver

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"gorgonia.org/cu"
)

func ptx(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../kernels/ptx/sm_70/" + name + ".ptx")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%v: %s", err, Detail())
		}
		return value
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v: %s", err, Detail())
	}
}

// open opens a host device, makes the first device's primary context current and locks the thread, until the test ends.
func open(t testing.TB, spec string) cu.CUContext {
	t.Helper()
	must(Open(spec))(t)
	t.Cleanup(Close)
	ctx := must(cu.Device(0).RetainPrimaryCtx())(t)
	use(t, ctx)
	return ctx
}

// use locks the test's thread and makes a context current on it, until the test ends.
func use(t testing.TB, ctx cu.CUContext) {
	t.Helper()
	runtime.LockOSThread()
	ok(t, cu.SetCurrentContext(ctx))
	t.Cleanup(func() {
		_ = cu.SetCurrentContext(cu.CUContext{})
		runtime.UnlockOSThread()
	})
}

func TestBeforeOpen(t *testing.T) {
	if _, err := cu.NumDevices(); !is(err, NotInitialized) {
		t.Errorf("NumDevices before Open: %v", err)
	}
}

func is(err error, want Result) bool {
	got, ok := ResultOf(err)
	return ok && got == want
}

func TestOpenOnce(t *testing.T) {
	open(t, "host")
	if _, err := Open("host"); !errors.Is(err, ErrOpen) {
		t.Errorf("second Open: %v", err)
	}
}

func TestAdd(t *testing.T) {
	for _, spec := range []string{"host", "host,tiles=gpu", "host,lazy"} {
		t.Run(spec, func(t *testing.T) {
			open(t, spec)
			module := must(LoadModule(ptx(t, "add")))(t)
			add := must(module.Function("add"))(t)
			global, size, err := module.Global("add_geometry")
			ok(t, err)
			if size != 8 {
				t.Fatalf("add_geometry has %d bytes", size)
			}
			var geometry [2]int32
			ok(t, cu.MemcpyDtoH(unsafe.Pointer(&geometry), global, size))
			stream := must(cu.MakeStream(cu.NonBlocking))(t)
			const n = 10000
			var device [3]cu.DevicePtr
			var host [3][]float32
			for i := range device {
				device[i] = must(cu.MemAlloc(4 * n))(t)
				host[i] = unsafe.Slice((*float32)(must(AllocHost(4*n))(t)), n)
			}
			for i := range n {
				host[1][i], host[2][i] = float32(i), 0.5
			}
			for i := 1; i < 3; i++ {
				ok(t, cu.MemcpyHtoDAsync(device[i], unsafe.Pointer(&host[i][0]), 4*n, stream))
			}
			per := int(geometry[0] * geometry[1])
			ok(t, Launch(add, [3]int{(n + per - 1) / per, 1, 1}, [3]int{int(geometry[0]), 1, 1}, 0, stream,
				[]uint64{uint64(device[0]), uint64(device[1]), uint64(device[2]), n}))
			ok(t, cu.MemcpyDtoHAsync(unsafe.Pointer(&host[0][0]), device[0], 4*n, stream))
			ok(t, stream.Synchronize())
			for i, v := range host[0] {
				if v != float32(i)+0.5 {
					t.Fatalf("y[%d] = %v", i, v)
				}
			}
		})
	}
}

func TestUUIDName(t *testing.T) {
	gpu, part := [16]byte{0x0a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, [16]byte{0xff}
	if got := nameOf(gpu, gpu); got != "GPU-0a010203-0405-0607-0809-0a0b0c0d0e0f" {
		t.Errorf("a GPU is %s", got)
	}
	if got := nameOf(gpu, part); got != "MIG-ff000000-0000-0000-0000-000000000000" {
		t.Errorf("a part of it is %s", got)
	}
}
