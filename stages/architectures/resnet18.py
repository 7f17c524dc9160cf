"""ResNet-18 (He et al., 2016), torchvision's, with ten outputs: the paper's section 2.2 and its notebook."""

from collections.abc import Sequence

import numpy as np
import torch
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


def to_input(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """What the network takes, from uint8 images (N, 32, 32, 3): float32 (N, 3, 32, 32), normalised for each channel.

    Args:
        images: Pixels, 0 to 255.
        mean: Of each channel, for pixels in [0, 1].
        std: Likewise.
    """
    scale = 1 / (255 * torch.tensor(std))
    shift = torch.tensor(mean) / torch.tensor(std)
    return (torch.from_numpy(images) * scale - shift).permute(0, 3, 1, 2).contiguous()
