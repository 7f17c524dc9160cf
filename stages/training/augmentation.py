"""The paper's augmentation (sections 2.3 and 3.4): a random horizontal flip and a random crop of the padded image.

The same distribution as torchvision's `RandomHorizontalFlip()` followed by `RandomCrop(32, padding=4)`, but for a
whole batch at once, on uint8 pixels in memory, and from random numbers that are drawn for an epoch beforehand.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Augmentation = Literal["none", "flip", "flip_crop"]
PADDING = 4  # pixels of black on each side, torchvision's RandomCrop(32, padding=4)


@dataclass(frozen=True)
class Choices:
    """What was drawn for each of N images: `flip` bool (N,); `top` and `left` (N,), a crop's place in 0..8 pixels."""

    flip: np.ndarray
    top: np.ndarray
    left: np.ndarray

    def __getitem__(self, rows: slice) -> "Choices":
        """The choices for some of the images."""
        return Choices(self.flip[rows], self.top[rows], self.left[rows])


def draw(kind: Augmentation, count: int, rng: np.random.Generator) -> Choices:
    """Draw the choices for `count` images; `none` flips nothing and `flip` leaves every crop in the middle."""
    flip = rng.random(count) < 0.5
    top, left = rng.integers(0, 2 * PADDING + 1, size=(2, count))
    middle = np.full(count, PADDING)
    if kind == "flip_crop":
        return Choices(flip, top, left)
    return Choices(flip if kind == "flip" else np.zeros(count, dtype=bool), middle, middle)


def places(choices: Choices, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of each augmented image come from: rows (N, height) and columns (N, width) of the padded one."""
    rows = choices.top[:, None] + np.arange(height)
    # The notebook flips first and crops then: a flipped image's column c is the original's column width - 1 - c.
    columns = choices.left[:, None] + np.arange(width)
    return rows, np.where(choices.flip[:, None], width - 1 + 2 * PADDING - columns, columns)


def augment(images: np.ndarray, choices: Choices) -> np.ndarray:
    """Flip and crop a batch.

    Args:
        images: uint8, (N, height, width, channels).
        choices: As many choices as images.

    Returns:
        New uint8 images of the same shape; what a crop takes from beyond the edge is black (0).
    """
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    rows, columns = places(choices, height, width)
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
