"""models/keras_cnn.keras: how it is written, and how it is loaded to predict."""

import io
import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.files import unreadable, write_whole
from stages.keras_cnn import backend
from stages.keras_cnn.architecture import to_input
from stages.training.images import BATCH, Predict

MODEL_FILE = Path("models/keras_cnn.keras")

SHARED_OBJECT = re.compile(rb'("shared_object_id": )(\d+)')


def save(model: Any, path: Path) -> None:
    """Write the `.keras` file, the same bytes for the same model.

    Keras writes the time into it, and numbers what layers share by its place in memory; here these count from 1.
    """
    canonical = io.BytesIO()
    numbers: dict[bytes, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        given = zipfile.ZipFile(io.BytesIO(Path(folder, "model.keras").read_bytes()))
    with given, zipfile.ZipFile(canonical, "w") as archive:
        for name in given.namelist():
            content = given.read(name)
            if name == "metadata.json":
                versions = {key: value for key, value in json.loads(content).items() if key != "date_saved"}
                content = json.dumps(versions).encode()
            elif name == "config.json":
                content = SHARED_OBJECT.sub(
                    lambda found: b"%s%d" % (found[1], numbers.setdefault(found[2], len(numbers) + 1)), content
                )
            archive.writestr(zipfile.ZipInfo(name), content)  # as of 1980
    write_whole(path, canonical.getvalue())


def predictor(parameters: dict[str, Any]) -> Predict:
    """The function from uint8 images (N, 32, 32, 3) to probabilities, float32 (N, 10), of the Keras CNN."""
    keras = backend.start(parameters["keras_cnn"]["backend"], "cpu")
    try:
        model = keras.saving.load_model(MODEL_FILE, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its zip, HDF5 or JSON reader meets
        raise unreadable(MODEL_FILE, error) from None
    if model.output_shape != (None, 10) or model.input_shape != (None, 32, 32, 3):
        raise unreadable(MODEL_FILE, f"it maps {model.input_shape} to {model.output_shape}")

    def predict(images: np.ndarray) -> np.ndarray:
        parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return np.concatenate([np.asarray(model.predict_on_batch(to_input(part))) for part in parts])

    return predict
