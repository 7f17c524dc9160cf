"""experiments.yaml and metrics/runs.csv: what is read is what was written, and a fault is one clear line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.errors import ExpectedError
from stages.experiments import (
    Origin,
    Run,
    all_runs,
    differing,
    load_experiments,
    origin,
    read_runs,
    same_origin,
    write_runs,
)
from tests.stage_runs import ROOT

OF_EACH = {"model": "keras_cnn", "source": "cifar10", "code": "a", "data": "b"}
ROW = {"model": "keras_cnn", "seeds": [7], "set": ["dropout=0.4"]}


def written(tmp_path: Path, configurations: Any, **more: Any) -> Path:
    path = tmp_path / "experiments.yaml"
    path.write_text(yaml.safe_dump({"configurations": configurations, "same_results": {}} | more))
    return path


def test_a_run_is_a_configuration_with_a_seed(tmp_path: Path) -> None:
    experiments = load_experiments(written(tmp_path, {"a": ROW | {"seeds": [7, 8]}, "b": ROW}))
    assert list(all_runs(experiments)) == ["a-seed7", "a-seed8", "b-seed7"]
    assert all_runs(experiments)["a-seed8"] == Run("a-seed8", "a", "keras_cnn", 8, ["dropout=0.4"])


def test_the_committed_file_has_all_cells_of_table_2_but_that_of_dvc_repro() -> None:
    runs = all_runs(load_experiments(ROOT / "experiments.yaml"))
    cells = {f"{batch}-{dropout}" for batch in (64, 128) for dropout in (0.3, 0.4)}
    assert {name.removeprefix("table2-rising-") for name in runs if name.startswith("table2-rising-")} == {
        f"{cell}-seed7" for cell in cells - {"64-0.3"}
    }
    assert all("seed" not in override for run in runs.values() for override in run.overrides)


@pytest.mark.parametrize(
    ("configurations", "message"),
    [
        ({"a": ROW | {"model": "vgg"}}, "configurations.a.model"),
        ({"a": ROW | {"seeds": []}}, "configurations.a.seeds"),
        ({"a": ROW | {"seeds": [7, 7]}}, "seeds has one twice"),
        ({"a": ROW | {"seeds": [-1]}}, "configurations.a.seeds.0"),
        ({"a": ROW | {"set": ["dropout"]}}, "set has 'dropout'; allowed: key=value"),
        ({"a": ROW | {"set": ["seed=8"]}}, "set has 'seed=8'"),
        ({"a": ROW | {"set": ["--help=1"]}}, "set has '--help=1'"),
        ({"a": ROW | {"more": 1}}, "configurations.a.more"),
        ({"a b": ROW}, "'a b' is no name for an experiment"),
        ({"a/b": ROW}, "'a/b' is no name for an experiment"),
        ({"-a": ROW}, "'-a' is no name for an experiment"),
        ([ROW], "configurations"),
    ],
)
def test_a_fault_is_one_clear_line(tmp_path: Path, configurations: Any, message: str) -> None:
    with pytest.raises(ExpectedError) as caught:
        load_experiments(written(tmp_path, configurations))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "experiments.yaml"
    with pytest.raises(ExpectedError, match="is missing; git restore"):
        load_experiments(path)
    path.write_text("configurations: [")
    with pytest.raises(ExpectedError, match="is not valid YAML"):
        load_experiments(path)
    path.write_text("configurations: {}\nsame_results: {}\nconfigurations: {}\n")
    with pytest.raises(ExpectedError, match="'configurations' is there twice"):
        load_experiments(path)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [
        OF_EACH | {"name": "a", "code": "123456789012", "data": "12345e678901", "filters": [32, 64], "patience": None},
        OF_EACH
        | {"name": "b", "weights": "none", "accuracy": 0.8, "rate": 1e-05, "overrides": "a=b c=1,2", "epochs": 50},
    ]
    write_runs(rows, tmp_path / "runs.csv")
    assert read_runs(tmp_path / "runs.csv") == rows
    write_runs([], tmp_path / "runs.csv")
    assert read_runs(tmp_path / "runs.csv") == []


@pytest.mark.parametrize(
    "line", ["<<<<<<< here", "a,keras_cnn,cifar10,c", "a,keras_cnn,cifar10,c,d,1,more", "a,,cifar10,c,d,1"]
)
def test_a_row_that_is_not_whole_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(f"name,model,source,code,data,epochs\na,keras_cnn,cifar10,c,d,50\n{line}\n")
    with pytest.raises(ExpectedError, match=r"runs\.csv: line 3 is no whole row"):
        read_runs(path)


def lock(code: str = "a", images: str = "b", split: str = "c") -> dict[str, Any]:
    deps = [
        {"path": "stages/train_keras_cnn.py", "md5": code},
        {"path": "data/processed/train_images.npy", "md5": images},
        {"path": "data/processed/split.npz", "md5": split},
    ]
    stages = {"split": [], "train_keras_cnn": deps, "evaluate@keras_cnn": deps[:1]}
    return {"stages": {name: {"deps": of_stage} for name, of_stage in stages.items()}}


def test_code_and_images_make_the_origin_and_the_split_is_a_parameter() -> None:
    one = origin(lock(), "keras_cnn")
    assert one == origin(lock(split="other"), "keras_cnn")
    assert one.data != origin(lock(images="other"), "keras_cnn").data
    assert one.code != origin(lock(code="other"), "keras_cnn").code
    with pytest.raises(ExpectedError, match="knows no run of split and train_resnet18"):
        origin(lock(), "resnet18")


def test_other_code_adds_up_only_where_it_is_named(tmp_path: Path) -> None:
    named = load_experiments(written(tmp_path, {}, same_results={"old": {"same_as": "new", "shown": "weights"}}))
    assert same_origin(Origin("old", "d"), Origin("new", "d"), named)
    assert not same_origin(Origin("older", "d"), Origin("new", "d"), named)
    assert not same_origin(Origin("old", "d"), Origin("newer", "d"), named)
    assert not same_origin(Origin("old", "d"), Origin("new", "other data"), named)


@pytest.mark.parametrize(
    ("override", "ran", "differs"),
    [
        ("dropout=0.4", {"dropout": 0.4}, False),
        ("dropout=0.4", {"dropout": 0.3}, True),
        ("keras_cnn.learning_rate=1e-3", {"keras_cnn.learning_rate": 0.001}, False),
        ("keras_cnn.filters=[3,4]", {"keras_cnn.filters": [3, 4]}, False),
        ("keras_cnn.early_stopping_patience=null", {"keras_cnn.early_stopping_patience": None}, False),
        ("keras_cnn.early_stopping_patience=null", {"keras_cnn.early_stopping_patience": 10}, True),
        ("keras_cnn.augmentation=none", {"keras_cnn.augmentation": "none"}, False),
        ("evaluate.augmented_draws=3", {}, False),  # no part of a record
    ],
)
def test_what_ran_is_held_to_what_was_asked_for(
    override: str, ran: dict[str, Any], differs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    run = Run("a-seed7", "a", "keras_cnn", 7, [override])
    assert bool(differing(run, ran | {"seed": 7})) == differs
    assert "seed is 8, not 7" in differing(run, ran | {"seed": 8})


def test_a_run_under_other_defaults_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run = Run("a-seed7", "a", "keras_cnn", 7, ["dropout=0.4"])
    ran = {"seed": 7, "dropout": 0.4, "keras_cnn.learning_rate": 0.01}
    assert differing(run, ran) == ["keras_cnn.learning_rate is 0.01, not 0.001"]
