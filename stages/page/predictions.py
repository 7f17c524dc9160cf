"""What follows from the predicted probabilities of the test images: mistakes, calibration, and an ensemble.

All of them take `probabilities`, (N, K), and `labels`, (N,), the true classes as indices.
"""

from typing import NamedTuple

import numpy as np

from stages.experiments.predictions import in_short, losses

BINS = 15  # as Guo et al. (2017), section 4


class Calibration(NamedTuple):
    """How sure predictions are, and how often right, by their confidence.

    Attributes:
        confidence: (bins,), the mean probability of the predicted class in each bin that has images.
        accuracy: (bins,), the share of right answers.
        images: (bins,), how many.
        error: The expected calibration error: the mean distance of the two over all images (Guo et al., 2017).
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    images: np.ndarray
    error: float


def accuracy_and_loss(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The share of right answers, and the mean cross-entropy in nats."""
    short = in_short(probabilities, labels)
    return float((short.predicted == labels).mean()), float(losses(short).mean())


def ensemble(*probabilities: np.ndarray) -> np.ndarray:
    """The mean of several models' probabilities, each with the same weight."""
    mean: np.ndarray = np.stack(probabilities).mean(axis=0, dtype=np.float64)
    return mean


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> Calibration:
    """By confidence, in BINS intervals of one width."""
    sure, right = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    images = np.bincount(places, minlength=BINS)
    used = images > 0
    confidence, accuracy = (
        np.bincount(places, weights=values, minlength=BINS)[used] / images[used] for values in (sure, right)
    )
    error = float((np.abs(confidence - accuracy) * images[used]).sum() / len(labels))
    return Calibration(confidence, accuracy, images[used], error)


def confusion(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many images of each true class (rows) are taken for each class (columns), (K, K)."""
    classes = probabilities.shape[1]
    pairs = labels.astype(int) * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def most_often_mistaken(counts: np.ndarray, how_many: int) -> list[tuple[int, int, int]]:
    """The true class, the predicted one, and the number of images, of the mistakes that are made most often."""
    mistakes = [(row, column, int(count)) for (row, column), count in np.ndenumerate(counts) if row != column and count]
    return sorted(mistakes, key=lambda mistake: -mistake[2])[:how_many]
