"""Charts on axes, or on a part of a figure, that somebody else has made: those that `plot` and `report` share.

Nothing here knows whether it is drawn into a PNG of a README or into the page of the report.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from stages.figures.style import (
    BAND,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    KEPT,
    MARKERS,
    OUR_POINT,
    OUR_RUN,
    OURS_TRAIN,
    OURS_VALIDATION,
    PALE_BLUE,
    PALE_RED,
    PAPER_POINT,
    PAPER_TRAIN,
    PAPER_VALIDATION,
    RED,
    RULE,
    Look,
)

History = Mapping[str, np.ndarray]
QUANTITIES = {"loss": "loss (nats)", "accuracy": "accuracy"}


def draw_learning(
    axes: Axes,
    quantity: str,
    histories: Sequence[History],
    kept: Sequence[int],
    paper: History | None = None,
    paper_validation: str = "validation",
) -> None:
    """Loss or accuracy by epoch, ours over the paper's.

    Args:
        axes: Where.
        quantity: "loss" or "accuracy".
        histories: Of runs that differ in their seed alone; columns by name, (epochs,) each: `epoch`, `train_loss`,
            `train_accuracy`, `val_loss`, `val_accuracy`; NaN where nothing was validated. One that is not there is not
            drawn. Of several runs the line is the mean, and the band reaches from the lowest to the highest.
        kept: For each of them the epoch whose weights are kept, from 1.
        paper: The paper's columns, likewise; None leaves them out.
        paper_validation: What "validation" is in the paper.
    """
    for part, name, line in (("train", "train", PAPER_TRAIN), ("val", paper_validation, PAPER_VALIDATION)):
        if paper is not None and f"{part}_{quantity}" in paper:
            axes.plot(paper["epoch"], paper[f"{part}_{quantity}"], label=f"paper, {name}", **line)
    for part, name, line in (("train", "train", OURS_TRAIN), ("val", "validation", OURS_VALIDATION)):
        epochs, values = stacked(histories, f"{part}_{quantity}")
        if np.isnan(values).all():
            continue
        if len(histories) > 1:
            axes.fill_between(epochs, np.nanmin(values, 0), np.nanmax(values, 0), color=line["color"], **BAND)
        axes.plot(epochs, np.nanmean(values, 0), label=f"ours, {name}", **line)
    for number, epoch in enumerate(sorted(set(kept))):
        label = f"ours, epoch {epoch}: weights kept" if len(set(kept)) == 1 else "ours, weights kept"
        axes.axvline(epoch, label="" if number else label, **KEPT)
    axes.set_xlabel("epoch")
    axes.set_title(QUANTITIES[quantity])
    axes.grid()
    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if quantity == "accuracy":
        axes.yaxis.set_major_formatter(lambda accuracy, _: f"{100 * accuracy:.4g}%")


def stacked(histories: Sequence[History], column: str) -> tuple[np.ndarray, np.ndarray]:
    """The epochs that any run has, (epochs,), and a column of all runs, (runs, epochs); NaN where one has none."""
    epochs = np.unique(np.concatenate([history["epoch"] for history in histories]))
    values = np.full((len(histories), len(epochs)), np.nan)
    for row, history in zip(values, histories, strict=True):
        row[np.searchsorted(epochs, history["epoch"])] = history.get(column, np.nan)
    return epochs, values


def draw_forest(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """The paper's numbers, hollow, and ours, filled: mean and 95 % prediction interval, with the number of runs.

    Args:
        axes: Where, with a number a line.
        rows: Of `results` of metrics/comparison.json, of one unit; no point where nothing is compared.
    """
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top
    for place, row in enumerate(rows):
        if row["status"] != "not compared":
            axes.plot(row["paper"], place, color="black", **PAPER_POINT)
        if row["ours"] is not None:
            axes.errorbar(row["ours"], place, xerr=reach(row), color=BLUE, **OUR_POINT)
            text = f"n={row['runs']}"
            axes.annotate(text, (1, place), (4, 0), ("axes fraction", "data"), textcoords="offset points", va="center")
    axes.grid(axis="x")
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)


def reach(number: Mapping[str, Any]) -> np.ndarray:
    """How far the prediction interval reaches below and above a number of ours, (2, 1); 0 where it has none."""
    low, high = number.get("interval") or (number["ours"], number["ours"])
    return np.array([[number["ours"] - low], [high - number["ours"]]])


def draw_grid_of(figure: FigureBase, grid: Mapping[str, Any], unit: str) -> None:
    """A unit of a grid: a panel for each value of the first axis, the second one to the right, with every run.

    Args:
        figure: A figure or a part of one, without anything in it.
        grid: An element of `grids` in metrics/comparison.json; the five nearest interpretations in full are shown.
        unit: "percent" or "nats".
    """
    first, second = grid["axes"]
    rows = sorted((row for row in grid["rows"] if row["unit"] == unit), key=lambda row: row["at"])
    values = sorted({row["at"][0] for row in rows})
    full = [found for found in grid["interpretations"] if found["in_full"]][: len(COLOURS)]
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axes, value in zip(panels, values, strict=True):
        cells = [row for row in rows if row["at"][0] == value]
        places = [row["at"][1] for row in cells]
        axes.plot(
            places,
            [row["paper"] for row in cells],
            color="black",
            label="the paper",
            **PAPER_POINT | {"linestyle": "-"},
        )
        aside = np.ptp(places) / 30 if len(places) > 1 else 0.0  # so that the points of two do not cover one another
        for number, (found, color, marker) in enumerate(zip(full, COLOURS, MARKERS, strict=False)):
            shift = aside * (number - (len(full) - 1) / 2)
            points = {row["at"][1] + shift: found["numbers"][row["id"]] for row in cells}
            draw_points(axes, points, color=color, marker=marker, label=found["name"])
        axes.set_xticks(places)
        axes.margins(x=0.2)
        axes.set_xlabel(second)
        axes.set_title(f"{first} {value}")
        axes.grid()
    panels[0].set_ylabel({"percent": "test accuracy (%)", "nats": "test loss (nats)"}[unit])


def draw_points(axes: Axes, points: Mapping[float, Any], **style_of_points: Any) -> None:
    """Numbers of ours by their place, but those that were not run: the mean, its interval, and a dot for each run."""
    run = {place: number for place, number in points.items() if number}
    if not run:
        return
    means = [number["ours"] for number in run.values()]
    reaches = np.hstack([reach(number) for number in run.values()])
    axes.errorbar(list(run), means, reaches, linewidth=1.2, markersize=5, elinewidth=1, **style_of_points)
    for place, number in run.items():
        if len(number["values"]) > 1:
            seeds = [place] * len(number["values"])
            axes.plot(seeds, number["values"], color=style_of_points["color"], **OUR_RUN)


def draw_interpretations(axes: Axes, grid: Mapping[str, Any]) -> None:
    """All interpretations of a grid, in the comparison's order: ours less the paper's accuracy, a point for each run.

    Args:
        axes: Where, with an interpretation a line.
        grid: An element of `grids` in metrics/comparison.json.
    """
    rates = [row for row in grid["rows"] if row["unit"] == "percent"]
    axes.axvline(0, color="black", linewidth=1)
    labelled = set()
    for place, found in enumerate(grid["interpretations"]):
        gaps = []
        for row, color, marker in zip(rates, cycle(COLOURS), cycle(MARKERS), strict=False):
            if not (number := found["numbers"][row["id"]]):
                continue
            differences = [value - row["paper"] for value in number["values"]]
            gaps += differences
            label = ", ".join(f"{axis} {value}" for axis, value in zip(grid["axes"], row["at"], strict=True))
            filled: Look = {} if found["in_full"] else {"markerfacecolor": "none"}
            axes.plot(
                differences,
                [place] * len(differences),
                linestyle="",
                marker=marker,
                markersize=5,
                color=color,
                label="" if label in labelled else label,
                **filled,
            )
            labelled.add(label)
        axes.plot([min(gaps), max(gaps)], [place, place], color=RULE, linewidth=3, zorder=0.5)
        runs = f"{len(gaps)} run{'' if len(gaps) == 1 else 's'}"
        axes.text(0.01, place - 0.36, f"{found['name']}: {runs}", transform=axes.get_yaxis_transform(), va="center")
    axes.set_ylim(len(grid["interpretations"]) - 0.6, -0.7)
    axes.set_yticks([])
    axes.set_xlabel("test accuracy, ours less the paper's (points)")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def draw_estimate(axes: Axes, part: Mapping[str, Any], supports: str, margin: float) -> None:
    """A mean with its 95 % interval, over the region in which a whole interval supports the claim, shaded.

    Args:
        axes: Where.
        part: An element of `parts` of a claim in metrics/comparison.json, with a mean.
        supports: "above", "below", "within" or "not_below" the margin, as in data/paper/claims.yaml.
        margin: Of the region.
    """
    low, high = (part[end] if part[end] is not None else part["mean"] for end in ("low", "high"))
    edges = [0.0, margin, -margin, low, high, part["mean"]]
    room = 0.12 * (max(edges) - min(edges) or 1)
    left, right = min(edges) - room, max(edges) + room
    regions = {
        "above": [(margin, right)],
        "below": [(left, -margin)],
        "within": [(-margin, margin)],
        "outside": [(left, -margin), (margin, right)],
        "not_below": [(-margin, right)],
    }
    for region in regions[supports]:
        axes.axvspan(*region, color=GREY, alpha=0.16, linewidth=0)
    axes.axvline(0, color="black", linewidth=0.8)
    color = {"supported": BLUE, "not supported": RED}.get(part["says"], "black")
    axes.errorbar(part["mean"], 0, xerr=[[part["mean"] - low], [high - part["mean"]]], color=color, **OUR_POINT)
    axes.set_xlim(left, right)
    axes.set_ylim(-1, 1)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=3))
    axes.spines["left"].set_visible(False)


def draw_reliability(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """How often predictions of a confidence are right: on the diagonal, as often as they say.

    Args:
        axes: Where.
        curves: For each model its bins' mean confidence and share of right answers, (bins,) each.
    """
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="as sure as right")
    looks = zip(curves.items(), cycle((BLUE, RED, GREEN)), cycle("o^D"), strict=False)
    for (name, (confidence, accuracy)), color, marker in looks:
        axes.plot(confidence, accuracy, color=color, marker=marker, markersize=4, linewidth=1.2, label=name)
    axes.set_xlabel("confidence (probability of the predicted class)")
    axes.set_ylabel("share of right answers")
    axes.grid()
    axes.legend(frameon=False, loc="upper left")


def draw_cost(axes: Axes, groups: Mapping[str, Sequence[tuple[float, float]]], what: str) -> None:
    """Test accuracy against what training took, to a logarithmic scale, a point a run.

    Args:
        axes: Where.
        groups: Five kinds of runs with their points, what training took and the test accuracy in percent: for each
            model those with Table 1's settings and the others, then both models together. A kind may have no points.
        what: Names the first of both, with its unit.
    """
    looks = zip(groups.items(), (BLUE, PALE_BLUE, RED, PALE_RED, GREEN), "oo^^D", strict=True)
    for (name, points), color, marker in looks:
        if not points:
            continue
        axes.plot(*np.array(points).T, linestyle="", marker=marker, markersize=5, color=color, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(what)
    axes.set_ylabel("test accuracy (%)")
    axes.margins(x=0.12)
    axes.grid()
