"""models/resnet18.pt: how it is written, and how it is loaded to predict."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stages.common.files import unreadable, write_whole
from stages.resnet18 import device
from stages.resnet18.architecture import build, to_input
from stages.training.images import BATCH, Predict

MODEL_FILE = Path("models/resnet18.pt")


def save(model: nn.Module, path: Path) -> None:
    """Write the state dict; torch.save itself hides why a file cannot be written."""
    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, buffer)
    write_whole(path, buffer.getvalue())


def predictor(parameters: dict[str, Any]) -> Predict:
    """The function from uint8 images (N, 32, 32, 3) to probabilities, float32 (N, 10), of ResNet-18."""
    device.start("cpu")
    model = build()
    try:
        model.load_state_dict(torch.load(MODEL_FILE, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError:  # whose own words advise to run what is in the file
        raise unreadable(MODEL_FILE, "it is damaged, or holds more than tensors") from None
    except Exception as error:  # torch.load raises whatever its zip reader or parser meets
        raise unreadable(MODEL_FILE, error) from None
    model.eval()
    section = parameters["resnet18"]

    @torch.no_grad()
    def predict(images: np.ndarray) -> np.ndarray:
        parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        logits = [model(to_input(part, section["mean"], section["std"])) for part in parts]
        return torch.cat(logits).softmax(dim=1).numpy()

    return predict
