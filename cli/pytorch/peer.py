"""The PyTorch side of `ddgpu bench --pytorch`: answers requests, one JSON object a line on stdin, each with one on stdout.

    {"id": 1, "do": "hello", "device": "cpu", "threads": 2, "precision": "fp32"}
    {"id": 2, "do": "prepare", "kind": "conv_forward", "params": {…}, "inputs": FILE, "reference": FILE, "modes": ["eager", …], "limit": 300}
    {"id": 3, "do": "run", "mode": "eager", "times": 10}

An answer is {"id": 3, "result": {…}} or {"id": 3, "error": "…"}; before it may come any number of {"id": 3, "note": "…"}. What libraries
print goes to stderr. Arrays travel as safetensors files. The process ends when stdin does.
"""
import contextlib
import ctypes
import gc
import json
import math
import os
import platform
import queue
import signal
import sys
import threading
import time


def serve(stdin, answers) -> None:
    requests: queue.Queue = queue.Queue()

    def read() -> None:
        for line in stdin:
            requests.put(line)
        os.killpg(0, signal.SIGKILL)  # also in the middle of a compilation, and its workers with it

    threading.Thread(target=read, daemon=True).start()
    session = None
    while True:
        request = json.loads(requests.get())

        def send(**fields) -> None:
            answers.write(json.dumps({"id": request["id"], **fields}) + "\n")
            answers.flush()

        try:
            if request["do"] == "hello":
                session = Session(request)
                result = session.versions()
            else:
                result = getattr(session, request["do"])(request, lambda note: send(note=note))
        except ImportError as e:
            send(error=str(e), missing=e.name or "")
            continue
        except Exception as e:
            import traceback
            traceback.print_exc()
            send(error=first_line(e))
            continue
        send(result=result)


def first_line(e: BaseException) -> str:
    """What an error says, in a line."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return f"{type(e).__name__}: {lines[0] if lines else ''}"[:300]


class Session:
    """Where and how everything runs."""

    def __init__(self, request: dict):
        import torch
        import safetensors.torch  # noqa: F401
        self.torch = torch
        self.threads, self.precision = request["threads"], request["precision"]
        torch.set_num_threads(self.threads)
        self.device = torch.device(request["device"])
        self.cuda = self.device.type == "cuda"
        if self.cuda:
            torch.cuda.set_device(self.device)
            torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        self.dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.cases: dict = {}

    def versions(self) -> dict:
        torch = self.torch
        name = torch.cuda.get_device_name(self.device) if self.cuda else "CPU, " + torch.backends.cpu.get_cpu_capability()
        found = {"python": platform.python_version(), "torch": torch.__version__}
        for module in ("diffusers", "safetensors"):
            with contextlib.suppress(ImportError):
                found[module] = __import__(module).__version__
        return {"versions": found, "device": name, "threads": torch.get_num_threads()}

    # --- requests

    def prepare(self, request: dict, note) -> dict:
        """Makes a case of an operation for each mode, compares it with float64, and keeps it ready to run."""
        import operations
        from safetensors.torch import load_file, save_file
        self.forget()
        inputs = load_file(request["inputs"]) if request["inputs"] else {}
        make = operations.KINDS[request["kind"]]
        reference = None
        if request["reference"]:
            exact = {k: v.to(self.device, self.torch.float64) if v.is_floating_point() else v.to(self.device) for k, v in inputs.items()}
            case = make(self, request["params"], exact, "reference")
            reference = {k: v.detach().to("cpu", self.torch.float64).contiguous() for k, v in case.outputs().items()}
            save_file(reference, request["reference"])
            del case, exact
        results = []
        for mode in request["modes"]:
            note(mode)
            result = {"mode": mode}
            limit = TimeLimit(request["limit"])
            try:
                with limit:
                    result |= self.prepare_mode(make, request["params"], inputs, mode, reference)
            except Exception as e:
                print(f"{request['kind']} {mode}: {e}", file=sys.stderr)
                self.cases.pop(mode, None)
                # A library may have caught the end of the time and say something else.
                result["failure"] = f"not ready after {request['limit']:g} s" if limit.reached else first_line(e)
            results.append(result)
        return {"modes": results}

    def prepare_mode(self, make, params: dict, inputs: dict, mode: str, reference) -> dict:
        before = self.memory_before()
        narrow = self.dtype if getattr(make, "narrow", True) else self.torch.float32
        cast = {k: v.to(self.device, narrow if v.dtype == self.torch.float32 else v.dtype) for k, v in inputs.items()}
        case = make(self, params, cast, mode)
        self.cases[mode] = case
        result = {"error": 0.0}
        if reference is not None:
            distances = {k: distance(v, reference[k]) for k, v in case.outputs().items()}
            for k, d in distances.items():
                if not math.isfinite(d):  # max would pass over it, and JSON cannot hold it
                    raise ArithmeticError(f"{k} is not finite")
            result["error"] = max(distances.values())
        self.memory_before()
        for _ in range(2):
            case.repeat(case.unit)
        self.synchronize()
        result["peak_bytes"] = max(0, self.memory_peak() - before)
        if hasattr(case, "count"):
            result["parameters"] = case.count
        return result

    def run(self, request: dict, note) -> dict:
        """Runs a prepared mode so many times and says how long that took."""
        case, times = self.cases[request["mode"]], request["times"]
        if not self.cuda:
            start = time.perf_counter()
            case.repeat(times)
            return {"seconds": time.perf_counter() - start}
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        case.repeat(times)
        end.record()
        end.synchronize()
        return {"seconds": start.elapsed_time(end) / 1000}

    def forget(self) -> None:
        for case in self.cases.values():
            case.close()
        self.cases.clear()
        self.torch.compiler.reset()
        gc.collect()
        if self.cuda:
            self.torch.cuda.empty_cache()

    # --- memory, in bytes: what PyTorch allocated of a GPU's, or the resident memory of this process

    def memory_before(self) -> int:
        gc.collect()
        if self.cuda:
            self.torch.cuda.reset_peak_memory_stats(self.device)
            return self.torch.cuda.memory_allocated(self.device)
        with contextlib.suppress(OSError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as f:
            f.write("5")  # forgets the peak
        return resident("VmRSS")

    def memory_peak(self) -> int:
        return self.torch.cuda.max_memory_allocated(self.device) if self.cuda else resident("VmHWM")

    def synchronize(self) -> None:
        if self.cuda:
            self.torch.cuda.synchronize(self.device)

    def autocast(self):
        """What a network runs in: nothing to say for float32."""
        if self.precision == "bf16":
            return self.torch.autocast(self.device.type, self.torch.bfloat16)
        return contextlib.nullcontext()


def resident(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as f:
        for line in f:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0


def distance(got, want) -> float:
    """‖got − want‖/‖want‖ in float64."""
    got = got.detach().to("cpu", want.dtype)
    return ((got - want).norm() / want.norm().clamp_min(1e-300)).item()


class TimeLimit:
    """Raises TimeoutError in the main thread after so many seconds."""

    def __init__(self, seconds: float):
        self.seconds, self.reached = seconds, False

    def end(self, *_) -> None:
        self.reached = True
        raise TimeoutError

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, self.end)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Not sys.stdin: a forked worker closes that, and would wait for ever for the lock that the reading thread holds.
    stdin = os.fdopen(os.dup(0), "r", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    serve(stdin, stdout)
