"""ResNet-18 (He et al., 2016), torchvision's, with ten outputs: the paper's section 2.2 and its notebook."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torchvision.models import ResNet, resnet18

LAYERS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")


def build(outputs: int = 10) -> ResNet:
    """The untrained network: 11,181,642 weights with ten outputs.

    It keeps the ImageNet stem (a 7x7 convolution with stride 2, then max pooling), so that a 32x32 image has shrunk to
    8x8 before the first residual block and to 1x1 after the last: the paper's notebook did the same.

    Args:
        outputs: Number of classes.

    Returns:
        A module from float (N, 3, 32, 32), normalised, to logits (N, outputs).
    """
    return resnet18(weights=None, num_classes=outputs)


def divide(model: ResNet, frozen: Sequence[str]) -> tuple[nn.Sequential, nn.Sequential]:
    """The network in two: the layers before the first one that is not frozen, and the rest.

    Args:
        model: The network; both parts share its layers.
        frozen: Names out of LAYERS; what the network does between two of these belongs to the earlier one.
    """
    steps: dict[str, list[nn.Module]] = {name: [getattr(model, name)] for name in LAYERS}
    steps["bn1"] += [model.relu, model.maxpool]
    steps["layer4"] += [model.avgpool, nn.Flatten()]
    leading = next(number for number, name in enumerate(LAYERS) if name not in frozen)
    parts = [[module for name in names for module in steps[name]] for names in (LAYERS[:leading], LAYERS[leading:])]
    return nn.Sequential(*parts[0]), nn.Sequential(*parts[1])


def to_input(
    images: np.ndarray | torch.Tensor, mean: Sequence[float] | torch.Tensor, std: Sequence[float] | torch.Tensor
) -> torch.Tensor:
    """What the network takes, from uint8 images (N, 32, 32, 3): float32 (N, 3, 32, 32), normalised for each channel.

    Args:
        images: Pixels, 0 to 255; the result is on their device, its channels last in memory as in theirs.
        mean: Of each channel, for pixels in [0, 1].
        std: Likewise.
    """
    pixels = torch.as_tensor(images)
    mean, std = (torch.as_tensor(values, dtype=torch.float32, device=pixels.device) for values in (mean, std))
    return (pixels * (1 / (255 * std)) - mean / std).permute(0, 3, 1, 2)
