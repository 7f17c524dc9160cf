"""What a run records of the framework that trains it."""

import pytest

from stages.keras_cnn import backend
from stages.training.machine import cores


@pytest.mark.parametrize(("given", "recorded"), [("1", 1), ("3", 3), ("0", cores()), ("", cores()), ("two", cores())])
def test_the_threads_of_tensorflow_are_those_that_the_environment_sets(
    monkeypatch: pytest.MonkeyPatch, given: str, recorded: int
) -> None:
    """As TensorFlow itself reads it: zero, and what is no number, stand for all cores that the process may use."""
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", given)
    assert backend.threads("tensorflow") == recorded
