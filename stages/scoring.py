"""From predicted probabilities to numbers: pure functions, apart from predicting, so that saved predictions suffice."""

from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

DECIMALS = 6


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


def report(probabilities: np.ndarray, labels: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
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
