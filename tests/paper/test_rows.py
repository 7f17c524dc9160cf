"""Which run answers which row, and the arithmetic of the comparison."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from stages.common.errors import ExpectedError
from stages.common.files import flat, read_json, read_rows, write_json, write_rows
from stages.common.paths import NUMBERS
from stages.experiments.table import write_runs
from stages.paper.numbers import load_numbers
from stages.paper.ours import read_own_run
from stages.paper.rows import differing, half_a_digit, shown
from tests.support.made_up_results import (
    CLASSES,
    ROOT,
    change_json,
    collected,
    compared,
    comparison_text,
    statuses,
    write_results,
)

TABLE_2 = {row["id"] for row in yaml.safe_load((ROOT / NUMBERS).read_text())["results"] if row["where"] == "Table 2"}


def test_a_run_with_the_papers_parameters_answers_all_but_the_cells_that_were_not_run() -> None:
    own_cell = {"T2.64-0.3.acc", "T2.64-0.3.loss"}  # Table 1's own batch size and dropout rate
    assert {row for row, status in statuses().items() if status == "answered"} == set(compared()) - TABLE_2 | own_cell
    assert {row for row, status in statuses().items() if status == "waits"} == TABLE_2 - own_cell
    for part in ("details", "lists", "curves"):
        assert set(statuses(part).values()) == {"answered"}


def test_another_dropout_is_named_and_leaves_the_other_model_answered() -> None:
    change_json("metrics/runs/keras_cnn.json", "parameters.dropout", 0.4)
    rows = compared()
    row = rows["T1.keras.acc"]
    assert (row["status"], row["reasons"]) == ("not answered", ["dropout is 0.4, the row holds for 0.3"])
    assert (row["ours"], row["difference"], row["runs"]) == (None, None, 0)
    assert rows["T1.resnet.acc"]["status"] == "answered"
    assert "**not answered**: dropout is 0.4, the row holds for 0.3" in " ".join(comparison_text().split())
    for part, row_id in (("curves", "F1"), ("lists", "N.report.f1"), ("details", "S33.plateau")):
        assert compared(part)[row_id]["status"] == "not answered"
    assert compared("curves")["F1"]["columns"] == []


def test_every_parameter_that_differs_is_named() -> None:
    change_json("metrics/runs/resnet18.json", "parameters.resnet18.weights", "imagenet")
    change_json("metrics/runs/resnet18.json", "parameters.resnet18.early_stopping_patience", 3)
    assert compared()["C.resnet.acc"]["reasons"] == [
        "resnet18.weights is imagenet, the row holds for none",
        "resnet18.early_stopping_patience is 3, the row holds for null",
    ]


@pytest.mark.parametrize(
    ("model", "free"),
    [
        ("keras_cnn", {"seed", "keras_cnn.device"}),
        (
            "resnet18",
            {
                "seed",
                "resnet18.device",
                "resnet18.weights_file",
                "resnet18.reduce_lr_factor",
                "resnet18.min_learning_rate",
                "split.validation_fraction",
                "split.random_state",
            },
        ),
    ],
)
def test_every_parameter_counts_but_those_that_the_paper_leaves_open(model: str, free: set[str]) -> None:
    file = f"metrics/runs/{model}.json"
    run = read_json(Path(file))
    wanted = load_numbers().configurations[f"{model}_table1"]
    answering = set()
    for key in flat({"parameters": run["parameters"], "split": run["split"]}):
        change_json(file, key, "changed")
        if not differing(wanted, read_own_run(model).parameters):
            answering.add(key.removeprefix("parameters."))
        write_json(Path(file), run)
    assert answering == free


def test_a_parameter_of_which_the_row_says_nothing_leaves_it_unanswered() -> None:
    run = read_json(Path("metrics/runs/keras_cnn.json"))
    run["parameters"]["keras_cnn"]["precision"] = "half"
    write_json(Path("metrics/runs/keras_cnn.json"), run)
    assert compared()["T1.keras.acc"]["reasons"] == ["keras_cnn.precision is half, of which the row says nothing"]


def test_the_number_of_weights_depends_on_the_layers_alone() -> None:
    change_json("metrics/runs/keras_cnn.json", "parameters.dropout", 0.4)
    assert compared("details")["N.params.total"]["status"] == "answered"
    change_json("metrics/runs/keras_cnn.json", "parameters.keras_cnn.dense_units", 64)
    assert compared("details")["N.params.total"]["reasons"] == ["keras_cnn.dense_units is 64, the row holds for 128"]


def test_a_number_that_was_not_measured_leaves_its_row_unanswered() -> None:
    metrics = read_json(Path("metrics/resnet18.json"))
    del metrics["test_augmented"]  # as evaluate.augmented_draws=0 leaves it
    write_json(Path("metrics/resnet18.json"), metrics)
    row = compared()["T1.resnet.acc"]
    assert row["status"] == "not answered"
    assert row["reasons"] == ["there is no metrics/resnet18.json test_augmented.accuracy"]
    also = compared()["T1.resnet.loss"]["also"]
    assert [other["ours"] is None for other in also] == [False, True]


def test_differences_are_ours_less_the_papers_in_its_unit() -> None:
    change_json("metrics/keras_cnn.json", "test.accuracy", 0.8175)
    change_json("metrics/keras_cnn.json", "test.loss", 0.5284)
    change_json("metrics/keras_cnn.json", "test.precision_macro", 0.79)
    results, details = compared(), compared("details")
    assert (results["T1.keras.acc"]["ours"], results["T1.keras.acc"]["difference"]) == (81.75, 1.0)
    assert (results["T1.keras.loss"]["ours"], results["T1.keras.loss"]["difference"]) == (0.5284, -0.0196)
    assert details["N.report.macro.precision"]["difference"] == -0.01
    line = next(
        line for line in comparison_text().splitlines() if "Keras CNN, test accuracy" in line and "80.75" in line
    )
    assert [cell.strip() for cell in line.split("|")[2:5]] == ["80.75 %", "81.75 %", "+1.00"]


def test_several_runs_have_the_prediction_interval_of_one_more() -> None:
    own = 100 * read_json(Path("metrics/keras_cnn.json"))["test"]["accuracy"]
    write_runs([collected(64, 0.3, accuracy, seed) for seed, accuracy in ((8, 0.81), (9, 0.82))])
    row = compared()["T1.keras.acc"]
    assert row["values"] == pytest.approx([own, 81.0, 82.0])
    assert row["seeds"] == [7, 8, 9]
    half = 4.302653 * np.std(row["values"], ddof=1) * (4 / 3) ** 0.5  # t of 2 degrees of freedom, 97.5 %
    assert row["interval"] == pytest.approx([row["ours"] - half, row["ours"] + half], abs=1e-4)
    assert row["inside"] == (row["interval"][0] <= 80.75 <= row["interval"][1])
    line = next(line for line in comparison_text().splitlines() if "Keras CNN, test accuracy" in line)
    assert line.split("|")[-2].strip() == "3"
    assert f"{row['interval'][0]:.2f}\N{EN DASH}{row['interval'][1]:.2f} |" in comparison_text()


@pytest.mark.parametrize(
    ("accuracies", "inside"),
    [((0.8070, 0.8080, 0.8075), True), ((0.70, 0.7001, 0.7002), False), ((0.8070, 0.8080), None)],
)
def test_a_printed_number_is_inside_or_outside(accuracies: tuple[float, ...], inside: bool | None) -> None:
    """Of two runs it is neither: their interval would hold nearly everything."""
    change_json("metrics/keras_cnn.json", "test.accuracy", accuracies[0])
    write_runs([collected(64, 0.3, accuracy, seed) for seed, accuracy in enumerate(accuracies[1:], start=8)])
    row = compared()["T1.keras.acc"]
    assert row["inside"] is inside
    assert row["spread"] > 0


@pytest.mark.parametrize(
    ("row", "score", "ours", "inside"),
    [
        ("T1.keras.acc", "test.accuracy", 0.80746, True),  # printed: 80.75 %
        ("T1.keras.acc", "test.accuracy", 0.80744, False),
        ("T1.keras.loss", "test.loss", 0.54752, True),  # printed: 0.548
        ("T1.keras.loss", "test.loss", 0.54748, False),
    ],
)
def test_a_value_that_rounds_to_the_printed_number_is_inside(row: str, score: str, ours: float, inside: bool) -> None:
    """Three runs without scatter have an interval without width."""
    change_json("metrics/keras_cnn.json", score, ours)
    write_runs([collected(64, 0.3, 0.8, seed) | {score: ours} for seed in (8, 9)])
    found = compared()[row]
    assert found["interval"] == pytest.approx([found["ours"]] * 2)
    assert found["inside"] is inside


def test_one_run_has_no_interval() -> None:
    row = compared()["T1.keras.acc"]
    assert (row["interval"], row["inside"], row["spread"], row["seeds"]) == (None, None, None, [7])
    line = next(line for line in comparison_text().splitlines() if "Keras CNN, test accuracy" in line)
    assert line.split("|")[-2].strip() == "1"


def test_resnets_numbers_are_compared_like_for_like_and_the_clean_ones_are_shown() -> None:
    rows, ours = compared(), read_json(Path("metrics/resnet18.json"))
    accuracy, loss = rows["T1.resnet.acc"], rows["T1.resnet.loss"]
    assert accuracy["ours"] == pytest.approx(100 * ours["test_augmented"]["accuracy"])
    assert loss["ours"] == ours["train"]["loss"] == 0.4485
    assert accuracy["also"][0]["ours"] == pytest.approx(100 * ours["test"]["accuracy"])
    assert accuracy["also"][1]["ours"] == pytest.approx(100 * ours["test_augmented"]["accuracy_std"])
    assert [other["ours"] for other in loss["also"]] == [ours["test"]["loss"], ours["test_augmented"]["loss"]]
    assert comparison_text().count("Our clean test set: ") == 3


def test_curves_differ_by_what_was_changed() -> None:
    file = Path("metrics/history/keras_cnn.csv")
    rows = read_rows(file)
    rows[2]["val_loss"] = str(round(float(rows[2]["val_loss"]) - 0.5, 4))
    rows[9]["val_loss"] = str(round(float(rows[9]["val_loss"]) + 0.25, 4))
    write_rows(file, rows)
    columns = {column["column"]: column for column in compared("curves")["F1"]["columns"]}
    assert list(columns) == ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"]
    assert columns["val_loss"] == {
        "column": "val_loss",
        "epochs": 50,
        "paper_epochs": 50,
        "mean": 0.015,
        "largest": 0.5,
        "at": 3,
    }
    assert columns["val_accuracy"]["largest"] == 0


def test_curves_are_compared_over_the_epochs_that_both_have() -> None:
    file = Path("metrics/history/resnet18.csv")
    rows = [row | {"val_loss": "", "val_accuracy": ""} for row in read_rows(file)[:10]]
    rows[9]["train_loss"] = str(float(rows[9]["train_loss"]) + 1)
    write_rows(file, rows)
    columns = {column.pop("column"): column for column in compared("curves")["F2"]["columns"]}
    assert columns["train_loss"] == {"epochs": 10, "paper_epochs": 20, "mean": 0.1, "largest": 1.0, "at": 10}
    assert columns["val_loss"] == {"epochs": 0, "paper_epochs": 20, "mean": None, "largest": None, "at": None}


def test_lists_are_compared_class_by_class() -> None:
    rows = compared("lists")
    report = read_rows(Path("metrics/per_class/keras_cnn.csv"))
    assert rows["N.report.recall"]["ours"] == [float(row["recall"]) for row in report]
    first = rows["N.report.recall"]
    assert first["difference"][3] == pytest.approx(first["ours"][3] - 0.58)
    airplanes = rows["N.confusion"]
    answers = read_rows(Path("metrics/confusion/keras_cnn.csv"))
    taken = [row["predicted"] for row in answers if row["actual"] == "airplane"]
    assert airplanes["ours"] == [taken.count(name) for name in CLASSES]
    assert sum(airplanes["ours"]) == 1000
    assert airplanes["difference"][0] == taken.count("airplane") - 839


def test_a_list_of_another_length_is_named() -> None:
    NUMBERS.write_text(NUMBERS.read_text().replace("values: [0.81, 0.91,", "values: [0.91,"))
    message = r"N\.report\.precision has 9 values, and metrics/per_class/keras_cnn\.csv precision has 10"
    with pytest.raises(ExpectedError, match=message):
        compared("lists")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1024, "1024"),
        (1e-05, "1e-05"),
        ([32, 64], "[32, 64]"),
        (["a", "b"], '["a", "b"]'),
        ("none", "none"),
    ],
)
def test_a_parameter_is_shown_as_params_yaml_writes_it(value: Any, text: str) -> None:
    assert shown(value) == text


def test_a_number_may_have_other_digits_than_its_unit() -> None:
    assert (half_a_digit(80.1, "percent"), half_a_digit(80.1, "percent", 2)) == (0.05, 0.005)
    assert "decimals" not in compared()["T1.keras.acc"]
    NUMBERS.write_text(NUMBERS.read_text().replace("    value: 80.75\n", "    value: 80.75\n    decimals: 3\n"))
    assert compared()["T1.keras.acc"]["decimals"] == 3
    assert "80.750 %" in comparison_text()


def test_the_plateau_is_the_mean_from_epoch_20_on() -> None:
    file = Path("metrics/history/keras_cnn.csv")
    accuracies = dict.fromkeys(range(1, 20), 0.1) | {20: 0.45} | dict.fromkeys(range(21, 51), 0.78)
    write_rows(file, [row | {"train_accuracy": accuracies[int(row["epoch"])]} for row in read_rows(file)])
    plateau = compared("details")["S33.plateau"]
    assert plateau["ours"] == pytest.approx(100 * (0.45 + 30 * 0.78) / 31, abs=1e-4)
    assert plateau["difference"] == pytest.approx(plateau["ours"] - 75, abs=1e-4)


def add_ablation(value: float) -> None:
    """A row of the paper for a dropout rate that `dvc repro` does not have."""
    content = yaml.safe_load(NUMBERS.read_text())
    table_1 = content["configurations"]["keras_cnn_table1"]
    parameters = table_1["parameters"] | {"dropout": 0.1}
    content["configurations"]["ablation"] = table_1 | {"parameters": parameters, "collected": True}
    (row,) = (row for row in content["results"] if row["id"] == "T1.keras.acc")
    content["results"].append(row | {"id": "ablation", "configuration": "ablation", "value": value})
    NUMBERS.write_text(json.dumps(content))


def test_collected_runs_alone_answer_a_row_whose_parameters_dvc_repro_does_not_have() -> None:
    add_ablation(value=82.0)
    row = compared()["ablation"]
    assert (row["status"], row["runs"], row["ours"]) == ("waits", 0, None)
    assert row["reasons"] == ["no run with these parameters was collected yet"]
    assert "- ablation: no run with these parameters was collected yet; the clean test set" in comparison_text()
    found = [collected(64, 0.1, 0.81 + seed / 100, seed) for seed in (1, 2, 3)]
    write_runs([*found, collected(64, 0.1, 0.5, 4, **{"keras_cnn.augmentation": "flip"}), collected(64, 0.4, 0.5, 5)])
    row = compared()["ablation"]
    assert (row["status"], row["seeds"], row["ours"], row["difference"]) == ("answered", [1, 2, 3], 83.0, 1.0)
    assert row["inside"]
    assert compared()["T1.keras.acc"]["seeds"] == [7]


def test_of_other_data_such_a_row_is_not_compared() -> None:
    add_ablation(value=82.0)
    write_results({"keras_cnn": "synthetic"})
    add_ablation(value=82.0)
    assert compared()["ablation"]["status"] == "not compared"
