"""Charts of the report with other numbers of models and cells than this paper has."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from stages.figures.panels import draw_interpretations, draw_learning, draw_reliability


@pytest.mark.parametrize("models", [1, 2, 4])
def test_any_number_of_models_has_its_reliability(models: int) -> None:
    axes = Figure().subplots()
    curve = (np.array([0.5, 0.9]), np.array([0.4, 0.8]))
    draw_reliability(axes, {f"model {number}": curve for number in range(models)})
    assert len(axes.lines) == models + 1  # and the diagonal


def test_of_several_runs_the_mean_and_the_band_are_of_those_that_reached_the_epoch() -> None:
    def history(*losses: float) -> dict[str, np.ndarray]:
        epochs = np.arange(1, len(losses) + 1)
        return {"epoch": epochs, "train_loss": np.array(losses), "val_loss": np.full(len(losses), np.nan)}

    axes = Figure().subplots()
    draw_learning(axes, "loss", [history(2.0, 1.0), history(4.0, 2.0, 1.5), history(3.0, 1.2, 0.5)], [2, 3, 3])
    (line,) = [line for line in axes.lines if line.get_label() == "ours, train"]
    assert list(line.get_ydata()) == pytest.approx([3.0, 1.4, 1.0])
    (band,) = axes.collections
    corners = {(x, y) for x, y in band.get_paths()[0].vertices}
    assert {(1, 2.0), (1, 4.0), (2, 1.0), (2, 2.0), (3, 0.5), (3, 1.5)} <= corners


def test_a_column_that_is_not_there_is_not_drawn() -> None:
    history = {"epoch": np.arange(1, 3), "train_loss": np.array([2.0, 1.0]), "val_f1": np.array([0.5, 0.6])}
    axes = Figure().subplots()
    draw_learning(axes, "loss", [history], [2], history)
    assert [line.get_label() for line in axes.lines] == ["paper, train", "ours, train", "ours, epoch 2: weights kept"]
    axes = Figure().subplots()
    draw_learning(axes, "accuracy", [history], [2], history)
    assert [line.get_label() for line in axes.lines] == ["ours, epoch 2: weights kept"]


def test_the_interpretations_show_every_cell_of_a_larger_table() -> None:
    rows = [{"id": str(cell), "unit": "percent", "paper": 80.0, "at": [cell, 0.3]} for cell in range(7)]
    numbers = {row["id"]: None for row in rows} | {"6": {"values": [81.0, 82.0]}}
    interpretation = {"name": "as it is", "in_full": True, "numbers": numbers}
    axes = Figure().subplots()
    draw_interpretations(axes, {"axes": ["batch_size", "dropout"], "rows": rows, "interpretations": [interpretation]})
    assert [text.get_text() for text in axes.texts] == ["as it is: 2 runs"]
    assert [1.0, 2.0] in [list(line.get_xdata()) for line in axes.lines]
