"""The figures: series, numbers, names and marks are checked on the Figure objects, the files by a run of the stage."""

import csv
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import yaml
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from stages import plot
from stages.common.errors import ExpectedError
from stages.common.files import read_history, read_rows
from stages.paper.models import models_of
from stages.paper.numbers import load_numbers

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PAPER = Path(__file__).parents[2] / "data" / "paper"
MODELS_OF = models_of(load_numbers(PAPER / "numbers.yaml"))
SYNTHETIC = "synthetic data, not CIFAR-10"
FIGURES = [
    "class_distribution.png",
    "confusion_keras_cnn.png",
    "confusion_resnet18.png",
    "curves_keras_cnn.png",
    "curves_resnet18.png",
    "overview.png",
    "predictions_keras_cnn.png",
    "predictions_resnet18.png",
    "samples.png",
]

AT = [(64, 0.3), (64, 0.4), (128, 0.3), (128, 0.4)]
PRINTED = {"percent": [85.2, 85.8, 84.5, 85.1], "nats": [0.477, 0.467, 0.493, 0.482]}
MEASURED = {"percent": [83.0, 83.5, 82.0, 82.5], "nats": [0.5, 0.51, 0.52, 0.53]}
GRID = {  # as metrics/comparison.json has it: an interpretation with two seeds, one with one cell, and a shorter one
    "id": "table2",
    "where": "Table 2",
    "axes": ["batch_size", "dropout"],
    "nearest": "flip-val0.1",
    "rows": [
        {"id": f"{at} {unit}", "unit": unit, "paper": value, "at": at}
        for unit, values in PRINTED.items()
        for at, value in zip(AT, values, strict=True)
    ],
    "interpretations": [
        {
            "name": name,
            "in_full": name != "short",
            "numbers": {
                f"{at} {unit}": {
                    "ours": value,
                    "interval": [value - 1, value + 2],
                    "values": [value - 0.1, value + 0.1][:runs],
                }
                if cells is None or at in cells
                else None
                for unit, values in MEASURED.items()
                for at, value in zip(AT, values, strict=True)
            },
        }
        for name, cells, runs in (
            ("flip-val0.1", None, 2),
            ("as Table 1", [(64, 0.3)], 1),
            ("short", None, 1),
        )
    ],
}

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (25, 32, 32, 3), dtype=np.uint8)
LABELS = GENERATOR.permutation(np.arange(500) % 10).astype(np.uint8)
PROBABILITIES = GENERATOR.dirichlet(np.full(10, 0.2), 500).astype(np.float32)
PROBABILITIES[:2] = np.eye(10)[1]  # two neighbours with the longest text: automobile 100%
DISTRIBUTION = [
    {"class": name, "train": str(4000 + k), "validation": str(1000 - k), "test": "1000"}
    for k, name in enumerate(CLASSES)
]
HISTORY = {
    "epoch": np.arange(1.0, 8.0),
    "train_loss": np.geomspace(2.0, 0.6, 7),
    "train_accuracy": np.linspace(0.3, 0.8, 7),
    "val_loss": np.geomspace(1.8, 0.7, 7),
    "val_accuracy": np.linspace(0.35, 0.75, 7),
}
MODELS = pytest.mark.parametrize("name", ["keras_cnn", "resnet18"])


def paper_columns(name: str) -> dict[str, list[float]]:
    file = {"keras_cnn": "figure1_keras_cnn.csv", "resnet18": "figure2_resnet18.csv"}[name]
    rows = read_rows(PAPER / file)
    return {column: [float(row[column]) for row in rows] for column in rows[0]}


def curves(name: str, source: str = "cifar10", history: dict[str, np.ndarray] = HISTORY, best_epoch: int = 6) -> Figure:
    paper = {column: np.array(values) for column, values in paper_columns(name).items()}
    return plot.draw_curves(MODELS_OF[name], history, paper, best_epoch, source)


def series(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def overview_rows(source: str) -> list[dict[str, object]]:
    """The 14 results as metrics/comparison.json has them, ours a point above the paper's; one is not answered."""
    rows = yaml.safe_load((PAPER / "numbers.yaml").read_text(encoding="utf-8"))["results"]
    statuses = ["answered"] * 13 + ["waits"] if source == "cifar10" else ["not compared"] * 14
    return [
        {"label": row["label"], "unit": row["unit"], "paper": row["value"], "status": status}
        | {"ours": row["value"] + 1 if status == "answered" else None}
        | {"runs": 3 if status == "answered" else 0}
        | {"interval": [row["value"] + 0.5, row["value"] + 2] if status == "answered" else None}
        for row, status in zip(rows, statuses, strict=True)
    ]


# Every figure by name, from its source: what holds of all of them is tested on all of them.
EVERY_FIGURE: dict[str, Callable[[str], Figure]] = {
    "class_distribution": lambda source: plot.draw_class_distribution(DISTRIBUTION, source),
    "samples": lambda source: plot.draw_samples(IMAGES, LABELS[:25], CLASSES, source),
    "curves_keras_cnn": lambda source: curves("keras_cnn", source),
    "curves_resnet18": lambda source: curves("resnet18", source),
    "confusion": lambda source: plot.draw_confusion(MODELS_OF["keras_cnn"], PROBABILITIES, LABELS, CLASSES, source),
    "overview": lambda source: plot.draw_overview(overview_rows(source), source),
    "predictions": lambda source: plot.draw_predictions(
        MODELS_OF["resnet18"], IMAGES[:10], PROBABILITIES, LABELS, CLASSES, source
    ),
}
ALL = pytest.mark.parametrize("draw", EVERY_FIGURE.values(), ids=EVERY_FIGURE.keys())


@ALL
def test_only_synthetic_data_is_labelled_as_such(draw: Callable[[str], Figure]) -> None:
    assert SYNTHETIC in draw("synthetic").get_suptitle().splitlines()
    assert SYNTHETIC not in draw("cifar10").get_suptitle()
    assert "CIFAR-100 data, not CIFAR-10" in draw("CIFAR-100").get_suptitle().splitlines()


@ALL
@pytest.mark.parametrize("source", ["cifar10", "synthetic"])
def test_no_text_overlaps_another_or_leaves_the_figure(
    draw: Callable[[str], Figure], source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_texts: set[Text] = set()
    draw_text = Text.draw

    def record(text: Text, renderer: RendererBase) -> None:
        # Of a slanted text the box is larger than the text.
        if text.get_visible() and text.get_text() and text.get_rotation() % 90 == 0:
            drawn_texts.add(text)
        draw_text(text, renderer)

    monkeypatch.setattr(Text, "draw", record)
    with style.context(plot.STYLE, after_reset=True):
        figure = draw(source)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    boxes = [(text, text.get_window_extent(canvas.get_renderer())) for text in drawn_texts]
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text
    for (text, box), (other_text, other) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other), (text, other_text)


def test_class_distribution_has_each_class_and_each_part() -> None:
    figure = plot.draw_class_distribution(DISTRIBUTION, "cifar10")
    assert [axes.get_title("left") for axes in figure.axes] == ["train: 40,045", "validation: 9,955", "test: 10,000"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == CLASSES
    for axes, part in zip(figure.axes, ("train", "validation", "test"), strict=True):
        counts = [int(row[part]) for row in DISTRIBUTION]
        assert [bar.get_width() for bar in axes.patches] == counts
        assert [text.get_text() for text in axes.texts] == [f"{count:,}" for count in counts]


def test_class_distribution_is_to_one_scale_and_takes_an_empty_validation_part() -> None:
    rows = [row | {"validation": "0"} for row in DISTRIBUTION]
    figure = plot.draw_class_distribution(rows, "cifar10")
    figure.draw_without_rendering()
    inches = [axes.get_window_extent().width / axes.get_xlim()[1] for axes in figure.axes]
    assert inches == pytest.approx([inches[0]] * 3, rel=1e-3)
    assert {text.get_text() for text in figure.axes[1].texts} == {"0"}


def test_samples_show_each_image_under_its_class() -> None:
    figure = plot.draw_samples(IMAGES, LABELS[:25], CLASSES, "cifar10")
    assert [axes.get_title() for axes in figure.axes] == [CLASSES[label] for label in LABELS[:25]]
    for axes, image in zip(figure.axes, IMAGES, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)


@MODELS
def test_curves_are_ours_over_the_paper_s(name: str) -> None:
    paper = paper_columns(name)
    kind = {"keras_cnn": "validation", "resnet18": "validation (its augmented test set)"}[name]
    figure = curves(name)
    assert [axes.get_title() for axes in figure.axes] == ["loss (nats)", "accuracy"]
    for axes, quantity in zip(figure.axes, ("loss", "accuracy"), strict=True):
        found = series(axes)
        assert list(found) == [  # in the order of drawing, the paper's first
            "paper, train",
            f"paper, {kind}",
            "ours, train",
            "ours, validation",
            "ours, epoch 6: weights kept",
        ]
        assert len({line.get_zorder() for line in axes.lines}) == 1
        assert found["paper, train"] == (paper["epoch"], paper[f"train_{quantity}"])
        assert found[f"paper, {kind}"] == (paper["epoch"], paper[f"val_{quantity}"])
        assert found["ours, train"] == (list(HISTORY["epoch"]), list(HISTORY[f"train_{quantity}"]))
        assert found["ours, validation"] == (list(HISTORY["epoch"]), list(HISTORY[f"val_{quantity}"]))
        assert found["ours, epoch 6: weights kept"][0] == [6, 6]
        assert axes.get_xlabel() == "epoch"
    assert [text.get_text() for text in figure.legends[0].texts] == list(found)


def test_accuracies_are_read_in_percent() -> None:
    figure = curves("keras_cnn")
    figure.draw_without_rendering()
    ticks = {text.get_text(): text.get_position()[1] for text in figure.axes[1].get_yticklabels()}
    assert ticks["50%"] == pytest.approx(0.5)


@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_epochs_are_whole_numbers(epochs: int) -> None:
    figure = curves("resnet18", "synthetic", {column: values[:epochs] for column, values in HISTORY.items()}, epochs)
    figure.draw_without_rendering()
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())


def test_curves_differ_in_line_or_marker_as_well_as_in_colour() -> None:
    looks = [(line.get_linestyle(), line.get_marker()) for line in curves("keras_cnn").axes[0].lines]
    assert len(set(looks)) == len(looks)


@MODELS
def test_synthetic_data_is_never_drawn_with_the_paper(name: str) -> None:
    figure = curves(name, "synthetic")
    for axes in figure.axes:
        assert list(series(axes)) == ["ours, train", "ours, validation", "ours, epoch 6: weights kept"]
    assert not [text for text in figure.findobj(Text) if "paper" in text.get_text()]


def test_without_validation_there_is_no_such_curve() -> None:
    nothing = np.full(7, np.nan)
    figure = curves("resnet18", "synthetic", HISTORY | {"val_loss": nothing, "val_accuracy": nothing})
    for axes in figure.axes:
        assert list(series(axes)) == ["ours, train", "ours, epoch 6: weights kept"]


def test_confusion_prints_all_hundred_numbers_where_they_belong() -> None:
    figure = plot.draw_confusion(MODELS_OF["keras_cnn"], PROBABILITIES, LABELS, CLASSES, "cifar10")
    axes = figure.axes[0]
    expected = np.zeros((10, 10), dtype=int)
    for label, row in zip(LABELS, PROBABILITIES, strict=True):
        expected[label, row.argmax()] += 1
    printed = {text.get_position(): text.get_text() for text in axes.texts}
    assert printed == {(column, row): str(count) for (row, column), count in np.ndenumerate(expected)}
    assert expected.sum() == 500
    right = np.trace(expected)
    assert figure.get_suptitle() == f"Keras CNN: {right} of 500 test images right ({right / 5:.2f}%)"
    assert [text.get_text() for text in axes.get_xticklabels()] == CLASSES
    assert [text.get_text() for text in axes.get_yticklabels()] == CLASSES
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_confusion_keeps_the_row_of_a_class_that_no_image_has() -> None:
    probabilities = np.eye(10, dtype=np.float32)[:9]
    figure = plot.draw_confusion(MODELS_OF["keras_cnn"], probabilities, np.arange(9), CLASSES, "cifar10")
    assert len(figure.axes[0].texts) == 100


def luminance(color: tuple[float, ...]) -> float:
    """WCAG's relative luminance of an sRGB colour."""
    channels = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in color[:3]]
    return float(np.dot([0.2126, 0.7152, 0.0722], channels))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("right", range(0, 101, 5))
def test_confusion_s_numbers_stand_out_from_cells_of_every_shade(right: int) -> None:
    predicted = np.where(np.arange(1000) % 100 < right, np.arange(1000) // 100, (np.arange(1000) // 100 + 1) % 10)
    probabilities = np.eye(10, dtype=np.float32)[predicted]
    axes = plot.draw_confusion(MODELS_OF["keras_cnn"], probabilities, np.arange(1000) // 100, CLASSES, "x").axes[0]
    cells = axes.images[0].to_rgba(axes.images[0].get_array())
    for text in axes.texts:
        column, row = text.get_position()
        assert contrast(to_rgb(text.get_color()), tuple(cells[row, column])) > 4


def test_predictions_are_marked_right_in_green_and_wrong_in_red() -> None:
    labels = np.arange(10)
    probabilities = np.full((500, 10), 0.02, dtype=np.float32)
    predicted = np.where(labels % 2 == 0, labels, (labels + 2) % 10)  # the even classes right, the odd ones wrong
    probabilities[labels, predicted] = 0.82
    figure = plot.draw_predictions(MODELS_OF["resnet18"], IMAGES[:10], probabilities, labels, CLASSES, "cifar10")
    assert len(figure.axes) == 10
    for k, axes in enumerate(figure.axes):
        np.testing.assert_array_equal(axes.images[0].get_array(), IMAGES[k])
        red, green, blue = to_rgb(axes.title.get_color())
        if k % 2 == 0:
            assert axes.get_title() == f"✓ {CLASSES[k]} 82%\ntrue: {CLASSES[k]}"
            assert green > red
        else:
            assert axes.get_title() == f"✗ {CLASSES[(k + 2) % 10]} 82%\ntrue: {CLASSES[k]}"
            assert red > max(green, blue)
        assert contrast(to_rgb(axes.title.get_color()), (1, 1, 1)) > 4.5


def test_the_grid_has_the_papers_points_and_ours_by_both_axes() -> None:
    panels = iter(plot.draw_grid(GRID).axes)
    for unit in ("percent", "nats"):
        for first in (64, 128):
            axes = next(panels)
            assert axes.get_title() == f"batch_size {first}"
            at = slice(0, 2) if first == 64 else slice(2, 4)
            lines = {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}
            assert lines["the paper"].get_xydata().tolist() == [
                list(pair) for pair in zip((0.3, 0.4), PRINTED[unit][at], strict=True)
            ]
            bars = {bar.get_label(): bar for bar in axes.containers}
            assert set(bars) == {"flip-val0.1", "as Table 1"} if first == 64 else {"flip-val0.1"}
            means = bars["flip-val0.1"].lines[0]
            assert means.get_ydata().tolist() == MEASURED[unit][at]
            assert means.get_xdata().tolist() == pytest.approx([0.3, 0.4], abs=0.01)
            ends = [segment[:, 1].tolist() for segment in bars["flip-val0.1"].lines[2][0].get_segments()]
            assert ends == [[value - 1, value + 2] for value in MEASURED[unit][at]]
            dots = [tuple(line.get_ydata()) for line in axes.get_lines() if line.get_alpha()]
            assert sorted(dots) == sorted((value - 0.1, value + 0.1) for value in MEASURED[unit][at])


def test_the_overview_has_the_papers_numbers_hollow_and_ours_filled() -> None:
    rows = overview_rows("cifar10")
    for axes, unit in zip(plot.draw_overview(rows, "cifar10").axes, ("percent", "nats"), strict=True):
        shown = [row for row in rows if row["unit"] == unit]
        assert [text.get_text() for text in axes.get_yticklabels()] == [row["label"] for row in shown]
        hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
        assert [float(line.get_xdata()[0]) for line in hollow] == [row["paper"] for row in shown]
        ours = {bar.lines[0].get_ydata()[0]: bar.lines[0].get_xdata()[0] for bar in axes.containers}
        assert ours == {place: row["ours"] for place, row in enumerate(shown) if row["ours"]}
        ends = axes.containers[0].lines[2][0].get_segments()[0][:, 0]
        assert ends.tolist() == pytest.approx(shown[0]["interval"])
        assert [text.get_text() for text in axes.texts] == ["n=3"] * len(ours)
    for axes in plot.draw_overview(overview_rows("synthetic"), "synthetic").axes:
        assert len(axes.lines) == len(axes.containers) == 0


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that holds all that the stage reads, of synthetic data."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PAPER, tmp_path / "data" / "paper")
    metrics = tmp_path / "metrics"
    for folder in ("history", "predictions"):
        (metrics / folder).mkdir(parents=True)
    (metrics / "dataset.json").write_text(json.dumps({"source": "synthetic", "classes": CLASSES}))
    np.savez_compressed(
        metrics / "samples.npz",
        train_images=IMAGES,
        train_labels=LABELS[:25],
        test_images=IMAGES[:10],
        test_labels=LABELS[:10],
    )
    (metrics / "comparison.json").write_text(
        json.dumps({"results": overview_rows("synthetic"), "grids": [GRID | {"nearest": None}]})
    )
    write_csv(metrics / "class_distribution.csv", DISTRIBUTION)
    for name in ("keras_cnn", "resnet18"):
        rows = [
            {column: str(values[k]) for column, values in HISTORY.items()} | {"learning_rate": "0.001"}
            for k in range(7)
        ]
        write_csv(metrics / "history" / f"{name}.csv", rows)
        (metrics / f"{name}.json").write_text(json.dumps({"source": "synthetic", "best_epoch": 7}))
        np.savez_compressed(
            metrics / "predictions" / f"{name}.npz",
            probabilities=PROBABILITIES,
            labels=LABELS,
            source=np.array("synthetic"),
        )
    return tmp_path


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def drawn(workspace: Path) -> dict[str, bytes]:
    plot.main()
    return {path.name: path.read_bytes() for path in sorted((workspace / "metrics" / "figures").iterdir())}


def test_the_stage_writes_nine_figures_the_same_bytes_whatever_the_user_s_style(workspace: Path) -> None:
    first = drawn(workspace)
    assert list(first) == FIGURES
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 50, "image.cmap": "gray"}):
        assert drawn(workspace) == first
        assert matplotlib.rcParams["font.size"] == 20
    for content in first.values():
        width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))  # PNG's IHDR
        assert 1000 <= width <= 1400
        assert 400 <= height <= 1400
        assert b"matplotlib" not in content.lower()


def test_a_history_without_validation_is_drawn_and_the_grid_once_there_is_a_run_of_it(workspace: Path) -> None:
    (workspace / "metrics" / "comparison.json").write_text(json.dumps({"results": [], "grids": [GRID]}))
    rows = [
        {
            "epoch": "1",
            "train_loss": "2.0",
            "train_accuracy": "0.3",
            "val_loss": "",
            "val_accuracy": "",
            "learning_rate": "0.001",
        },
    ]
    write_csv(workspace / "metrics" / "history" / "keras_cnn.csv", rows)
    history = read_history(Path("metrics/history/keras_cnn.csv"))
    assert history["train_loss"].tolist() == [2.0]
    assert np.isnan(history["val_loss"]).all()
    assert list(drawn(workspace)) == sorted([*FIGURES, "grid_table2.png"])


def test_results_of_other_data_are_refused(workspace: Path) -> None:
    (workspace / "metrics" / "resnet18.json").write_text(json.dumps({"source": "cifar10", "best_epoch": 7}))
    with pytest.raises(ExpectedError, match=r"resnet18 .* \(cifar10, synthetic\)"):
        plot.main()


def test_a_missing_table_is_named(workspace: Path) -> None:
    (workspace / "metrics" / "history" / "keras_cnn.csv").unlink()
    with pytest.raises(ExpectedError, match=r"metrics/history/keras_cnn\.csv is missing; .*else: dvc repro"):
        plot.main()
