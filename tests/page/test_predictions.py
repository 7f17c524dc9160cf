"""What follows from probabilities, on a few rows worked out by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss

from stages.page.predictions import accuracy_and_loss, calibration, confusion, ensemble, most_often_mistaken

RANDOM = np.random.default_rng(1)
PROBABILITIES = RANDOM.dirichlet(np.full(5, 0.4), 300).astype(np.float32)
LABELS = RANDOM.integers(0, 5, 300).astype(np.uint8)


def test_accuracy_and_loss_are_scikit_learn_s() -> None:
    accuracy, loss = accuracy_and_loss(PROBABILITIES, LABELS)
    assert accuracy == (PROBABILITIES.argmax(1) == LABELS).mean()
    exact = PROBABILITIES / PROBABILITIES.sum(axis=1, keepdims=True, dtype=np.float64)
    assert loss == pytest.approx(log_loss(LABELS, exact, labels=range(5)), rel=1e-5)
    assert np.isfinite(accuracy_and_loss(np.eye(5, dtype=np.float32), np.array([1, 1, 1, 1, 1]))[1])


def test_an_ensemble_is_the_mean() -> None:
    one, other = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.3, 0.7], [0.4, 0.6]])
    np.testing.assert_allclose(ensemble(one, other), [[0.6, 0.4], [0.3, 0.7]])


def test_calibration_of_four_predictions() -> None:
    probabilities = np.array([[1.0, 0.0], [0.98, 0.02], [0.38, 0.62], [0.64, 0.36]])  # two bins: from 14/15, from 9/15
    found = calibration(probabilities, np.array([0, 1, 1, 0]))
    np.testing.assert_allclose(found.confidence, [0.63, 0.99])
    np.testing.assert_allclose(found.accuracy, [1.0, 0.5])
    assert found.images.tolist() == [2, 2]
    assert found.error == pytest.approx((0.37 + 0.49) / 2)


def test_a_perfect_model_has_no_calibration_error() -> None:
    assert calibration(np.eye(5)[LABELS], LABELS).error == 0


def test_the_confusion_is_scikit_learn_s_and_its_worst_mistakes_come_first() -> None:
    counts = confusion(PROBABILITIES, LABELS)
    np.testing.assert_array_equal(counts, confusion_matrix(LABELS, PROBABILITIES.argmax(1)))
    mistakes = most_often_mistaken(np.array([[9, 2, 0], [5, 9, 1], [0, 0, 9]]), 3)
    assert mistakes == [(1, 0, 5), (0, 1, 2), (1, 2, 1)]
    assert most_often_mistaken(np.diag([3, 4]), 3) == []
