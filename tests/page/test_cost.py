"""Operations counted from the layers' shapes are those that PyTorch counts while it computes."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stages.page.cost import predicting_operations, training_operations
from stages.resnet18.architecture import build

IMAGES = 2


def counted(model: nn.Module, trains: bool) -> int:
    """What PyTorch counts for an image."""
    with FlopCounterMode(display=False) as counter:
        outputs = model(torch.rand(IMAGES, 3, 32, 32)).sum()
        if trains:
            outputs.backward()
    return counter.get_total_flops() // IMAGES


def keras_cnn(filters: list[int], kernel_size: int, units: int, depth: int) -> nn.Module:
    """The Keras CNN's products in PyTorch."""
    layers: list[nn.Module] = []
    channels, side = 3, 32
    for outputs in filters:
        for _ in range(depth):
            layers.append(nn.Conv2d(channels, outputs, kernel_size, padding="same"))
            channels = outputs
        layers.append(nn.MaxPool2d(2))
        side //= 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(side**2 * channels, units), nn.Linear(units, 10))


@pytest.mark.parametrize(
    ("filters", "kernel_size", "units", "depth"),
    [([32, 64, 128], 3, 128, 1), ([32, 64, 128], 3, 128, 2), ([4, 6], 5, 7, 3)],
)
def test_the_keras_cnn_s_are_counted(filters: list[int], kernel_size: int, units: int, depth: int) -> None:
    parameters = {"filters": filters, "kernel_size": kernel_size, "dense_units": units, "convolutions_per_block": depth}
    dotted = {f"keras_cnn.{key}": value for key, value in parameters.items()}
    model = keras_cnn(filters, kernel_size, units, depth)
    assert predicting_operations("keras_cnn", dotted) == counted(model, trains=False)
    assert training_operations("keras_cnn", dotted) == counted(model, trains=True)


@pytest.mark.parametrize("frozen", [[], ["conv1", "bn1"], ["conv1", "bn1", "layer1", "layer2"]])
def test_resnet18_s_are_counted_with_frozen_layers(frozen: list[str]) -> None:
    model = build()
    for name in frozen:
        getattr(model, name).requires_grad_(False)
    parameters: dict[str, Any] = {"resnet18.frozen": frozen}
    assert predicting_operations("resnet18", parameters) == counted(model, trains=False)
    assert training_operations("resnet18", parameters) == counted(model, trains=True)
