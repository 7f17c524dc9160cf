"""ResNet-18 as an expert trains it with PyTorch's own means: torchvision's network, fed from memory.

The images stay on the device as uint8 and are flipped, cropped and normalised a batch at a time. The network has its
channels last and PyTorch's fused Adam, and the loss is read every 25 steps. Where there is a C++ compiler, the network
also runs through torch.compile.
"""

import shutil
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision import models

from benchmarks.notebook.resnet18 import MEAN, STD, settings

Json = dict[str, Any]
SIDE, PADDING = 32, 4
STRETCH = 25  # steps between two readings of the loss
COMPILERS = ("c++", "g++", "clang++")


def start(images: np.ndarray, labels: np.ndarray, batch_size: int, device: str) -> tuple[Json, Json]:
    """Functions that train and report to a log, by their form, and what must be the same in ours."""
    pixels = torch.from_numpy(images).to(device)
    targets = torch.from_numpy(labels.astype(np.int64)).to(device)
    mean, std = (255 * torch.tensor(values, device=device) for values in (MEAN, STD))

    def batch(rows: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, 32, 32), channels last, each with its own flip and crop; zeros, then normalised, pad them."""
        padded = nn.functional.pad(pixels[rows], (0, 0, PADDING, PADDING, PADDING, PADDING))
        span = torch.arange(SIDE, device=device)
        top, left = torch.randint(0, 2 * PADDING + 1, (2, len(rows), 1), device=device)
        columns = torch.where(torch.rand(len(rows), 1, device=device) < 0.5, span, span.flip(0)) + left
        cropped = padded[
            torch.arange(len(rows), device=device)[:, None, None], (span + top)[:, :, None], columns[:, None]
        ]
        return ((cropped - mean) / std).permute(0, 3, 1, 2)

    def form(compiled: bool) -> tuple[nn.Module, Any]:
        model = models.resnet18(weights=None, num_classes=10).to(device, memory_format=torch.channels_last)
        network = torch.compile(model) if compiled else model
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)

        def train(order: np.ndarray, log: Any) -> None:
            model.train()
            total, correct = torch.zeros((), device=device), torch.zeros((), device=device)
            for step, rows in enumerate(torch.from_numpy(order).to(device).split(batch_size), start=1):
                optimizer.zero_grad()
                outputs = network(batch(rows))
                loss = nn.functional.cross_entropy(outputs, targets[rows])
                loss.backward()
                optimizer.step()
                total += loss.detach()
                correct += (outputs.argmax(1) == targets[rows]).sum()
                if step % STRETCH == 0:
                    log.step(step, total.item() / step, correct.item() / (step * batch_size))

        return model, train

    model, eager = form(compiled=False)
    forms = {"eager": eager}
    if any(map(shutil.which, COMPILERS)):
        forms["torch.compile"] = form(compiled=True)[1]
    return forms, settings(model)
