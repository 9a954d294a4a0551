"""Whole networks and steps: diffusers' UNet2DModel with ddgpu's weights."""
import math

import diffusers
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from operations import draw, image, nhwc, noisy, optimizer, rows, updated


class ExactSinusoids(torch.nn.Module):
    """diffusers' time embedding in float64: its own is computed in float32 whatever the network's type."""

    def __init__(self, like):
        super().__init__()
        self.like = like

    def forward(self, t):
        half = self.like.num_channels // 2
        i = torch.arange(half, device=t.device, dtype=torch.float64)
        angle = t[:, None].double() * torch.exp(-math.log(10000) * i / (half - self.like.downscale_freq_shift))
        parts = [torch.sin(angle), torch.cos(angle)]
        return torch.cat(parts[::-1] if self.like.flip_sin_to_cos else parts, dim=1)


class Network:
    """The network in a mode. "compile_graphs" is torch.compile with CUDA graphs."""

    unit = 1

    def __init__(self, s, p, mode):
        self.s, self.p, self.mode, self.exact = s, p, mode, mode == "reference"
        self.net = diffusers.UNet2DModel(**p["model"])
        self.net.load_state_dict(load_file(p["weights"]))
        self.net = self.net.to(s.device, torch.float64 if self.exact else torch.float32)
        if self.exact:
            self.net.time_proj = ExactSinusoids(self.net.time_proj)
        if mode in ("channels_last", "compile", "compile_graphs"):
            self.net = self.net.to(memory_format=torch.channels_last)
        self.layout = "channels_last" if mode == "compile_graphs" else mode
        self.run = self.net
        if mode == "compile":
            self.run = torch.compile(self.net, dynamic=False)
        if mode == "compile_graphs":
            self.run = torch.compile(self.net, dynamic=False, mode="reduce-overhead")

    def __call__(self, x, n, labels):
        if self.exact:
            return self.run(x, n, class_labels=labels).sample
        with self.s.autocast():
            return self.run(x, n, class_labels=labels).sample

    def close(self):
        del self.net, self.run


def labels_of(t):
    return t["labels"].long() if "labels" in t else None


class Forward(Network):
    def __init__(self, s, p, t, mode):
        super().__init__(s, p, mode)
        self.net.eval()
        self.x, self.n, self.labels = image(t["x"], self.layout), t["n"], labels_of(t)

    @torch.no_grad()
    def call(self):
        return self(self.x, self.n, self.labels)

    def outputs(self):
        return {"y": nhwc(self.call())}

    def repeat(self, times):
        for _ in range(times):
            self.call()


class Training(Network):
    """q(x_n | x_0) of bytes, forward, mean squared error, backward, clipping, Adam, average of the weights.

    The losses are read at the end of a run, so that a GPU never waits for Python.
    """

    def __init__(self, s, p, t, mode):
        super().__init__(s, p, mode)
        self.t, self.labels = t, labels_of(t)
        self.images = image(t["images"], self.layout).cpu()
        self.roots = t["roots"]
        self.parameters = list(self.net.parameters())
        if self.exact:
            return
        self.average = [w.detach().clone() for w in self.parameters]
        self.adam = optimizer(self.parameters, p)
        if s.cuda:
            self.images = self.images.pin_memory()

    def outputs(self):
        """All gradients of Σ y·dy, one after another in the order of their names, without dropout."""
        t = self.t
        self.net.train(self.p["model"]["dropout"] == 0)
        y = self(image(t["x"], self.layout), t["n"], self.labels)
        y.backward(image(t["dy"], self.layout).to(y.dtype))
        grads = {k: w.grad for k, w in self.net.named_parameters()}
        for w in self.parameters:
            w.grad = None
        self.net.train()
        return {"grads": torch.cat([grads[k].flatten() for k in sorted(grads)])}

    def one(self):
        images = self.images.to(self.s.device, non_blocking=True)
        n, eps, coin = draw(images, self.p["steps"], self.p["flip"], torch.float32)
        xn, x0 = noisy(images, self.roots, n, eps, coin)
        target = eps
        if self.p["objective"] == "x0":
            target = x0
        elif self.p["objective"] == "v":
            target = rows(self.roots[0][n]) * eps - rows(self.roots[1][n]) * x0
        loss = F.mse_loss(self(xn, n.float() * self.p["time_scale"], self.labels).float(), target)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        if self.p["max_norm"] > 0:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.p["max_norm"])
        self.adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - self.p["ema_decay"])
        return loss.detach()

    def repeat(self, times):
        torch.stack([self.one() for _ in range(times)]).tolist()

    def close(self):
        super().close()
        self.parameters = self.average = self.adam = None


class Sampling(Network):
    """A batch of images drawn in a few steps; one run is one step."""

    def __init__(self, s, p, t, mode):
        super().__init__(s, p, mode)
        self.net.eval()
        self.t, self.labels, self.unit = t, labels_of(t), len(p["rows"])
        self.start = image(t["start"], self.layout)
        self.times = [torch.full(self.start.shape[:1], row[0], device=s.device, dtype=self.start.dtype) for row in p["rows"]]

    @torch.no_grad()
    def draw(self, x, noise):
        for i, row in enumerate(self.p["rows"]):
            x = updated(x, self(x, self.times[i], self.labels), row, noise(i, x) if row[6] != 0 else None)
        return x

    def outputs(self):
        given = self.t["z"]
        return {"x": nhwc(self.draw(self.start, lambda i, x: image(given[i], self.layout)))}

    def repeat(self, times):
        """Draws whole batches: `times` counts their steps."""
        for _ in range(times // self.unit):
            self.draw(torch.randn_like(self.start), lambda i, x: torch.randn_like(x)).cpu()
