package driver

import (
	"reflect"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"gorgonia.org/cu"
)

func TestAllocFault(t *testing.T) {
	open(t, "host,fault=alloc:2")
	memory(t, 4)
	_, err := cu.MemAlloc(16)
	expect(t, err, OutOfMemory, "injected fault: allocation 2")
	memory(t, 4) // one failed, the context lives
}

func TestCopyFault(t *testing.T) {
	open(t, "host,fault=copy:2")
	p := memory(t, 4)
	var v [4]float32
	ok(t, cu.MemcpyHtoD(cu.DevicePtr(p), unsafe.Pointer(&v[0]), 16))
	expect(t, cu.MemcpyDtoH(unsafe.Pointer(&v[0]), cu.DevicePtr(p), 16), ECCUncorrectable, "injected fault: copy 2")
	_, err := cu.MemAlloc(16)
	expect(t, err, ECCUncorrectable, "")
}

func TestLaunchFault(t *testing.T) {
	open(t, "host,tiles=gpu,fault=launch:3")
	f := kernel(t, "fill")
	p := memory(t, 64)
	ok(t, finish(f, 64, p, 64))
	ok(t, finish(f, 64, p, 64))
	expect(t, finish(f, 64, p, 64), LaunchFailed, "injected fault: launch 3 (fill)")
	expect(t, start(f, 64, p, 64), LaunchFailed, "")
	stream := cu.Stream{}
	expect(t, stream.Synchronize(), LaunchFailed, "")
}

// After a fault the device works again in a new context.
func TestAfterFault(t *testing.T) {
	open(t, "host,tiles=gpu,fault=launch:1")
	expect(t, finish(kernel(t, "fill"), 64, memory(t, 64), 64), LaunchFailed, "")
	ok(t, cu.Device(0).ResetPrimaryCtx())
	ok(t, cu.SetCurrentContext(must(cu.Device(0).RetainPrimaryCtx())(t)))
	ok(t, finish(kernel(t, "fill"), 64, memory(t, 64), 64))
}

// A device that falls off the bus stays lost; the other one works, also where it waited for the first.
func TestLostDevice(t *testing.T) {
	first := open(t, "host:2,tiles=gpu,lazy,fault=lost:2")
	f := kernel(t, "fill")
	p := memory(t, 64)
	ok(t, finish(f, 64, p, 64))
	done := must(cu.MakeEvent(0))(t)
	ok(t, start(f, 64, p, 64))
	ok(t, done.Record(cu.Stream{}))
	second := must(cu.Device(1).RetainPrimaryCtx())(t)
	ok(t, cu.SetCurrentContext(second))
	stream := must(cu.MakeStream(cu.NonBlocking))(t)
	ok(t, stream.Wait(done, 0))
	q := memory(t, 64)
	ok(t, Launch(kernel(t, "fill"), [3]int{1, 1, 1}, [3]int{64, 1, 1}, 0, stream, []uint64{q, 64}))
	ok(t, stream.Synchronize())
	ok(t, cu.SetCurrentContext(first))
	expect(t, cu.Synchronize(), Unknown, "injected fault: device 0 fell off the bus")
	_, err := cu.MemAlloc(4)
	expect(t, err, Unknown, "")
	if _, err := cu.Device(0).RetainPrimaryCtx(); !is(err, Unknown) {
		t.Errorf("retaining a lost device's context: %v", err)
	}
}

// A caller can tell that a kernel hangs, and close the driver all the same; whoever waits for it gets an error.
func TestHang(t *testing.T) {
	ctx := open(t, "host:2,tiles=gpu,fault=hang:2")
	f := kernel(t, "fill")
	p := memory(t, 64)
	ok(t, finish(f, 64, p, 64))
	ok(t, start(f, 64, p, 64))
	done := must(cu.MakeEvent(0))(t)
	ok(t, done.Record(cu.Stream{}))
	waited := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cu.SetCurrentContext(ctx); err != nil {
			waited <- err
			return
		}
		waited <- cu.Synchronize()
	}()
	select {
	case err := <-waited:
		t.Fatalf("the wait ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	expect(t, done.Query(), NotReady, "injected fault: launch 2 (fill) hangs")
	Close()
	if err := <-waited; !is(err, LaunchTimeout) {
		t.Errorf("the wait ended with %v", err)
	}
}

// A dry device notes its kernels, those of graphs as well, and runs none.
func TestDry(t *testing.T) {
	open(t, "host,tiles=gpu,dry")
	f := kernel(t, "fill")
	p := memory(t, 64)
	host := []float32{3}
	ok(t, cu.MemcpyHtoD(cu.DevicePtr(p), unsafe.Pointer(&host[0]), 4))
	stream := must(cu.MakeStream(cu.NonBlocking))(t)
	ok(t, BeginCapture(stream, CaptureThreadLocal))
	ok(t, Launch(f, [3]int{2, 1, 1}, [3]int{32, 1, 1}, 128, stream, []uint64{p, 64}))
	captured := must(EndCapture(stream))(t)
	graph := must(captured.Instantiate())(t)
	if noted := must(Noted())(t); len(noted) != 0 {
		t.Errorf("a capture was noted: %+v", noted)
	}
	ok(t, graph.Launch(stream))
	ok(t, stream.Synchronize())
	ok(t, finish(f, 64, p, 1<<32-7)) // −7
	want := []Note{
		{Kernel: "fill", Grid: [3]int{2, 1, 1}, Block: 32, Shared: 128, Args: []float64{1, 64}},
		{Kernel: "fill", Grid: [3]int{1, 1, 1}, Block: 64, Args: []float64{1, -7}},
	}
	if noted := must(Noted())(t); !reflect.DeepEqual(noted, want) {
		t.Errorf("noted %+v, want %+v", noted, want)
	}
	if noted := must(Noted())(t); len(noted) != 0 {
		t.Errorf("noted twice: %+v", noted)
	}
	if v := read[float32](t, p, 1); v[0] != 3 {
		t.Errorf("a kernel wrote %v", v)
	}
	expect(t, finish(f, 64, p+1<<40, 64), IllegalAddress, "points outside every live allocation")
}

// What a caller reads without waiting is not there yet in lazy mode.
func TestLazy(t *testing.T) {
	open(t, "host,tiles=gpu,lazy")
	f := kernel(t, "fill")
	p := memory(t, 64)
	host := pinned(t, 64)
	stream := must(cu.MakeStream(cu.NonBlocking))(t)
	other := must(cu.MakeStream(cu.NonBlocking))(t)
	ok(t, Launch(f, [3]int{1, 1, 1}, [3]int{64, 1, 1}, 0, stream, []uint64{p, 64}))
	ok(t, cu.MemcpyDtoHAsync(unsafe.Pointer(&host[0]), cu.DevicePtr(p), 256, stream))
	// Waiting for another stream is not enough, nor is time.
	ok(t, other.Synchronize())
	time.Sleep(5 * time.Millisecond)
	if v := host[5]; v == v {
		t.Errorf("read %v without waiting", v)
	}
	// Nor does a synchronous copy wait for a non-blocking stream.
	if v := read[float32](t, p, 64)[5]; v == v {
		t.Errorf("a synchronous copy saw %v", v)
	}
	ok(t, stream.Synchronize())
	if host[5] != 5 {
		t.Errorf("got %v after waiting", host[5])
	}
}

// Work on the null stream and on blocking streams is in the order of the calls.
func TestNullStreamOrder(t *testing.T) {
	for _, spec := range []string{"host,tiles=gpu", "host,tiles=gpu,lazy"} {
		open(t, spec)
		p := cu.DevicePtr(memory(t, 64))
		var streams []cu.Stream
		for range 4 {
			streams = append(streams, must(cu.MakeStream(cu.DefaultStream))(t))
		}
		for i := range 50 {
			for _, s := range append(streams, cu.Stream{}) {
				ok(t, cu.MemsetD32Async(p, uint(i), 64, s))
				ok(t, cu.MemsetD32Async(p, uint(i)+1000, 64, cu.Stream{}))
			}
		}
		ok(t, streams[2].Synchronize())
		if v := read[uint32](t, uint64(p), 64)[63]; v != 1049 {
			t.Errorf("%s: got %d", spec, v)
		}
		Close()
	}
}

// An event orders streams, of one device and across devices, and tells the time.
func TestEvents(t *testing.T) {
	for _, spec := range []string{"host:2,tiles=gpu", "host:2,tiles=gpu,lazy"} {
		first := open(t, spec)
		second := must(cu.Device(1).RetainPrimaryCtx())(t)
		f := kernel(t, "fill")
		const n = 1 << 16
		p := memory(t, n)
		a, b := must(cu.MakeStream(cu.NonBlocking))(t), must(cu.MakeStream(cu.NonBlocking))(t)
		begin, filled := must(cu.MakeEvent(0))(t), must(cu.MakeEvent(0))(t)
		ok(t, begin.Record(a))
		ok(t, Launch(f, [3]int{n / 256, 1, 1}, [3]int{256, 1, 1}, 0, a, []uint64{p, n}))
		ok(t, filled.Record(a))
		q := memory(t, n)
		ok(t, b.Wait(filled, 0))
		ok(t, cu.MemcpyDtoDAsync(cu.DevicePtr(q), cu.DevicePtr(p), 4*n, b))
		copied := must(cu.MakeEvent(0))(t)
		ok(t, copied.Record(b))

		ok(t, cu.SetCurrentContext(second))
		c := must(cu.MakeStream(cu.NonBlocking))(t)
		r := memory(t, n)
		ok(t, c.Wait(copied, 0))
		ok(t, cu.MemcpyPeerAsync(cu.DevicePtr(r), second, cu.DevicePtr(q), first, 4*n, c))
		ok(t, c.Synchronize())
		if v := read[float32](t, r, n); v[n-1] != n-1 || v[1] != 1 {
			t.Errorf("%s: got %v and %v", spec, v[1], v[n-1])
		}
		ok(t, cu.SetCurrentContext(first))
		if ms := must(begin.Elapsed(filled))(t); ms <= 0 || ms > 10000 {
			t.Errorf("%s: %v ms", spec, ms)
		}
		never := must(cu.MakeEvent(0))(t)
		_, err := begin.Elapsed(never)
		expect(t, err, InvalidHandle, "")
		ok(t, never.Synchronize()) // never recorded: nothing to wait for
		Close()
	}
}

// A kernel may use another device's memory once that is allowed, and not before.
func TestPeers(t *testing.T) {
	first := open(t, "host:2,tiles=gpu")
	p := memory(t, 64)
	second := must(cu.Device(1).RetainPrimaryCtx())(t)
	ok(t, cu.SetCurrentContext(second))
	f := kernel(t, "fill")
	expect(t, first.DisablePeerAccess(), PeerAccessNotEnabled, "")
	ok(t, first.EnablePeerAccess(0))
	expect(t, first.EnablePeerAccess(0), PeerAccessAlreadyEnabled, "")
	ok(t, finish(f, 64, p, 64))
	if v := read[float32](t, p, 64); v[63] != 63 {
		t.Errorf("got %v", v[63])
	}
	// A peer copy names the context of each side.
	q := memory(t, 64)
	expect(t, cu.MemcpyPeer(cu.DevicePtr(q), first, cu.DevicePtr(p), second, 256), InvalidValue, "")
	ok(t, cu.MemcpyPeer(cu.DevicePtr(q), second, cu.DevicePtr(p), first, 256))
	// So does a fill need it.
	ok(t, cu.MemsetD8Async(cu.DevicePtr(p), 1, 256, cu.Stream{}))
	ok(t, first.DisablePeerAccess())
	expect(t, cu.MemsetD8Async(cu.DevicePtr(p), 1, 256, cu.Stream{}), InvalidValue, "without peer access")
	expect(t, start(f, 64, p, 64), IllegalAddress, "without peer access")
}

// Devices without peer access copy all the same, and their kernels keep to their own memory.
func TestNoPeers(t *testing.T) {
	first := open(t, "host:2,tiles=gpu,nopeers")
	p := memory(t, 64)
	ok(t, finish(kernel(t, "fill"), 64, p, 64))
	second := must(cu.Device(1).RetainPrimaryCtx())(t)
	ok(t, cu.SetCurrentContext(second))
	if can := must(cu.Device(1).CanAccessPeer(0))(t); can != 0 {
		t.Error("a device says that it can reach the other")
	}
	expect(t, first.EnablePeerAccess(0), PeerAccessUnsupported, "")
	q := memory(t, 64)
	ok(t, cu.MemcpyPeer(cu.DevicePtr(q), second, cu.DevicePtr(p), first, 256))
	if v := read[float32](t, q, 64); v[63] != 63 {
		t.Errorf("got %v", v[63])
	}
	expect(t, start(kernel(t, "fill"), 64, p, 64), IllegalAddress, "without peer access")
}
