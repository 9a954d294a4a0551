"""The training loop of denoising-diffusion-pytorch, another network of the same size: its own Unet, GaussianDiffusion and Trainer."""
import os
import tempfile

import numpy as np
import torch
from PIL import Image


class Training:
    unit = 1

    def __init__(self, s, p):
        from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet
        if not s.cuda:
            os.environ["ACCELERATE_USE_CPU"] = "true"  # also where there is a GPU
        torch.manual_seed(0)
        # Beside the scripts, which ddgpu removes at the end whatever becomes of this process.
        self.folder = tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(__file__)))
        pictures = os.path.join(self.folder.name, "pictures")
        os.mkdir(pictures)
        random, (height, width) = np.random.default_rng(0), p["size"]
        shape = (height, width) if p["channels"] == 1 else (height, width, p["channels"])
        for i in range(max(256, p["batch"])):
            Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(os.path.join(pictures, f"{i}.png"))
        net = Unet(dim=p["dim"], dim_mults=tuple(p["mults"]), channels=p["channels"], flash_attn=s.cuda)
        diffusion = GaussianDiffusion(net, image_size=(height, width), timesteps=p["steps"])
        self.count = sum(w.numel() for w in net.parameters())
        self.trainer = Trainer(
            diffusion, pictures, train_batch_size=p["batch"], train_lr=p["lr"], augment_horizontal_flip=p["flip"],
            save_and_sample_every=10**9, num_samples=1, results_folder=os.path.join(self.folder.name, "results"), calculate_fid=False,
            amp=s.precision == "bf16", mixed_precision_type="bf16")

    def outputs(self):
        return {}

    def repeat(self, times):
        """`times` further steps of Trainer.train."""
        self.trainer.train_num_steps = self.trainer.step + times
        self.trainer.train()

    def close(self):
        self.trainer = None
        self.folder.cleanup()
