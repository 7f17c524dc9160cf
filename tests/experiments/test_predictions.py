"""The predictions that are kept of a run give its scores, and its scores on other images."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from stages.common.errors import ExpectedError
from stages.evaluate import score
from stages.experiments.predictions import RESAMPLED, in_short, read_predictions, scores_of, to_bytes
from stages.paper.statistics import image_weights
from tests.support.made_up_results import predictions


def test_the_scores_are_those_of_all_probabilities() -> None:
    probabilities, labels = predictions("keras_cnn")
    probabilities = probabilities.copy()
    probabilities[3] = np.eye(10)[(labels[3] + 1) % 10]  # a true class of probability 0
    expected = {f"test.{name}": value for name, value in score(probabilities, labels).items()}
    assert scores_of(in_short(probabilities, labels), labels, 10) == pytest.approx(expected, abs=1.5e-6)


@pytest.mark.parametrize(("classes", "kind"), [(10, np.uint8), (256, np.uint8), (300, np.uint16)])
def test_any_number_of_classes_is_kept(classes: int, kind: type) -> None:
    short = in_short(np.eye(classes)[[classes - 1, 0]], np.array([0, 0]))
    assert (short.predicted.tolist(), short.predicted.dtype) == ([classes - 1, 0], kind)


def test_a_file_is_what_was_written(tmp_path: Path) -> None:
    short = in_short(*predictions("keras_cnn"))
    file = tmp_path / "x.npz"
    file.write_bytes(to_bytes(short))
    assert file.read_bytes() == to_bytes(short)
    assert file.stat().st_size < 60_000
    read = read_predictions(file, 10_000)
    assert all(np.array_equal(one, other) for one, other in zip(read, short, strict=True))


def test_a_wrong_file_is_said_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    file.write_bytes(to_bytes(in_short(*predictions("keras_cnn"))))
    with pytest.raises(ExpectedError, match=r"x\.npz is not of 9 test images; git restore"):
        read_predictions(file, 9)
    np.savez(file, other=np.zeros(3))
    with pytest.raises(ExpectedError, match=r"x\.npz has the wrong arrays \(other\); git restore"):
        read_predictions(file, 10_000)


@pytest.mark.parametrize("name", RESAMPLED)
def test_a_sample_of_the_images_is_scored_like_the_images(name: str) -> None:
    probabilities, labels = (array[:500] for array in predictions("keras_cnn"))
    short, weights = in_short(probabilities, labels), image_weights(500)
    found = RESAMPLED[name](short, labels, weights)
    assert found.shape == (len(weights),)
    for sample in (0, 1):
        rows = np.repeat(np.arange(500), weights[sample].astype(int))
        expected = scores_of(in_short(probabilities[rows], labels[rows]), labels[rows], 10)[name]
        assert found[sample] == pytest.approx(expected, abs=1.5e-6)


def test_a_class_that_a_sample_lacks_counts_as_none() -> None:
    labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    short = in_short(np.eye(3)[predicted], labels)
    weights = np.array([[2, 2, 0, 0]], float)
    expected = f1_score([0, 0, 0, 0], [0, 0, 1, 1], labels=[0, 1, 2], average="macro", zero_division=0)
    assert RESAMPLED["test.f1_macro"](short, labels, weights) == pytest.approx([expected])
