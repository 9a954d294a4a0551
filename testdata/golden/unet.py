"""Golden vectors of whole networks: diffusers' UNet2DModel, forward, loss, every gradient, ten steps of Adam.

One file per configuration:
  __metadata__["config"]        the configuration, diffusers' fields
  param.NAME                    parameters by their public names
  x [N, C, H, W], t [N], labels [N] where the network has classes, target [N, C', H, W]
  act.time_embedding            the embedding after its MLP, before class embeddings are added
  act.conv_in, act.down_blocks.I, act.mid_block, act.up_blocks.I, act.out
                                outputs of these modules; down: after the downsampler, up: after the upsampler
  loss = mean((out − target)²) over all elements
  grad.NAME, dx                 its gradients
  __metadata__["zero_gradients"]  names whose gradient is 0 in exact arithmetic (a softmax ignores what is
                                added to all keys): what is stored is rounding, to be compared not with itself
                                but with the scale of to_q.bias; Adam amplifies it, and no output depends on it
Ten steps (where __metadata__["steps"] says so), with x, t and target of each step k:
  steps.x [10, N, C, H, W], steps.t [10, N], steps.target, steps.loss [10] (before the update),
  steps.grad_norm [10] (before clipping), steps.param.NAME and steps.ema.NAME at the end
"""
import json

import torch
from diffusers import UNet2DModel
from diffusers.models import embeddings

from golden import Golden, rand
from ops import timestep_embedding

CONFIGS = {
    # google/ddpm-cifar10-32 in small: attention at one level, one head, asymmetric downsampling
    "a": dict(
        config=dict(
            sample_size=8, in_channels=3, out_channels=3, block_out_channels=(4, 6, 8), layers_per_block=2,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=2, norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
            attention_head_dim=None,
        ),
        batch=3, size=(8, 8), steps=10,
    ),
    # ADM's choices: classes, scale-shift, several heads; the middle attention has no group norm
    "b": dict(
        config=dict(
            sample_size=8, in_channels=3, out_channels=6, block_out_channels=(4, 12), layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=2, norm_eps=1e-5, downsample_padding=1, flip_sin_to_cos=True, freq_shift=0,
            attention_head_dim=4, resnet_time_scale_shift="scale_shift", num_class_embeds=5,
        ),
        batch=3, size=(8, 8),
    ),
    # residual up and down blocks, one channel, 12×12, no attention in the middle
    "c": dict(
        config=dict(
            sample_size=12, in_channels=1, out_channels=1, block_out_channels=(6, 6, 9), layers_per_block=1,
            down_block_types=("AttnDownBlock2D", "ResnetDownsampleBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "ResnetUpsampleBlock2D", "AttnUpBlock2D"),
            norm_num_groups=3, norm_eps=1e-5, downsample_type="resnet", upsample_type="resnet",
            attention_head_dim=3, add_attention=False,
        ),
        batch=3, size=(12, 12),
    ),
    # the fields that are left: centred input, own embedding width, scaled middle block, its own groups; not square
    "d": dict(
        config=dict(
            sample_size=(8, 12), in_channels=2, out_channels=2, block_out_channels=(4, 10), layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=2, norm_eps=1e-5, center_input_sample=True, time_embedding_dim=12,
            mid_block_scale_factor=2.0**0.5, resnet_time_scale_shift="scale_shift", attn_norm_num_groups=5,
            attention_head_dim=5,
        ),
        batch=2, size=(8, 12),
    ),
    # ResnetDownsampleBlock2D with scale-shift, and a middle block of one head over all channels
    "e": dict(
        config=dict(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(4, 8), layers_per_block=1,
            down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
            norm_num_groups=2, norm_eps=1e-5, downsample_type="resnet", upsample_type="resnet",
            resnet_time_scale_shift="scale_shift", attention_head_dim=8, num_class_embeds=3,
        ),
        batch=4, size=(8, 8),
    ),
}  # fmt: skip


def network(config: dict, g: torch.Generator) -> UNet2DModel:
    """The network in float64, its parameters random and exact in float32: no bias is 0, no scale 1."""
    net = UNet2DModel(**config).double()
    for name, p in net.named_parameters():
        if p.dim() > 1:
            fan = p[0].numel() if "class_embedding" not in name else 4
            p.data = rand(g, *p.shape, scale=fan**-0.5)
        else:
            # one-dimensional weights are the scales of group norms
            p.data = rand(g, *p.shape, scale=0.2, shift=1.0 if name.endswith("weight") else 0.0)
    return net


def make_one(path: str, config: dict, batch: int, size: tuple[int, int], seed: int, steps: int = 0) -> None:
    out = Golden("testdata/golden/make.py")
    g = torch.Generator().manual_seed(seed)
    net = network(config, g)
    ci, co, classes = config["in_channels"], config["out_channels"], config.get("num_class_embeds")

    # the configuration with its defaults written out, as diffusers saves it
    full = {k: v for k, v in net.config.items() if not k.startswith("_")}
    out.attributes("config", _class_name="UNet2DModel", **full)

    x = rand(g, batch, ci, *size).requires_grad_()
    t = torch.tensor([0.0, 371.0, 999.0, 12.0][:batch], dtype=torch.float64)
    target = rand(g, batch, co, *size)
    labels = torch.randint(0, classes, (batch,), generator=g) if classes else None

    activations = {}
    watched = ["time_embedding", "conv_in", "mid_block"]
    watched += [f"{side}_blocks.{i}" for side in ("down", "up") for i in range(len(config["block_out_channels"]))]
    hooks = [
        net.get_submodule(name).register_forward_hook(
            lambda m, i, y, name=name: activations.__setitem__(name, y[0] if isinstance(y, tuple) else y)
        )
        for name in watched
    ]
    y = net(x, t, class_labels=labels).sample
    for h in hooks:
        h.remove()
    loss = ((y - target) ** 2).mean()
    loss.backward()

    out.input("x", x)
    out.input("t", t)
    out.input("target", target)
    if classes:
        out.input("labels", labels)
    for name, a in activations.items():
        out.result(f"act.{name}", a)
    out.result("act.out", y)
    out.result("loss", loss)
    out.result("dx", x.grad)
    for name, p in net.named_parameters():
        out.input(f"param.{name}", p)
        out.result(f"grad.{name}", p.grad)
        zero = name.endswith("to_k.bias")
        assert (p.grad.abs().max() < 1e-12) == zero, f"{path}: the gradient of {name} would prove nothing"

    out.attributes("zero_gradients", names=[n for n, _ in net.named_parameters() if n.endswith("to_k.bias")])

    if steps:
        lr, betas, eps, max_norm, decay = 1e-3, (0.9, 0.999), 1e-8, 1.0, 0.99
        params = list(net.parameters())
        ema = [p.detach().clone() for p in params]
        optimiser = torch.optim.Adam(params, lr=lr, betas=betas, eps=eps, foreach=False)
        xs = rand(g, steps, batch, ci, *size)
        ts = torch.randint(0, 1000, (steps, batch), generator=g).double()
        targets = rand(g, steps, batch, co, *size)
        losses, norms = [], []
        for k in range(steps):
            optimiser.zero_grad()
            loss = ((net(xs[k], ts[k]).sample - targets[k]) ** 2).mean()
            loss.backward()
            losses.append(loss.detach())
            norms.append(torch.nn.utils.clip_grad_norm_(params, max_norm, foreach=False).double())
            optimiser.step()
            ema = [decay * e + (1 - decay) * p.detach() for e, p in zip(ema, params)]
        out.input("steps.x", xs)
        out.input("steps.t", ts)
        out.input("steps.target", targets)
        out.result("steps.loss", torch.stack(losses))
        out.result("steps.grad_norm", torch.stack(norms))
        for (name, p), e in zip(net.named_parameters(), ema):
            out.result(f"steps.param.{name}", p)
            out.result(f"steps.ema.{name}", e)
        out.attributes("steps", count=steps, lr=lr, beta1=betas[0], beta2=betas[1], eps=eps, weight_decay=0.0,
                       max_norm=max_norm, clip_eps=1e-6, ema_decay=decay)  # fmt: skip
    out.write(path)


def make(folder: str) -> None:
    # diffusers computes the sinusoids in float32 whatever the network's type
    def in_float64(timesteps, embedding_dim, flip_sin_to_cos=False, downscale_freq_shift=1, scale=1, max_period=10000):
        return timestep_embedding(timesteps, embedding_dim, flip_sin_to_cos, downscale_freq_shift, scale, max_period)

    embeddings.get_timestep_embedding = in_float64
    for i, (name, c) in enumerate(CONFIGS.items()):
        make_one(f"{folder}/unet_{name}.safetensors", seed=20240700 + i, **c)


def cifar10_tensors(path: str) -> None:
    """Public names and shapes of google/ddpm-cifar10-32's network, in diffusers' order; built, not downloaded."""
    config = dict(
        sample_size=32, in_channels=3, out_channels=3, center_input_sample=False, time_embedding_type="positional",
        freq_shift=1, flip_sin_to_cos=False, block_out_channels=(128, 256, 256, 256), layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        mid_block_scale_factor=1, downsample_padding=0, act_fn="silu", attention_head_dim=None,
        norm_num_groups=32, norm_eps=1e-6,
    )  # fmt: skip
    with torch.device("meta"):
        net = UNet2DModel(**config)
    tensors = [{"name": n, "shape": list(p.shape)} for n, p in net.state_dict().items()]
    count = sum(p.numel() for p in net.parameters())
    assert len(tensors) == 328 and count == 35_746_307, (len(tensors), count)
    with open(path, "w") as f:
        f.write('{\n"config": ' + json.dumps({"_class_name": "UNet2DModel", **config}) + ",\n")
        f.write(f'"parameters": {count},\n"tensors": [\n')
        f.write(",\n".join(json.dumps(t) for t in tensors) + "\n]\n}\n")
    print(f"{path}: {len(tensors)} tensors, {count} parameters")
