package driver

import (
	"testing"
	"unsafe"

	"ddgpu/gpu/driver/testkernels"

	"gorgonia.org/cu"
)

// capture begins one on a new stream, does what f does and ends it.
func capture(t *testing.T, mode CaptureMode, f func(s cu.Stream)) (Graph, error) {
	t.Helper()
	stream := must(cu.MakeStream(cu.NonBlocking))(t)
	ok(t, BeginCapture(stream, mode))
	f(stream)
	return EndCapture(stream)
}

// What is not allowed while a stream is captured is an error at once and invalidates the capture.
func TestForbiddenInCapture(t *testing.T) {
	ctx := open(t, "host,tiles=gpu")
	p := memory(t, 64)
	f := kernel(t, "fill")
	order := must(LoadModule(testkernels.PTX("order")))(t)
	event := must(cu.MakeEvent(0))(t)
	var host [64]float32
	for _, c := range []struct {
		name string
		want Result
		call func(s cu.Stream) error
	}{
		{"synchronise the stream", CaptureUnsupported, func(s cu.Stream) error { return s.Synchronize() }},
		{"query the stream", CaptureUnsupported, func(s cu.Stream) error { return s.Query() }},
		{"synchronise the context", CaptureUnsupported, func(cu.Stream) error { return cu.Synchronize() }},
		{"allocate", CaptureUnsupported, func(cu.Stream) error { _, err := cu.MemAlloc(4); return err }},
		{"allocate pinned memory", CaptureUnsupported, func(cu.Stream) error { _, err := AllocHost(4); return err }},
		{"free", CaptureUnsupported, func(cu.Stream) error { return cu.MemFree(cu.DevicePtr(p)) }},
		{"load a module", CaptureUnsupported, func(cu.Stream) error { _, err := LoadModule(""); return err }},
		{"load a kernel", CaptureUnsupported, func(cu.Stream) error { _, err := order.Function("order"); return err }},
		{"ask for a captured event", CapturedEvent, func(s cu.Stream) error { ok(t, event.Record(s)); return event.Query() }},
		{"wait for a captured event", CapturedEvent, func(s cu.Stream) error { ok(t, event.Record(s)); return event.Synchronize() }},
		{"launch on the null stream", CaptureImplicit, func(cu.Stream) error { return start(f, 64, p, 64) }},
		{"copy synchronously", CaptureImplicit, func(cu.Stream) error {
			return cu.MemcpyDtoH(unsafe.Pointer(&host[0]), cu.DevicePtr(p), 4)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			use(t, ctx)
			_, err := capture(t, CaptureThreadLocal, func(s cu.Stream) {
				expect(t, c.call(s), c.want, "")
				expect(t, Launch(f, [3]int{1, 1, 1}, [3]int{64, 1, 1}, 0, s, []uint64{p, 64}), CaptureInvalidated, "")
			})
			expect(t, err, CaptureInvalidated, "")
		})
	}
	// The context works on.
	ok(t, finish(f, 64, p, 64))
	// A kernel that is loaded may be asked for.
	_ = must(order.Function("order"))(t)
	_, err := capture(t, CaptureThreadLocal, func(cu.Stream) { _ = must(order.Function("order"))(t) })
	ok(t, err)
	// A relaxed capture allows them.
	_, err = capture(t, CaptureRelaxed, func(cu.Stream) { memory(t, 4) })
	ok(t, err)
}

func TestCaptureMisuse(t *testing.T) {
	open(t, "host")
	stream := must(cu.MakeStream(cu.NonBlocking))(t)
	other := must(cu.MakeStream(cu.NonBlocking))(t)
	event := must(cu.MakeEvent(0))(t)
	p := cu.DevicePtr(memory(t, 64))
	_, err := EndCapture(stream)
	expect(t, err, IllegalState, "")
	expect(t, BeginCapture(cu.Stream{}, CaptureThreadLocal), CaptureUnsupported, "")
	ok(t, BeginCapture(stream, CaptureThreadLocal))
	expect(t, BeginCapture(stream, CaptureThreadLocal), IllegalState, "")
	_, err = EndCapture(stream)
	ok(t, err)

	// A fork that is not joined.
	_, err = capture(t, CaptureThreadLocal, func(s cu.Stream) {
		ok(t, event.Record(s))
		ok(t, other.Wait(event, 0))
		ok(t, cu.MemsetD8Async(p, 1, 4, other))
	})
	expect(t, err, CaptureUnjoined, "")

	// A fork joined before its last work.
	second := must(cu.MakeEvent(0))(t)
	_, err = capture(t, CaptureThreadLocal, func(s cu.Stream) {
		ok(t, event.Record(s))
		ok(t, other.Wait(event, 0))
		ok(t, second.Record(other))
		ok(t, cu.MemsetD8Async(p, 1, 4, other))
		ok(t, s.Wait(second, 0))
	})
	expect(t, err, CaptureUnjoined, "")

	// A joined one, which can only be ended where it began.
	graph, err := capture(t, CaptureThreadLocal, func(s cu.Stream) {
		ok(t, event.Record(s))
		ok(t, other.Wait(event, 0))
		ok(t, cu.MemsetD8Async(p, 1, 4, other))
		ok(t, second.Record(other))
		_, err := EndCapture(other)
		expect(t, err, CaptureUnmatched, "")
		ok(t, s.Wait(second, 0))
	})
	ok(t, err)
	if n := must(graph.Nodes())(t); n != 1 {
		t.Errorf("%d nodes", n)
	}
	// An event of a capture cannot be waited for outside of it.
	expect(t, second.Synchronize(), CapturedEvent, "")

	// Work outside of the capture cannot be waited for inside.
	outside := must(cu.MakeEvent(0))(t)
	ok(t, outside.Record(other))
	_, err = capture(t, CaptureThreadLocal, func(s cu.Stream) { expect(t, s.Wait(outside, 0), CaptureIsolation, "") })
	expect(t, err, CaptureInvalidated, "")

	// Two captures do not merge.
	ok(t, BeginCapture(other, CaptureThreadLocal))
	ok(t, event.Record(other))
	_, err = capture(t, CaptureThreadLocal, func(s cu.Stream) { expect(t, s.Wait(event, 0), CaptureMerge, "") })
	expect(t, err, CaptureInvalidated, "")
	_, err = EndCapture(other)
	expect(t, err, CaptureInvalidated, "")
}

// A graph holds the arguments as they were when it was captured, and checks its memory when it is launched.
func TestGraphArguments(t *testing.T) {
	open(t, "host,tiles=gpu")
	f := kernel(t, "fill")
	p := memory(t, 256)
	args := []uint64{p, 3}
	stream := must(cu.MakeStream(cu.NonBlocking))(t)
	ok(t, BeginCapture(stream, CaptureThreadLocal))
	ok(t, cu.MemsetD32Async(cu.DevicePtr(p), 0, 256, stream))
	ok(t, Launch(f, [3]int{1, 1, 1}, [3]int{256, 1, 1}, 0, stream, args))
	args[0], args[1] = 0xdead, 200
	graph, err := EndCapture(stream)
	ok(t, err)
	exec := must(graph.Instantiate())(t)
	ok(t, graph.Destroy())
	for range 2 {
		ok(t, cu.MemsetD32Async(cu.DevicePtr(p), 0x40400000, 256, stream)) // 3
		ok(t, exec.Launch(stream))
		ok(t, stream.Synchronize())
		if v := read[float32](t, p, 256); v[2] != 2 || v[3] != 0 || v[255] != 0 {
			t.Fatalf("got %v %v", v[:4], v[255])
		}
	}
	ok(t, cu.MemFree(cu.DevicePtr(p)))
	expect(t, exec.Launch(stream), IllegalAddress, "freed")
}

// A graph does not outlive the kernels that it launches.
func TestGraphOfUnloadedKernels(t *testing.T) {
	open(t, "host,tiles=gpu")
	module := must(LoadModule(testkernels.PTX("fill")))(t)
	f := must(module.Function("fill"))(t)
	p := memory(t, 64)
	stream := must(cu.MakeStream(cu.NonBlocking))(t)
	ok(t, BeginCapture(stream, CaptureThreadLocal))
	ok(t, Launch(f, [3]int{1, 1, 1}, [3]int{64, 1, 1}, 0, stream, []uint64{p, 64}))
	exec := must(must(EndCapture(stream))(t).Instantiate())(t)
	ok(t, exec.Launch(stream))
	ok(t, stream.Synchronize())
	ok(t, module.Unload())
	expect(t, exec.Launch(stream), InvalidHandle, "kernel fill was captured from a module that has been unloaded since")
	ok(t, exec.Destroy())
}
