"""Collects named arrays and their attributes and writes them as one safetensors file.

Inputs (everything that a test feeds to the code under test) are float64 arrays whose values
are exactly representable in float32, and are stored as float32. Results are computed and
stored in float64. Integers are stored as int32.

The file is the same bytes for the same content: tensors sorted by item size, then name, and
metadata sorted by key (the safetensors package leaves the order of metadata to a hash map).
"""
import json
import platform
import struct

import numpy as np
import torch

DTYPES = {np.dtype(np.float64): "F64", np.dtype(np.float32): "F32", np.dtype(np.int32): "I32"}


def rand(g: torch.Generator, *shape: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    """Normal draws, rounded to float32, as float64."""
    x = torch.randn(*shape, generator=g, dtype=torch.float64) * scale + shift
    return x.float().double()


class Golden:
    def __init__(self, script: str) -> None:
        import diffusers

        self.tensors: dict[str, np.ndarray] = {}
        self.metadata: dict[str, str] = {
            "made_by": script,
            "versions": json.dumps(
                {"diffusers": diffusers.__version__, "numpy": np.__version__, "torch": torch.__version__.split("+")[0]}
            ),
            "precision": "inputs float32, computed in float64 by PyTorch on a CPU, results float64",
        }
        assert platform.machine() in ("x86_64", "aarch64")

    def attributes(self, key: str, **values) -> None:
        """One JSON object under __metadata__[key]."""
        assert key not in self.metadata, key
        self.metadata[key] = json.dumps(values, sort_keys=True)

    def input(self, name: str, x: torch.Tensor) -> None:
        """An array that the code under test is given; must be exact in float32."""
        x = x.detach()
        if x.dtype in (torch.int64, torch.int32):
            self._put(name, x.to(torch.int32).numpy())
            return
        assert torch.equal(x.float().double(), x.double()), f"{name} is not exact in float32"
        self._put(name, x.float().numpy())

    def result(self, name: str, x) -> None:
        """An array that the code under test must produce."""
        x = torch.as_tensor(x).detach()
        assert x.dtype == torch.float64, f"{name}: {x.dtype}"
        assert bool(torch.isfinite(x).all()), f"{name} is not finite"
        self._put(name, x.numpy())

    def _put(self, name: str, x: np.ndarray) -> None:
        assert name not in self.tensors, name
        # ascontiguousarray would turn a scalar into a vector
        self.tensors[name] = np.array(x, order="C", copy=True)

    def write(self, path: str) -> None:
        header: dict = {"__metadata__": dict(sorted(self.metadata.items()))}
        names = sorted(self.tensors, key=lambda n: (-self.tensors[n].itemsize, n))
        offset = 0
        for n in names:
            x = self.tensors[n]
            header[n] = {"dtype": DTYPES[x.dtype], "shape": list(x.shape), "data_offsets": [offset, offset + x.nbytes]}
            offset += x.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for n in names:
                x = self.tensors[n]
                f.write(x.astype(x.dtype.newbyteorder("<")).tobytes())
        print(f"{path}: {len(names)} arrays, {8 + len(text) + offset} bytes")
