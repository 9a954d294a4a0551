#!/usr/bin/env python3
"""Makes the golden vectors of this folder, with PyTorch and diffusers, in float64 on a CPU.

Versions are pinned in requirements.txt:
    python3 -m venv VENV && VENV/bin/pip install -r requirements.txt && VENV/bin/python make.py
Everything is drawn from fixed seeds. Another processor or version may change results in the
last bits; tests compare with the bounds of their precision, not bit by bit.

usage: make.py [--check] [FOLDER]      (--check compares FOLDER's files with fresh ones)
"""
import argparse
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from safetensors import safe_open

import diffusion
import ops
import unet


def make(folder: str) -> list[str]:
    torch.set_num_threads(1)
    ops.make(f"{folder}/ops.safetensors")
    diffusion.make(f"{folder}/diffusion.safetensors")
    unet.cifar10_tensors(f"{folder}/cifar10_ddpm_tensors.json")
    unet.make(folder)
    return ["ops.safetensors", "diffusion.safetensors"] + [f"unet_{name}.safetensors" for name in unet.CONFIGS]


def compare(old: str, new: str) -> None:
    """Same names, shapes, metadata; inputs (float32, int32) equal, results (float64) to 1e-9."""
    with safe_open(old, "np") as a, safe_open(new, "np") as b:
        if set(a.keys()) != set(b.keys()) or a.metadata() != b.metadata():
            sys.exit(f"{old}: other names or metadata than a fresh one")
        for name in a.keys():
            x, y = a.get_tensor(name), b.get_tensor(name)
            if x.dtype != y.dtype or x.shape != y.shape:
                sys.exit(f"{old}: {name} is {x.dtype}{x.shape}, a fresh one {y.dtype}{y.shape}")
            error = np.linalg.norm((x - y).astype(np.float64))
            if error > (1e-9 if x.dtype == np.float64 else 0) * np.linalg.norm(x.astype(np.float64)):
                sys.exit(f"{old}: {name} is off by {error}")
    print(f"{old}: as a fresh one")


def main() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--check", action="store_true", help="compare with the files that are there")
    p.add_argument("folder", nargs="?", default=here)
    args = p.parse_args()
    if not args.check:
        make(args.folder)
        return
    with tempfile.TemporaryDirectory() as fresh:
        for name in make(fresh):
            compare(f"{args.folder}/{name}", f"{fresh}/{name}")


if __name__ == "__main__":
    main()
