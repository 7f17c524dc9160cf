"""Score a trained model on the 10,000 test images (section 2.6), and on the images that it was trained on.

`python -m stages.evaluate keras_cnn` or `resnet18`. One function predicts probabilities, and every metric follows from
them. The clean test set gives the scores. Augmented draws of it, each with its own random numbers, repeat how the
paper's 80.03 % for ResNet-18 was measured, and show how much that varies from draw to draw. The training images are
scored without augmentation and without dropout, so that the gap to the test set is like for like.
"""

import importlib
import sys
from pathlib import Path

import numpy as np
from pydantic import Field
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

from stages.common import paths
from stages.common.config import Section, load
from stages.common.errors import BadParameter, ExpectedError
from stages.common.files import Json, read_json, write_json, write_rows
from stages.common.paths import DATASET, METRICS, SPLIT
from stages.common.process import run_stage
from stages.training.augmentation import augment, draw
from stages.training.images import Images, Predict, load_images, load_split
from stages.training.randomness import generator

DECIMALS = 6


class Evaluate(Section):
    """The section `evaluate`."""

    augmented_draws: int = Field(ge=0, le=1000)


class Parameters(Section):
    """What this stage reads of params.yaml; the run record says how the model was trained."""

    evaluate: Evaluate


def main(model: str) -> None:
    """Predict, score, and write the metrics and what they follow from."""
    draws = load(Parameters).evaluate.augmented_draws
    run = read_json(paths.run(model))
    classes = read_json(DATASET)["classes"]
    images, trained_on = load_images("test"), load_trained_on(run)
    model_file = importlib.import_module(f"stages.{model}.model_file")  # the other model's framework stays out
    predict: Predict = model_file.predictor(run["parameters"])

    probabilities = predict(images.pixels)
    if not np.isfinite(probabilities).all():
        raise BadParameter(f"{model} predicts no finite numbers: its training diverged; lower its learning rate")
    augmented = [augmented_scores(predict, images, run["parameters"]["seed"], number) for number in range(1, draws + 1)]
    train_clean = accuracy_and_loss(predict(trained_on.pixels), trained_on.labels)

    write_rows(paths.augmented(model), augmented, ("draw", "accuracy", "loss"))
    file = paths.predictions(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, probabilities=probabilities, labels=images.labels, source=np.array(run["source"]))
    write_scores(model, run, probabilities, images.labels, augmented, train_clean, classes)


def load_trained_on(run: Json) -> Images:
    """The images that a run was trained on: those of the split, or all if nothing was held out.

    Raises:
        ExpectedError: As `load_images` and `load_split`; or the split is not the run's.
    """
    images, count = load_images("train"), run["data"]["train_images"]
    if count == len(images.labels):
        return images
    rows = load_split(len(images.labels)).train
    if len(rows) != count:
        raise ExpectedError(f"{SPLIT} trains on {len(rows)} images, and the run had {count}; run dvc repro")
    return Images(images.pixels[rows], images.labels[rows])


def write_scores(
    model: str,
    run: Json,
    probabilities: np.ndarray,
    labels: np.ndarray,
    augmented: list[Json],
    train_clean: Json,
    classes: list[str],
    metrics: Path = METRICS,
) -> None:
    """Write the tables that follow from predictions into a folder: scores, numbers for each class and confusion."""
    write_json(paths.scores(model, metrics), summary(run, score(probabilities, labels), augmented, train_clean))
    write_rows(paths.per_class(model, metrics), per_class(probabilities, labels, classes))
    answers = zip(labels, probabilities.argmax(axis=1), strict=True)
    write_rows(
        paths.confusion(model, metrics),
        [{"actual": classes[actual], "predicted": classes[predicted]} for actual, predicted in answers],
    )


def augmented_scores(predict: Predict, images: Images, seed: int, number: int) -> Json:
    """Accuracy and loss on one draw of the test set's augmentation (flip and padded crop)."""
    choices = draw("flip_crop", len(images.labels), generator(seed, number, "test augmentation"))
    scores = score(predict(augment(images.pixels, choices)), images.labels)
    return {"draw": number, "accuracy": scores["accuracy"], "loss": scores["loss"]}


def summary(run: Json, test: dict[str, float], augmented: list[Json], train_clean: Json) -> Json:
    """The numbers of metrics/<model>.json; the spread over draws is the sample standard deviation."""
    numbers: Json = {"source": run["source"], "test": test}
    if augmented:
        numbers["test_augmented"] = {"draws": len(augmented)}
        for name in ("accuracy", "loss"):
            values = np.array([scores[name] for scores in augmented])
            spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            numbers["test_augmented"] |= {name: round(float(values.mean()), 6), f"{name}_std": round(spread, 6)}
    if run["validation"]["loss"] is not None:
        numbers["validation"] = run["validation"]
    numbers |= {
        "train": run["train"],
        "train_clean": train_clean,
        "epochs": run["epochs"],
        "best_epoch": run["best_epoch"],
    }
    return numbers | {"parameters": run["weights"]}


def accuracy_and_loss(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The share of images whose most probable class is the true one, and the cross entropy.

    Args:
        probabilities: (N, K), each row a distribution over K classes; float32 will do, the sums are taken in float64.
        labels: (N,), the true classes, integers from 0 to K - 1.

    Returns:
        `accuracy` in [0, 1], and `loss`, the mean negative log-likelihood in nats (a probability below 2e-16 counts as
        2e-16, so that no single image makes it infinite); both rounded to six decimals.
    """
    rows = _distributions(probabilities)
    # Without `labels`, scikit-learn would take the classes that occur for all that there are.
    loss = log_loss(labels, rows, labels=range(rows.shape[1]))
    return {
        "accuracy": _rounded(accuracy_score(labels, rows.argmax(axis=1))),
        "loss": _rounded(loss),
    }


def score(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The numbers of one model on one set of images, Table 1's and the averages that section 3.2 speaks of.

    "Macro" is the unweighted mean over all K classes; a class that is never predicted or never true counts as 0 there.
    On CIFAR-10's test set, with as many images of each class, the macro recall is the accuracy.

    Args:
        probabilities: (N, K), as in `accuracy_and_loss`.
        labels: (N,), as in `accuracy_and_loss`.

    Returns:
        `accuracy`, `loss` (nats), `precision_macro`, `recall_macro` and `f1_macro`, rounded to six decimals.
    """
    precision, recall, f1, _ = _precision_recall_f1_support(probabilities, labels, average="macro")
    return {
        **accuracy_and_loss(probabilities, labels),
        "precision_macro": _rounded(precision),
        "recall_macro": _rounded(recall),
        "f1_macro": _rounded(f1),
    }


def per_class(probabilities: np.ndarray, labels: np.ndarray, classes: list[str]) -> list[Json]:
    """Precision, recall and F1 of each class, and how many images truly are of it.

    Args:
        probabilities: (N, K), as in `accuracy_and_loss`.
        labels: (N,), as in `accuracy_and_loss`.
        classes: The K names.

    Returns:
        A row a class, in the order of `classes`: `class`, `precision`, `recall` and `f1` (rounded to six decimals) and
        `support` (a whole number).
    """
    columns = _precision_recall_f1_support(probabilities, labels, average=None)
    return [
        {
            "class": name,
            "precision": _rounded(precision),
            "recall": _rounded(recall),
            "f1": _rounded(f1),
            "support": int(support),
        }
        for name, precision, recall, f1, support in zip(classes, *columns, strict=True)
    ]


def _precision_recall_f1_support(probabilities: np.ndarray, labels: np.ndarray, average: str | None) -> tuple:
    """scikit-learn's four values: (K,) arrays for `average=None`, numbers (and no support) for "macro"."""
    return precision_recall_fscore_support(
        labels,
        probabilities.argmax(axis=1),
        labels=range(probabilities.shape[1]),
        average=average,
        zero_division=0,
    )


def _distributions(probabilities: np.ndarray) -> np.ndarray:
    """The rows in float64 and summing to 1, which a float32 softmax misses by about 1e-7."""
    rows = probabilities.astype(np.float64)
    return rows / rows.sum(axis=1, keepdims=True)


def _rounded(value: float) -> float:
    return round(float(value), DECIMALS)


if __name__ == "__main__":
    chosen = (
        sys.argv[1]
        if sys.argv[1:] in (["keras_cnn"], ["resnet18"])
        else sys.exit("usage: python -m stages.evaluate keras_cnn|resnet18")
    )
    run_stage(f"evaluate@{chosen}", lambda: main(chosen))
