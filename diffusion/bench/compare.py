#!/usr/bin/env python3
"""Images per second of a training step and of a sampling step, ddgpu against PyTorch, measured in turns in one run.

    python -m venv venv && venv/bin/pip install torch diffusers pyyaml
    venv/bin/python diffusion/bench/compare.py                      # the quickstart preset, 2 threads
    venv/bin/python diffusion/bench/compare.py --torch-only --convs # PyTorch alone, and its convolutions one by one

PyTorch runs diffusers' UNet2DModel of the same configuration on the CPU, in float32, in the modes eager, channels_last (eager with NHWC
tensors) and compile (torch.compile of the channels_last model). What a step is:

    train_step    q(x_n | x_0) with fresh noise, forward, mean squared error, backward, clip_grad_norm_, Adam, EMA of all weights
    sample_step   network without gradients, one DDIM update with clipped x̂0

COMPARE_THREADS sets the threads. Every round measures each mode for a while, one after another, so that a machine that slows down does
so for all. A figure is the median over the rounds, and its spread the range; where other programs run, compare the best rounds. ddgpu's
figures are the rows train_step and sample_step of `ddgpu bench --json`, medians of 20.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

THREADS = int(os.environ.get("COMPARE_THREADS", "2"))
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(THREADS)  # read by the libraries as they load
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

import diffusers  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import yaml  # noqa: E402

MODES = ("eager", "channels_last", "compile")


def preset_model(root: str, preset: str) -> dict:
    """A preset's `model`, whose keys are those of diffusers' UNet2DModel."""
    with open(os.path.join(root, "cli/presets", preset + ".yaml"), encoding="utf-8") as f:
        return yaml.safe_load(f)["model"]


class Torch:
    """A network in one of the modes, with its training and sampling steps."""

    def __init__(self, config: dict, mode: str, batch: int, sample_batch: int):
        torch.manual_seed(0)
        self.net = diffusers.UNet2DModel(**config)
        size, channels = config["sample_size"], config.get("in_channels", 3)
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        self.layout = torch.contiguous_format if mode == "eager" else torch.channels_last
        self.net = self.net.to(memory_format=self.layout)
        self.parameters = list(self.net.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.adam = torch.optim.Adam(self.parameters, lr=1e-4)
        self.bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
        self.images = torch.rand(batch, channels, height, width).mul(2).sub(1).contiguous(memory_format=self.layout)
        self.x = torch.randn(sample_batch, channels, height, width).contiguous(memory_format=self.layout)
        self.run = torch.compile(self.net) if mode == "compile" else self.net

    def train_step(self) -> int:
        self.net.train()
        x0 = self.images
        n = torch.randint(0, 1000, (x0.shape[0],))
        a = self.bar[n].view(-1, 1, 1, 1)
        eps = torch.randn_like(x0)
        loss = F.mse_loss(self.run(a.sqrt() * x0 + (1 - a).sqrt() * eps, n).sample, eps)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 0.01)
        loss.item()
        return x0.shape[0]

    @torch.no_grad()
    def sample_step(self) -> int:
        self.net.eval()
        n, a, b = 500, self.bar[500], self.bar[480]
        eps = self.run(self.x, torch.tensor(n)).sample
        x0 = ((self.x - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
        self.updated = b.sqrt() * x0 + (1 - b).sqrt() * eps
        return self.x.shape[0]


def rate(step, seconds: float) -> float:
    """Images per second: the median over the steps of at least so many seconds, and at least three."""
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        t = time.perf_counter()
        images = step()
        times.append((time.perf_counter() - t) / images)
    return 1 / statistics.median(times)


def ddgpu_rate(binary: str, preset: str, step: str, batch: int) -> float:
    """The median of one row of `ddgpu bench --json`, a list of rows."""
    command = [binary, "bench", "--json", "--op", step, "--preset", preset, "--batch", str(batch), "--devices", f"host,threads={THREADS}"]
    rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return next(row["value"] for row in rows if row["name"] == step)


def convs(config: dict, batch: int, seconds: float) -> None:
    """Every distinct convolution of the network alone, as PyTorch runs it in NCHW and in NHWC."""
    seen = {}
    net = diffusers.UNet2DModel(**config)

    def note(m, inputs):
        seen[m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding, tuple(inputs[0].shape[2:])] = True

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(note)
    size = config["sample_size"]
    net(torch.randn(1, config.get("in_channels", 3), size, size), 1)
    print(f"{'convolution, batch ' + str(batch):<34}{'layout':<16}{'forward':>10}{'d input':>10}{'d weight':>10}  GFLOP/s")
    for cin, cout, kernel, stride, padding, hw in seen:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(batch, cin, *hw).contiguous(memory_format=layout)
            w = torch.randn(cout, cin, *kernel).contiguous(memory_format=layout)
            y = F.conv2d(x, w, stride=stride, padding=padding)
            dy = torch.randn_like(y)
            flops = 2 * y.numel() * cin * kernel[0] * kernel[1]

            def backward(mask):
                torch.ops.aten.convolution_backward(dy, x, w, [cout], list(stride), list(padding), [1, 1], False, [0, 0], 1, mask)
                return 1

            def forward():
                F.conv2d(x, w, stride=stride, padding=padding)
                return 1

            rates = [rate(f, seconds) * flops * 1e-9 for f in
                     (forward, lambda: backward([True, False, False]), lambda: backward([False, True, False]))]
            name = f"{cin}->{cout} {kernel[0]}x{kernel[1]}/{stride[0]} at {hw[0]}x{hw[1]}"
            print(f"{name:<34}{'NCHW' if layout == torch.contiguous_format else 'NHWC':<16}" + "".join(f"{r:10.1f}" for r in rates))


def main() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--preset", default="quickstart", help="the network: a preset of ddgpu")
    p.add_argument("--ddgpu", default=os.path.join(root, "bin/ddgpu"), help="ddgpu's binary")
    p.add_argument("--torch-only", action="store_true", help="do not run ddgpu")
    p.add_argument("--convs", action="store_true", help="also PyTorch's convolutions one by one")
    p.add_argument("--modes", default=",".join(MODES), help="PyTorch modes, of " + ",".join(MODES))
    p.add_argument("--batch", type=int, default=32, help="images of a training step")
    p.add_argument("--sample-batch", type=int, default=64, help="images of a sampling step")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=5, help="per mode and step in a round")
    args = p.parse_args()
    torch.set_num_threads(THREADS)
    config = preset_model(root, args.preset)
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, python {platform.python_version()}, {THREADS} threads, float32")
    print(f"{torch.backends.cpu.get_cpu_capability()}, {args.preset}, batch {args.batch} train, {args.sample_batch} sample")

    contenders = {}
    for mode in args.modes.split(","):
        t = Torch(config, mode, args.batch, args.sample_batch)
        try:
            for _ in range(2):
                t.train_step()
                t.sample_step()
        except Exception as e:  # torch.compile needs a C++ compiler
            print(f"{mode}: does not run here: {str(e).strip().splitlines()[0]}", file=sys.stderr)
            continue
        contenders["torch " + mode] = t
    parameters = sum(p.numel() for p in next(iter(contenders.values())).parameters)
    print(f"{parameters:,} parameters\n", flush=True)
    results = {(name, step): [] for name in contenders for step in ("train_step", "sample_step")}
    for r in range(args.rounds):
        if not args.torch_only:
            for step, batch in (("train_step", args.batch), ("sample_step", args.sample_batch)):
                results.setdefault(("ddgpu", step), []).append(ddgpu_rate(args.ddgpu, args.preset, step, batch))
        for name, t in contenders.items():
            for step in ("train_step", "sample_step"):
                results[name, step].append(rate(getattr(t, step), args.seconds))
        print(f"round {r + 1} of {args.rounds}", file=sys.stderr, flush=True)
    print(f"{'':<24}{'':<14}{'images/s':>10}   range over {args.rounds} rounds")
    for (name, step), v in results.items():
        print(f"{name:<24}{step:<14}{statistics.median(v):10.1f}   {min(v):.1f} - {max(v):.1f}")
    for step in ("train_step", "sample_step"):
        if ("ddgpu", step) in results:
            for word, figure in (("medians", statistics.median), ("best rounds", max)):
                best = max(figure(results[name, step]) for name in contenders)
                print(f"{step}: ddgpu / best of torch = {figure(results['ddgpu', step]) / best:.2f} by {word}")
    if args.convs:
        print()
        convs(config, args.batch, min(args.seconds, 0.5))


if __name__ == "__main__":
    main()
