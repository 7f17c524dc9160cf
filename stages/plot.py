"""Draw the figures of metrics/figures from the tables and predictions in metrics: no model and no data set is needed.

The samples are the first images of the training and of the test set, so that nobody picked them. Behind our curves
stand the paper's own (its Figures 1 and 2, read from the notebook behind them). The grid of its Table 2 comes from the
comparison, which knows what was run of it. On the synthetic stand-in every figure says so, and the paper's curves and
points are left out.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix

from stages.errors import ExpectedError
from stages.files import read_arrays, read_json, read_rows
from stages.running import run_stage

METRICS = Path("metrics")
FIGURES = METRICS / "figures"
PAPER = Path("data/paper")


class Model(NamedTuple):
    """How a model is titled, where the paper's curves of it are, and what its "validation" is in the paper."""

    title: str
    paper_curves: Path
    paper_validation: str


MODELS = {
    "keras_cnn": Model("Keras CNN", PAPER / "figure1_keras_cnn.csv", "validation"),
    # The notebook behind the paper validated ResNet-18 on the test set, with the training's augmentation left on.
    "resnet18": Model("ResNet-18", PAPER / "figure2_resnet18.csv", "validation (its augmented test set)"),
}

STAND_IN = "synthetic stand-in, not CIFAR-10"

# Colours that the colour-blind can tell apart (Okabe and Ito's), the last two darker, to be read as text on white.
BLUE, GREEN, RED = "#0072B2", "#00795A", "#BD3A00"
OURS_TRAIN = {"color": BLUE, "linestyle": "-", "linewidth": 1.2, "marker": "o", "markersize": 3}
OURS_VALIDATION = {"color": RED, "linestyle": "-", "linewidth": 1.2, "marker": "^", "markersize": 4}
PAPER_TRAIN = {"color": "#7FB8D8", "linestyle": "--", "linewidth": 3}
PAPER_VALIDATION = {"color": "#EBA67F", "linestyle": ":", "linewidth": 3}
POINTS = (  # of a grid, for the values of its first axis
    {"linestyle": "-", "linewidth": 1.4, "marker": "o", "markersize": 6},
    {"linestyle": "--", "linewidth": 1.4, "marker": "s", "markersize": 6},
)
SECTION = re.compile(r"\b[a-z0-9_]+\.(?=[a-z_]+=)")  # of a parameter's key
ASIDE = (-0.004, 0.004)  # so that their bars do not cover one another
READING_COLOURS = (RED, BLUE, GREEN, "#8A6D00", "#7A4B94")  # of a grid's readings, the nearest first
KEPT = {"color": "black", "linestyle": "-.", "linewidth": 1}

# Inches and points that are read well at a README's width, about 900 pixels.
STYLE = {
    "font.size": 11,
    "axes.titlesize": 11.5,
    "figure.titlesize": 14,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
}
DOTS_PER_INCH = 150


def main() -> None:
    dataset = read_json(METRICS / "dataset.json")
    samples = read_arrays(METRICS / "samples.npz")
    source, classes = dataset["source"], dataset["classes"]

    with style.context(STYLE, after_reset=True):  # whatever the user's own matplotlibrc says
        distribution = read_rows(METRICS / "class_distribution.csv")
        save("class_distribution", draw_class_distribution(distribution, source))
        save("samples", draw_samples(samples["train_images"], samples["train_labels"], classes, source))

        for name, model in MODELS.items():
            metrics = read_json(METRICS / f"{name}.json")
            history = read_history(METRICS / "history" / f"{name}.csv")
            predictions = read_arrays(METRICS / "predictions" / f"{name}.npz")
            probabilities, labels = predictions["probabilities"], predictions["labels"]
            require_same_data(name, {source, metrics["source"], str(predictions["source"])})

            paper = read_history(model.paper_curves)
            save(f"curves_{name}", draw_curves(model, history, paper, metrics["best_epoch"], source))
            save(f"confusion_{name}", draw_confusion(model, probabilities, labels, classes, source))
            images = samples["test_images"]
            save(f"predictions_{name}", draw_predictions(model, images, probabilities, labels, classes, source))

        for grid in read_json(METRICS / "comparison.json")["grids"]:
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
    model: Model, history: dict[str, np.ndarray], paper: dict[str, np.ndarray], best_epoch: int, source: str
) -> Figure:
    """Loss and accuracy by epoch, ours over the paper's; the paper's are left out on the stand-in.

    Args:
        model: The model's names.
        history: Our columns by name, (epochs,) each: `epoch`, `train_loss`, `train_accuracy`, `val_loss`,
            `val_accuracy`; NaN where nothing was validated.
        paper: The paper's columns, likewise.
        best_epoch: The epoch whose weights are kept, from 1.
        source: "cifar10" or "synthetic".

    Returns:
        Two panels, loss and accuracy, with one legend.
    """
    figure = new_figure(f"{model.title}: loss and accuracy by epoch", 9, 4.8, source)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        train, validation = f"train_{quantity}", f"val_{quantity}"
        if source == "cifar10":
            axes.plot(paper["epoch"], paper[train], label="paper, train", **PAPER_TRAIN)
            axes.plot(paper["epoch"], paper[validation], label=f"paper, {model.paper_validation}", **PAPER_VALIDATION)
        axes.plot(history["epoch"], history[train], label="ours, train", **OURS_TRAIN)
        if not np.isnan(history[validation]).all():
            axes.plot(history["epoch"], history[validation], label="ours, validation", **OURS_VALIDATION)
        axes.axvline(best_epoch, label=f"ours, epoch {best_epoch}: weights kept", **KEPT)
        axes.set_xlabel("epoch")
        axes.set_title({"loss": "loss (nats)", "accuracy": "accuracy"}[quantity])
        axes.grid()
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(lambda accuracy, _: f"{100 * accuracy:.4g}%")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
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
    """Accuracy and loss over the two axes of a grid: the paper's points beside those of the five nearest full readings.

    Args:
        grid: An element of `grids` in metrics/comparison.json.

    Returns:
        Two panels with the second axis to the right, the first one as kinds of points, and a small dot for each run
        where a point is the mean of several.
    """
    first, second = grid["axes"]
    values = sorted({row["at"][0] for row in grid["rows"]})
    figure = new_figure(f"{grid['where']}: the paper's numbers beside ours", 9, 5.6, "cifar10")
    titles = {"percent": "test accuracy (%), ± what the test images leave open", "nats": "test loss (nats)"}
    for axes, (unit, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        rows = sorted((row for row in grid["rows"] if row["unit"] == unit), key=lambda row: row["at"])
        for value, kind, aside in zip(values, POINTS, ASIDE, strict=False):
            cells = [row for row in rows if row["at"][0] == value]
            places = [row["at"][1] for row in cells]
            printed = [row["paper"] for row in cells]
            axes.plot(places, printed, color="black", label=f"paper, {first} {value}", **kind)
            readings = [reading for reading in grid["readings"] if reading["in_full"]]
            for reading, color in zip(readings, READING_COLOURS, strict=False):
                points = {row["at"][1] + aside: reading["numbers"][row["id"]] for row in cells}
                short = SECTION.sub("", reading["reading"])  # the legend is as wide as the figure
                label = f"ours, {first} {value}: {short}"
                draw_points(axes, points, color=color, label=label, **kind)
        axes.set_xticks(sorted({row["at"][1] for row in rows}))
        axes.margins(x=0.2)
        axes.set_xlabel(second)
        axes.set_title(title)
        axes.grid()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=1, frameon=False)
    return figure


def draw_points(axes: Axes, points: dict[float, Any], **style_of_points: Any) -> None:
    """Numbers of ours by their place, but those that were not run; a dot for each run where there are several."""
    run = {place: number for place, number in points.items() if number}
    if not run:
        return
    means = [number["ours"] for number in run.values()]
    bars = [number["uncertainty"] or 0 for number in run.values()]
    axes.errorbar(list(run), means, bars, **style_of_points)
    for place, number in run.items():
        if len(number["values"]) > 1:
            seeds = [place] * len(number["values"])
            axes.plot(seeds, number["values"], ".", color=style_of_points["color"], markersize=4)


def new_figure(title: str, width: float, height: float, source: str) -> Figure:
    """An empty figure, in inches, that says above everything else when it does not show CIFAR-10."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title if source == "cifar10" else f"{title}\n{STAND_IN}")
    return figure


def show_image(axes: Axes, image: np.ndarray) -> None:
    """An image, (32, 32, 3) uint8, with its pixels as they are and no axes around it."""
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()


def save(name: str, figure: Figure) -> None:
    """Write a figure as PNG; without the name of the software, equal figures are equal bytes."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"{name}.png", dpi=DOTS_PER_INCH, metadata={"Software": None})


def read_history(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table of numbers, (epochs,) each; an empty field is NaN.

    Raises:
        ExpectedError: The file is missing, has no rows, or holds something else than numbers.
    """
    rows = read_rows(path)
    try:
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    except (IndexError, TypeError, ValueError) as error:
        raise ExpectedError(f"{path} is not a history ({error!r}); git restore {path} brings it back") from None


def require_same_data(name: str, sources: set[str]) -> None:
    """Stop where a model's results come from other data than the samples.

    Raises:
        ExpectedError: `sources` holds more than one source.
    """
    if len(sources) > 1:
        found = ", ".join(sorted(sources))
        raise ExpectedError(f"the results of {name} and the samples are of different data ({found}); run dvc repro")


if __name__ == "__main__":
    run_stage("plot", main)
