"""Logits of images, without and with test-time augmentation, and the file of a trained model.

Test-time augmentation averages the logits of several views of an image (Jordan 2024, arXiv 2404.00498, section 3.5):
the image counts half, and two shifts by one pixel, up-left and down-right, a quarter each; of each the mirror, too.
"""

import io
import pickle
from pathlib import Path

import torch
from torch import nn

from beyond.recipe.augmentation import move
from beyond.recipe.network import Network
from beyond.recipe.settings import NetworkSettings
from stages.common.files import unreadable, write_whole

BATCH = 500  # images predicted at once; nothing is learned from them

# Views of an image by their number: weight, mirrored, pixels down, pixels right.
VIEWS = {
    1: [(1.0, False, 0, 0)],
    2: [(1 / 2, flip, 0, 0) for flip in (False, True)],
    6: [(weight / 2, flip, by, by) for weight, by in ((1 / 2, 0), (1 / 4, -1), (1 / 4, 1)) for flip in (False, True)],
}


@torch.no_grad()
def predict(model: Network, pixels: torch.Tensor, views: int = 1) -> torch.Tensor:
    """Logits, float32 (N, 10).

    Args:
        model: In evaluation mode.
        pixels: uint8 (N, 32, 32, 3), on the model's device.
        views: 1, 2 or 6.
    """
    return torch.cat([_views(model, part, views) for part in pixels.split(BATCH)])


def _views(model: Network, pixels: torch.Tensor, views: int) -> torch.Tensor:
    logits = 0
    for weight, *each in VIEWS[views]:
        flip, down, right = (torch.full((len(pixels),), value, device=pixels.device) for value in each)
        logits = logits + weight * model(move(pixels, flip, down, right))
    return torch.as_tensor(logits)


def save(model: nn.Module, path: Path) -> None:
    """Write the state dict; torch.save itself hides why a file cannot be written."""
    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, buffer)
    write_whole(path, buffer.getvalue())


def load_model(path: Path, settings: NetworkSettings) -> Network:
    """The model of a file, in evaluation mode, on the processor.

    Raises:
        ExpectedError: It is no model with these settings.
    """
    model = Network(settings)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load raises whatever its zip reader or parser meets
        damaged = isinstance(error, pickle.UnpicklingError)  # whose own words advise to run what is in the file
        why = "it is damaged, or holds more than tensors" if damaged else error
        raise unreadable(path, why, "remove it and run dvc repro beyond/dvc.yaml") from None
    return model.eval().to(memory_format=torch.channels_last)
