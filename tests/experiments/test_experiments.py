"""experiments.yaml and metrics/runs.csv: what is read is what was written, and a fault is one clear line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides

from stages.common import paths
from stages.common.config import read
from stages.common.errors import ExpectedError
from stages.common.files import flat, read_json
from stages.experiments.origin import IGNORED, Origin, md5_of, origin, same_origin
from stages.experiments.plan import (
    Run,
    RunGrid,
    all_runs,
    differing,
    load_experiments,
    parameters_of,
    recorded_parameters,
)
from stages.experiments.table import read_runs, write_runs
from stages.paper.claims import load_claims
from stages.paper.numbers import load_numbers
from stages.paper.rows import differing as paper_differing
from tests.support.stage_runs import ROOT

OF_EACH = {"model": "keras_cnn", "source": "cifar10", "code": "a", "data": "b"}
GRID = {"model": "keras_cnn", "seeds": [7], "set": ["dropout=0.4"]}
COMMITTED = load_experiments(ROOT / "experiments.yaml")


def written(tmp_path: Path, grids: Any, **more: Any) -> Path:
    path = tmp_path / "experiments.yaml"
    interpretations = {"plain": [], "deep": ["keras_cnn.convolutions_per_block=2"]}
    path.write_text(json.dumps({"interpretations": interpretations, "grids": grids, "same_results": {}} | more))
    return path


def names(tmp_path: Path, grid: dict[str, Any], **more: Any) -> list[str]:
    return list(all_runs(load_experiments(written(tmp_path, {"g": {"model": "keras_cnn"} | grid}, **more))))


def test_a_run_is_a_configuration_with_a_seed(tmp_path: Path) -> None:
    experiments = load_experiments(written(tmp_path, {"a": GRID | {"seeds": [7, 8]}, "b": GRID}))
    assert list(all_runs(experiments)) == ["a-seed7", "a-seed8", "b-seed7"]
    assert all_runs(experiments)["a-seed8"] == Run("a-seed8", "a", "", "keras_cnn", 8, ["dropout=0.4"])


def test_a_grid_is_interpretations_by_axes_by_seeds(tmp_path: Path) -> None:
    axes = {"batch_size": [64, 128], "keras_cnn.augmentation": ["flip"]}
    grid = GRID | {"interpretations": ["plain", "deep"], "axes": axes}
    runs = all_runs(load_experiments(written(tmp_path, {"g": grid})))
    cells = [name.removesuffix("-flip-seed7") for name in runs]
    assert cells == ["g-plain-64", "g-plain-128", "g-deep-64", "g-deep-128"]
    assert runs["g-deep-128-flip-seed7"] == Run(
        "g-deep-128-flip-seed7",
        "g-deep-128-flip",
        "deep",
        "keras_cnn",
        7,
        ["dropout=0.4", "keras_cnn.convolutions_per_block=2", "batch_size=128", "keras_cnn.augmentation=flip"],
    )


def test_an_interpretation_may_have_more_seeds(tmp_path: Path) -> None:
    grid = {"interpretations": ["plain", "deep"], "axes": {"dropout": [0]}, "seeds": [7], "more_seeds": {"deep": [1]}}
    assert names(tmp_path, grid) == ["g-plain-0-seed7", "g-deep-0-seed7", "g-deep-0-seed1"]


def test_the_run_of_dvc_repro_is_left_out(tmp_path: Path) -> None:
    grid = {"interpretations": ["plain", "deep"], "axes": {"dropout": [0.3, 0.4]}, "seeds": [7, 8]}
    every = names(tmp_path, grid)
    assert len(every) == 8
    left = names(tmp_path, grid, dvc_repro={"seed": 7, "dropout": 0.3})
    assert left == [name for name in every if name != "g-plain-0.3-seed7"]
    assert names(tmp_path, {"seeds": [7, 8]}, dvc_repro={"seed": 7, "dropout": 0.3}) == ["g-seed8"]


def test_what_the_committed_file_says_of_dvc_repro_is_in_params_yaml() -> None:
    assert COMMITTED.dvc_repro.items() <= flat(read(ROOT / "params.yaml")).items()


def test_the_committed_runs_have_the_names_of_the_collected_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    runs = all_runs(COMMITTED)
    assert [differing(runs[row["name"]], row) for row in read_runs()] == [[]] * len(read_runs())
    cells = {f"table2-rising-{batch}-{dropout}-seed7" for batch in (64, 128) for dropout in (0.3, 0.4)}
    assert cells - runs.keys() == {"table2-rising-64-0.3-seed7"}


def test_the_claims_runs_are_what_the_claims_groups_select(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base of each group has the same seeds, so that every comparison has three pairs."""
    monkeypatch.chdir(ROOT)
    numbers = load_numbers()
    default, selected = flat(read(ROOT / "params.yaml")), {}
    for name, group in load_claims(numbers).groups.items():
        if group.configuration:
            base = numbers.configurations[group.configuration]
            wanted = base.model_copy(update={"parameters": base.parameters | group.but})
            of_model = {key: default[key] for key in recorded_parameters(read_json(paths.run(base.model)))}
            selected[name] = {
                run.seed
                for run in all_runs(COMMITTED).values()
                if run.model == base.model
                and not paper_differing(wanted, of_model | parameters_of([*run.overrides, f"seed={run.seed}"]))
            }
    assert len(selected) == 7
    assert all({1, 2, 3} <= seeds for seeds in selected.values()), selected


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ({"a": GRID | {"seeds": []}}, "grids.a.seeds is []: list should have at least 1 item"),
        ({"a": GRID | {"seeds": [7, 7]}}, "a-seed7 is there twice"),
        ({"a": GRID | {"seeds": [-1]}}, "grids.a.seeds.0 is -1: input should be"),
        ({"a": GRID | {"set": ["dropout"]}}, "grids.a.set.0: 'dropout' is no override; allowed: key=value"),
        ({"a": GRID | {"set": ["seed=8"]}}, "'seed=8' is no override"),
        ({"a": GRID | {"set": ["--help=1"]}}, "'--help=1' is no override"),
        ({"a": GRID | {"set": ["dropout=["]}}, "grids.a.set.0: not valid YAML"),
        ({"a": GRID | {"axes": {"seed": [8]}}}, "'seed=8' is no override"),
        ({"a": GRID | {"axes": {"dropout": []}}}, "grids.a.axes.dropout is []: list should have at least 1 item"),
        ({"a": GRID | {"axes": {"keras_cnn.filters": [[8, 8]]}}}, "'a-[8, 8]-seed7' is no name for an experiment"),
        ({"a": GRID | {"interpretations": ["wide"]}}, "grids.a.interpretations has 'wide', which is not defined"),
        (
            {"a": GRID | {"more_seeds": {"deep": [1]}}},
            "grids.a.more_seeds has 'deep', which is not one of its",
        ),
        ({"a": GRID | {"more": 1}}, "grids.a: unknown key 'more'; allowed: model"),
        ({"a b": GRID}, "'a b-seed7' is no name for an experiment"),
        ({"a/b": GRID}, "'a/b-seed7' is no name for an experiment"),
        ({"-a": GRID}, "'-a-seed7' is no name for an experiment"),
        ([GRID], "grids is [{'model': 'keras_cnn', "),
    ],
)
def test_a_fault_is_one_clear_line(tmp_path: Path, grids: Any, message: str) -> None:
    with pytest.raises(ExpectedError) as caught:
        load_experiments(written(tmp_path, grids))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("dropout=0.4", 0.4),
        ("keras_cnn.learning_rate=1e-3", 0.001),
        ("keras_cnn.filters=[3,4]", [3, 4]),
        ("keras_cnn.early_stopping_patience=null", None),
        ("keras_cnn.augmentation=none", "none"),
        ("keras_cnn.filters=[]", []),
        ("resnet18.weights_file=a=b", "a=b"),
    ],
)
def test_an_override_has_the_value_that_dvc_sets(tmp_path: Path, override: str, value: Any) -> None:
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    apply_overrides(path, [override.replace("a=b", "'a=b'")])
    key = override.partition("=")[0]
    assert parameters_of([override])[key] == flat(read(path))[key] == value


def test_a_parameter_may_have_capitals() -> None:
    """As scikit-learn's have."""
    assert RunGrid.model_validate(GRID | {"set": ["logistic.C=0.1"]}).set == ["logistic.C=0.1"]


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "experiments.yaml"
    with pytest.raises(ExpectedError, match="is missing; git restore"):
        load_experiments(path)
    path.write_text("grids: [")
    with pytest.raises(ExpectedError, match="not valid YAML"):
        load_experiments(path)
    path.write_text("grids: {}\nsame_results: {}\ngrids: {}\n")
    with pytest.raises(ExpectedError, match='found duplicate key "grids"'):
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
    with pytest.raises(ExpectedError, match=r"runs\.csv: line 3 is incomplete"):
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
    elsewhere = lock()
    elsewhere["stages"]["train_keras_cnn"]["deps"][1]["path"] = "data/processed/train.npz"
    with pytest.raises(ExpectedError, match=r"read no data/processed/\*\.npy, which tells data apart"):
        origin(elsewhere, "keras_cnn")


def test_what_dvcignore_leaves_out_is_not_hashed(tmp_path: Path) -> None:
    lines = (ROOT / ".dvcignore").read_text().splitlines()
    assert [line for line in lines if not line.startswith(("#", "/", "!"))] == [*IGNORED]
    (tmp_path / "images.py").write_text("x = 1\n")
    before = md5_of(tmp_path)
    for name in (".images.py.swp", "images.py~", ".#images.py", ".DS_Store", ".mypy_cache/a", ".ipynb_checkpoints/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert md5_of(tmp_path) == before
    (tmp_path / "__pycache__").touch()  # no folder
    assert md5_of(tmp_path) != before


def test_other_code_adds_up_only_where_it_is_named(tmp_path: Path) -> None:
    named = load_experiments(written(tmp_path, {}, same_results={"old": {"same_as": "new", "shown": "weights"}}))
    assert same_origin(Origin("old", "d"), Origin("new", "d"), named)
    assert not same_origin(Origin("older", "d"), Origin("new", "d"), named)
    assert not same_origin(Origin("old", "d"), Origin("newer", "d"), named)
    assert not same_origin(Origin("old", "d"), Origin("new", "other data"), named)


def test_same_results_are_followed_over_several_versions(tmp_path: Path) -> None:
    same = {"newest": {"same_as": "new", "shown": "weights"}, "new": {"same_as": "old", "shown": "weights"}}
    named = load_experiments(written(tmp_path, {}, same_results=same))
    assert same_origin(Origin("newest", "d"), Origin("old", "d"), named)
    with pytest.raises(ExpectedError, match=r"same_results leads from newest back to itself"):
        load_experiments(written(tmp_path, {}, same_results=same | {"old": {"same_as": "newest", "shown": "weights"}}))


@pytest.mark.parametrize(
    ("override", "ran", "differs"),
    [
        ("dropout=0.4", {"dropout": 0.4}, False),
        ("dropout=0.4", {"dropout": 0.3}, True),
        ("keras_cnn.early_stopping_patience=null", {"keras_cnn.early_stopping_patience": 10}, True),
        ("evaluate.augmented_draws=3", {}, False),  # no part of a record
    ],
)
def test_what_ran_is_checked_against_what_was_asked_for(
    override: str, ran: dict[str, Any], differs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    run = Run("a-seed7", "a", "", "keras_cnn", 7, [override])
    assert bool(differing(run, ran | {"seed": 7})) == differs
    assert "seed is 8, not 7" in differing(run, ran | {"seed": 8})


def test_a_run_under_other_defaults_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run = Run("a-seed7", "a", "", "keras_cnn", 7, ["dropout=0.4"])
    ran = {"seed": 7, "dropout": 0.4, "keras_cnn.learning_rate": 0.01}
    assert differing(run, ran) == ["keras_cnn.learning_rate is 0.01, not 0.001"]
