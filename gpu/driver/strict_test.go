package driver

import (
	"strings"
	"testing"
	"unsafe"

	"ddgpu/gpu/driver/testkernels"

	"gorgonia.org/cu"
)

// expect fails unless err is the driver's code and the detail holds the text.
func expect(t testing.TB, err error, want Result, detail string) {
	t.Helper()
	if !is(err, want) {
		t.Errorf("got %v (%s), want %v", err, Detail(), want)
	} else if !strings.Contains(Detail(), detail) {
		t.Errorf("%v: the detail %q says nothing of %q", err, Detail(), detail)
	}
}

// kernel loads one of the kernels in testkernels.
func kernel(t testing.TB, name string) cu.Function {
	t.Helper()
	return must(must(LoadModule(testkernels.PTX(name)))(t).Function(name))(t)
}

// start launches one block of the given number of threads on the null stream.
func start(f cu.Function, threads int, args ...uint64) error {
	return Launch(f, [3]int{1, 1, 1}, [3]int{threads, 1, 1}, 0, cu.Stream{}, args)
}

// finish is start, then waits.
func finish(f cu.Function, threads int, args ...uint64) error {
	if err := start(f, threads, args...); err != nil {
		return err
	}
	return cu.Synchronize()
}

// memory allocates n floats.
func memory(t testing.TB, n int) uint64 {
	t.Helper()
	return uint64(must(cu.MemAlloc(int64(4 * n)))(t))
}

// read copies n values from the device.
func read[T any](t testing.TB, p uint64, n int) []T {
	t.Helper()
	v := make([]T, n)
	ok(t, cu.MemcpyDtoH(unsafe.Pointer(&v[0]), cu.DevicePtr(p), int64(n)*int64(unsafe.Sizeof(v[0]))))
	return v
}

// pinned allocates n floats of pinned memory.
func pinned(t testing.TB, n int) []float32 {
	t.Helper()
	return unsafe.Slice((*float32)(must(AllocHost(int64(4*n)))(t)), n)
}

func TestNoCurrentContext(t *testing.T) {
	ctx := open(t, "host,tiles=gpu")
	f := kernel(t, "fill")
	p := memory(t, 64)
	ok(t, cu.SetCurrentContext(cu.CUContext{}))
	_, err := cu.MemAlloc(4)
	expect(t, err, InvalidContext, "")
	expect(t, cu.Synchronize(), InvalidContext, "")
	expect(t, start(f, 64, p, 64), InvalidContext, "")
	_, err = cu.MakeStream(cu.NonBlocking)
	expect(t, err, InvalidContext, "")
	ok(t, cu.SetCurrentContext(ctx))
	ok(t, finish(f, 64, p, 64))
}

func TestContextIsDestroyed(t *testing.T) {
	open(t, "host")
	ok(t, cu.Device(0).ResetPrimaryCtx())
	_, err := cu.MemAlloc(4)
	expect(t, err, ContextIsDestroyed, "")
}

func TestInvalidHandle(t *testing.T) {
	open(t, "host,tiles=gpu")
	p := memory(t, 64)
	expect(t, start(cu.Function{}, 1, p, 1), InvalidHandle, "")

	stream := must(cu.MakeStream(cu.NonBlocking))(t)
	gone := stream
	ok(t, stream.Destroy())
	expect(t, gone.Synchronize(), InvalidHandle, "")
	expect(t, cu.MemsetD8Async(cu.DevicePtr(p), 0, 4, gone), InvalidHandle, "")

	event := must(cu.MakeEvent(0))(t)
	gone2 := event
	ok(t, cu.DestroyEvent(&event))
	expect(t, gone2.Record(cu.Stream{}), InvalidHandle, "")
	expect(t, gone2.Synchronize(), InvalidHandle, "")

	module := must(LoadModule(testkernels.PTX("fill")))(t)
	f := must(module.Function("fill"))(t)
	ok(t, module.Unload())
	expect(t, module.Unload(), InvalidHandle, "")
	expect(t, start(f, 64, p, 64), InvalidHandle, "")
	_, err := module.Function("fill")
	expect(t, err, InvalidHandle, "")
}

func TestModuleErrors(t *testing.T) {
	open(t, "host,tiles=gpu")
	_, err := LoadModule("no PTX")
	expect(t, err, InvalidPTX, "")
	_, err = LoadModule(testkernels.PTX("nobody_wrote_this"))
	expect(t, err, NoBinaryForGPU, "")
	for version, want := range map[string]string{
		"7.8": "PTX 7.8 needs NVIDIA driver 520.61.05 or newer (CUDA 11.8); this one is of CUDA 11.4",
		"9.9": "PTX 9.9; this one is of CUDA 11.4",
	} {
		_, err = LoadModule(strings.Replace(testkernels.PTX("fill"), ".version 6.3", ".version "+version, 1))
		expect(t, err, UnsupportedPTXVersion, "")
		if want = UnsupportedPTXVersion.Error() + ": " + want; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	_, err = LoadModule(strings.Replace(testkernels.PTX("fill"), "sm_70", "sm_90", 1))
	expect(t, err, NoBinaryForGPU, "")
	if want := "the kernels need compute capability 9.0 or newer, the device has 7.0"; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want … %s", err, want)
	}
	// ptxas, which the linker calls, says so with another code; of a target that the device has it says nothing.
	if got := imageAdvice(InvalidPTX, strings.Replace(testkernels.PTX("fill"), "sm_70", "sm_90", 1)); got != "the kernels need compute capability 9.0 or newer, the device has 7.0" {
		t.Errorf("advice %q", got)
	}
	if got := imageAdvice(InvalidPTX, testkernels.PTX("fill")); got != "" {
		t.Errorf("advice %q", got)
	}
	_, err = must(LoadModule(testkernels.PTX("fill")))(t).Function("order")
	expect(t, err, NotFound, "")
}

// The linker gives code that can be loaded, and the errors of a load.
func TestCompile(t *testing.T) {
	_, err := Compile(testkernels.PTX("fill"))
	expect(t, err, NotInitialized, "")
	open(t, "host,tiles=gpu")
	code := must(Compile(testkernels.PTX("fill")))(t)
	_ = must(must(LoadCode(code))(t).Function("fill"))(t)
	_, err = LoadCode([]byte("no code"))
	expect(t, err, InvalidPTX, "")
	_, err = Compile("no PTX")
	expect(t, err, InvalidPTX, "")
	if err == nil || !strings.Contains(err.Error(), "no .version") {
		t.Errorf("the compiler's log is not in %v", err)
	}
	ok(t, cu.SetCurrentContext(cu.CUContext{}))
	_, err = Compile(testkernels.PTX("fill"))
	expect(t, err, InvalidContext, "")
}

func TestKernelPointers(t *testing.T) {
	for _, c := range []struct {
		name    string
		pointer func(t *testing.T) uint64
		want    Result
		detail  string
	}{
		{"freed", func(t *testing.T) uint64 {
			p := memory(t, 64)
			ok(t, cu.MemFree(cu.DevicePtr(p)))
			return p
		}, IllegalAddress, "outside every live allocation"},
		{"outside", func(t *testing.T) uint64 { return memory(t, 64) + 1<<40 }, IllegalAddress, "outside every live allocation"},
		{"host memory", func(*testing.T) uint64 { return uint64(uintptr(unsafe.Pointer(new([64]float32)))) }, IllegalAddress, "outside"},
		{"misaligned", func(t *testing.T) uint64 { return memory(t, 64) + 2 }, MisalignedAddress, "not aligned to 4 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			open(t, "host,tiles=gpu")
			f := kernel(t, "fill")
			good := memory(t, 64)
			expect(t, start(f, 1, c.pointer(t), 1), c.want, c.detail)
			// The context is lost with it, as on a GPU.
			expect(t, start(f, 1, good, 1), c.want, "")
			_, err := cu.MemAlloc(4)
			expect(t, err, c.want, "")
			expect(t, cu.Synchronize(), c.want, "")
		})
	}
}

func TestCopyPointers(t *testing.T) {
	open(t, "host")
	p := cu.DevicePtr(memory(t, 64))
	var host [128]float32
	at := unsafe.Pointer(&host[0])
	expect(t, cu.MemcpyHtoD(p, at, 512), InvalidValue, "not inside one live allocation")
	expect(t, cu.MemcpyDtoH(at, p+4, 256), InvalidValue, "not inside one live allocation")
	expect(t, cu.MemsetD32Async(p+1, 0, 1, cu.Stream{}), InvalidValue, "")
	ok(t, cu.MemFree(p))
	expect(t, cu.MemcpyHtoD(p, at, 4), InvalidValue, "not inside one live allocation")
	expect(t, cu.MemFree(p), InvalidValue, "")
	// None of these faults the context.
	memory(t, 64)
}

func TestUnpinnedAsyncCopy(t *testing.T) {
	open(t, "host")
	stream := must(cu.MakeStream(cu.NonBlocking))(t)
	p := cu.DevicePtr(memory(t, 64))
	var pageable [64]float32
	at := unsafe.Pointer(&pageable[0])
	expect(t, cu.MemcpyHtoDAsync(p, at, 256, stream), InvalidValue, "needs pinned host memory")
	expect(t, cu.MemcpyDtoHAsync(at, p, 256, stream), InvalidValue, "needs pinned host memory")
	ok(t, cu.MemcpyHtoDAsync(p, unsafe.Pointer(&pinned(t, 64)[0]), 256, stream))
	ok(t, stream.Synchronize())
}

func TestLaunchLimits(t *testing.T) {
	ctx := open(t, "host,tiles=gpu")
	f := kernel(t, "partial_barrier") // launch bound 1,024
	small := kernel(t, "fill")        // launch bound 256
	p := memory(t, 64)
	for _, c := range []struct {
		name        string
		f           cu.Function
		grid, block [3]int
		shared      int
		want        Result
		detail      string
	}{
		{"block over 1,024", f, [3]int{1, 1, 1}, [3]int{33, 32, 1}, 0, InvalidValue, "1024 threads"},
		{"block z over 64", f, [3]int{1, 1, 1}, [3]int{1, 1, 65}, 0, InvalidValue, "1024 threads"},
		{"block over the launch bound", small, [3]int{1, 1, 1}, [3]int{257, 1, 1}, 0, InvalidValue, "launch bound"},
		{"grid y over 65,535", f, [3]int{1, 65536, 1}, [3]int{1, 1, 1}, 0, InvalidValue, "65535"},
		{"grid z over 65,535", f, [3]int{1, 1, 65536}, [3]int{1, 1, 1}, 0, InvalidValue, "65535"},
		{"empty grid", f, [3]int{0, 1, 1}, [3]int{1, 1, 1}, 0, InvalidValue, "empty"},
		{"empty block", f, [3]int{1, 1, 1}, [3]int{1, 0, 1}, 0, InvalidValue, "empty"},
		{"over 48 KB without the attribute", f, [3]int{1, 1, 1}, [3]int{1, 1, 1}, 48<<10 + 4, InvalidValue, "limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			use(t, ctx)
			expect(t, Launch(c.f, c.grid, c.block, c.shared, cu.Stream{}, []uint64{p, 0}), c.want, c.detail)
		})
	}
	ok(t, Launch(small, [3]int{1, 2, 1}, [3]int{256, 1, 1}, 48<<10, cu.Stream{}, []uint64{p, 0}))
	ok(t, cu.Synchronize())
}

func TestSharedOptIn(t *testing.T) {
	open(t, "host,tiles=gpu")
	f := kernel(t, "fill")
	p := memory(t, 64)
	most := must(MaxSharedPerBlockOptIn(cu.Device(0)))(t)
	expect(t, FuncSetAttribute(f, MaxDynamicShared, most+1), InvalidValue, "")
	ok(t, FuncSetAttribute(f, MaxDynamicShared, most))
	ok(t, Launch(f, [3]int{1, 1, 1}, [3]int{1, 1, 1}, most, cu.Stream{}, []uint64{p, 1}))
	ok(t, cu.Synchronize())
}

// The static arrays of a block count together with what the launch adds.
func TestSharedOverflow(t *testing.T) {
	for _, c := range []struct {
		kernel  string
		dynamic int
		want    Result
	}{
		{"static_shared", 0, LaunchOutOfResources},
		{"both_shared", 8<<10 + 4, LaunchOutOfResources},
		{"both_shared", 8 << 10, 0},
	} {
		open(t, "host,tiles=gpu")
		f := kernel(t, c.kernel)
		ok(t, Launch(f, [3]int{1, 1, 1}, [3]int{64, 1, 1}, c.dynamic, cu.Stream{}, []uint64{memory(t, 64), 1}))
		if err := cu.Synchronize(); c.want == 0 {
			ok(t, err)
		} else {
			expect(t, err, c.want, "shared memory beyond the limit")
		}
		Close()
	}
}

func TestRegisters(t *testing.T) {
	open(t, "host,tiles=gpu")
	f := kernel(t, "hungry") // 72 registers
	p := memory(t, 1024)
	expect(t, start(f, 1024, p, 1), LaunchOutOfResources, "registers")
	ok(t, finish(f, 896, p, 1)) // 28 warps of 9 × 256 registers
}

func TestOutOfMemory(t *testing.T) {
	open(t, "host,memory=1MiB")
	p := must(cu.MemAlloc(1 << 19))(t)
	_, err := cu.MemAlloc(1<<19 + 1)
	expect(t, err, OutOfMemory, "524288 of 1048576 bytes free, 524289 asked for")
	if free, total, err := cu.MemInfo(); err != nil || free != 1<<19 || total != 1<<20 {
		t.Errorf("%d of %d bytes free (%v)", free, total, err)
	}
	ok(t, cu.MemFree(p))
	must(cu.MemAlloc(1 << 20))(t)
}

// Fresh device and shared memory holds NaN.
func TestFreshMemory(t *testing.T) {
	open(t, "host,tiles=gpu")
	for _, v := range read[uint32](t, memory(t, 64), 64) {
		if v != 0xffffffff {
			t.Fatalf("fresh device memory holds %#x", v)
		}
	}
	p := memory(t, 128)
	f := kernel(t, "fresh_shared")
	for range 2 { // the second time over what the first wrote
		ok(t, Launch(f, [3]int{1, 1, 1}, [3]int{64, 1, 1}, 256, cu.Stream{}, []uint64{p, 1}))
		for i, v := range read[uint32](t, p, 128) {
			if v != 0xffffffff {
				t.Fatalf("fresh shared memory holds %#x in element %d", v, i)
			}
		}
	}
}
