"""Score a model on the test images, with the main project's own scoring: `python -m digits.evaluate rbm` or `raw`."""

import sys
from pathlib import Path

import numpy as np
from scipy.special import expit, softmax

from stages.common import paths
from stages.common.files import read_array, read_arrays, read_json
from stages.common.paths import DATASET
from stages.common.process import run_stage
from stages.evaluate import accuracy_and_loss, write_scores

MODELS = ("rbm", "raw")


def main(model: str) -> None:
    learned = read_arrays(Path("models") / f"{model}.npz")
    run, classes = read_json(paths.run(model)), read_json(DATASET)["classes"]
    answers = {}
    for part in ("train", "test"):
        answers[part] = predict(learned, read_array(paths.images(part))), read_array(paths.labels(part))
    probabilities, labels = answers["test"]

    file = paths.predictions(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, probabilities=probabilities, labels=labels, source=np.array(run["source"]))
    write_scores(model, run, probabilities, labels, [], accuracy_and_loss(*answers["train"]), classes)


def predict(learned: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """The probabilities of the classes, (N, 10), of images, (N, 64)."""
    features = expit(images @ learned["components"].T + learned["hidden"]) if "components" in learned else images
    probabilities: np.ndarray = softmax(features @ learned["coefficients"].T + learned["intercept"], axis=1)
    return probabilities


if __name__ == "__main__":
    if sys.argv[1:] not in [[model] for model in MODELS]:
        raise SystemExit(f"usage: python -m digits.evaluate {'|'.join(MODELS)}")
    run_stage(f"evaluate@{sys.argv[1]}", lambda: main(sys.argv[1]))
