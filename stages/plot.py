"""Draw the figures of metrics/figures from the tables and predictions in metrics: no model and no data set is needed.

The samples are the first images of the training and of the test set, so nobody picked them. The paper's own curves (its
Figures 1 and 2, read from its notebook) are drawn behind ours. The overview and the grid of Table 2 come from the
comparison. On synthetic data every figure says so, and the paper's curves and points are left out.
"""

import os
from typing import Any

os.environ["MPLBACKEND"] = "agg"  # a notebook sets one that may not be installed here

import numpy as np
from matplotlib import style
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from stages.common import paths
from stages.common.files import read_arrays, read_history, read_json, read_rows
from stages.common.paths import DATASET, DISTRIBUTION, FIGURES, SAMPLES
from stages.common.process import run_stage
from stages.figures.panels import draw_forest, draw_grid_of, draw_learning
from stages.figures.sources import require_same_data
from stages.figures.style import BLUE, GREEN, RED, STYLE, new_figure, show_image
from stages.paper.models import Model, models_of
from stages.paper.numbers import load_numbers

OVERVIEW_HEIGHT = 2.9  # inches
DOTS_PER_INCH = 150


def main() -> None:
    dataset = read_json(DATASET)
    samples = read_arrays(SAMPLES)
    source, classes = dataset["source"], dataset["classes"]

    with style.context(STYLE, after_reset=True):  # whatever the user's own matplotlibrc says
        distribution = read_rows(DISTRIBUTION)
        save("class_distribution", draw_class_distribution(distribution, source))
        save("samples", draw_samples(samples["train_images"], samples["train_labels"], classes, source))

        for name, model in models_of(load_numbers()).items():
            metrics = read_json(paths.scores(name))
            history = read_history(paths.history(name))
            predictions = read_arrays(paths.predictions(name))
            probabilities, labels = predictions["probabilities"], predictions["labels"]
            require_same_data(name, {source, metrics["source"], str(predictions["source"])})

            paper = read_history(model.paper_curves) if model.paper_curves else None
            save(f"curves_{name}", draw_curves(model, history, paper, metrics["best_epoch"], source))
            save(f"confusion_{name}", draw_confusion(model, probabilities, labels, classes, source))
            images = samples["test_images"]
            save(f"predictions_{name}", draw_predictions(model, images, probabilities, labels, classes, source))

        comparison = read_json(paths.comparison("json"))
        save("overview", draw_overview(comparison["results"], source))
        for grid in comparison["grids"]:
            if grid["nearest"]:
                save(f"grid_{grid['id']}", draw_grid(grid))


def draw_class_distribution(rows: list[dict[str, str]], source: str) -> Figure:
    """How many images of each class are trained on, validated on and tested on.

    Args:
        rows: A row a class: `class`, `train`, `validation`, `test`.
        source: "cifar10" or "synthetic".

    Returns:
        Three panels of bars, to one scale.
    """
    classes = [row["class"] for row in rows]
    counts = {part: [int(row[part]) for row in rows] for part in ("train", "validation", "test")}
    room = max(map(max, counts.values())) / 3  # for the number behind a bar
    extents = [max(part) + room for part in counts.values()]  # one scale in all panels, each as wide as it needs

    figure = new_figure("Images of each class", 9, 4.5, source)
    panels = figure.subplots(1, 3, sharey=True, width_ratios=extents)
    for axes, part, extent in zip(panels, counts, extents, strict=True):
        axes.bar_label(axes.barh(classes, counts[part], color=BLUE), fmt="{:,.0f}", padding=3)
        axes.set_title(f"{part}: {sum(counts[part]):,}", loc="left")
        axes.set_xlim(0, extent)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(left=False)
    panels[0].invert_yaxis()  # the first class on top, in all three panels, for they share the axis
    return figure


def draw_samples(images: np.ndarray, labels: np.ndarray, classes: list[str], source: str) -> Figure:
    """A 5x5 grid of images under the names of their classes.

    Args:
        images: (25, 32, 32, 3), uint8.
        labels: (25,), indices into `classes`.
        classes: The names.
        source: "cifar10" or "synthetic".

    Returns:
        25 panels, row by row.
    """
    figure = new_figure("The first 25 training images", 7, 7.7, source)
    for axes, image, label in zip(figure.subplots(5, 5).flat, images, labels, strict=True):
        show_image(axes, image)
        axes.set_title(classes[label])
    return figure


def draw_curves(
    model: Model, history: dict[str, np.ndarray], paper: dict[str, np.ndarray] | None, best_epoch: int, source: str
) -> Figure:
    """Loss and accuracy by epoch, ours over the paper's; the paper's are left out on synthetic data.

    Args:
        model: The model's names.
        history: Our columns by name, (epochs,) each: `epoch`, `train_loss`, `train_accuracy`, `val_loss`,
            `val_accuracy`; NaN where nothing was validated.
        paper: The paper's columns, likewise, or None.
        best_epoch: The epoch whose weights are kept, from 1.
        source: "cifar10" or "synthetic".

    Returns:
        Two panels, loss and accuracy, with one legend.
    """
    figure = new_figure(f"{model.title}: loss and accuracy by epoch", 9, 4.8, source)
    papers = paper if source == "cifar10" else None
    panels = figure.subplots(1, 2)
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        draw_learning(axes, quantity, [history], [best_epoch], papers, model.paper_validation)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_confusion(
    model: Model, probabilities: np.ndarray, labels: np.ndarray, classes: list[str], source: str
) -> Figure:
    """The number of test images of each true class (rows) that are taken for each class (columns).

    Args:
        model: The model's names.
        probabilities: (N, K).
        labels: (N,), the true classes.
        classes: The K names.
        source: "cifar10" or "synthetic".

    Returns:
        One panel with K x K numbers; the darker a cell, the greater its share of its row.
    """
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(len(classes)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right, total = np.trace(counts), counts.sum()
    title = f"{model.title}: {right:,} of {total:,} test images right ({right / total:.2%})"

    figure = new_figure(title, 8.5, 8.3, source)
    axes = figure.subplots()
    # The square root sets apart the mistakes, most of them below a tenth of their row.
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(classes)), classes, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def draw_predictions(
    model: Model, images: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, classes: list[str], source: str
) -> Figure:
    """Ten test images under what they are taken for: green with a tick where that is right, red with a cross where not.

    Args:
        model: The model's names.
        images: (10, 32, 32, 3), uint8, the first of the test set.
        probabilities: (N, K), of the test set in its order.
        labels: (N,), the true classes.
        classes: The K names.
        source: "cifar10" or "synthetic".

    Returns:
        Ten panels, row by row.
    """
    figure = new_figure(f"{model.title}: the first ten test images, their predicted and their true class", 9, 5, source)
    for axes, image, row, label in zip(figure.subplots(2, 5).flat, images, probabilities, labels, strict=False):
        predicted = row.argmax()
        mark, color = ("✓", GREEN) if predicted == label else ("✗", RED)
        show_image(axes, image)
        axes.set_title(f"{mark} {classes[predicted]} {row[predicted]:.0%}\ntrue: {classes[label]}", color=color)
    return figure


def draw_grid(grid: dict[str, Any]) -> Figure:
    """Accuracy and loss over the two axes of a grid: the paper's points and the five nearest interpretations' in full.

    Args:
        grid: An element of `grids` in metrics/comparison.json.

    Returns:
        Two panels for the accuracies and two for the losses, as `draw_grid_of`.
    """
    figure = new_figure(f"{grid['where']}: the paper's numbers and ours", 10, 4.8, "cifar10")
    parts = figure.subfigures(1, 2, squeeze=False)[0]
    for part, unit in zip(parts, ("percent", "nats"), strict=True):
        draw_grid_of(part, grid, unit)
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_overview(rows: list[dict[str, Any]], source: str) -> Figure:
    """The paper's result numbers, hollow, and ours, filled, with the 95 % prediction interval of one more run.

    Args:
        rows: `results` of metrics/comparison.json.
        source: "cifar10" or "synthetic".

    Returns:
        Two panels, accuracies and losses, a number a line; without points where nothing is compared.
    """
    figure = new_figure(f"The paper's {len(rows)} numbers (hollow) and ours (filled)", 9, OVERVIEW_HEIGHT, source)
    titles = {"percent": "accuracy (%)", "nats": "loss (nats)"}
    for axes, (unit, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        draw_forest(axes, [row for row in rows if row["unit"] == unit])
        axes.set_title(title)
    return figure


def save(name: str, figure: Figure) -> None:
    """Write a figure as PNG, without the software's name, so that equal figures have equal bytes."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"{name}.png", dpi=DOTS_PER_INCH, metadata={"Software": None})


if __name__ == "__main__":
    run_stage("plot", main)
