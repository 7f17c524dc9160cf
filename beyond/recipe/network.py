"""The network: a whitening convolution, three blocks of two convolutions, and a linear classifier.

After Jordan's airbench94 ("94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, arXiv 2404.00498, section 3), which
goes back to Page's "How to train your ResNet" (2019) and Balsam's hlb-CIFAR10 (2023). Written from these descriptions.
"""

import torch
from torch import nn
from torch.nn import functional

from beyond.recipe.settings import NetworkSettings
from beyond.recipe.whitening import SIDE

WHITENING_FILTERS = 2 * 3 * SIDE**2  # each of the 12 directions, and its negative: the activation drops one side
BATCH_NORM_EPS = 1e-12  # as published
ACTIVATIONS = {"gelu": nn.GELU, "silu": nn.SiLU, "relu": nn.ReLU}


class Network(nn.Module):
    """From uint8 pixels (N, 32, 32, 3) to logits (N, classes); the channels' mean and deviation are part of it."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, settings: NetworkSettings, classes: int = 10) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))
        activation = ACTIVATIONS[settings.activation]
        self.whiten = nn.Conv2d(3, WHITENING_FILTERS, SIDE)
        inputs = [WHITENING_FILTERS, *settings.widths[:-1]]
        blocks = [Block(*channels, settings) for channels in zip(inputs, settings.widths, strict=True)]
        self.features = nn.Sequential(activation(), *blocks, nn.MaxPool2d(3), nn.Flatten())
        self.head = nn.Linear(settings.widths[-1], classes, bias=False)
        with torch.no_grad():
            self.head.weight.mul_(1 / self.head.weight.std())
            if settings.whitening:
                self.whiten.bias.zero_()  # type: ignore[union-attr]
                self.whiten.weight.requires_grad_(False)

    def to_input(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised images, float32 (N, 3, 32, 32) with channels last in memory, of uint8 pixels (N, 32, 32, 3)."""
        return (pixels * (1 / (255 * self.std)) - self.mean / self.std).permute(0, 3, 1, 2)

    def start_whitening(self, filters: torch.Tensor) -> None:
        """Take whitening filters, (12, 3, 2, 2), and their negatives."""
        with torch.no_grad():
            self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = self.features(self.whiten(self.to_input(pixels)))
        return self.head(features) / features.shape[1]


class Block(nn.Module):
    """Convolution, 2x2 pooling, convolution, each followed by batch norm and activation: (N, C, S, S) to S // 2."""

    def __init__(self, inputs: int, outputs: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.skip_unpooled = settings.skip_unpooled
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        momentum = 1 - settings.batch_norm_keeps
        self.norm1 = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS, momentum=momentum)
        self.norm2 = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS, momentum=momentum)
        self.pool = nn.MaxPool2d(2)
        self.activation = ACTIVATIONS[settings.activation]()
        for norm in (self.norm1, self.norm2):
            norm.weight.requires_grad_(False)  # stays 1
        if settings.identity_start:
            for convolution in (self.conv1, self.conv2):
                nn.init.dirac_(convolution.weight[: convolution.in_channels])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.skip_unpooled and inputs.shape[2] % 2:  # the pooling drops the last row and column
            hidden = functional.conv2d(functional.pad(inputs, (1, 0, 1, 0)), self.conv1.weight)
        else:
            hidden = self.conv1(inputs)
        hidden = self.activation(self.norm1(self.pool(hidden)))
        return self.activation(self.norm2(self.conv2(hidden)))
