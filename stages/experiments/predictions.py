"""What a run predicted for the test images, in short: the predicted class and the true class's probability.

The run of `dvc repro` keeps all probabilities in metrics/predictions, and this follows from them. A collected run keeps
only this, tens of kilobytes, so that its scores can be checked and resampled.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.common.errors import ExpectedError
from stages.common.files import Json, read_arrays

SMALLEST = float(np.finfo(np.float64).eps)  # a smaller probability counts as this one, as in stages/evaluate.py


class Predictions(NamedTuple):
    """The predicted class and the probability of the true class of each test image.

    The classes are uint8 (N,), or of as many bytes as their number needs, and the probabilities float32 (N,).
    """

    predicted: np.ndarray
    true_probability: np.ndarray


def in_short(probabilities: np.ndarray, labels: np.ndarray) -> Predictions:
    """The predictions of probabilities, (N, K), for images of the classes `labels`, (N,)."""
    rows = probabilities.astype(np.float64)
    rows /= rows.sum(axis=1, keepdims=True)
    true = rows[np.arange(len(labels)), labels].astype(np.float32)
    return Predictions(rows.argmax(axis=1).astype(np.min_scalar_type(rows.shape[1] - 1)), true)


def to_bytes(predictions: Predictions) -> bytes:
    """The content of metrics/experiments/<run>.npz; the same bytes for the same predictions."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **predictions._asdict())
    return buffer.getvalue()


def read_predictions(path: Path, images: int) -> Predictions:
    """The content of such a file.

    Raises:
        ExpectedError: It is missing or damaged, or of another number of images.
    """
    arrays = read_arrays(path)
    try:
        found = Predictions(**arrays)
    except TypeError:
        raise ExpectedError(
            f"{path} has the wrong arrays ({', '.join(arrays) or 'none'}); git restore {path}"
        ) from None
    if any(array.shape != (images,) for array in found):
        raise ExpectedError(f"{path} is not of {images} test images; git restore {path}")
    return found


def scores_of(predictions: Predictions, labels: np.ndarray, classes: int) -> Json:
    """The scores that follow, by their dotted keys and rounded, as metrics/<model>.json has them."""
    from sklearn.metrics import precision_recall_fscore_support  # here: most of what imports this module scores nothing

    predicted = predictions.predicted
    averages = precision_recall_fscore_support(
        labels, predicted, labels=range(classes), average="macro", zero_division=0
    )
    scores = {
        "accuracy": (predicted == labels).mean(),
        "loss": losses(predictions).mean(),
        **dict(zip(("precision_macro", "recall_macro", "f1_macro"), averages, strict=False)),
    }
    return {f"test.{name}": round(float(value), 6) for name, value in scores.items()}


def losses(predictions: Predictions) -> np.ndarray:
    """The cross entropy of each image in nats, float64 (N,)."""
    return -np.log(np.maximum(predictions.true_probability.astype(np.float64), SMALLEST))


def resampled_accuracy(predictions: Predictions, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The accuracy in samples of the N test images, given how often each has each image: (samples, N)."""
    accuracy: np.ndarray = weights @ (predictions.predicted == labels) / len(labels)
    return accuracy


def resampled_loss(predictions: Predictions, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The cross entropy, likewise."""
    loss: np.ndarray = weights @ losses(predictions) / len(labels)
    return loss


def resampled_f1(predictions: Predictions, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The macro F1-score, likewise."""
    predicted = predictions.predicted
    classes = np.arange(int(max(labels.max(), predicted.max())) + 1)
    actual, taken = labels[:, None] == classes, predicted[:, None] == classes
    right, of_class, as_class = (weights @ which.astype(np.float64) for which in (actual & taken, actual, taken))
    f1: np.ndarray = (2 * right / np.maximum(of_class + as_class, 1)).mean(axis=1)
    return f1


RESAMPLED = {"test.accuracy": resampled_accuracy, "test.loss": resampled_loss, "test.f1_macro": resampled_f1}
