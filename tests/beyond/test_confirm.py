"""The page of what the searches found, from made-up trials and runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from beyond import confirm
from stages.common.errors import ExpectedError
from stages.common.files import write_rows
from stages.experiments.table import write_runs
from tests.support.made_up_results import change_json, collected, write_results

SPACE = {"keras_cnn.learning_rate": {"low": 0.0001, "high": 0.1}, "keras_cnn.dropout_profile": {"choices": ["a", "b"]}}
STUDY = {
    "target": "train_keras_cnn",
    "parameters": "params.yaml",
    "record": "metrics/runs/keras_cnn.json",
    "set": ["keras_cnn.epochs=27"],
    "epochs": 60,
    "space": SPACE,
}
FOUND = {"keras_cnn.learning_rate": 0.00123, "keras_cnn.dropout_profile": "uniform"}  # as rounded for full trainings


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results()
    Path("beyond/search").mkdir(parents=True)
    Path("beyond/search.yaml").write_text(json.dumps({"studies": {"ours": STUDY, "not_begun": STUDY}}))
    write_trials(trial(3, 0.81, 0.0012345678), trial(0, 0.79, 0.001, "rising", note=confirm.COMMITTED))


def trial(number: int, accuracy: float | None, rate: Any, profile: str = "uniform", **more: Any) -> dict[str, Any]:
    state = "complete" if accuracy else "pruned"
    given = {"trial": number, "state": state, "validation_accuracy": accuracy, "epochs": 27 if accuracy else 9}
    return given | {"note": None} | more | {"keras_cnn.learning_rate": rate, "keras_cnn.dropout_profile": profile}


def write_trials(*rows: dict[str, Any]) -> None:
    write_rows(Path("beyond/search/ours.csv"), [*rows, trial(1, None, 0.05)])


def page() -> str:
    confirm.main()
    return Path("beyond/metrics/search.md").read_text()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows_after(header: str, text: str) -> list[list[str]]:
    lines = text[text.index(header) :].splitlines()[2:]
    return [cells(line) for line in lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))]]


def test_it_shows_the_finished_trials_and_how_the_others_ended() -> None:
    shown = page()
    said = " ".join(shown.split())
    assert (
        "3 trials of train_keras_cnn with keras_cnn.epochs=27, 63 epochs of a budget of 60: 2 finished, 1 ended" in said
    )
    assert rows_after("| Trial", shown) == [
        ["3", "81.00 %", "27", "0.00123", "uniform", ""],
        ["0", "79.00 %", "27", "0.001", "rising", "the committed values"],
    ]
    assert "not_begun" not in shown
    assert "![" not in shown
    Path("beyond/search/ours_slice.png").touch()
    assert "(../search/ours_slice.png)" in page()


def test_the_best_values_are_confirmed_by_full_runs_seed_by_seed() -> None:
    assert (
        "### Trained in full with keras_cnn.learning_rate=0.00123, keras_cnn.dropout_profile=uniform\n\nNot run"
        in page()
    )
    committed = [collected(64, 0.3, accuracy, seed) for seed, accuracy in ((1, 0.80), (2, 0.81), (3, 0.80), (4, 0.9))]
    found = [collected(64, 0.3, accuracy, seed, **FOUND) for seed, accuracy in ((1, 0.82), (2, 0.83), (3, 0.825))]
    write_runs([*committed, *found, collected(64, 0.4, 0.99, 1, **FOUND), collected(64, 0.3, 0.99, 5, **FOUND)])
    shown = page()
    assert rows_after("| Seed", shown) == [
        ["1", "82.00 %", "0.180", "80.00 %", "0.200"],
        ["2", "83.00 %", "0.170", "81.00 %", "0.190"],
        ["3", "82.50 %", "0.175", "80.00 %", "0.200"],
    ]
    # 2.0, 2.0 and 2.5 points: s = 0.2887, t(2) = 4.303, so 2.167 ± 0.717
    said = " ".join(shown.split())
    assert "+2.17 points of accuracy (+1.45 to +2.88, 3 pairs): higher; -0.022 nats (-0.029 to -0.014, 3 pairs)" in said


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([0.80], "+1.00 points of accuracy (1 pair, no interval)"),
        ([0.81, 0.81], "+2.00 points of accuracy (2 pairs, no interval);"),
        ([0.80, 0.78, 0.79], "+0.00 points of accuracy (-2.48 to +2.48, 3 pairs): cannot tell"),
        ([0.79, 0.79, 0.79], "+0.00 points of accuracy (+0.00 to +0.00, 3 pairs): cannot tell"),
        ([0.77, 0.77, 0.77], "-2.00 points of accuracy (-2.00 to -2.00, 3 pairs): lower"),
    ],
)
def test_it_says_what_so_many_pairs_can(found: list[float], says: str) -> None:
    rows = [collected(64, 0.3, accuracy, seed, **FOUND) for seed, accuracy in enumerate(found, start=1)]
    write_runs([*rows, *(collected(64, 0.3, 0.79, seed) for seed in (1, 2, 3))])
    assert says in " ".join(page().split())


def test_there_is_nothing_to_confirm_where_the_committed_values_are_the_best() -> None:
    write_trials(trial(0, 0.79, 0.001, "rising", note=confirm.COMMITTED), trial(3, 0.78, 0.0012))
    assert "The best finished trial has the committed values." in page()
    write_trials(trial(3, 0.81, 0.0010001, "rising"), trial(0, 0.79, 0.001, "rising", note=confirm.COMMITTED))
    assert "The best finished trial has the committed values." in page()  # as it would be trained in full


def test_there_is_nothing_to_compare_with_where_the_committed_values_were_not_tried() -> None:
    write_trials(trial(3, 0.81, 0.0012))
    assert "No finished trial has the committed values" in page()


def test_only_found_values_are_rounded() -> None:
    """The runs with the committed values have those as params.yaml writes them."""
    change_json("metrics/runs/keras_cnn.json", "parameters.keras_cnn.learning_rate", 0.0011111)
    write_trials(trial(3, 0.81, 0.0012345678), trial(0, 0.79, 0.0011111, "rising", note=confirm.COMMITTED))
    write_runs([collected(64, 0.3, 0.8, 1), collected(64, 0.3, 0.82, 1, **FOUND)])
    assert "+2.00 points of accuracy (1 pair, no interval)" in " ".join(page().split())


def test_a_study_without_a_finished_trial_has_no_table() -> None:
    write_trials()
    assert " ".join(page().split()).endswith("9 epochs of a budget of 60: 0 finished, 1 ended by the pruner, 0 failed.")


def test_the_second_pipeline_s_best_values_go_to_the_ladder() -> None:
    study = STUDY | {"parameters": "beyond/params.yaml", "record": "beyond/metrics/run.json"}
    Path("beyond/search.yaml").write_text(json.dumps({"studies": {"ours": study}}))
    assert "[ladder](ladder.md)" in page()


def test_without_a_search_it_says_so() -> None:
    Path("beyond/search/ours.csv").unlink()
    assert "None was run yet." in page()


def test_a_parameter_that_the_table_lacks_is_one_line() -> None:
    study = STUDY | {"space": SPACE | {"dropout": {"low": 0.0, "high": 0.5}}}
    Path("beyond/search.yaml").write_text(json.dumps({"studies": {"ours": study}}))
    with pytest.raises(
        ExpectedError, match=r"beyond/search/ours.csv has no dropout, which beyond/search.yaml searches"
    ):
        page()


def test_a_table_that_is_not_whole_is_one_line() -> None:
    write_trials(trial(3, 0.81, None))
    with pytest.raises(
        ExpectedError, match=r"beyond/search/ours.csv: line 2 is incomplete; correct it, or git restore"
    ):
        page()
