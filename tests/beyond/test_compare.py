"""The ladder's page and figure, from made-up runs."""

from pathlib import Path

import numpy as np
import pytest

from beyond import compare
from beyond.compare import Point, Reference, accuracy, draw, read_references, read_rungs, render
from beyond.ladder.plan import KINDS, Ladder, all_runs, predictions_file
from stages.common.config import load_checked
from stages.common.errors import ExpectedError
from stages.common.files import Json
from stages.experiments.predictions import Predictions, to_bytes
from tests.support.stage_runs import ROOT

LABELS = np.arange(20, dtype=np.uint8) % 10
LADDER = Ladder.model_validate(
    {"set": [], "seeds": [1, 2], "budgets": [{"pflop": 0.03, "set": []}, {"pflop": 0.06, "set": []}]}
)
REFERENCES = [Reference("Keras CNN", 0.8, 0.123)]
POINTS = [Point(name="a record", accuracy=0.94, pflop=0.36, source="somewhere")]


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def collected(seed: int, plain: int, augmented: int, code: str = "aaaa", budget: str = "0.03") -> Json:
    """A row of a run, of whose 20 predictions so many are right, and its files."""
    name = f"ladder-{budget}-seed{seed}"
    for kind, right in zip(KINDS, (plain, augmented), strict=True):
        predicted = np.where(np.arange(20) < right, LABELS, (LABELS + 1) % 10).astype(np.uint8)
        predictions_file(name, kind).parent.mkdir(parents=True, exist_ok=True)
        predictions_file(name, kind).write_bytes(to_bytes(Predictions(predicted, np.ones(20, dtype=np.float32))))
    scores = {"test.accuracy": plain / 20, "test_augmented.accuracy": augmented / 20, "pflop.training": 0.0295}
    facts = {"budget": 0.03, "code": code, "source": "cifar10", "seconds": 100.0 * seed, "processor": "a processor"}
    return {"name": name, "threads": 2, **scores, **facts}


def test_the_page_has_mean_and_deviation_and_says_what_is_not_run_yet() -> None:
    rungs = read_rungs([collected(1, 15, 16), collected(2, 16, 18)], "cifar10", LABELS)
    page = render(LADDER, rungs, REFERENCES, POINTS, "cifar10")
    row, other = (line for line in page.splitlines() if line.startswith("| 0.0"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["0.03", "0.0295", "85.00 ± 7.07 %", "77.50 ± 3.54 %", "2", "100", "aaaa"]
    assert "not run yet" in other
    assert "2 of 4 runs of beyond/experiments.yaml are not run yet." in page
    assert "94.00 %" in page
    assert "a processor, threads: 2" in page


def test_without_a_run_every_budget_is_not_run_yet() -> None:
    page = render(LADDER, [], REFERENCES, POINTS, "cifar10")
    assert page.count("not run yet") == 3
    (text,) = draw([], REFERENCES, POINTS, "cifar10").axes[0].texts[2:]
    assert text.get_text() == "this pipeline: not run yet"


def test_runs_of_different_code_are_not_pooled() -> None:
    rungs = read_rungs([collected(1, 15, 16), collected(2, 16, 18, code="bbbb")], "cifar10", LABELS)
    assert [(rung.code, len(rung.seconds)) for rung in rungs] == [("aaaa", 1), ("bbbb", 1)]
    lines = render(LADDER, rungs, REFERENCES, POINTS, "cifar10").splitlines()
    rows = [line for line in lines if line.startswith("| 0.03")]
    assert len(rows) == 2
    assert not [row for row in rows if "±" in row]


def test_other_settings_of_a_budget_have_a_line_of_their_own() -> None:
    tuned = {"pflop": 0.03, "name": "tuned", "set": ["epochs=6"]}
    ladder = LADDER.model_validate(LADDER.model_dump() | {"budgets": [*LADDER.model_dump()["budgets"], tuned]})
    assert [*all_runs(ladder)][-1] == "ladder-0.03-tuned-seed2"
    rungs = read_rungs([collected(1, 15, 16), collected(1, 16, 18, budget="0.03-tuned")], "cifar10", LABELS)
    lines = render(ladder, rungs, REFERENCES, POINTS, "cifar10").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| 0.0")]
    assert [row[:3] for row in rows] == [
        ["0.03", "0.0295", "80.00 %"],
        ["0.06", "-", "not run yet"],
        ["0.03-tuned", "0.0295", "90.00 %"],
    ]


def test_the_figure_has_the_rungs_the_models_and_what_others_published() -> None:
    rungs = read_rungs([collected(1, 15, 16), collected(2, 16, 18)], "cifar10", LABELS)
    axes = draw(rungs, REFERENCES, POINTS, "cifar10").axes[0]
    points = {
        (round(x, 4), round(y, 2)) for line in axes.lines for x, y in line.get_xydata() if line.get_marker() != "None"
    }
    assert {(0.0295, 85.0), (0.0295, 77.5), (0.123, 80.0), (0.36, 94.0)} <= points


def test_a_row_that_its_predictions_do_not_give_is_refused() -> None:
    row = collected(1, 15, 16)
    assert accuracy(row, "plain", LABELS) == 0.75
    with pytest.raises(ExpectedError, match=r"gives 0\.750000, and beyond/runs/runs\.csv says 0\.8"):
        accuracy(row | {"test.accuracy": 0.8}, "plain", LABELS)
    with pytest.raises(ExpectedError, match="is of cifar10, and the paper's models of synthetic"):
        read_rungs([row], "synthetic", LABELS)


def test_the_paper_s_models_cost_what_the_issue_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (keras, resnet, both), source = read_references()
    assert source == "cifar10"
    assert keras.pflop == pytest.approx(0.123, abs=0.001)
    assert resnet.pflop == pytest.approx(0.217, abs=0.001)
    assert both.pflop == keras.pflop + resnet.pflop
    assert both.accuracy > max(keras.accuracy, resnet.accuracy)


def test_the_committed_page_follows_from_the_committed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    ladder, published = compare.load_ladder(), load_checked(compare.PUBLISHED, compare.Published)
    references, source = read_references()
    labels = compare.read_arrays(Path("metrics/predictions/keras_cnn.npz"))["labels"]
    rungs = read_rungs([*compare.collected_rows(all_runs(ladder)).values()], source, labels)
    assert compare.PAGE.read_text(encoding="utf-8") == render(ladder, rungs, references, published.points, source)
