"""Which training images train and which validate: the paper's split.

The paper's code calls scikit-learn's `train_test_split(images, labels, test_size=0.2, random_state=7)` on the 50,000
training images, not stratified: 40,000 to train and 10,000 to validate. The same call on their indices gives the same
parts in the same order.
"""

import math
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from stages.common import paths
from stages.common.config import Section, Seed, load
from stages.common.errors import BadParameter
from stages.common.files import read_array, read_json, write_rows
from stages.common.paths import DATASET, DISTRIBUTION, SPLIT
from stages.common.process import run_stage


class SplitSettings(Section):
    validation_fraction: Annotated[float, Field(ge=0, lt=1)]
    random_state: Seed


class Parameters(Section):
    split: SplitSettings


def main() -> None:
    parameters = load(Parameters).split
    classes = read_json(DATASET)["classes"]
    train_labels, test_labels = read_array(paths.labels("train")), read_array(paths.labels("test"))

    train, validation = split_indices(len(train_labels), parameters.validation_fraction, parameters.random_state)

    np.savez(
        SPLIT,
        train=train,
        validation=validation,
        validation_fraction=np.float64(parameters.validation_fraction),
        random_state=np.int64(parameters.random_state),
    )
    parts = {"train": train_labels[train], "validation": train_labels[validation], "test": test_labels}
    write_rows(DISTRIBUTION, distribution_rows(classes, parts))


def split_indices(count: int, validation_fraction: float, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the training and of the validation images.

    Args:
        count: How many images there are to split.
        validation_fraction: The share of the validation images, rounded up to whole images; 0 keeps all images, in
            their order, for training.
        random_state: The seed of the shuffle.

    Returns:
        Two int64 arrays, in `train_test_split`'s order.

    Raises:
        BadParameter: No image would be left for training.
    """
    if validation_fraction == 0:
        return np.arange(count, dtype=np.int64), np.empty(0, dtype=np.int64)
    if math.ceil(validation_fraction * count) >= count:
        raise BadParameter(
            f"split.validation_fraction is {validation_fraction}, which leaves none of the {count} "
            f"images to train; allowed: a smaller number, at least 0"
        )

    # Imported here: it takes a second, which a bad parameter should not cost.
    from sklearn.model_selection import train_test_split

    train, validation = train_test_split(
        np.arange(count, dtype=np.int64), test_size=validation_fraction, random_state=random_state
    )
    return train, validation


def distribution_rows(classes: list[str], labels_of_part: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """How many images of each class are in each part, one row per class."""
    counts = {part: np.bincount(labels, minlength=len(classes)) for part, labels in labels_of_part.items()}
    return [
        {"class": name} | {part: int(of_class[label]) for part, of_class in counts.items()}
        for label, name in enumerate(classes)
    ]


if __name__ == "__main__":
    run_stage("split", main)
