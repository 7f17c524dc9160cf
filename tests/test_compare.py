"""The comparison with the paper: complete, right in its arithmetic, and silent where it has no right to speak."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from stages import compare
from stages.addresses import look_up, look_up_json
from stages.errors import ExpectedError
from stages.experiments import flat, recorded_parameters, write_runs
from stages.files import read_json, read_rows, write_json, write_rows
from stages.markdown import render, results_table, table
from stages.paper import NUMBERS, load_numbers
from tests.made_up_results import CLASSES, ROOT, change_json, write_results

# What the paper prints, typed in again from the paper itself.
RESULTS = {
    "T1.keras.acc": 80.75,
    "T1.keras.loss": 0.548,
    "T1.resnet.acc": 80.03,
    "T1.resnet.loss": 0.449,
    "T2.64-0.3.acc": 85.2,
    "T2.64-0.3.loss": 0.477,
    "T2.64-0.4.acc": 85.8,
    "T2.64-0.4.loss": 0.467,
    "T2.128-0.3.acc": 84.5,
    "T2.128-0.3.loss": 0.493,
    "T2.128-0.4.acc": 85.1,
    "T2.128-0.4.loss": 0.482,
    "C.keras.val": 80.28,
    "C.resnet.acc": 80.03,
}
DETAILS = {
    "S33.plateau": 75,
    "N.report.macro.precision": 0.80,
    "N.report.macro.recall": 0.81,
    "N.report.macro.f1": 0.81,
    "N.params.total": 358_218,
    "N.params.trainable": 357_514,
    "N.params.fixed": 704,
}
LISTS = {
    "N.report.precision": [0.81, 0.91, 0.76, 0.68, 0.76, 0.72, 0.85, 0.83, 0.85, 0.88],
    "N.report.recall": [0.84, 0.92, 0.70, 0.58, 0.79, 0.71, 0.88, 0.85, 0.92, 0.88],
    "N.report.f1": [0.82, 0.91, 0.73, 0.63, 0.77, 0.72, 0.86, 0.84, 0.89, 0.88],
    "N.confusion": [839, 14, 21, 9, 9, 5, 1, 12, 67, 23],
}
SETTINGS = {
    "data.images": 60_000,
    "data.classes": 10,
    "data.images_per_class": 6000,
    "data.image_shape": [32, 32, 3],
    "keras.filters": [32, 64, 128],
    "keras.kernel_size": 3,
    "keras.dense_units": 128,
    "keras.dropout.first": 0.3,
    "keras.dropout.last": 0.5,
    "keras.learning_rate": 0.001,
    "keras.reduce_lr_factor": 0.5,
    "keras.reduce_lr_patience": 5,
    "keras.batch_size": 64,
    "keras.epochs": 50,
    "resnet.learning_rate": 0.001,
    "resnet.epochs": 20,
    "resnet.batch_size": 64,
}
# What the text says and the notebook did not do.
CONTRADICTED = {
    "keras.augmentation",
    "resnet.pretrained",
    "resnet.frozen",
    "resnet.weight_decay",
    "resnet.test_augmentation",
    "resnet.early_stopping",
    "resnet.reduce_lr",
}
TABLE_2 = {row for row in RESULTS if row.startswith("T2.")}


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results()


def compared(part: str = "results") -> dict[str, dict[str, Any]]:
    """The rows of a new comparison by id."""
    compare.main()
    return {row["id"]: row for row in read_json(compare.COMPARISON_JSON)[part]}


def statuses(part: str = "results") -> dict[str, str]:
    return {row_id: row["status"] for row_id, row in compared(part).items()}


def text() -> str:
    compare.main()
    return compare.COMPARISON_MD.read_text(encoding="utf-8")


# The paper's numbers


@pytest.mark.parametrize(("part", "values"), [("results", RESULTS), ("details", DETAILS), ("lists", LISTS)])
def test_every_number_of_the_paper_is_there(part: str, values: dict[str, Any]) -> None:
    assert {row_id: row["paper"] for row_id, row in compared(part).items()} == values


def test_figures_settings_and_the_time_are_there() -> None:
    assert list(compared("curves")) == ["F1", "F2"]
    assert list(compared("not_compared")) == ["N.time"]
    settings = compared("settings")
    assert {row_id: settings[row_id]["text"] for row_id in SETTINGS} == SETTINGS


def test_every_row_says_where_it_is_from() -> None:
    numbers = load_numbers(ROOT / NUMBERS)
    for row in [*numbers.results, *numbers.details, *numbers.lists, *numbers.curves]:
        assert row.where
        assert row.known_from == ("text" if row.id.startswith("T2.") else "notebook")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    value: 80.75\n", "    value: 80.75\n    vallue: 1\n", "results.0.vallue"),
        ("    value: 80.75\n", "    value: '80.75'\n", "results.0.value"),
        ("    value: 80.75\n", "", "results.0.value"),
        ("- id: T1.keras.loss", "- id: T1.keras.acc", "more than one row has the id T1.keras.acc"),
        ("    configuration: keras_cnn_table1\n", "    configuration: nowhere\n", "'nowhere'"),
        ("    known_from: notebook\n", "    known_from: hearsay\n", "'hearsay'"),
        ("    model: keras_cnn\n", "    model: vgg\n", "'vgg'"),
        ("results:", "results: [", "not valid YAML"),
    ],
)
def test_a_fault_in_the_papers_numbers_is_one_clear_line(old: str, new: str, message: str) -> None:
    content = NUMBERS.read_text(encoding="utf-8")
    assert old in content
    NUMBERS.write_text(content.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ExpectedError, match=re.escape(message)) as caught:
        compare.main()
    assert str(NUMBERS) in str(caught.value)
    assert "\n" not in str(caught.value)


# Which run answers which row


def test_a_run_with_the_papers_parameters_answers_all_but_the_cells_that_were_not_run() -> None:
    own_cell = {"T2.64-0.3.acc", "T2.64-0.3.loss"}  # Table 1's own batch size and dropout rate
    assert {row for row, status in statuses().items() if status == "answered"} == set(RESULTS) - TABLE_2 | own_cell
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
    shown = results_table(read_json(compare.COMPARISON_JSON))
    assert "**not answered**: dropout is 0.4, the row holds for 0.3" in shown
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
        if not compare.differing(wanted, compare.read_own_run(model).parameters):
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
    beside = compared()["T1.resnet.loss"]["beside"]
    assert [other["ours"] is None for other in beside] == [False, True]


# The runs of metrics/runs.csv

FLIPS = {"keras_cnn.augmentation": "flip"}
CELLS = [(64, 0.3), (64, 0.4), (128, 0.3), (128, 0.4)]
READING = "keras_cnn.augmentation=flip"


def collected(batch_size: int, dropout: float, accuracy: float, seed: int = 7, **more: Any) -> dict[str, Any]:
    """A row of metrics/runs.csv with Table 1's other parameters, but for `more`."""
    record = read_json(Path("metrics/runs/keras_cnn.json"))
    parameters = recorded_parameters(record) | {"seed": seed, "batch_size": batch_size, "dropout": dropout} | more
    name = f"run-{batch_size}-{dropout}-{seed}-{len(more)}"
    scores = {"source": "cifar10", "code": "c", "data": "d", "test.accuracy": accuracy, "test.loss": 1 - accuracy}
    return {"name": name, "model": "keras_cnn", **scores, **parameters}


def cells_of_a_reading(accuracies: list[float], **more: Any) -> list[dict[str, Any]]:
    return [collected(*cell, accuracy, **more) for cell, accuracy in zip(CELLS, accuracies, strict=True)]


def test_the_reading_with_the_most_cells_answers_table_2_and_table_1_s_stands_beside_it() -> None:
    write_runs(cells_of_a_reading([0.83, 0.84, 0.82, 0.81], **FLIPS))
    rows = compared()
    assert {rows[row_id]["status"] for row_id in TABLE_2} == {"answered"}
    row = rows["T2.64-0.4.acc"]
    assert (row["ours"], row["difference"], row["runs"], row["spread"]) == (84.0, -1.8, 1, None)
    assert row["uncertainty"] == pytest.approx(0.72, abs=0.005)
    assert row["ours_is"] == READING
    assert row["beside"] == []
    first = rows["T2.64-0.3.loss"]
    assert (first["ours"], first["difference"]) == (0.17, -0.307)
    (own,) = first["beside"]
    assert own["what"] == "ours, with everything else as Table 1"
    assert own["ours"] == read_json(Path("metrics/keras_cnn.json"))["test"]["loss"]
    assert rows["T1.keras.acc"]["ours"] != 83.0  # Table 1's rows are still of Table 1's run
    assert rows["T1.keras.acc"]["runs"] == 1


def test_of_readings_with_as_many_cells_the_nearest_answers() -> None:
    uniform = {"keras_cnn.dropout_profile": "uniform"}
    near, far = [0.85, 0.86, 0.84, 0.85], [0.80, 0.80, 0.80, 0.80]
    write_runs(cells_of_a_reading(far, **FLIPS) + cells_of_a_reading(near, **uniform))
    rows = compared()
    assert rows["T2.128-0.4.acc"]["ours_is"] == "keras_cnn.dropout_profile=uniform"
    (grid,) = compared("grids").values()
    assert [reading["reading"] for reading in grid["readings"]] == [
        "keras_cnn.dropout_profile=uniform",
        READING,
        "as Table 1",
    ]
    # |85-85.2|, |86-85.8|, |84-84.5|, |85-85.1|, and |0.15-0.477|, |0.14-0.467|, |0.16-0.493|, |0.15-0.482|
    assert grid["readings"][0]["distance"] == {"percent": 0.25, "nats": 0.32975}
    shown = text()
    assert "(4 of 4), the nearest is keras_cnn.dropout_profile=uniform**: 0.25 points and 0.330 nats" in shown
    assert "is 86.00 % (keras_cnn.dropout_profile=uniform), which reaches the paper's 85.8 %." in shown


def test_several_seeds_give_their_mean_and_spread() -> None:
    rows = [collected(64, 0.3, accuracy, seed) for seed, accuracy in ((8, 0.80), (9, 0.82))]
    write_runs(rows)
    own = read_json(Path("metrics/keras_cnn.json"))["test"]["accuracy"]
    row = compared()["T1.keras.acc"]
    assert row["runs"] == 3
    assert row["ours"] == pytest.approx(100 * np.mean([own, 0.80, 0.82]), abs=1e-6)
    assert row["spread"] == pytest.approx(100 * np.std([own, 0.80, 0.82], ddof=1), abs=1e-6)
    assert f"| 3 (sd {row['spread']:.2f})" in text()
    assert compared("details")["N.params.total"]["runs"] == 1  # the others' files are not there


def test_the_run_of_dvc_repro_counts_once() -> None:
    write_runs([collected(64, 0.3, 0.99)])
    row = compared()["T1.keras.acc"]
    assert row["runs"] == 1
    assert row["ours"] != 99.0


def test_a_short_run_sorts_out_and_answers_nothing() -> None:
    write_runs([collected(*cell, 0.85, **{"keras_cnn.epochs": 12}) for cell in CELLS])
    rows = compared()
    assert {row_id for row_id in TABLE_2 if rows[row_id]["runs"]} == {"T2.64-0.3.acc", "T2.64-0.3.loss"}
    (grid,) = compared("grids").values()
    assert [(reading["reading"], reading["in_full"]) for reading in grid["readings"]] == [
        ("as Table 1", True),
        ("keras_cnn.epochs=12", False),
    ]


def test_a_cell_that_the_answering_reading_lacks_waits_and_says_so() -> None:
    write_runs(cells_of_a_reading([0.83, 0.84, 0.82, 0.81], **FLIPS)[:3])
    row = compared()["T2.128-0.4.acc"]
    assert (row["status"], row["ours"], row["runs"]) == ("waits", None, 0)
    assert row["reasons"] == [f"the reading that comes nearest ({READING}) has no run of this cell yet"]
    assert "It has no run yet of Keras CNN, batch 128, dropout 0.4." in text()
    assert "T2.128-0.4.acc" in text().split("## What no number here answers")[1]


def test_a_run_of_the_stand_in_counts_nowhere() -> None:
    rows = [*cells_of_a_reading([0.9] * 4, **FLIPS), collected(64, 0.3, 0.99, seed=8)]
    write_runs([row | {"source": "synthetic"} for row in rows])
    (grid,) = compared("grids").values()
    assert [reading["reading"] for reading in grid["readings"]] == ["as Table 1"]
    assert compared()["T1.keras.acc"]["runs"] == 1


def test_a_run_under_two_names_counts_once() -> None:
    row = collected(64, 0.4, 0.84)
    write_runs([row, row | {"name": "again"}])
    (grid,) = compared("grids").values()
    assert grid["readings"][0]["numbers"]["T2.64-0.4.acc"]["runs"] == 1


def test_the_highest_accuracy_is_a_run_s_and_not_a_mean() -> None:
    write_runs([collected(64, 0.4, accuracy, seed) for seed, accuracy in ((8, 0.80), (9, 0.87))])
    assert "The highest test accuracy of all runs is 87.00 % (as Table 1), which reaches" in text()


def test_lists_and_curves_are_of_one_run() -> None:
    write_runs([collected(64, 0.3, 0.80, seed=8)])
    assert compared("lists")["N.report.f1"]["runs"] == compared("curves")["F1"]["runs"] == 1


def test_what_is_still_to_run_is_named() -> None:
    row = {"model": "keras_cnn", "seeds": [7, 8], "set": ["dropout=0.4"]}
    Path("experiments.yaml").write_text(yaml.safe_dump({"configurations": {"later": row}, "same_results": {}}))
    write_runs([collected(64, 0.4, 0.84) | {"name": "later-seed7"}])
    assert "In experiments.yaml and not run yet: later-seed8." in text()


# The stand-in


def test_nothing_of_the_stand_in_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "synthetic").mkdir()
    monkeypatch.chdir(tmp_path / "synthetic")
    write_results({"dataset": "synthetic", "keras_cnn": "synthetic", "resnet18": "synthetic"})
    for part in ("results", "details", "lists", "curves", "settings"):
        assert set(statuses(part).values()) == {"not compared"}
    first = "**synthetic stand-in, not CIFAR-10: nothing here is compared with the paper**"
    assert text().splitlines()[2] == first
    for row_id, value in RESULTS.items():
        assert f"{value:g} %" not in text(), row_id
    accuracy = read_json(Path("metrics/resnet18.json"))["test"]["accuracy"]
    assert re.search(rf"^\| test\.accuracy +\| [0-9.]+ +\| {accuracy} \|$", text(), re.MULTILINE)


@pytest.mark.parametrize("dataset", ["cifar10", "synthetic"])
def test_one_model_of_the_stand_in_is_left_out_alone(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mixed").mkdir()
    monkeypatch.chdir(tmp_path / "mixed")
    write_results({"dataset": dataset, "keras_cnn": "synthetic"})
    assert statuses()["T1.keras.acc"] == statuses()["T2.64-0.3.acc"] == "not compared"
    assert statuses()["T1.resnet.acc"] == "answered"
    assert statuses("settings")["data.images"] == ("same" if dataset == "cifar10" else "not compared")
    assert "**Keras CNN: synthetic stand-in, not CIFAR-10: nothing of it is compared with the paper**" in text()
    assert "ResNet-18 (seed 7)" in text()
    assert "Keras CNN (seed 7)" not in text()
    assert "patience of early stopping" in text()  # ResNet-18's row of the settings, and not the Keras CNN's
    assert "filters of the three blocks" not in text()


def test_results_of_two_sources_in_one_model_are_refused() -> None:
    change_json("metrics/keras_cnn.json", "source", "synthetic")
    with pytest.raises(ExpectedError, match=r"runs/keras_cnn\.json is of cifar10 data and .* of synthetic"):
        compare.main()


# Arithmetic


def test_differences_are_ours_less_the_papers_in_its_unit() -> None:
    change_json("metrics/keras_cnn.json", "test.accuracy", 0.8175)
    change_json("metrics/keras_cnn.json", "test.loss", 0.5284)
    change_json("metrics/keras_cnn.json", "test.precision_macro", 0.79)
    results, details = compared(), compared("details")
    assert (results["T1.keras.acc"]["ours"], results["T1.keras.acc"]["difference"]) == (81.75, 1.0)
    assert (results["T1.keras.loss"]["ours"], results["T1.keras.loss"]["difference"]) == (0.5284, -0.0196)
    assert details["N.report.macro.precision"]["difference"] == -0.01
    assert details["N.params.fixed"]["ours"] == 704
    line = next(line for line in text().splitlines() if "Keras CNN, test accuracy" in line and "80.75" in line)
    assert [cell.strip() for cell in line.split("|")[3:6]] == ["80.75 %", "81.75 ± 0.76 %", "+1.00 points"]


def test_the_uncertainty_of_an_accuracy_is_binomial() -> None:
    assert compare.half_interval(0.8075, 10_000) == pytest.approx(0.00773, abs=5e-6)
    change_json("metrics/keras_cnn.json", "test.accuracy", 0.8075)
    change_json("metrics/runs/keras_cnn.json", "data.validation_images", 100)
    rows = compared()
    assert rows["T1.keras.acc"]["uncertainty"] == pytest.approx(0.7727, abs=1e-4)
    assert rows["C.keras.val"]["uncertainty"] == pytest.approx(7.799, abs=1e-3)  # 80.28 % of 100 images
    assert rows["T1.resnet.acc"]["uncertainty"] == pytest.approx(0.7825, abs=1e-4)
    assert rows["T1.keras.loss"]["uncertainty"] is None
    assert compared("details")["S33.plateau"]["uncertainty"] is None


def test_resnets_numbers_are_compared_like_for_like_with_the_clean_ones_beside() -> None:
    rows, ours = compared(), read_json(Path("metrics/resnet18.json"))
    accuracy, loss = rows["T1.resnet.acc"], rows["T1.resnet.loss"]
    assert accuracy["ours"] == pytest.approx(100 * ours["test_augmented"]["accuracy"])
    assert loss["ours"] == ours["train"]["loss"] == 0.4485
    assert accuracy["beside"][0]["ours"] == pytest.approx(100 * ours["test"]["accuracy"])
    assert accuracy["beside"][0]["uncertainty"] > 0.7
    assert accuracy["beside"][1]["ours"] == pytest.approx(100 * ours["test_augmented"]["accuracy_std"])
    assert accuracy["beside"][1]["uncertainty"] is None
    assert [other["ours"] for other in loss["beside"]] == [ours["test"]["loss"], ours["test_augmented"]["loss"]]
    assert results_table(read_json(compare.COMPARISON_JSON)).count("↳ our clean test set") == 3


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
    report = read_rows(Path("metrics/report/keras_cnn.csv"))
    assert rows["N.report.recall"]["ours"] == [float(row["recall"]) for row in report]
    first = rows["N.report.recall"]
    assert first["difference"][3] == pytest.approx(first["ours"][3] - 0.58)
    airplanes = rows["N.confusion"]
    answers = read_rows(Path("metrics/confusion/keras_cnn.csv"))
    taken = [row["predicted"] for row in answers if row["actual"] == "airplane"]
    assert airplanes["ours"] == [taken.count(name) for name in CLASSES]
    assert sum(airplanes["ours"]) == 1000
    assert airplanes["difference"][0] == taken.count("airplane") - 839


def test_the_plateau_is_the_mean_from_epoch_20_on() -> None:
    file = Path("metrics/history/keras_cnn.csv")
    accuracies = dict.fromkeys(range(1, 20), 0.1) | {20: 0.45} | dict.fromkeys(range(21, 51), 0.78)
    write_rows(file, [row | {"train_accuracy": accuracies[int(row["epoch"])]} for row in read_rows(file)])
    plateau = compared("details")["S33.plateau"]
    assert plateau["ours"] == pytest.approx(100 * (0.45 + 30 * 0.78) / 31, abs=1e-4)
    assert plateau["difference"] == pytest.approx(plateau["ours"] - 75, abs=1e-4)


# Settings


def test_settings_are_the_same_but_where_the_notebook_contradicts_the_text() -> None:
    found = statuses("settings")
    assert {row_id for row_id, status in found.items() if status == "as the notebook, not as the text"} == CONTRADICTED
    assert set(found.values()) == {"same", "as the notebook, not as the text"}


@pytest.mark.parametrize(
    ("model", "key", "value", "row", "status"),
    [
        (
            "keras_cnn",
            "parameters.keras_cnn.augmentation",
            "flip_crop",
            "keras.augmentation",
            "as the text, not as the notebook",
        ),
        ("keras_cnn", "parameters.keras_cnn.augmentation", "flip", "keras.augmentation", "differs"),
        ("keras_cnn", "parameters.keras_cnn.filters", [32, 64], "keras.filters", "differs"),
        (
            "keras_cnn",
            "parameters.keras_cnn.early_stopping_patience",
            3,
            "keras.early_stopping",
            "as the text, not as the notebook",
        ),
        ("keras_cnn", "parameters.keras_cnn.early_stopping_patience", None, "keras.early_stopping", "differs"),
        (
            "resnet18",
            "parameters.resnet18.weights",
            "imagenet",
            "resnet.pretrained",
            "as the text, not as the notebook",
        ),
        ("resnet18", "parameters.resnet18.frozen", ["conv1"], "resnet.frozen", "as the text, not as the notebook"),
        (
            "resnet18",
            "parameters.resnet18.weight_decay",
            0.01,
            "resnet.weight_decay",
            "as the text, not as the notebook",
        ),
    ],
)
def test_another_setting_shows(model: str, key: str, value: Any, row: str, status: str) -> None:
    change_json(f"metrics/runs/{model}.json", key, value)
    found = compared("settings")[row]
    assert (found["ran"], found["status"]) == (value, status)


# Addresses and text


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("a.b.1", 5),
        ("a.b.-1", 6),
        ("a.b.length", 3),
        ("c + d", 10),
        ("c - d", 4),
        ("d", 3),
        ("a.x", None),
        ("c.x", None),
        ("c - x", None),
    ],
)
def test_addresses_in_json(what: str, value: Any) -> None:
    assert look_up_json({"a": {"b": [4, 5, 6]}, "c": 7, "d": 3}, what) == value


def test_a_missing_file_is_one_line_with_what_to_do() -> None:
    Path("metrics/report/keras_cnn.csv").unlink()
    with pytest.raises(ExpectedError, match=r"metrics/report/keras_cnn\.csv is missing; .*dvc repro"):
        look_up("metrics/report/keras_cnn.csv recall")


def test_two_runs_give_the_same_bytes_whatever_the_time_taken() -> None:
    files = (compare.COMPARISON_JSON, compare.COMPARISON_MD)
    compare.main()
    before = [file.read_bytes() for file in files]
    change_json("metrics/runtime/keras_cnn.json", "seconds", 99.0)
    compare.main()
    assert [file.read_bytes() for file in files] == before


def test_it_reads_nothing_but_what_dvc_yaml_declares() -> None:
    compare.main()
    written = [compare.COMPARISON_JSON, compare.COMPARISON_MD]
    before = [file.read_bytes() for file in written]
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["compare"]["deps"]
    for file in [file for file in Path("metrics").rglob("*") if file.is_file() and file.as_posix() not in declared]:
        file.unlink()
    compare.main()
    assert [file.read_bytes() for file in written] == before


def test_the_text_says_what_one_run_cannot_judge() -> None:
    assert "one run cannot judge half a point" in text()
    assert "Of 14 numbers: answered 8, waits 6." in text()


def test_tables_have_as_many_cells_in_each_line() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", text(), re.MULTILINE)
    assert len(tables) == 8
    for lines in (block.splitlines() for block in tables):
        assert len({line.count("|") for line in lines}) == 1
        assert re.fullmatch(r"\|(-+\|)+", lines[1])
    assert table(["a", "b"], [["long", "x"]]) == "| a    | b |\n|------|---|\n| long | x |"


def test_the_text_follows_from_the_json_alone() -> None:
    compare.main()
    content = read_json(compare.COMPARISON_JSON)
    Path("metrics/keras_cnn.json").unlink()
    assert render(content) == compare.COMPARISON_MD.read_text(encoding="utf-8")
