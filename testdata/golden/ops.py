"""Golden vectors of single operations: forward, and backward by autograd, in float64.

Names are CASE.ARRAY; attributes of a case are JSON in __metadata__[CASE]. Layouts are
PyTorch's: images NCHW, convolution weights OIHW (transposed: IOHW), linear weights [out, in].
`.dy` is the gradient given to the backward pass, `.dx`, `.dw`, … what it must produce.
"""
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention

from golden import Golden, rand


def backward(out: Golden, case: str, g: torch.Generator, fn, given: dict[str, torch.Tensor], constant=()) -> None:
    """Stores the inputs, y = fn(**given), a random dy, and the gradient of every input not in constant."""
    leaves = {}
    for name, x in given.items():
        out.input(f"{case}.{name}", x)
        leaves[name] = x.clone().requires_grad_(name not in constant)
    y = fn(**leaves)
    dy = rand(g, *y.shape)
    y.backward(dy)
    out.result(f"{case}.y", y)
    out.input(f"{case}.dy", dy)
    for name, x in leaves.items():
        if name not in constant:
            out.result(f"{case}.d{name}", x.grad)


def convolutions(out: Golden, g: torch.Generator) -> None:
    # case: (N, Cin, H, W, Cout, KH, KW, stride, (top, left, bottom, right))
    cases = {
        "conv3x3_s1_p1": (2, 5, 9, 7, 6, 3, 3, 1, (1, 1, 1, 1)),
        "conv3x3_s1_p1_wide": (3, 19, 6, 5, 35, 3, 3, 1, (1, 1, 1, 1)),
        "conv3x3_s1_p0": (2, 4, 7, 6, 3, 3, 3, 1, (0, 0, 0, 0)),
        "conv3x3_s2_p1": (2, 6, 9, 8, 5, 3, 3, 2, (1, 1, 1, 1)),
        "conv3x3_s2_asym": (2, 6, 8, 10, 7, 3, 3, 2, (0, 0, 1, 1)),
        "conv3x3_s2_asym_odd": (1, 4, 9, 7, 4, 3, 3, 2, (0, 0, 1, 1)),
        "conv1x1": (3, 19, 5, 7, 11, 1, 1, 1, (0, 0, 0, 0)),
        "conv7x7": (2, 3, 9, 11, 4, 7, 7, 1, (3, 3, 3, 3)),
        "conv5x3": (2, 4, 7, 9, 5, 5, 3, 1, (2, 1, 2, 1)),
        "conv3x3_one_channel": (2, 1, 7, 5, 32, 3, 3, 1, (1, 1, 1, 1)),
    }
    for case, (n, ci, h, w, co, kh, kw, stride, pad) in cases.items():
        top, left, bottom, right = pad

        def conv(x, w, b):
            return F.conv2d(F.pad(x, (left, right, top, bottom)), w, b, stride=stride)

        fan = (ci * kh * kw) ** -0.5
        backward(out, case, g, conv, {"x": rand(g, n, ci, h, w), "w": rand(g, co, ci, kh, kw, scale=fan), "b": rand(g, co)})
        out.attributes(case, op="conv", stride=stride, pad_top=top, pad_left=left, pad_bottom=bottom, pad_right=right)

    # case: (N, Cin, H, W, Cout, KH, KW, stride, padding, output padding, bias); weights [Cin, Cout, KH, KW]
    cases = {
        "conv_transpose3x3_s2": (2, 5, 4, 3, 6, 3, 3, 2, 0, 0, True),
        "conv_transpose3x3_s2_out1": (2, 4, 5, 5, 3, 3, 3, 2, 0, 1, False),
        "conv_transpose3x3_s1": (2, 3, 6, 5, 1, 3, 3, 1, 0, 0, True),
        "conv_transpose4x4_s2_p1": (1, 6, 4, 5, 4, 4, 4, 2, 1, 0, True),
    }
    for case, (n, ci, h, w, co, kh, kw, stride, pad, extra, bias) in cases.items():

        def conv(x, w, b=None):
            return F.conv_transpose2d(x, w, b, stride=stride, padding=pad, output_padding=extra)

        given = {"x": rand(g, n, ci, h, w), "w": rand(g, ci, co, kh, kw, scale=(ci * kh * kw) ** -0.5)}
        if bias:
            given["b"] = rand(g, co)
        backward(out, case, g, conv, given)
        out.attributes(case, op="conv_transpose", stride=stride, padding=pad, output_padding=extra)

    for case, (rows, ci, co) in {"linear": (5, 33, 18), "linear_one_row": (1, 8, 32)}.items():
        given = {"x": rand(g, rows, ci), "w": rand(g, co, ci, scale=ci**-0.5), "b": rand(g, co)}
        backward(out, case, g, lambda x, w, b: F.linear(x, w, b), given)
        out.attributes(case, op="linear")


def normalisation(out: Golden, g: torch.Generator) -> None:
    """y = act(gn(x)·(1 + scale) + shift); scale and shift are [N, C] or absent; act is SiLU or nothing."""
    # case: (N, C, H, W, groups, eps, SiLU, scale-shift)
    cases = {
        "group_norm": (2, 12, 5, 7, 3, 1e-6, False, False),
        "group_norm_silu": (2, 16, 7, 5, 4, 1e-5, True, False),
        "group_norm_silu_one_channel_groups": (2, 6, 4, 3, 6, 1e-5, True, False),
        "group_norm_silu_scale_shift": (3, 12, 6, 5, 3, 1e-5, True, True),
        "group_norm_scale_shift": (2, 9, 3, 5, 1, 1e-6, False, True),
    }
    for case, (n, c, h, w, groups, eps, silu, scale_shift) in cases.items():

        def norm(x, gamma, beta, scale=None, shift=None):
            y = F.group_norm(x, groups, gamma, beta, eps)
            if scale is not None:
                y = y * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
            return F.silu(y) if silu else y

        # a mean far from 0 punishes a variance that is computed as E[x²] − E[x]²
        given = {
            "x": rand(g, n, c, h, w, scale=1.5, shift=4.0),
            "gamma": rand(g, c, scale=0.5, shift=1.0),
            "beta": rand(g, c, scale=0.5),
        }
        if scale_shift:
            given["scale"], given["shift"] = rand(g, n, c, scale=0.5), rand(g, n, c, scale=0.5)
        backward(out, case, g, norm, given)
        out.attributes(case, op="group_norm", groups=groups, eps=eps, silu=silu)


def attention(out: Golden, g: torch.Generator) -> None:
    """softmax(q kᵀ/√d) v per head; q, k, v, y are [N, S, heads·d], the heads' features side by side."""
    for case, (n, s, heads, d) in {
        "attention_h1": (2, 13, 1, 8),
        "attention_h3": (2, 17, 3, 5),
        "attention_h2_d32": (1, 18, 2, 32),
        "attention_d40": (1, 9, 1, 40),
    }.items():

        def attend(q, k, v):
            q, k, v = (x.view(n, s, heads, d).transpose(1, 2) for x in (q, k, v))
            p = torch.softmax(q @ k.transpose(-1, -2) * d**-0.5, -1)
            return (p @ v).transpose(1, 2).reshape(n, s, heads * d)

        # queries of scale 2: a softmax that is neither flat nor a single peak
        given = {"q": rand(g, n, s, heads * d, scale=2.0), "k": rand(g, n, s, heads * d), "v": rand(g, n, s, heads * d)}
        backward(out, case, g, attend, given)
        out.attributes(case, op="attention", heads=heads, head_dim=d)

    # diffusers' whole block: group norm, three linears, attention, linear, residual, ÷ rescale;
    # a softmax ignores what is added to all keys, so the gradient of to_k.bias is 0 up to rounding
    case, channels, dim, groups, eps, rescale = "attention_block", 12, 4, 3, 1e-6, 2.0**0.5
    block = Attention(
        channels, heads=channels // dim, dim_head=dim, rescale_output_factor=rescale, eps=eps, norm_num_groups=groups,
        residual_connection=True, bias=True, upcast_softmax=True, _from_deprecated_attn_block=True,
    ).double()  # fmt: skip
    for name, p in block.named_parameters():
        one = 1.0 if name == "group_norm.weight" else 0.0
        p.data = rand(g, *p.shape, scale=0.3, shift=one)
    x = rand(g, 2, channels, 3, 5).requires_grad_()
    y = block(x)
    dy = rand(g, *y.shape)
    y.backward(dy)
    out.input(f"{case}.x", x)
    out.result(f"{case}.y", y)
    out.input(f"{case}.dy", dy)
    out.result(f"{case}.dx", x.grad)
    for name, p in block.named_parameters():
        out.input(f"{case}.{name}", p)
        out.result(f"{case}.d.{name}", p.grad)
    assert block.to_k.bias.grad.abs().max() < 1e-12
    out.attributes(case, op="attention_block", heads=channels // dim, head_dim=dim, groups=groups, eps=eps, rescale=rescale,
                   zero_gradients=["to_k.bias"])  # fmt: skip


def pointwise(out: Golden, g: torch.Generator) -> None:
    backward(out, "silu", g, F.silu, {"input": torch.cat([rand(g, 61, scale=3.0), torch.tensor([0.0, 30.0, -30.0, 90.0, -90.0]).double()])})
    out.attributes("silu", op="silu")
    backward(out, "upsample2", g, lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), {"x": rand(g, 2, 3, 5, 4)})
    out.attributes("upsample2", op="upsample_nearest", factor=2)
    backward(out, "avg_pool2", g, lambda x: F.avg_pool2d(x, 2, 2), {"x": rand(g, 2, 3, 6, 4)})
    out.attributes("avg_pool2", op="avg_pool", factor=2)


def timestep_embedding(t: torch.Tensor, dim: int, flip: bool, freq_shift: float, scale: float = 1.0, max_period: float = 10000.0) -> torch.Tensor:
    """diffusers' get_timestep_embedding, which computes in float32 whatever it is given, in float64."""
    half = dim // 2
    freq = torch.exp(-torch.log(torch.tensor(max_period, dtype=torch.float64)) * torch.arange(half, dtype=torch.float64) / (half - freq_shift))
    arg = scale * (t.double()[:, None] * freq[None, :])
    parts = [torch.cos(arg), torch.sin(arg)] if flip else [torch.sin(arg), torch.cos(arg)]
    return F.pad(torch.cat(parts, -1), (0, dim % 2))


def embeddings(out: Golden) -> None:
    from diffusers.models.embeddings import get_timestep_embedding

    t = torch.tensor([0.0, 1.0, 7.0, 250.5, 500.0, 998.0, 999.0], dtype=torch.float64)
    for flip in (False, True):
        for shift in (0, 1):
            for dim in (8, 32, 33):
                case = f"timestep_embedding_{dim}_{'cos_sin' if flip else 'sin_cos'}_shift{shift}"
                y = timestep_embedding(t, dim, flip, shift)
                theirs = get_timestep_embedding(t, dim, flip_sin_to_cos=flip, downscale_freq_shift=shift)
                # their float32 argument t·freq is off by up to 999·2⁻²³ radians
                assert (theirs.double() - y).abs().max() < 2.5e-4, case
                out.input(f"{case}.t", t)
                out.result(f"{case}.y", y)
                out.attributes(case, op="timestep_embedding", dim=dim, flip_sin_to_cos=flip, freq_shift=shift, scale=1.0, max_period=10000.0)
    case, shift = "timestep_embedding_scale1000", 0
    t = torch.tensor([0.0, 0.125, 0.5, 1.0], dtype=torch.float64)
    out.input(f"{case}.t", t)
    out.result(f"{case}.y", timestep_embedding(t, 16, True, shift, scale=1000.0, max_period=100.0))
    out.attributes(case, op="timestep_embedding", dim=16, flip_sin_to_cos=True, freq_shift=shift, scale=1000.0, max_period=100.0)


def optimisers(out: Golden, g: torch.Generator) -> None:
    """Five steps; the gradient's norm is clipped as torch.nn.utils.clip_grad_norm_ does:
    g ← g·min(1, max_norm/(‖g‖ + 1e-6)). The norms of some steps are below max_norm."""
    n, steps = 67, 5
    for case, cls, decay in (
        ("adam", torch.optim.Adam, 0.0),
        ("adam_l2", torch.optim.Adam, 0.1),
        ("adamw", torch.optim.AdamW, 0.1),
    ):
        p = rand(g, n).requires_grad_()
        lr, betas, eps, max_norm, ema_decay = 3e-3, (0.9, 0.995), 1e-8, 5.0, 0.9
        o = cls([p], lr=lr, betas=betas, eps=eps, weight_decay=decay, foreach=False)
        grads = torch.stack([rand(g, n, scale=s) for s in (1.0, 1e-3, 0.3, 10.0, 0.5)])
        out.input(f"{case}.p0", p)
        out.input(f"{case}.g", grads)
        ema, ps, ms, vs, es, norms = p.detach().clone(), [], [], [], [], []
        for k in range(steps):
            p.grad = grads[k].clone()
            norms.append(torch.nn.utils.clip_grad_norm_([p], max_norm, foreach=False).double())
            o.step()
            ema = ema_decay * ema + (1 - ema_decay) * p.detach()
            state = o.state[p]
            ps.append(p.detach().clone())
            ms.append(state["exp_avg"].clone())
            vs.append(state["exp_avg_sq"].clone())
            es.append(ema.clone())
        for name, x in (("p", ps), ("m", ms), ("v", vs), ("ema", es), ("norm", norms)):
            out.result(f"{case}.{name}", torch.stack(x))
        out.attributes(case, op="adam", steps=steps, lr=lr, beta1=betas[0], beta2=betas[1], eps=eps, weight_decay=decay,
                       decoupled=cls is torch.optim.AdamW, max_norm=max_norm, clip_eps=1e-6, ema_decay=ema_decay)  # fmt: skip


def make(path: str) -> None:
    out = Golden("testdata/golden/make.py")
    g = torch.Generator().manual_seed(20240607)
    convolutions(out, g)
    normalisation(out, g)
    attention(out, g)
    pointwise(out, g)
    embeddings(out)
    optimisers(out, g)
    out.write(path)
