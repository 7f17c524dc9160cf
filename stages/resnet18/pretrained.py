"""Pre-trained weights for ResNet-18 (section 2.4), read without running anything that a file holds."""

import pickle

import torch
from torchvision.models import ResNet, ResNet18_Weights

from stages.common.errors import BadParameter


def load_features(model: ResNet, weights: str, weights_file: str) -> None:
    """Put pre-trained weights into every layer but the classifier, which stays as it is.

    Args:
        model: The network.
        weights: "imagenet" for torchvision's, which PyTorch's cache keeps and which are checked when downloaded; "file"
            for the one named next.
        weights_file: The path of a state dict.

    Raises:
        BadParameter: The weights cannot be downloaded or read, or do not fit.
    """
    classifier = {name: value for name, value in model.state_dict().items() if name.startswith("fc.")}
    try:
        if weights == "imagenet":
            given = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True, weights_only=True)
        else:
            given = torch.load(weights_file, map_location="cpu", weights_only=True)
        model.load_state_dict(given | classifier)
    except Exception as error:  # of the network, of whatever a file holds that is no state dict
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if isinstance(error, pickle.UnpicklingError):  # whose own words advise to run what is in the file
            reason = "it is damaged, or holds more than tensors"
        source = "torchvision's ImageNet weights" if weights == "imagenet" else weights_file
        raise BadParameter(
            f"resnet18.weights: {source} cannot be loaded into ResNet-18 ({reason}); name a state dict of "
            "torchvision's resnet18 with -S resnet18.weights=file -S resnet18.weights_file=PATH"
        ) from None
