"""The stage `compare`: silent on synthetic data, and a function of the files that dvc.yaml declares."""

import re
from pathlib import Path

import pytest
import yaml

from stages import compare
from stages.common import paths
from stages.common.errors import ExpectedError
from stages.common.files import read_json
from stages.experiments.table import write_runs
from tests.support.made_up_results import (
    ROOT,
    change_json,
    collected,
    compared,
    comparison_text,
    statuses,
    write_results,
)


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results()


def test_what_is_still_to_run_is_named() -> None:
    row = {"model": "keras_cnn", "seeds": [7, 8], "set": ["dropout=0.4"]}
    Path("experiments.yaml").write_text(yaml.safe_dump({"grids": {"later": row}, "same_results": {}}))
    write_runs([collected(64, 0.4, 0.84) | {"name": "later-seed7"}])
    assert "In experiments.yaml and not run yet: later (1 seed)." in comparison_text()


def test_the_runs_without_predictions_are_counted() -> None:
    write_runs([collected(64, 0.4, 0.84), collected(64, 0.4, 0.85, 8)])
    assert "Of the 2 runs of metrics/runs.csv, 2 have no kept predictions." in comparison_text()


def test_nothing_of_synthetic_data_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "synthetic").mkdir()
    monkeypatch.chdir(tmp_path / "synthetic")
    write_results({"dataset": "synthetic", "keras_cnn": "synthetic", "resnet18": "synthetic"})
    for part in ("results", "details", "lists", "curves", "settings"):
        assert set(statuses(part).values()) == {"not compared"}
    first = "**synthetic data, not CIFAR-10: nothing here is compared with the paper**"
    assert comparison_text().splitlines()[2] == first
    printed = [row["paper"] for row in compared().values()]
    assert not [value for value in printed if f"{value:g}" in comparison_text()]
    accuracy = read_json(Path("metrics/resnet18.json"))["test"]["accuracy"]
    assert re.search(rf"^\| test\.accuracy +\| +[0-9.]+ \| +{accuracy} \|$", comparison_text(), re.MULTILINE)


@pytest.mark.parametrize("dataset", ["cifar10", "synthetic"])
def test_one_model_of_synthetic_data_is_left_out_alone(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mixed").mkdir()
    monkeypatch.chdir(tmp_path / "mixed")
    write_results({"dataset": dataset, "keras_cnn": "synthetic"})
    assert statuses()["T1.keras.acc"] == statuses()["T2.64-0.3.acc"] == "not compared"
    assert statuses()["T1.resnet.acc"] == "answered"
    assert statuses("settings")["data.images_per_class"] == ("same" if dataset == "cifar10" else "not compared")
    assert "**Keras CNN: synthetic data, not CIFAR-10: nothing of it is compared with the paper**" in comparison_text()
    assert "ResNet-18 (seed 7)" in comparison_text()
    assert "Keras CNN (seed 7)" not in comparison_text()
    assert "patience of early stopping" in comparison_text()  # ResNet-18's row of the settings, and not the Keras CNN's
    assert "filters of the three blocks" not in comparison_text()


def test_results_of_two_sources_in_one_model_are_refused() -> None:
    change_json("metrics/keras_cnn.json", "source", "synthetic")
    with pytest.raises(ExpectedError, match=r"runs/keras_cnn\.json is of cifar10 data and .* of synthetic"):
        compare.main()


def test_two_runs_give_the_same_bytes_whatever_the_time_taken() -> None:
    files = (paths.comparison("json"), paths.comparison("md"))
    compare.main()
    before = [file.read_bytes() for file in files]
    change_json("metrics/runtime/keras_cnn.json", "seconds", 99.0)
    compare.main()
    assert [file.read_bytes() for file in files] == before


def test_it_reads_nothing_but_what_dvc_yaml_declares() -> None:
    compare.main()
    written = [paths.comparison("json"), paths.comparison("md")]
    before = [file.read_bytes() for file in written]
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["compare"]["deps"]
    for file in [file for file in Path("metrics").rglob("*") if file.is_file() and file.as_posix() not in declared]:
        file.unlink()
    compare.main()
    assert [file.read_bytes() for file in written] == before
