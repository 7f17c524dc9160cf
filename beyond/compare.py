"""The ladder: accuracy against the cost of training, beside the paper's two models and what others published.

From what is in git: the collected runs of beyond/experiments.yaml, the scores and predictions of the paper's two
models, and beyond/published.yaml. Every accuracy of a collected run is computed again from its predictions. The
equal-weight ensemble is the mean of both models' probabilities, at their joint cost. Writes a page and a figure.
"""

import os
from pathlib import Path
from typing import NamedTuple

os.environ["MPLBACKEND"] = "agg"  # a notebook sets one that may not be installed here

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from pydantic import Field

from beyond.ladder.plan import (
    EXPERIMENTS,
    KINDS,
    RUNS,
    TABLE,
    Ladder,
    all_runs,
    collected_rows,
    label_of,
    load_ladder,
    predictions_file,
)
from beyond.recipe.paths import METRICS
from stages.common import paths
from stages.common.config import Section, load_checked
from stages.common.errors import ExpectedError
from stages.common.files import Json, read_arrays, read_json
from stages.common.process import run_stage
from stages.experiments.plan import recorded_parameters
from stages.experiments.predictions import read_predictions
from stages.figures.style import BLUE, GREEN, GREY, RED, STYLE, new_figure
from stages.page.cost import training_operations
from stages.paper.markdown import measured, table
from stages.paper.numbers import load_numbers

PUBLISHED = Path("beyond/published.yaml")
PAGE, FIGURE = METRICS / "ladder.md", METRICS / "ladder.png"
PETA = 1e15
DOTS_PER_INCH = 150
TEST_LABELS = "keras_cnn"  # whose predictions have the labels of the test images, too


class Point(Section):
    """A network that others published."""

    name: str
    accuracy: float = Field(gt=0, lt=1)
    pflop: float = Field(gt=0)
    source: str


class Published(Section):
    """beyond/published.yaml."""

    points: list[Point]


class Reference(NamedTuple):
    """One of the paper's models, or both together: accuracy on the clean test set, and PFLOP of training."""

    title: str
    accuracy: float
    pflop: float


class Rung(NamedTuple):
    """The runs of a budget that one version of the code made.

    Attributes:
        budget: PFLOP, and the name of other settings.
        code: The hash of that version.
        pflop: Of training, as counted.
        accuracies: By KINDS, one a run.
        seconds: Of training, one a run.
        machine: That the fastest of them ran on, and its threads.
    """

    budget: str
    code: str
    pflop: float
    accuracies: dict[str, list[float]]
    seconds: list[float]
    machine: str


def main() -> None:
    ladder, published = load_ladder(), load_checked(PUBLISHED, Published)
    references, source = read_references()
    rows = [*collected_rows(all_runs(ladder)).values()]
    rungs = read_rungs(rows, source, read_arrays(paths.predictions(TEST_LABELS))["labels"])

    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(ladder, rungs, references, published.points, source), encoding="utf-8")
    with style.context(STYLE, after_reset=True):  # whatever the user's own matplotlibrc says
        points = published.points if source == "cifar10" else []
        draw(rungs, references, points, source).savefig(FIGURE, dpi=DOTS_PER_INCH, metadata={"Software": None})


def read_references() -> tuple[list[Reference], str]:
    """The paper's two models and their ensemble, from metrics/; and where their images came from."""
    found, probabilities, sources = [], [], set()
    for name, title in load_numbers().models.items():
        record, predicted = read_json(paths.run(name)), read_arrays(paths.predictions(name))
        images = record["epochs"] * record["data"]["train_images"]
        cost = images * training_operations(name, recorded_parameters(record)) / PETA
        found.append(Reference(title, read_json(paths.scores(name))["test"]["accuracy"], cost))
        probabilities.append(predicted["probabilities"].astype(np.float64))
        sources.add(str(predicted["source"]))
    if len(sources) > 1:
        raise ExpectedError(f"the paper's models are of different data ({', '.join(sorted(sources))}); run dvc repro")
    right = np.mean(probabilities, axis=0).argmax(axis=1) == predicted["labels"]
    both = Reference("both, averaged", float(right.mean()), sum(one.pflop for one in found))
    return [*found, both], sources.pop()


def read_rungs(rows: list[Json], source: str, labels: np.ndarray) -> list[Rung]:
    """The collected runs by budget and code; the accuracies are those of their predictions.

    Raises:
        ExpectedError: A run's predictions are missing or do not give the accuracy of its row, or are of other data.
    """
    groups: dict[tuple[float, str, str], list[Json]] = {}
    for row in rows:
        if row["source"] != source:
            raise ExpectedError(f"{TABLE}: {row['name']} is of {row['source']}, and the paper's models of {source}")
        groups.setdefault((row["budget"], label_of(row["name"]), row["code"]), []).append(row)
    return [
        Rung(
            budget,
            code,
            group[0]["pflop.training"],
            {kind: [accuracy(row, kind, labels) for row in group] for kind in KINDS},
            [row["seconds"] for row in group],
            machine_of(min(group, key=lambda row: row["seconds"])),
        )
        for (_, budget, code), group in sorted(groups.items())
    ]


def machine_of(row: Json) -> str:
    """What a run ran on."""
    return f"{row['processor']}, threads: {row['threads']}"


def accuracy(row: Json, kind: str, labels: np.ndarray) -> float:
    """The accuracy that a run's predictions give.

    Raises:
        ExpectedError: It is not that of its row.
    """
    file = predictions_file(row["name"], kind)
    found = float((read_predictions(file, len(labels)).predicted == labels).mean())
    recorded = row["test.accuracy" if kind == "plain" else "test_augmented.accuracy"]
    if round(found, 6) != recorded:
        raise ExpectedError(f"{file} gives {found:.6f}, and {TABLE} says {recorded}; git restore {RUNS}")
    return found


def render(ladder: Ladder, rungs: list[Rung], references: list[Reference], points: list[Point], source: str) -> str:
    """beyond/metrics/ladder.md."""
    rows = []
    for budget in ladder.budgets:
        found = [_line(rung) for rung in rungs if rung.budget == budget.label]
        rows += found or [[budget.label, "-", "not run yet", "-", "0", "-", "-"]]
    headers = ["Budget", "PFLOP", "Accuracy", "Without test-time augmentation", "Runs", "Seconds", "Code"]
    data = "" if source == "cifar10" else "Synthetic data, not CIFAR-10.\n\n"
    missing = len(all_runs(ladder)) - sum(len(rung.seconds) for rung in rungs)
    said = f"{missing} of {len(all_runs(ladder))} runs of {EXPERIMENTS} are not run yet.\n\n" if missing else ""
    lines = [[one.title, f"{one.pflop:.3f}", measured(100 * one.accuracy, "percent")] for one in references]
    others = [[one.name, f"{one.pflop:g}", measured(100 * one.accuracy, "percent"), one.source] for one in points]
    machines = sorted({rung.machine for rung in rungs})
    return (
        "# What each budget of training buys\n\n"
        f"{data}{said}"
        "Accuracy on the 10,000 test images: mean ± standard deviation over runs with different seeds, with\n"
        "test-time augmentation (a weighted mean of six views' logits). PFLOP: 10^15 operations of training.\n\n"
        f"{table(headers, rows)}\n\n"
        + (f"Seconds of the fastest run's training: {'; '.join(machines)}.\n\n" if machines else "")
        + "The paper's two models, as reproduced here, on the clean test images. One run each, that of `dvc repro`;\n"
        "the Keras CNN holds 10,000 of the training images out:\n\n"
        f"{table(['Model', 'PFLOP', 'Accuracy'], lines)}\n\n"
        "Published by others, with test-time augmentation, and counted by them. They count more for the same network:\n"
        "0.29 for airbench94 (spectral), which is 0.247 as we count, because we leave out what the pooling drops, and\n"
        "because they count a little more besides:\n\n"
        f"{table(['Model', 'PFLOP', 'Accuracy', 'Source'], others)}\n"
    )


def _line(rung: Rung) -> list[str]:
    augmented, plain = (_mean_and_deviation(rung.accuracies[kind]) for kind in ("augmented", "plain"))
    seconds = f"{min(rung.seconds):.0f}"  # what else runs on the machine only adds to it
    return [rung.budget, f"{rung.pflop:.4f}", augmented, plain, str(len(rung.seconds)), seconds, rung.code]


def _mean_and_deviation(values: list[float]) -> str:
    deviation = f" ± {100 * np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.2f}{deviation} %"


def draw(rungs: list[Rung], references: list[Reference], points: list[Point], source: str) -> Figure:
    """Accuracy against PFLOP of training, on a logarithmic axis."""
    figure = new_figure("Accuracy and cost of training", 9, 5, source)
    axes = figure.subplots()
    axes.grid(visible=True)
    axes.set_xscale("log")
    for kind, inside, label in (
        ("augmented", BLUE, "our small network (± standard deviation)"),
        ("plain", "white", "without test-time augmentation"),
    ):
        for rung in rungs:
            values = 100 * np.array(rung.accuracies[kind])
            spread = values.std(ddof=min(1, len(values) - 1))
            first = label if rung is rungs[0] else None
            axes.errorbar(
                [rung.pflop],
                [values.mean()],
                [spread],
                color=BLUE,
                markerfacecolor=inside,
                fmt="o",
                capsize=3,
                label=first,
            )
    named = [(one.title, one.pflop, one.accuracy) for one in references]
    published = [(one.name, one.pflop, one.accuracy) for one in points]
    for group, colour, marker, label in (
        (named, RED, "s", "the paper's models, reproduced"),
        (published, GREEN, "^", "others, as they count"),
    ):
        for name, cost, value in group:
            first = label if name == group[0][0] else None
            axes.plot([cost], [100 * value], color=colour, marker=marker, linestyle="", label=first)
            axes.annotate(
                name,
                (cost, 100 * value),
                xytext=(3, 5),
                textcoords="offset points",
                color=colour,
                fontsize=9,
                rotation=35,
            )
    if not rungs:
        axes.text(0.02, 0.95, "this pipeline: not run yet", transform=axes.transAxes, color=GREY)
    axes.set_xlabel("PFLOP of training (counted)")
    axes.set_ylabel("test accuracy (%)")
    axes.margins(x=0.15, y=0.2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(loc="lower right", frameon=False)
    return figure


if __name__ == "__main__":
    run_stage("beyond.compare", main)
