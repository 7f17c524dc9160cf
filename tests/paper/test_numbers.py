"""data/paper/numbers.yaml: complete, and a fault in it is one clear line."""

import re
from typing import Any

import pytest

from stages import compare
from stages.common.errors import ExpectedError
from stages.common.paths import NUMBERS
from stages.paper.numbers import load_numbers
from tests.support.made_up_results import (
    ROOT,
    change_json,
    compared,
    statuses,
)

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
}
LISTS = {
    "N.report.precision": [0.81, 0.91, 0.76, 0.68, 0.76, 0.72, 0.85, 0.83, 0.85, 0.88],
    "N.report.recall": [0.84, 0.92, 0.70, 0.58, 0.79, 0.71, 0.88, 0.85, 0.92, 0.88],
    "N.report.f1": [0.82, 0.91, 0.73, 0.63, 0.77, 0.72, 0.86, 0.84, 0.89, 0.88],
    "N.confusion": [839, 14, 21, 9, 9, 5, 1, 12, 67, 23],
}
SETTINGS = {
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


@pytest.mark.parametrize(("part", "values"), [("results", RESULTS), ("details", DETAILS), ("lists", LISTS)])
def test_every_number_of_the_paper_is_there(part: str, values: dict[str, Any]) -> None:
    assert {row_id: row["paper"] for row_id, row in compared(part).items()} == values


def test_figures_settings_and_the_time_are_there() -> None:
    assert list(compared("curves")) == ["F1", "F2"]
    assert list(compared("not_compared")) == ["N.time", "A.varied", "S31.rates"]
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
        ("    value: 80.75\n", "    value: 80.75\n    vallue: 1\n", "results.0: unknown key 'vallue'"),
        ("    value: 80.75\n", "    value: '80.75'\n", "results.0.value"),
        ("    value: 80.75\n", "", "results.0.value"),
        ("- id: T1.keras.loss", "- id: T1.keras.acc", "more than one row has the id T1.keras.acc"),
        ("    configuration: keras_cnn_table1\n", "    configuration: nowhere\n", "'nowhere'"),
        ("    known_from: notebook\n", "    known_from: hearsay\n", "'hearsay'"),
        ("    model: keras_cnn\n", "    model: vgg\n", "'vgg'"),
        (
            "    ours: metrics/keras_cnn.json test.accuracy\n",
            "    ours: metrics/resnet18.json test.accuracy\n",
            "T1.keras.acc: ours is in metrics/resnet18.json, and its configuration is of keras_cnn",
        ),
        (
            "ours: metrics/resnet18.json test.accuracy}",
            "ours: metrics/keras_cnn.json test.accuracy}",
            "T1.resnet.acc: ours is in metrics/keras_cnn.json, and its configuration is of resnet18",
        ),
        ("axes: [batch_size, dropout]", "axes: [dropout]", "axes are dropout; allowed: two keys of params.yaml"),
        (
            "axes: [batch_size,",
            "axes: [batchsize,",
            "table2: keras_cnn_table1 has no batchsize; it has dropout, batch_size,",
        ),
        ("in_full: [keras_cnn.epochs]", "in_full: [epochs]", "table2: keras_cnn_table1 has no epochs; it has dropout,"),
        (
            "{batch_size: 64, dropout: 0.3}",
            "{batch_size: 64}",
            "keras_cnn_table2_64_0.3, a cell of table2, has no dropout; each cell has a value for each axis",
        ),
        (
            "{batch_size: 64, dropout: 0.3}",
            "{batch_size: 64, dropout: low}",
            "keras_cnn_table2_64_0.3: dropout is 'low'; allowed on the second axis: numbers",
        ),
        (
            "grids:\n",
            "grids:\n  none: {where: x, open: x, base: keras_cnn_table1, base_is: x, axes: [dropout, batch_size], "
            "in_full: []}\n",
            "none: no configuration has this grid, so it has no cell",
        ),
        (
            "configuration: keras_cnn_table2_64_0.3\n",
            "configuration: keras_cnn_table2_64_0.4\n",
            "a cell of table2, has",
        ),
        (
            "{batch_size: 64, dropout: 0.3}",
            "{batch_size: 64, dropout: 0.3}, collected: true",
            "keras_cnn_table2_64_0.3: a configuration with a grid needs no `collected`",
        ),
        (
            "  keras_cnn_table1:\n",
            "  keras_cnn_table1:\n    collected: true\n",
            "N.report.precision: keras_cnn_table1 is collected, and only `dvc repro` has lists and curves",
        ),
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
