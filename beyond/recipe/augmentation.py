"""Mirroring and shifting images, for training and for the views of test-time augmentation.

What a shift takes from beyond the edge is the image's reflection. The alternating flip is from Jordan 2024 (arXiv
2404.00498, section 3.6): an image is mirrored in every other epoch, so that two epochs show each of its sides once.
"""

from typing import NamedTuple

import numpy as np
import torch

from beyond.recipe.settings import AugmentationSettings
from stages.training.randomness import generator


class Moves(NamedTuple):
    """What is done to each of N images: `flip` bool (N,); `down` and `right` int64 (N,), from which pixel it is taken.

    A positive `down` shows what lies further down. Shifted first, mirrored then.
    """

    flip: np.ndarray
    down: np.ndarray
    right: np.ndarray


def draw(settings: AugmentationSettings, images: int, seed: int, epoch: int) -> Moves:
    """The moves of an epoch, for `images` images in their own order.

    Args:
        settings: What is drawn.
        images: N.
        seed: The run's.
        epoch: Counted from 1.
    """
    flip = np.zeros(images, dtype=bool)
    if settings.flip == "alternating":
        flip = (generator(seed, 0, "first flip").random(images) < 0.5) ^ (epoch % 2 == 0)
    elif settings.flip == "random":
        flip = generator(seed, epoch, "flip").random(images) < 0.5
    most = settings.translate
    down, right = generator(seed, epoch, "translation").integers(-most, most + 1, size=(2, images))
    return Moves(flip, down, right)


def move(pixels: torch.Tensor, flip: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Shift and mirror a batch.

    Args:
        pixels: uint8 (B, S, S, 3).
        flip: bool (B,), as in `Moves`, and on the pixels' device.
        down: int64 (B,), likewise, smaller than S.
        right: int64 (B,), likewise.
    """
    side = pixels.shape[1]
    line = torch.arange(side, device=pixels.device)
    rows = _reflect(line + down[:, None], side)
    columns = _reflect(torch.where(flip[:, None], side - 1 - line, line) + right[:, None], side)
    each = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    return pixels[each, rows[:, :, None], columns[:, None, :]]


def _reflect(index: torch.Tensor, side: int) -> torch.Tensor:
    """Indices beyond 0 to side - 1, reflected at the first and the last pixel."""
    return side - 1 - (side - 1 - index.abs()).abs()
