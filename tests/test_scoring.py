"""Probabilities to metrics: against values worked out by hand, the formulas in NumPy, and scikit-learn's own report."""

import json

import numpy as np
import pytest
from sklearn.metrics import classification_report

from stages.scoring import accuracy_and_loss, report, score

# Three classes, four images; predicted 0, 1, 1, 2; true 0, 1, 2, 2.
PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.1, 0.65, 0.25], [0.2, 0.3, 0.5]], dtype=np.float32)
LABELS = np.array([0, 1, 2, 2], dtype=np.uint8)


@pytest.fixture
def many() -> tuple[np.ndarray, np.ndarray]:
    """Soft predictions of 500 images, (500, 10) float32, that are right more often than not; and the truth."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 500).astype(np.uint8)
    logits = generator.normal(size=(500, 10)) + 2.0 * np.eye(10)[labels]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32), labels


def test_hand_computed_scores() -> None:
    # Class 0: precision 1, recall 1, F1 1. Class 1: 1/2, 1, 2/3. Class 2: 1, 1/2, 2/3.
    assert score(PROBABILITIES, LABELS) == {
        "accuracy": 0.75,
        "loss": round(-(3 * np.log(0.5) + np.log(0.25)) / 4, 6),
        "precision_macro": 0.833333,
        "recall_macro": 0.833333,
        "f1_macro": 0.777778,
    }


def test_hand_computed_report() -> None:
    assert report(PROBABILITIES, LABELS, ["a", "b", "c"]) == [
        {"class": "a", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
        {"class": "b", "precision": 0.5, "recall": 1.0, "f1": 0.666667, "support": 1},
        {"class": "c", "precision": 1.0, "recall": 0.5, "f1": 0.666667, "support": 2},
    ]


def test_loss_is_the_cross_entropy_in_nats(many: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = many
    expected = -np.log(probabilities[np.arange(len(labels)), labels].astype(np.float64)).mean()
    assert accuracy_and_loss(probabilities, labels)["loss"] == pytest.approx(expected, abs=1e-6)


def test_a_constant_guess_loses_the_logarithm_of_the_number_of_classes() -> None:
    uniform = np.full((20, 10), 0.1, dtype=np.float32)
    assert accuracy_and_loss(uniform, np.arange(20) % 10) == {"accuracy": 0.1, "loss": 2.302585}


def test_averages_and_rows_equal_scikit_learn_s_report(many: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = many
    classes = [f"class {k}" for k in range(10)]
    theirs = classification_report(
        labels, probabilities.argmax(axis=1), target_names=classes, output_dict=True, zero_division=0
    )
    ours = score(probabilities, labels)
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=1e-6)
    assert ours["precision_macro"] == pytest.approx(theirs["macro avg"]["precision"], abs=1e-6)
    assert ours["recall_macro"] == pytest.approx(theirs["macro avg"]["recall"], abs=1e-6)
    assert ours["f1_macro"] == pytest.approx(theirs["macro avg"]["f1-score"], abs=1e-6)
    for row in report(probabilities, labels, classes):
        their_row = theirs[row["class"]]
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(
            [their_row["precision"], their_row["recall"], their_row["f1-score"]], abs=1e-6
        )
        assert row["support"] == their_row["support"]


@pytest.mark.filterwarnings("error")
def test_a_class_absent_from_labels_and_predictions_counts_as_zero() -> None:
    # Perfect on the two classes that occur; the third one's zeros stay in the mean.
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], dtype=np.float32)
    labels = np.array([0, 1], dtype=np.uint8)
    scores = score(probabilities, labels)
    assert scores["accuracy"] == 1.0
    assert scores["loss"] == round(-np.log(0.8), 6)
    assert scores["precision_macro"] == scores["recall_macro"] == scores["f1_macro"] == 0.666667
    absent = report(probabilities, labels, ["a", "b", "c"])[2]
    assert absent == {"class": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


@pytest.mark.filterwarnings("error")
def test_float32_rows_that_miss_one_by_rounding_are_accepted_without_a_warning() -> None:
    probabilities = np.full((4, 10), 0.1, dtype=np.float32) * np.float32(1 + 1e-6)
    assert accuracy_and_loss(probabilities, np.arange(4))["loss"] == 2.302585


def test_a_certain_and_wrong_prediction_costs_much_but_not_infinity() -> None:
    certain = np.array([[1.0, 0.0]], dtype=np.float32)
    assert accuracy_and_loss(certain, np.array([1])) == {"accuracy": 0.0, "loss": pytest.approx(36.04, abs=0.01)}


def test_results_are_plain_numbers_that_json_takes(many: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = many
    json.dumps([score(probabilities, labels), report(probabilities, labels, list("abcdefghij"))])


def test_names_must_be_as_many_as_classes() -> None:
    with pytest.raises(ValueError, match="longer"):
        report(PROBABILITIES, LABELS, ["a", "b"])
