"""Classify with an exported model: it needs only ONNX Runtime and NumPy, and no framework."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

# ONNX Runtime 1.32 reports its use to Microsoft. It reads this when it is imported: its function to stop is too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

from stages.common.errors import ExpectedError

MODELS = ("keras_cnn", "resnet18")
IN_GIT = "keras_cnn"  # whose file is small enough
INPUT, OUTPUT, OPSET = "pixels", "probabilities", 20
BATCH = 500  # images at once


class Classifier(NamedTuple):
    """A model, the names of its classes, and the data that it was trained on ("cifar10" or "synthetic")."""

    session: onnxruntime.InferenceSession
    classes: list[str]
    source: str

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """The probability of each class, float32 (N, 10), for uint8 images (N, 32, 32, 3)."""
        parts = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
        return np.concatenate([self.session.run([OUTPUT], {INPUT: part})[0] for part in parts])


def load_classifier(path: Path) -> Classifier:
    """A model that `export_keras_cnn` or `export_resnet18` wrote.

    Raises:
        ExpectedError: The file is missing or is no such model.
    """
    again, restore = f"dvc repro export_{path.stem}", f"git restore {path}"
    if not path.exists():
        way = f"dvc pull {path} fetches it where a remote has it, {again} makes it"
        raise ExpectedError(f"{path} is missing; {f'{restore} brings it back' if path.stem == IN_GIT else way}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised anyway
    options.intra_op_num_threads = 1  # more wait for each other, for minutes, where another program takes a core
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        facts = session.get_modelmeta().custom_metadata_map
        classifier = Classifier(session, json.loads(facts["classes"]), facts["source"])
    except Exception as error:  # ONNX Runtime has an exception for each kind of damage
        reason = " ".join(str(error).split())
        raise ExpectedError(
            f"{path} is no model of this pipeline ({reason[:100]}); run {restore if path.stem == IN_GIT else again}"
        ) from None
    return classifier
