"""Table 2: which interpretation answers it."""

from typing import Any

import yaml

from stages.common.paths import NUMBERS
from stages.experiments.table import write_runs
from tests.support.made_up_results import (
    ROOT,
    collected,
    compared,
    comparison_text,
)

TABLE_2 = {row["id"] for row in yaml.safe_load((ROOT / NUMBERS).read_text())["results"] if row["where"] == "Table 2"}

FLIPS = {"keras_cnn.augmentation": "flip"}
UNIFORM = {"keras_cnn.dropout_profile": "uniform"}
CELLS = [(64, 0.3), (64, 0.4), (128, 0.3), (128, 0.4)]


def cells(accuracies: list[float], **more: Any) -> list[dict[str, Any]]:
    return [collected(*cell, accuracy, **more) for cell, accuracy in zip(CELLS, accuracies, strict=True)]


def names(grid: dict[str, Any]) -> list[str]:
    return [found["name"] for found in grid["interpretations"]]


def test_the_interpretation_with_the_most_cells_answers_table_2() -> None:
    write_runs(cells([0.83, 0.84, 0.82, 0.81], **FLIPS))
    rows = compared()
    assert {rows[row_id]["status"] for row_id in TABLE_2} == {"answered"}
    row = rows["T2.64-0.4.acc"]
    assert (row["ours"], row["difference"], row["runs"], row["spread"]) == (84.0, -1.8, 1, None)
    assert row["interpretation"] == "flip"
    first = rows["T2.64-0.3.loss"]
    assert (first["ours"], first["difference"]) == (0.17, -0.307)
    assert rows["T1.keras.acc"]["ours"] != 83.0  # Table 1's rows are still of Table 1's run
    assert rows["T1.keras.acc"]["runs"] == 1


def test_of_interpretations_with_as_many_cells_the_nearest_answers() -> None:
    near, far = [0.85, 0.86, 0.84, 0.85], [0.80, 0.80, 0.80, 0.80]
    write_runs(cells(far, **FLIPS) + cells(near, **UNIFORM))
    rows = compared()
    assert rows["T2.128-0.4.acc"]["interpretation"] == "uniform"
    (grid,) = compared("grids").values()
    assert names(grid) == ["uniform", "flip", "as Table 1"]
    assert grid["legend"] == {"as Table 1": {}, "flip": FLIPS, "uniform": UNIFORM}
    # |85-85.2|, |86-85.8|, |84-84.5|, |85-85.1|, and |0.15-0.477|, |0.14-0.467|, |0.16-0.493|, |0.15-0.482|
    assert grid["interpretations"][0]["distance"] == {"percent": 0.25, "nats": 0.32975}
    shown = " ".join(comparison_text().split())
    assert "(4 of 4), the nearest is `uniform`**: 0.25 points and 0.330 nats" in shown
    assert "The test set chose the nearest interpretation" in shown
    assert "is 86.00 % (`uniform`), which reaches the paper's 85.8 %." in shown


def test_a_short_run_ranks_and_answers_nothing() -> None:
    write_runs([collected(*cell, 0.85, **{"keras_cnn.epochs": 12}) for cell in CELLS])
    rows = compared()
    assert {row_id for row_id in TABLE_2 if rows[row_id]["runs"]} == {"T2.64-0.3.acc", "T2.64-0.3.loss"}
    (grid,) = compared("grids").values()
    assert [(found["name"], found["in_full"]) for found in grid["interpretations"]] == [
        ("as Table 1", True),
        ("as Table 1 (epochs=12)", False),
    ]


def test_a_cell_that_the_nearest_interpretation_lacks_waits_and_says_so() -> None:
    write_runs(cells([0.83, 0.84, 0.82, 0.81], **FLIPS)[:3])
    row = compared()["T2.128-0.4.acc"]
    assert (row["status"], row["ours"], row["runs"]) == ("waits", None, 0)
    assert row["reasons"] == ["the nearest interpretation (flip) has no run of this cell yet"]
    assert "It has no run yet of Keras CNN, batch 128, dropout 0.4." in " ".join(comparison_text().split())
    assert "T2.128-0.4.acc" in comparison_text().split("## What no number here answers")[1]


def test_a_run_on_synthetic_data_counts_nowhere() -> None:
    rows = [*cells([0.9] * 4, **FLIPS), collected(64, 0.3, 0.99, seed=8)]
    write_runs([row | {"source": "synthetic"} for row in rows])
    (grid,) = compared("grids").values()
    assert names(grid) == ["as Table 1"]
    assert compared()["T1.keras.acc"]["runs"] == 1


def test_a_run_under_two_names_counts_once() -> None:
    row = collected(64, 0.4, 0.84)
    write_runs([row, row | {"name": "again"}])
    (grid,) = compared("grids").values()
    assert grid["interpretations"][0]["numbers"]["T2.64-0.4.acc"]["runs"] == 1


def test_the_highest_accuracy_is_a_run_s_and_not_a_mean() -> None:
    write_runs([collected(64, 0.4, accuracy, seed) for seed, accuracy in ((8, 0.80), (9, 0.87))])
    assert "The highest test accuracy of these runs is 87.00 % (`as Table 1`), which reaches" in " ".join(
        comparison_text().split()
    )


def test_a_run_that_differs_in_what_no_interpretation_names_is_none() -> None:
    searched = {"keras_cnn.learning_rate": 0.002}
    write_runs(cells([0.86] * 4, **searched) + cells([0.86] * 4, **FLIPS, **searched))
    (grid,) = compared("grids").values()
    assert names(grid) == ["as Table 1"]
    assert grid["highest"]["ours"] < 86
