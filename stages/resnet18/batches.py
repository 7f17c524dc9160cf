"""Batches for ResNet-18, made on the device that trains, from images that stay there."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from stages.resnet18.architecture import to_input
from stages.training.augmentation import PADDING, Augmentation, Choices, places
from stages.training.images import Images

FEATURE_BATCH = 500  # images
MOST_FEATURES = 2**30  # bytes that are kept; above, each batch's features are computed again


class Batches:
    """Inputs and labels of the part of the network that trains.

    Where leading layers are frozen, the inputs are their features: computed without gradients and, where no
    augmentation changes the images from epoch to epoch, only once.
    """

    def __init__(
        self,
        images: Images,
        rows: np.ndarray,
        augmentation: Augmentation,
        mean: Sequence[float],
        std: Sequence[float],
        frozen: nn.Sequential,
        device: torch.device,
    ) -> None:
        """Take the images to the device.

        Args:
            images: Where to take them from.
            rows: Those of them that will be asked for.
            augmentation: "none" where every image is always as it is.
            mean: Of each channel, as `architecture.to_input` takes it.
            std: Likewise.
            frozen: The leading layers that do not train, perhaps none, on the device.
            device: Where the batches are made.
        """
        self.pixels = torch.from_numpy(images.pixels).to(device)
        self.labels = torch.from_numpy(images.labels.astype(np.int64)).to(device)
        self.augmented = augmentation != "none"
        self.mean, self.std = torch.tensor(mean, device=device), torch.tensor(std, device=device)
        self.frozen = frozen.eval()
        self.features: torch.Tensor | None = None
        if len(frozen) and not self.augmented:
            self._keep_features(rows)

    def __call__(
        self, order: np.ndarray, choices: Choices, batch_size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of inputs, float32, and of labels, int64 (B,), in the given order.

        Args:
            order: Rows of the images, int64.
            choices: One for each of them.
            batch_size: B; the last batch may be smaller.
        """
        device = self.pixels.device
        rows = torch.from_numpy(order).to(device)
        if self.augmented:
            sources = [torch.from_numpy(place).to(device) for place in places(choices, *self.pixels.shape[1:3])]
        for start in range(0, len(order), batch_size):
            batch = slice(start, start + batch_size)
            if self.features is not None:
                yield self.features[self.place[rows[batch]]], self.labels[rows[batch]]
                continue
            pixels = self.pixels[rows[batch]]
            if self.augmented:
                pixels = augment(pixels, *(source[batch] for source in sources))
            yield self._inputs(pixels), self.labels[rows[batch]]

    @torch.no_grad()
    def _inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        inputs: torch.Tensor = self.frozen(to_input(pixels, self.mean, self.std))
        return inputs

    def _keep_features(self, rows: np.ndarray) -> None:
        asked = torch.from_numpy(rows).to(self.pixels.device)
        one = self._inputs(self.pixels[asked[:1]])
        if one.nbytes * len(rows) > MOST_FEATURES:
            return
        layout = torch.channels_last if one.ndim == 4 else torch.contiguous_format
        self.features = torch.empty((len(rows), *one.shape[1:]), device=asked.device, memory_format=layout)
        for start in range(0, len(rows), FEATURE_BATCH):
            part = slice(start, start + FEATURE_BATCH)
            self.features[part] = self._inputs(self.pixels[asked[part]])
        self.place = torch.zeros(len(self.labels), dtype=torch.int64, device=asked.device)
        self.place[asked] = torch.arange(len(rows), device=asked.device)


def augment(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Flip and crop a batch, to the pixel as `augmentation.augment` does.

    Args:
        images: uint8, (B, height, width, channels).
        rows: int64 (B, height), from `augmentation.places`.
        columns: int64 (B, width), likewise.
    """
    padded = functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]]
