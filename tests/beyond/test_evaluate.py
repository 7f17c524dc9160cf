"""Scoring: the held-out part or the test set, never both, and scores that follow from the predictions."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from beyond import evaluate
from beyond.recipe import paths
from beyond.recipe.predicting import VIEWS
from stages.common.errors import ExpectedError
from stages.evaluate import score
from stages.training.images import load_images, load_split
from tests.support.beyond import change, prepare_beyond, run
from tests.support.stage_runs import process_settings


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with process_settings():
        prepare_beyond("epochs=1")
        yield


def test_with_a_held_out_part_the_test_set_is_not_read() -> None:
    for name in ("images", "labels"):
        Path(f"data/processed/test_{name}.npy").unlink()
    run("train", "evaluate")
    scores = json.loads(paths.SCORES.read_text())
    assert {"validation", "validation_augmented"} <= scores.keys()
    assert not [key for key in scores if key.startswith("test")]
    with np.load(paths.PREDICTIONS) as arrays:
        assert str(arrays["part"]) == "validation"
        expected = load_images("train").labels[load_split(50).validation]
        assert np.array_equal(arrays["labels"], expected)
    record = json.loads(paths.RUN.read_text())
    assert scores["validation"]["accuracy"] == pytest.approx(record["validation"]["accuracy"], rel=1e-5)
    assert scores["validation"]["loss"] == pytest.approx(record["validation"]["loss"], rel=1e-4)

    parts = dict(np.load("data/processed/split.npz"))
    parts |= {"train": np.arange(45), "validation": np.arange(45, 50)}
    np.savez("data/processed/split.npz", **parts)
    with pytest.raises(ExpectedError, match="holds out 5 images, and the run 10"):
        evaluate.main()


@pytest.mark.parametrize("views", [1, 6])
def test_trained_on_all_images_it_is_scored_on_the_test_set_with_and_without_views(views: int) -> None:
    change("epochs=1", "validation=none", f"evaluate.views={views}")
    run("train", "evaluate")
    scores = json.loads(paths.SCORES.read_text())
    assert not [key for key in scores if key.startswith("validation")]
    with np.load(paths.PREDICTIONS) as arrays:
        labels, plain, augmented = arrays["labels"], arrays["plain"], arrays["augmented"]
    assert np.array_equal(labels, load_images("test").labels)
    assert scores["test"] == score(plain, labels)
    assert scores["test_augmented"] == {"views": views, **score(augmented, labels)}
    assert np.array_equal(plain, augmented) is (views == 1)
    cost = scores["pflop"]
    assert cost["test_augmented"] == pytest.approx(len(VIEWS[views]) * cost["test"], rel=1e-4)
    assert cost["training"] == json.loads(paths.RUN.read_text())["training_pflop"]
