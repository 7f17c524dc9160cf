"""The arrays that `preprocess` and `split` leave behind, as the later stages read them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stages.common import paths
from stages.common.errors import ExpectedError
from stages.common.files import read_array, read_arrays, read_json
from stages.common.paths import DATASET, SPLIT


class Images(NamedTuple):
    """Pixels, uint8 (N, 32, 32, 3), and their classes 0 to 9, uint8 (N,)."""

    pixels: np.ndarray
    labels: np.ndarray


class Split(NamedTuple):
    """Rows of the training set, int64, and the settings that they were drawn with."""

    train: np.ndarray
    validation: np.ndarray
    validation_fraction: float
    random_state: int


def load_images(part: str) -> Images:
    """The images of one part of CIFAR-10.

    Args:
        part: "train" (50,000 images) or "test" (10,000).

    Raises:
        ExpectedError: A file is missing, damaged, or does not belong to the other.
    """
    images = Images(read_array(paths.images(part)), read_array(paths.labels(part)))
    if images.pixels.shape != (len(images.labels), 32, 32, 3) or images.pixels.dtype != np.uint8:
        raise ExpectedError(
            f"{paths.images(part)} holds {images.pixels.dtype} {images.pixels.shape} and "
            f"{len(images.labels)} labels, not uint8 (N, 32, 32, 3); remove both and run dvc repro"
        )
    return images


def load_split(images: int) -> Split:
    """Which of the training images train and which validate.

    Args:
        images: How many training images there are.

    Raises:
        ExpectedError: The file is missing, damaged, or made for another number of images.
    """
    arrays = read_arrays(SPLIT)
    if sorted(arrays) != sorted(Split._fields):
        raise ExpectedError(f"{SPLIT} holds {', '.join(arrays) or 'nothing'}; remove it and run dvc repro")
    split = Split(
        arrays["train"],
        arrays["validation"],
        float(arrays["validation_fraction"]),
        int(arrays["random_state"]),
    )
    if not np.array_equal(np.sort(np.concatenate([split.train, split.validation])), np.arange(images)):
        raise ExpectedError(f"{SPLIT} does not split the {images} training images; remove it and run dvc repro")
    return split


def load_source() -> str:
    """Where the images came from: "cifar10", or "synthetic"."""
    return str(read_json(DATASET)["source"])


BATCH = 500  # images predicted at once; nothing is learned from them

Predict = Callable[[np.ndarray], np.ndarray]
