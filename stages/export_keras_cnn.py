"""Export the Keras CNN to ONNX, so that it classifies without TensorFlow; its file is small enough for git."""

from typing import Any

import torch
from torch import nn

from stages.common import paths
from stages.common.files import read_json, unreadable
from stages.common.process import run_stage
from stages.inference.onnx_file import export
from stages.keras_cnn import backend
from stages.keras_cnn.model_file import MODEL_FILE

MODEL = "keras_cnn"


class Network(nn.Module):
    """The Keras CNN from uint8 images to probabilities, on Keras's PyTorch backend.

    Raises:
        ExpectedError: The model's file is missing or damaged.
    """

    def __init__(self) -> None:
        super().__init__()
        keras = backend.start("torch", "cpu")
        try:
            self.layers = keras.saving.load_model(MODEL_FILE, compile=False, safe_mode=True)
        except Exception as error:  # Keras raises whatever its zip, HDF5 or JSON reader meets
            raise unreadable(MODEL_FILE, error) from None

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.layers(pixels.to(torch.float32) / 255, training=False)


def main() -> None:
    """Export and compare."""
    export(MODEL, Network(), read_json(paths.run(MODEL))["source"])


if __name__ == "__main__":
    run_stage("export_keras_cnn", main)
