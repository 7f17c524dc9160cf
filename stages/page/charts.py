"""The charts of the report as SVG, each with what it shows in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import style
from matplotlib.figure import Figure

from stages.common.files import Json, read_history
from stages.figures.panels import (
    QUANTITIES,
    draw_cost,
    draw_estimate,
    draw_forest,
    draw_grid_of,
    draw_interpretations,
    draw_learning,
    draw_reliability,
    stacked,
)
from stages.figures.style import STYLE
from stages.figures.svg import to_svg
from stages.page.predictions import Calibration
from stages.page.runs import Trained
from stages.paper.claims import Part
from stages.paper.markdown import counted, mean_and_ends, measured, printed, scale_of
from stages.paper.models import Model

FEWEST_IN_A_POINT = 10  # images: fewer say nothing of a share
WIDTH = 4.4  # inches: two stand side by side, and one alone is read well on a phone
# Points that are read well at that width; titles are the page's, not the figures'.
PAGE_STYLE = STYLE | {"font.size": 9, "axes.titlesize": 9.5, "legend.fontsize": 8.5, "lines.solid_capstyle": "round"}
UNITS = {"percent": "accuracy (%)", "nats": "loss (nats)", "rate": "rate"}


def forest(rows: Sequence[Json]) -> list[Markup]:
    """The paper's numbers and ours, a chart for each unit."""
    charts = []
    for unit, title in UNITS.items():
        if not (shown := [row for row in rows if row["unit"] == unit]):
            continue
        figure = page_figure(WIDTH, 0.9 + 0.32 * len(shown))
        axes = figure.subplots()
        draw_forest(axes, shown)
        axes.set_title(title)
        said = "; ".join(
            f"{row['label']}: paper {printed(row['paper'], row)}, ours {measured(row['ours'], unit)}" for row in shown
        )
        charts.append(svg(figure, f"forest-{unit}", f"Forest plot of {title}. {said}."))
    return charts


def learning(name: str, model: Model, runs: Sequence[Trained], compared: bool) -> list[Markup]:
    """Loss and accuracy by epoch over the paper's curves, with the band of seeds; nothing without such histories."""
    histories, kept = [run.history() for run in runs], [run.scores["best_epoch"] for run in runs]
    if not all("train_loss" in history for history in histories):
        return []
    paper = read_history(model.paper_curves) if compared and model.paper_curves else None
    charts = []
    for quantity, title in QUANTITIES.items():
        if not any(f"{part}_{quantity}" in history for part in ("train", "val") for history in histories):
            continue
        figure = page_figure(WIDTH, 3.5)
        axes = figure.subplots()
        draw_learning(axes, quantity, histories, kept, paper)
        legend(figure, 2 if paper else 3)
        said = ", ".join(
            f"{part} from {values[0, 0]:.3f} to {values[0][~np.isnan(values[0])][-1]:.3f}"
            for part, column in (("training", "train"), ("validation", "val"))
            if not np.isnan(values := stacked(histories, f"{column}_{quantity}")[1][:1]).all()
        )
        text = f"{model.title}, {title} by epoch, {counted(len(runs), 'run')} of ours"
        text += " over the paper's curves" if paper else ""
        charts.append(svg(figure, f"curves-{name}-{quantity}", f"{text}: {said} in our first run."))
    return charts


def grid(content: Json) -> list[Markup]:
    """A grid over its two axes, accuracy and loss."""
    charts = []
    for unit, title in UNITS.items():
        if all(row["unit"] != unit for row in content["rows"]):
            continue
        figure = page_figure(WIDTH, 3.9)
        draw_grid_of(figure, content, unit)
        legend(figure, 2)
        said = "; ".join(
            f"{'/'.join(map(str, row['at']))}: paper {printed(row['paper'], row)}"
            + "".join(
                f", {found['name']} {measured(number['ours'], unit)}"
                for found in content["interpretations"]
                if found["in_full"] and (number := found["numbers"][row["id"]])
            )
            for row in content["rows"]
            if row["unit"] == unit
        )
        text = f"{content['where']}, {title} by {' and '.join(content['axes'])}. {said}."
        charts.append(svg(figure, f"grid-{content['id']}-{unit}", text))
    return charts


def interpretations(content: Json) -> Markup:
    """All interpretations of a grid in one chart."""
    figure = page_figure(WIDTH, 0.9 + 0.42 * len(content["interpretations"]))
    axes = figure.subplots()
    draw_interpretations(axes, content)
    legend(figure, 2)
    said = "; ".join(
        f"{found['name']}: {found['distance']['percent']:.2f} points from the paper"
        for found in content["interpretations"]
    )
    return svg(
        figure,
        f"interpretations-{content['id']}",
        f"Interpretations of {content['where']}, those with the most cells first, then the nearest. {said}.",
    )


def estimate(part: Json, rule: Part, name: str) -> Markup:
    """The mean and the interval of a part of a claim, which has been measured."""
    figure = page_figure(2.2, 0.55)
    axes = figure.subplots()
    scale = scale_of(part)
    scaled = {end: None if part[end] is None else scale * part[end] for end in ("mean", "low", "high")}
    draw_estimate(axes, part | scaled, rule.supports, scale * rule.margin)
    axes.tick_params(labelsize=7.5)
    return svg(figure, name, f"{part['what']}: {mean_and_ends(part, part)}; the shaded region supports the claim.")


def costs(trained: Sequence[Trained], titles: dict[str, str], together: dict[str, float]) -> list[Markup]:
    """Accuracy against operations and seconds; `together` is the ensemble's, as `cost_of` gives a run's."""
    kinds = {
        f"{title}, {what}": [cost_of(one) for one in trained if one.run.model == model and one.answers == answers]
        for model, title in titles.items()
        for answers, what in ((True, "as the paper"), (False, "other settings"))
    }
    kinds["ensemble, equal weights"] = [together]
    charts = []
    for measure, what in {"operations": "training (PFLOP)", "seconds": "training (s)"}.items():
        points = {
            kind: [(one[measure], one["accuracy"]) for one in ones if one[measure]] for kind, ones in kinds.items()
        }
        figure = page_figure(WIDTH, 3.6)
        draw_cost(figure.subplots(), points, what)
        legend(figure, 2)
        means = {kind: np.mean(pairs, axis=0) for kind, pairs in points.items() if pairs}
        said = "; ".join(f"{kind} {accuracy:.2f} % for {short(cost)}" for kind, (cost, accuracy) in means.items())
        charts.append(svg(figure, f"cost-{measure}", f"Test accuracy against {what}; means: {said}."))
    return charts


def short(cost: float) -> str:
    """With three digits, or all before the point."""
    return f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}"


def cost_of(one: Trained) -> dict[str, float]:
    """What a run took, in PFLOP and seconds (0 where that is not recorded), and its test accuracy in percent."""
    return {
        "operations": (one.operations or 0) / 1e15,
        "seconds": one.seconds or 0.0,
        "accuracy": 100 * one.scores["test.accuracy"],
    }


def reliability(found: Mapping[str, Calibration]) -> Markup:
    """The reliability diagram of the models."""
    figure = page_figure(WIDTH, 4.0)
    curves = {}
    for name, one in found.items():
        shown = one.images >= FEWEST_IN_A_POINT
        curves[name] = (one.confidence[shown], one.accuracy[shown])
    draw_reliability(figure.subplots(), curves)
    said = ", ".join(f"{name} {one.error:.3f}" for name, one in found.items())
    return svg(figure, "reliability", f"Reliability diagram; expected calibration errors: {said}.")


def page_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def legend(figure: Figure, columns: int) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def svg(figure: Figure, name: str, text: str) -> Markup:
    return Markup(to_svg(figure, name, text))  # noqa: S704  our own


def drawing() -> Any:
    """A context in which all charts of the page are drawn, whatever the user's own matplotlibrc says."""
    return style.context(PAGE_STYLE, after_reset=True)
