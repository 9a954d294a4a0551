"""Golden vectors of noise schedules and of diffusers' sampler steps, in float64."""
import math
from unittest import mock

import torch
from diffusers import DDIMScheduler, DDPMScheduler

from golden import Golden, rand


def betas(name: str, T: int) -> torch.Tensor:
    """linear: Ho et al. 2020; cosine: Nichol & Dhariwal 2021; sigmoid: Jabri et al. 2022, start −3, end 3, τ 1."""
    if name == "linear":
        return torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    if name == "cosine":

        def bar(u: float) -> float:
            return math.cos((u / T + 0.008) / 1.008 * math.pi / 2) ** 2

    elif name == "sigmoid":

        def bar(u: float) -> float:
            start, end, tau = -3.0, 3.0, 1.0
            logistic = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
            top = logistic(end / tau) - logistic((start + (end - start) * u / T) / tau)
            return top / (logistic(end / tau) - logistic(start / tau))

    else:
        raise ValueError(name)
    return torch.tensor([min(1 - bar(n + 1) / bar(n), 0.999) for n in range(T)], dtype=torch.float64)


def schedules(out: Golden) -> None:
    """Arrays of length T, by index n; ᾱ_{−1} = 1.

    posterior_mean_x0 = √ᾱ_{n−1} β_n/(1 − ᾱ_n), posterior_mean_x = √α_n (1 − ᾱ_{n−1})/(1 − ᾱ_n);
    posterior_log_variance is log β̃_n with index 0 set to index 1's.
    """
    for name, T in (("linear", 1000), ("cosine", 1000), ("cosine", 40), ("sigmoid", 300)):
        case = f"schedule_{name}_{T}"
        b = betas(name, T)
        bar = torch.cumprod(1 - b, 0)
        prev = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
        variance = b * (1 - prev) / (1 - bar)
        if name != "sigmoid":
            theirs = DDPMScheduler(num_train_timesteps=T, beta_schedule={"linear": "linear", "cosine": "squaredcos_cap_v2"}[name])
            assert torch.allclose(theirs.betas.double(), b, rtol=1e-3, atol=1e-7), case
        out.result(f"{case}.betas", b)
        out.result(f"{case}.alphas_cumprod", bar)
        out.result(f"{case}.posterior_variance", variance)
        out.result(f"{case}.posterior_log_variance", torch.cat([variance[1:2], variance[1:]]).log())
        out.result(f"{case}.posterior_mean_x0", prev.sqrt() * b / (1 - bar))
        out.result(f"{case}.posterior_mean_x", (1 - b).sqrt() * (1 - prev) / (1 - bar))
        out.attributes(case, op="schedule", beta_schedule=name, num_train_timesteps=T)


def in_float64(scheduler, schedule: str):
    """diffusers keeps its schedule in float32, where 1 − ᾱ has an error of 6e-4 at n = 0."""
    b = betas(schedule, scheduler.config.num_train_timesteps)
    scheduler.betas, scheduler.alphas, scheduler.alphas_cumprod = b, 1 - b, torch.cumprod(1 - b, 0)
    one = torch.tensor(1.0, dtype=torch.float64)
    if hasattr(scheduler, "one"):
        scheduler.one = one
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = one if scheduler.config.set_alpha_to_one else scheduler.alphas_cumprod[0]
    return scheduler


def sampler_steps(out: Golden, g: torch.Generator) -> None:
    """One call of scheduler.step each, from a given sample, model output and noise."""
    names = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
    shape = (2, 3, 4, 5)

    def store(case, sample, model, noise, r, **attributes):
        out.input(f"{case}.sample", sample)
        out.input(f"{case}.model_output", model)
        out.input(f"{case}.noise", noise)
        out.result(f"{case}.prev_sample", r.prev_sample)
        out.result(f"{case}.pred_original_sample", r.pred_original_sample)
        out.attributes(case, **attributes)

    k = 0
    for schedule, variance, predicts, clip, steps, t in (
        ("linear", "fixed_small", "epsilon", True, 1000, 999),
        ("linear", "fixed_small", "epsilon", False, 1000, 400),
        ("linear", "fixed_small", "epsilon", True, 1000, 1),
        ("linear", "fixed_small", "epsilon", True, 1000, 0),
        ("linear", "fixed_large", "epsilon", True, 1000, 600),
        ("linear", "fixed_large", "epsilon", False, 1000, 1),
        ("linear", "fixed_large", "epsilon", True, 1000, 0),
        ("linear", "fixed_small", "sample", True, 1000, 300),
        ("linear", "fixed_large", "v_prediction", True, 1000, 300),
        ("linear", "fixed_small", "epsilon", True, 50, 480),
        ("linear", "fixed_large", "v_prediction", True, 50, 480),
        ("linear", "fixed_large", "epsilon", True, 50, 20),
        ("linear", "fixed_large", "epsilon", True, 50, 0),
        ("cosine", "fixed_small", "epsilon", True, 1000, 999),
        ("cosine", "fixed_small", "v_prediction", True, 1000, 500),
        ("cosine", "fixed_large", "sample", True, 25, 960),
    ):
        s = DDPMScheduler(1000, beta_schedule=names[schedule], variance_type=variance, prediction_type=predicts,
                          clip_sample=clip, timestep_spacing="leading")  # fmt: skip
        s.set_timesteps(steps)
        in_float64(s, schedule)
        sample, model, noise = rand(g, *shape), rand(g, *shape), rand(g, *shape)
        with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, noise=noise, **kw: noise):
            r = s.step(model, t, sample)
        store(f"ddpm_{k:02d}", sample, model, noise, r, op="ddpm_step", beta_schedule=schedule, num_train_timesteps=1000,
              num_inference_steps=steps, timestep=t, prev_timestep=t - 1000 // steps, variance_type=variance,
              prediction_type=predicts, clip_sample=clip)  # fmt: skip
        k += 1

    k = 0
    for schedule, predicts, clip, rederive, eta, steps, t in (
        ("linear", "epsilon", True, False, 0.0, 50, 980),
        ("linear", "epsilon", True, True, 0.0, 50, 980),
        ("linear", "epsilon", False, False, 0.0, 50, 500),
        ("linear", "epsilon", True, False, 0.0, 50, 0),
        ("linear", "epsilon", True, False, 1.0, 50, 980),
        ("linear", "epsilon", True, True, 1.0, 50, 20),
        ("linear", "epsilon", False, False, 1.0, 1000, 500),
        ("linear", "epsilon", False, False, 0.3, 20, 600),
        ("linear", "epsilon", True, False, 1.0, 50, 0),
        ("linear", "sample", True, False, 0.0, 50, 500),
        ("linear", "sample", True, False, 1.0, 50, 500),
        ("linear", "v_prediction", True, False, 0.0, 50, 500),
        ("linear", "v_prediction", False, False, 1.0, 10, 300),
        ("cosine", "epsilon", True, False, 0.0, 50, 900),
        ("cosine", "v_prediction", True, True, 1.0, 50, 980),
    ):
        s = DDIMScheduler(1000, beta_schedule=names[schedule], prediction_type=predicts, clip_sample=clip,
                          set_alpha_to_one=True, timestep_spacing="leading")  # fmt: skip
        s.set_timesteps(steps)
        in_float64(s, schedule)
        assert t in s.timesteps.tolist(), (steps, t)
        sample, model, noise = rand(g, *shape), rand(g, *shape), rand(g, *shape)
        r = s.step(model, t, sample, eta=eta, use_clipped_model_output=rederive, variance_noise=noise)
        store(f"ddim_{k:02d}", sample, model, noise, r, op="ddim_step", beta_schedule=schedule, num_train_timesteps=1000,
              num_inference_steps=steps, timestep=t, prev_timestep=t - 1000 // steps, prediction_type=predicts,
              clip_sample=clip, use_clipped_model_output=rederive, eta=eta)  # fmt: skip
        k += 1


def forward_process(out: Golden, g: torch.Generator) -> None:
    """x_n = √ᾱ_n x0 + √(1 − ᾱ_n) ε, and the targets: ε, x0, v = √ᾱ_n ε − √(1 − ᾱ_n) x0."""
    for schedule in ("linear", "cosine", "sigmoid"):
        case = f"add_noise_{schedule}"
        bar = torch.cumprod(1 - betas(schedule, 1000), 0)
        x0, eps = rand(g, 5, 2, 3, 3), rand(g, 5, 2, 3, 3)
        n = torch.tensor([0, 1, 250, 500, 999])
        a, s = bar[n].sqrt()[:, None, None, None], (1 - bar[n]).sqrt()[:, None, None, None]
        out.input(f"{case}.x0", x0)
        out.input(f"{case}.eps", eps)
        out.input(f"{case}.n", n)
        out.result(f"{case}.xn", a * x0 + s * eps)
        out.result(f"{case}.v", a * eps - s * x0)
        out.attributes(case, op="add_noise", beta_schedule=schedule, num_train_timesteps=1000)


def make(path: str) -> None:
    out = Golden("testdata/golden/make.py")
    g = torch.Generator().manual_seed(20240608)
    schedules(out)
    forward_process(out, g)
    sampler_steps(out, g)
    out.write(path)
