"""What a run records of the framework that trains it."""

import os

import pytest

from stages.keras_cnn import backend


@pytest.mark.parametrize(
    ("given", "recorded"), [("1", 1), ("3", 3), ("0", os.cpu_count()), ("", os.cpu_count()), ("two", os.cpu_count())]
)
def test_the_threads_of_tensorflow_are_those_that_the_environment_sets(
    monkeypatch: pytest.MonkeyPatch, given: str, recorded: int
) -> None:
    """As TensorFlow itself reads it: zero, and what is no number, stand for all cores."""
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", given)
    assert backend.threads("tensorflow") == recorded
