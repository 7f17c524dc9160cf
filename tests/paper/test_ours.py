"""Addresses of our numbers, and the runs of metrics/runs.csv."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.errors import ExpectedError
from stages.common.files import read_json, write_json
from stages.experiments.table import write_runs
from stages.paper.ours import Run, look_up, look_up_json, read_curves
from tests.support.made_up_results import (
    collected,
    compared,
    comparison_text,
)


def test_several_seeds_give_their_mean_and_spread() -> None:
    rows = [collected(64, 0.3, accuracy, seed) for seed, accuracy in ((8, 0.80), (9, 0.82))]
    write_runs(rows)
    own = read_json(Path("metrics/keras_cnn.json"))["test"]["accuracy"]
    row = compared()["T1.keras.acc"]
    assert row["runs"] == 3
    assert row["ours"] == pytest.approx(100 * np.mean([own, 0.80, 0.82]), abs=1e-6)
    assert row["spread"] == pytest.approx(100 * np.std([own, 0.80, 0.82], ddof=1), abs=1e-6)
    line = next(line for line in comparison_text().splitlines() if line.endswith(" inside |"))
    assert [cell.strip() for cell in line.split("|")[1:3]] == [
        "Table 1: Keras CNN, test accuracy",
        f"{row['spread']:.2f}",
    ]
    assert compared("details")["N.params.total"]["runs"] == 1  # the others' files are not there


def test_the_run_of_dvc_repro_counts_once() -> None:
    write_runs([collected(64, 0.3, 0.99)])
    row = compared()["T1.keras.acc"]
    assert row["runs"] == 1
    assert row["ours"] != 99.0


def test_lists_and_curves_are_of_one_run() -> None:
    write_runs([collected(64, 0.3, 0.80, seed=8)])
    assert compared("lists")["N.report.f1"]["runs"] == compared("curves")["F1"]["runs"] == 1


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("a.b.1", 5),
        ("a.b.-1", 6),
        ("a.b.length", 3),
        ("d", 3),
        ("a.x", None),
        ("c.x", None),
    ],
)
def test_addresses_in_json(what: str, value: Any) -> None:
    assert look_up_json({"a": {"b": [4, 5, 6]}, "c": 7, "d": 3}, what) == value


def test_a_missing_file_is_one_line_with_what_to_do() -> None:
    Path("metrics/per_class/keras_cnn.csv").unlink()
    with pytest.raises(ExpectedError, match=r"metrics/per_class/keras_cnn\.csv is missing; .*dvc repro"):
        look_up("metrics/per_class/keras_cnn.csv recall")


def test_where_the_test_set_validates_the_split_makes_no_other_training() -> None:
    parameters = {"seed": 1, "split.validation_fraction": 0.1, "resnet18.validation": "test"}
    assert Run("r", "resnet18", "cifar10", parameters, {}).trained_with() == {
        "seed": 1,
        "resnet18.validation": "test",
    }
    held_out = parameters | {"resnet18.validation": "held_out"}
    assert Run("r", "resnet18", "cifar10", held_out, {}).trained_with() == held_out
    assert Run("r", "keras_cnn", "cifar10", parameters, {}).trained_with() == parameters


def test_a_wrong_class_is_no_place() -> None:
    with pytest.raises(ExpectedError, match=r"keras_cnn\.csv airplan: no such place \(KeyError\('airplan'\)\)"):
        look_up("metrics/confusion/keras_cnn.csv airplan")


def test_a_curve_needs_its_epochs(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("iteration,train_loss\n1,2.5\n")
    with pytest.raises(ExpectedError, match=r"curve\.csv has no column epoch"):
        read_curves(path)


def test_images_that_are_trained_on() -> None:
    def training_images(model: str, parameters: dict[str, Any]) -> int:
        return Run("r", model, "cifar10", parameters, {}).training_images(50_000)

    assert training_images("keras_cnn", {"split.validation_fraction": 0.2}) == 40_000
    assert training_images("keras_cnn", {"split.validation_fraction": 0.0}) == 50_000
    held_out = {"resnet18.validation": "held_out", "split.validation_fraction": 0.1}
    assert training_images("resnet18", held_out) == 45_000
    assert training_images("resnet18", held_out | {"resnet18.validation": "test"}) == 50_000


def test_a_record_without_a_seed_is_refused() -> None:
    path = Path("metrics/runs/keras_cnn.json")
    record = read_json(path)
    del record["parameters"]["seed"]
    write_json(path, record)
    with pytest.raises(
        ExpectedError, match=r"metrics/runs/keras_cnn\.json has no parameter seed; every run records one"
    ):
        compared()
