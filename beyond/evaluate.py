"""Score the model of beyond/train.py, without and with test-time augmentation.

A model that was trained on all images is scored on the 10,000 test images, once. One with a held-out part is scored on
that part alone, and the test set is not read: settings are chosen on it.
"""

import numpy as np
import torch

from beyond.recipe import device, paths
from beyond.recipe.cost import PETA, prediction_flop
from beyond.recipe.predicting import load_model, predict
from beyond.recipe.settings import load
from stages.common.errors import ExpectedError
from stages.common.files import Json, read_json, write_json
from stages.common.paths import SPLIT
from stages.common.process import run_stage
from stages.evaluate import score
from stages.training.images import Images, load_images, load_split


def main() -> None:
    """Predict, score, and write the scores and the predictions that they follow from."""
    settings, run = load(), read_json(paths.RUN)
    part = "validation" if run["data"]["validation_images"] else "test"
    images = load_images("test") if part == "test" else held_out(run)
    device.start("cpu")
    model = load_model(paths.MODEL, settings.network)

    views = {"plain": 1, "augmented": settings.evaluate.views}
    pixels = torch.from_numpy(images.pixels)
    found = {name: predict(model, pixels, count).softmax(dim=1).numpy() for name, count in views.items()}
    cost = {name: prediction_flop(len(images.labels), count, settings) / PETA for name, count in views.items()}

    paths.PREDICTIONS.parent.mkdir(parents=True, exist_ok=True)
    plain, augmented = found["plain"], found["augmented"]
    np.savez_compressed(paths.PREDICTIONS, labels=images.labels, part=np.array(part), plain=plain, augmented=augmented)
    scores = {name: score(probabilities, images.labels) for name, probabilities in found.items()}
    write_json(
        paths.SCORES,
        {
            "source": run["source"],
            part: scores["plain"],
            f"{part}_augmented": {"views": settings.evaluate.views, **scores["augmented"]},
            "train": run["train"],
            "epochs": run["epochs"],
            "parameters": run["weights"],
            "pflop": {
                "training": run["training_pflop"],
                part: float(f"{cost['plain']:.6g}"),
                f"{part}_augmented": float(f"{cost['augmented']:.6g}"),
            },
        },
    )


def held_out(run: Json) -> Images:
    """The held-out images of a run.

    Raises:
        ExpectedError: As `load_images` and `load_split`; or the split is not the run's.
    """
    images = load_images("train")
    rows = load_split(len(images.labels)).validation
    if len(rows) != run["data"]["validation_images"]:
        raise ExpectedError(
            f"{SPLIT} holds out {len(rows)} images, and the run {run['data']['validation_images']}: "
            "run dvc repro beyond/dvc.yaml:train"
        )
    return Images(images.pixels[rows], images.labels[rows])


if __name__ == "__main__":
    run_stage("beyond.evaluate", main)
