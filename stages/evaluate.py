"""Score a trained model on the 10,000 test images (section 2.6).

`python -m stages.evaluate keras_cnn` or `resnet18`. Predicting and scoring are two things: probabilities come out of
one function, and every metric out of them. The clean test set gives the scores; augmented draws of it, each with
random numbers of its own, show the way in which the paper's 80.03 % for ResNet-18 was measured, and how much that
varies from draw to draw.
"""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from stages.augmentation import augment, draw
from stages.dataset import DATASET_FILE, Images, load_images
from stages.errors import FROM_SCRATCH, BadParameter, ExpectedError
from stages.files import read_json, write_json, write_rows
from stages.parameters import Section, load
from stages.randomness import generator
from stages.running import run_stage
from stages.scoring import report, score

METRICS = Path("metrics")
BATCH = 500  # images predicted at once; nothing is learned from them

Predict = Callable[[np.ndarray], np.ndarray]


class Evaluate(Section):
    """The section `evaluate`."""

    augmented_draws: int = Field(ge=0, le=1000, description="a whole number from 0 to 1000")


class Parameters(Section):
    """What this stage reads of params.yaml; a run's own record says how its model was trained."""

    evaluate: Evaluate


def main(model: str) -> None:
    """Predict, score, and write the metrics and what they follow from."""
    draws = load(Parameters).evaluate.augmented_draws
    run = read_json(METRICS / "runs" / f"{model}.json")
    classes = read_json(DATASET_FILE)["classes"]
    images = load_images("test")
    predict = {"keras_cnn": keras_cnn_predictor, "resnet18": resnet18_predictor}[model](run["parameters"])

    probabilities = predict(images.pixels)
    if not np.isfinite(probabilities).all():
        raise BadParameter(f"{model} predicts no finite numbers: its training diverged; lower its learning rate")
    augmented = [augmented_scores(predict, images, run["parameters"]["seed"], number) for number in range(1, draws + 1)]

    write_json(METRICS / f"{model}.json", summary(run, score(probabilities, images.labels), augmented))
    write_rows(METRICS / "report" / f"{model}.csv", report(probabilities, images.labels, classes))
    answers = zip(images.labels, probabilities.argmax(axis=1), strict=True)
    write_rows(
        METRICS / "confusion" / f"{model}.csv",
        [{"actual": classes[actual], "predicted": classes[predicted]} for actual, predicted in answers],
    )
    write_rows(METRICS / "augmented" / f"{model}.csv", augmented, ("draw", "accuracy", "loss"))
    file = METRICS / "predictions" / f"{model}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, probabilities=probabilities, labels=images.labels, source=np.array(run["source"]))


def augmented_scores(predict: Predict, images: Images, seed: int, number: int) -> dict[str, Any]:
    """Accuracy and loss on one draw of the test set's augmentation (flip and padded crop)."""
    choices = draw("flip_crop", len(images.labels), generator(seed, number, "test augmentation"))
    scores = score(predict(augment(images.pixels, choices)), images.labels)
    return {"draw": number, "accuracy": scores["accuracy"], "loss": scores["loss"]}


def summary(run: dict[str, Any], test: dict[str, float], augmented: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of metrics/<model>.json; the spread over draws is the sample standard deviation."""
    numbers: dict[str, Any] = {"source": run["source"], "test": test}
    if augmented:
        numbers["test_augmented"] = {"draws": len(augmented)}
        for name in ("accuracy", "loss"):
            values = np.array([scores[name] for scores in augmented])
            spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            numbers["test_augmented"] |= {name: round(float(values.mean()), 6), f"{name}_std": round(spread, 6)}
    if run["validation"]["loss"] is not None:
        numbers["validation"] = run["validation"]
    numbers |= {"train": run["train"], "epochs": run["epochs"], "best_epoch": run["best_epoch"]}
    return numbers | {"parameters": run["weights"]}


def keras_cnn_predictor(parameters: dict[str, Any]) -> Predict:
    """The function from uint8 images (N, 32, 32, 3) to probabilities, float32 (N, 10), of the Keras CNN."""
    from stages import keras_backend
    from stages.architectures.keras_cnn import to_input

    keras = keras_backend.start(parameters["keras_cnn"]["backend"], "cpu")
    file = Path("models/keras_cnn.keras")
    try:
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its zip, HDF5 or JSON reader meets
        raise _unreadable(file, error) from None
    if model.output_shape != (None, 10) or model.input_shape != (None, 32, 32, 3):
        raise _unreadable(file, f"it maps {model.input_shape} to {model.output_shape}")

    def predict(images: np.ndarray) -> np.ndarray:
        parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return np.concatenate([np.asarray(model.predict_on_batch(to_input(part))) for part in parts])

    return predict


def resnet18_predictor(parameters: dict[str, Any]) -> Predict:
    """The function from uint8 images (N, 32, 32, 3) to probabilities, float32 (N, 10), of ResNet-18."""
    import torch

    from stages import torch_device
    from stages.architectures.resnet18 import build, to_input

    torch_device.start("cpu")
    file = Path("models/resnet18.pt")
    model = build()
    try:
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError:  # whose own words advise to run what is in the file
        raise _unreadable(file, "it is damaged, or holds more than tensors") from None
    except Exception as error:  # torch.load raises whatever its zip reader or parser meets
        raise _unreadable(file, error) from None
    model.eval()
    section = parameters["resnet18"]

    @torch.no_grad()
    def predict(images: np.ndarray) -> np.ndarray:
        parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        logits = [model(to_input(part, section["mean"], section["std"])) for part in parts]
        return torch.cat(logits).softmax(dim=1).numpy()

    return predict


def _unreadable(file: Path, reason: object) -> ExpectedError:
    why = " ".join(str(reason).split())[:200]
    return ExpectedError(f"{file} is not a model that this pipeline trained ({why}); {FROM_SCRATCH.format(file)}")


if __name__ == "__main__":
    chosen = (
        sys.argv[1]
        if sys.argv[1:] in (["keras_cnn"], ["resnet18"])
        else sys.exit("usage: python -m stages.evaluate keras_cnn|resnet18")
    )
    run_stage(f"evaluate@{chosen}", lambda: main(chosen))
