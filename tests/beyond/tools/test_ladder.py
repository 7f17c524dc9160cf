"""The ladder: its plan and budgets, and a run through the real `dvc` that is collected."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from beyond.ladder.plan import EXPERIMENTS, KINDS, TABLE, all_runs, collected_rows, load_ladder, settings_of
from beyond.recipe.cost import CIFAR10_IMAGES, training_flop
from beyond.tools import ladder
from stages.common.errors import ExpectedError
from stages.common.files import flat, read_rows
from stages.experiments.origin import Origin
from stages.experiments.predictions import read_predictions
from stages.experiments.table import write_runs
from tests.support.beyond import small_repository
from tests.support.stage_runs import ROOT


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the committed parameters and experiments."""
    shutil.copytree(ROOT / "beyond", tmp_path / "beyond")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_committed_run_keeps_its_budget_and_scores_the_test_set_once(committed: Path) -> None:
    plan = load_ladder()
    assert [budget.pflop for budget in plan.budgets if not budget.name] == [0.03, 0.06, 0.12, 0.34]
    assert len(plan.seeds) >= 3
    for run in all_runs(plan).values():
        given = settings_of(run.overrides)
        assert given.seed == run.seed
        if run.seed == plan.seeds[0]:  # which changes no cost
            ladder.check_cost(run)
            assert 0.9 * run.pflop < training_flop(CIFAR10_IMAGES, given) / 1e15  # no budget is left unspent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"set": ["validation=none", "epochs=100"]}, r"would cost \d+\.\d+ PFLOP, more than its 0\.03"),
        ({"set": ["epochs=1"]}, "holds images out; a run of the ladder has validation=none"),
        ({"set": ["epoch=1"]}, "has no epoch"),
        ({"set": ["epochs.x=1"]}, "has no epochs.x"),
        ({"set": ["network.activation.x.y=1"]}, "has no network.activation.x.y"),
        ({"set": ["epochs=0"]}, "epochs"),
        ({"seeds": [1, 1]}, "is there twice"),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused(committed: Path, change: dict, message: str) -> None:
    plan = yaml.safe_load(EXPERIMENTS.read_text()) | change
    plan["budgets"] = [{"pflop": 0.03, "set": []}]
    EXPERIMENTS.write_text(yaml.safe_dump(plan))

    def check() -> None:
        for run in all_runs(load_ladder()).values():
            ladder.check_cost(run)

    with pytest.raises(ExpectedError, match=message):
        check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 5}, "ladder-0.03-seed1 was run with epochs 5, not 6; remove its row, or change that back"),
        ({"test_augmented.views": 1}, "was run with test_augmented.views 1, not 6"),
        ({"data": "other"}, "was run with data other, not here"),
    ],
)
def test_a_row_of_other_settings_or_data_is_refused(committed: Path, change: dict, message: str) -> None:
    """One budget has one mean: a row stays where its settings changed, and would be pooled with new ones."""
    runs = all_runs(load_ladder())
    run = runs["ladder-0.03-seed1"]
    settings = settings_of(run.overrides)
    row = flat(settings.model_dump(exclude={"evaluate"})) | {"test_augmented.views": settings.evaluate.views}
    row |= {"name": run.name, "data": "here"}
    ladder.check_rows({run.name: row}, runs, Origin("code", "here"))
    with pytest.raises(ExpectedError, match=re.escape(message)):
        ladder.check_rows({run.name: row | change}, runs, Origin("code", "here"))


def test_a_row_of_a_run_that_is_not_named_is_refused(committed: Path) -> None:
    runs = all_runs(load_ladder())
    write_runs([{"name": "ladder-9-seed1"} | dict.fromkeys(("model", "source", "code", "data"), "x")], TABLE)
    with pytest.raises(ExpectedError, match=r"has ladder-9-seed1, which beyond/experiments.yaml does not name"):
        collected_rows(runs)


@pytest.mark.pipeline
def test_a_run_is_made_once_collected_and_does_not_touch_the_workspace(tmp_path: Path) -> None:
    clone = small_repository(tmp_path / "clone")
    command = ("python", "-m", "beyond.tools.ladder")
    said = clone.ok(*command, OMP_NUM_THREADS="1")
    assert "1 runs, 0 of them done" in said
    changed = {line[3:] for line in clone.ok("git", "status", "--porcelain").splitlines()}
    name = "ladder-0.03-seed1"
    files = {f"beyond/runs/{name}.csv", *(f"beyond/runs/{name}-{kind}.npz" for kind in KINDS)}
    assert changed == {"beyond/runs/runs.csv", *files}
    (row,) = read_rows(clone.folder / "beyond/runs/runs.csv")
    labels = np.load(clone.folder / "data/processed/test_labels.npy")
    for kind, column in zip(KINDS, ("test.accuracy", "test_augmented.accuracy"), strict=True):
        predictions = read_predictions(clone.folder / f"beyond/runs/{name}-{kind}.npz", 40)
        assert (predictions.predicted == labels).mean() == pytest.approx(float(row[column]))
    assert (row["seed"], row["validation"], row["source"]) == ("1", "none", "synthetic")
    assert row["network.widths"] == "[4, 5, 7]"
    clone.commit("collected")
    assert "1 runs, 1 of them done" in clone.ok(*command)
    assert clone.ok("git", "status", "--porcelain") == ""

    # The root's pipeline knows nothing of it.
    assert "beyond" not in clone.run("dvc", "repro", "--dry", "--allow-missing").stdout
    assert "up to date" in clone.ok("dvc", "status", "split")
