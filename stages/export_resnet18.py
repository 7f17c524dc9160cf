"""Export ResNet-18 to ONNX, so that it classifies without PyTorch."""

import pickle
from typing import Any

import torch
from torch import nn

from stages.common import paths
from stages.common.files import Json, read_json, unreadable
from stages.common.process import run_stage
from stages.inference.onnx_file import export
from stages.resnet18.architecture import build, to_input
from stages.resnet18.model_file import MODEL_FILE

MODEL = "resnet18"


class Network(nn.Module):
    """ResNet-18 from uint8 images to probabilities.

    Raises:
        ExpectedError: The model's file is missing or damaged.
    """

    def __init__(self, parameters: Json) -> None:
        super().__init__()
        self.layers = build()
        try:
            self.layers.load_state_dict(torch.load(MODEL_FILE, map_location="cpu", weights_only=True))
        except pickle.UnpicklingError:  # whose own words advise to run what is in the file
            raise unreadable(MODEL_FILE, "it is damaged, or holds more than tensors") from None
        except Exception as error:  # torch.load raises whatever its zip reader or parser meets
            raise unreadable(MODEL_FILE, error) from None
        self.mean, self.std = parameters["mean"], parameters["std"]

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.layers(to_input(pixels, self.mean, self.std)).softmax(dim=1)


def main() -> None:
    """Export and compare."""
    run = read_json(paths.run(MODEL))
    export(MODEL, Network(run["parameters"]["resnet18"]), run["source"])


if __name__ == "__main__":
    run_stage("export_resnet18", main)
