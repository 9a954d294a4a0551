"""The operations of `ddgpu bench --pytorch`, one function for each kind.

Each takes (session, params, tensors, mode) and gives a Case. Tensors come as ddgpu has them: images [N][H][W][C], weights of convolutions
[KH][KW][I][O], matrices [I][O]; outputs go back in the same layouts. Modes: "reference" (float64), "eager" (contiguous NCHW tensors),
"channels_last" (NHWC in memory), "compile" (torch.compile of channels_last).
"""
import torch
import torch.nn.functional as F

aten = torch.ops.aten


class Case:
    """An operation that is ready to run: fn(*args), or, with `wanted`, the gradients of those arguments from dy."""

    unit = 1  # what the times of a repeat are a multiple of

    def __init__(self, mode, names, fn, args, out=None, wanted=(), dy=None):
        self.names, self.out, self.grad = names, out or (lambda *v: v), bool(wanted)
        if mode == "compile":
            fn = torch.compile(fn, dynamic=False)
        if wanted:
            args = [a.detach().requires_grad_() if i in wanted else a for i, a in enumerate(args)]
            y, leaves = fn(*args), [args[i] for i in wanted]
            self.call = lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)
        else:
            self.call = lambda: fn(*args)

    def outputs(self) -> dict:
        with torch.set_grad_enabled(self.grad):
            values = self.call()
        return dict(zip(self.names, self.out(*values) if isinstance(values, (tuple, list)) else self.out(values)))

    def repeat(self, times: int) -> None:
        call = self.call
        with torch.set_grad_enabled(self.grad):
            for _ in range(times):
                call()

    def close(self) -> None:
        del self.call


def image(x, mode):
    """[N][H][W][C] as PyTorch's [N, C, H, W], in the memory order of the mode."""
    x = x.permute(0, 3, 1, 2)
    return x if mode in ("channels_last", "compile") else x.contiguous()


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def kernel(w, mode):
    """[KH][KW][I][O] as PyTorch's [O, I, KH, KW]."""
    w = w.permute(3, 2, 0, 1)
    return w.contiguous(memory_format=torch.channels_last if mode in ("channels_last", "compile") else torch.contiguous_format)


def padding(p):
    """Padding for F.conv2d where all sides agree, and for F.pad before it where they do not."""
    top, bottom, left, right = p["pad"]
    if top == bottom and left == right:
        return [top, left], None
    return [0, 0], (left, right, top, bottom)


def conv_forward(s, p, t, mode):
    inner, outer = padding(p)

    def fn(x, w, b):
        return F.conv2d(x if outer is None else F.pad(x, outer), w, b, p["stride"], inner)

    return Case(mode, ["y"], fn, [image(t["x"], mode), kernel(t["w"], mode), t["b"]], lambda y: (nhwc(y),))


def conv_backward(s, p, t, mode, mask, names, out):
    inner, outer = padding(p)
    x = image(t["x"], mode)
    if outer is not None:
        x = F.pad(x, outer)
    w, stride = kernel(t["w"], mode), [p["stride"]] * 2

    def fn(dy, x, w):
        return aten.convolution_backward(dy, x, w, [w.shape[0]], stride, inner, [1, 1], False, [0, 0], 1, mask)

    return Case(mode, names, fn, [image(t["dy"], mode), x, w], out)


def conv_backward_data(s, p, t, mode):
    top, _, left, _ = p["pad"] if padding(p)[1] else (0, 0, 0, 0)
    height, width = t["x"].shape[1:3]

    def crop(dx, *_):
        return (nhwc(dx)[:, top:top + height, left:left + width],)

    return conv_backward(s, p, t, mode, [True, False, False], ["dx"], crop)


def conv_backward_weight(s, p, t, mode):
    return conv_backward(s, p, t, mode, [False, True, False], ["dw"], lambda _, dw, *__: (dw.permute(2, 3, 1, 0),))


def linear_forward(s, p, t, mode):
    return Case(mode, ["y"], F.linear, [t["x"], t["w"].t().contiguous(), t["b"]], lambda y: (y,))


def linear_backward_data(s, p, t, mode):
    return Case(mode, ["dx"], torch.mm, [t["dy"], t["w"].t().contiguous()], lambda dx: (dx,))


def linear_backward_weight(s, p, t, mode):
    return Case(mode, ["dw"], lambda dy, x: torch.mm(dy.t(), x), [t["dy"], t["x"]], lambda dw: (dw.t(),))


def norm(p):
    def fn(x, gamma, beta):
        y = F.group_norm(x, p["groups"], gamma, beta, p["eps"])
        return F.silu(y) if p["silu"] else y
    return fn


def groupnorm_forward(s, p, t, mode):
    return Case(mode, ["y"], norm(p), [image(t["x"], mode), t["gamma"], t["beta"]], lambda y: (nhwc(y),))


def groupnorm_backward(s, p, t, mode):
    args = [image(t["x"], mode), t["gamma"], t["beta"]]
    return Case(mode, ["dx", "dgamma", "dbeta"], norm(p), args, lambda dx, dg, db: (nhwc(dx), dg, db), (0, 1, 2), image(t["dy"], mode))


def attention(p):
    def fn(q, k, v):
        heads = [z.view(p["n"], p["l"], p["heads"], p["dim"]).transpose(1, 2) for z in (q, k, v)]
        y = F.scaled_dot_product_attention(*heads, scale=p["scale"])
        return y.transpose(1, 2).reshape(p["n"], p["l"], p["heads"] * p["dim"])
    return fn


def attention_forward(s, p, t, mode):
    return Case(mode, ["y"], attention(p), [t["q"], t["k"], t["v"]], lambda y: (y,))


def attention_backward(s, p, t, mode):
    return Case(mode, ["dq", "dk", "dv"], attention(p), [t["q"], t["k"], t["v"]], None, (0, 1, 2), t["dy"])


def upsample_forward(s, p, t, mode):
    return Case(mode, ["y"], lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), [image(t["x"], mode)], lambda y: (nhwc(y),))


def upsample_backward(s, p, t, mode):
    n, h, w, c = t["dy"].shape

    def fn(dy):
        return aten.upsample_nearest2d_backward(dy, [h, w], [n, c, h // 2, w // 2], 2.0, 2.0)

    return Case(mode, ["dx"], fn, [image(t["dy"], mode)], lambda dx: (nhwc(dx),))


def avgpool_forward(s, p, t, mode):
    return Case(mode, ["y"], lambda x: F.avg_pool2d(x, 2), [image(t["x"], mode)], lambda y: (nhwc(y),))


def avgpool_backward(s, p, t, mode):
    def fn(dy, x):
        return aten.avg_pool2d_backward(dy, x, [2, 2], [2, 2], [0, 0], False, True, None)

    return Case(mode, ["dx"], fn, [image(t["dy"], mode), image(t["x"], mode)], lambda dx: (nhwc(dx),))


class Adam:
    """clip_grad_norm_, a step of Adam (fused where PyTorch has that) and the average of all weights, over a network's tensors."""

    unit = 1

    def __init__(self, s, p, t, mode):
        exact = mode == "reference"
        kind = torch.float64 if exact else torch.float32  # weights and moments are never less
        cut = {k: [v.to(kind).clone() for v in t[k].split(p["sizes"])] for k in ("p", "g", "ema")}
        self.p = [v.requires_grad_() for v in cut["p"]]
        for w, g in zip(self.p, cut["g"]):
            w.grad = g
        self.grads = [g.clone() for g in cut["g"]]
        self.ema, self.max_norm, self.decay = cut["ema"], p["max_norm"], p["ema_decay"]
        self.adam = optimizer(self.p, p)
        self.step = torch.compile(self.one, dynamic=False) if mode == "compile" else self.one

    def one(self):
        if self.max_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.p, self.max_norm)
        self.adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.p, 1 - self.decay)

    def outputs(self):
        self.step()
        out = {"p": torch.cat(self.p), "ema": torch.cat(self.ema)}
        with torch.no_grad():
            torch._foreach_copy_([w.grad for w in self.p], self.grads)
        return out

    def repeat(self, times):
        for _ in range(times):
            self.step()

    def close(self):
        self.adam = self.step = None


def optimizer(parameters, p):
    kind = torch.optim.AdamW if p["decoupled"] else torch.optim.Adam
    return kind(parameters, lr=p["lr"], betas=(p["beta1"], p["beta2"]), eps=p["epsilon"], weight_decay=p["weight_decay"], fused=True)


Adam.narrow = False


def rows(v):
    return v.view(-1, 1, 1, 1)


def noisy(images, roots, n, eps, coin):
    """x_n = √ᾱ_n x0 + √(1 − ᾱ_n) ε of bytes [N, C, H, W], mirrored where coin says so, in the type of the roots."""
    x0 = images.to(roots.dtype) * (2 / 255) - 1
    if coin is not None:
        x0 = torch.where(rows(coin), x0.flip(3), x0)
    return rows(roots[0][n]) * x0 + rows(roots[1][n]) * eps, x0


def draw(images, steps, flip, dtype):
    """n, ε and the coins of a batch."""
    count, device = images.shape[0], images.device
    coin = torch.rand(count, device=device) < 0.5 if flip else None
    return torch.randint(0, steps, (count,), device=device), torch.randn_like(images, dtype=dtype), coin


def noise_add(s, p, t, mode):
    images, roots = image(t["images"], mode), t["roots"]

    def fn(images):
        n, eps, coin = draw(images, p["steps"], p["flip"], roots.dtype)
        return noisy(images, roots, n, eps, coin)[0].to(s.dtype)

    case = Case(mode, ["xn"], fn, [images])

    def outputs():
        coin = t["coin"] != 0 if p["flip"] else None
        x, _ = noisy(images, roots, t["n"], image(t["eps"], mode), coin)
        return {"xn": nhwc(x if mode == "reference" else x.to(s.dtype))}

    case.outputs = outputs
    return case


def updated(x, out, row, z):
    """x̂0 = A·x + B·out clipped, x ← C·x̂0 + D·x + E·out + Sigma·z."""
    _, a, b, c, d, e, sigma, clip = row
    x0 = a * x + b * out
    if clip is not None:
        x0 = x0.clamp(-clip, clip)
    x = c * x0 + d * x + e * out
    return x + sigma * z if sigma != 0 else x


def sampler_update(s, p, t, mode):
    out = t["out"] if mode == "reference" else t["out"].to(s.dtype)  # as the network leaves it
    x, out = image(t["x"], mode), image(out, mode)

    def fn(x, out):
        return updated(x, out, p["row"], torch.randn_like(x) if p["row"][6] != 0 else None)

    case = Case(mode, ["x"], fn, [x, out])
    case.outputs = lambda: {"x": nhwc(updated(x, out, p["row"], image(t["z"], mode)))}
    return case


def network_forward(s, p, t, mode):
    import network
    return network.Forward(s, p, t, mode)


def train_step(s, p, t, mode):
    import network
    return network.Training(s, p, t, mode)


def sample_step(s, p, t, mode):
    import network
    return network.Sampling(s, p, t, mode)


def ddp_train_step(s, p, t, mode):
    import lucidrains
    return lucidrains.Training(s, p)


KINDS = {f.__name__: f for f in (
    conv_forward, conv_backward_data, conv_backward_weight, linear_forward, linear_backward_data, linear_backward_weight,
    groupnorm_forward, groupnorm_backward, attention_forward, attention_backward, upsample_forward, upsample_backward,
    avgpool_forward, avgpool_backward, noise_add, sampler_update, network_forward, train_step, sample_step, ddp_train_step)}
KINDS["adam_step"] = Adam
for make in (noise_add, sampler_update, network_forward, train_step, sample_step, ddp_train_step):
    make.narrow = False  # these take float32 and know what to round
