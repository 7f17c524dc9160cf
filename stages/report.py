"""Write metrics/report.html: the whole reproduction on one page that opens without a network.

It shows what `compare` found, and what follows from the predictions, histories and run records in git: intervals over
seeds, verdicts, curves, cost, mistakes and calibration. Charts are SVG and pictures PNG inside the page, in colours
that follow the reader's light or dark setting. The same inputs give the same bytes. On synthetic data every section
says so, and nothing is compared with the paper or judged.
"""

import os
from pathlib import Path
from typing import NamedTuple

os.environ["MPLBACKEND"] = "agg"  # a notebook sets one that may not be installed here

import numpy as np

from stages.common import paths
from stages.common.errors import ExpectedError
from stages.common.files import Json, read_arrays, read_json
from stages.common.paths import DATASET, METRICS, REPORT, SAMPLES
from stages.common.process import run_stage
from stages.figures.sources import require_same_data
from stages.page import charts, render
from stages.page.charts import FEWEST_IN_A_POINT
from stages.page.cost import LAYERS, predicting_operations
from stages.page.predictions import BINS, accuracy_and_loss, calibration, confusion, ensemble, most_often_mistaken
from stages.page.runs import Trained, machine, machines, read_trained
from stages.paper.claims import CLAIMS, load_claims
from stages.paper.markdown import missing_runs, plain, scale_of
from stages.paper.models import Model, models_of
from stages.paper.numbers import Numbers, load_numbers
from stages.paper.ours import OWN, first_epoch_with

SHOWN_MISTAKES = 5
TOGETHER = "ensemble"


class Cost(NamedTuple):
    """A model's weights, its operations (of predicting one image, and of its training), and its training's seconds."""

    weights: int
    predicting: int
    training: int
    seconds: float


def main() -> None:
    write_report(load_numbers())


def write_report(numbers: Numbers, metrics: Path = METRICS) -> None:
    """Write the page into a folder."""
    (metrics / REPORT.name).write_text(report(numbers), encoding="utf-8")


def report(numbers: Numbers) -> str:
    """The page, from the files in metrics.

    Raises:
        ExpectedError: A file is missing or damaged, or two files are of different data.
    """
    comparison, dataset, models = read_json(paths.comparison("json")), read_json(DATASET), models_of(numbers)
    trained = read_trained(numbers, dataset["train_images"])
    predictions = {name: read_arrays(paths.predictions(name)) for name in models}
    for model in models:
        sources = {dataset["source"], str(predictions[model]["source"])}
        require_same_data(model, sources | {one.run.source for one in trained if one.run.model == model})
    probabilities = {model.title: predictions[name]["probabilities"] for name, model in models.items()}
    labels = predictions[next(iter(models))]["labels"]
    warning = numbers.paper.warning(dataset["source"])
    judged = not warning
    together = {TOGETHER: ensemble(*probabilities.values())} if len(models) > 1 else {}
    with charts.drawing():
        return render.render(
            {
                "judged": judged,
                "paper": numbers.paper,
                "warning": warning,
                "classes": dataset["classes"],
                "test_images": dataset["test_images"],
                "titles": list(probabilities),
                "together": list(together),
                **compared(comparison, numbers, judged),
                "models": [
                    model_content(name, model, trained, predictions[name]["probabilities"], labels, dataset, judged)
                    for name, model in models.items()
                ],
                **cost(trained, numbers.models, probabilities, labels),
                **calibrated(probabilities | together, labels),
                "samples": samples(probabilities, dataset["classes"]),
                **experiments(trained, numbers),
            }
        )


def compared(comparison: Json, numbers: Numbers, judged: bool) -> Json:
    """What metrics/comparison.json says, for the sections that compare with the paper."""
    settings = comparison["settings"]
    return {
        "summary": render.summary(comparison) if judged else "",
        "scores": render.scores(comparison["models"]),
        "forest": charts.forest(comparison["results"]) if judged else [],
        "results": render.by_place(comparison["results"]),
        "claims": claims(comparison["claims"], numbers) if judged else [],
        "rules_known": comparison["rules_known"],
        "grids": [
            {
                "where": grid["where"],
                "open": grid["open"],
                "base_is": grid["base_is"],
                "charts": charts.grid(grid),
                "finding": render.finding_of(grid),
                "interpretations": charts.interpretations(grid),
                "legend": render.legend_lines(grid),
            }
            for grid in comparison["grids"]
            if judged and grid["nearest"]
        ],
        "measurements": render.measurements([*comparison["results"], *comparison["details"]]),
        "sources": comparison["sources"],
        "settings": render.settings(settings, numbers.models, numbers.paper.data),
        "same_settings": sum(row["status"] == "same" for row in settings),
        "open_ends": render.open_ends(comparison),
        "not_run": missing_runs(comparison["not_run"]),
    }


def claims(found: list[Json], numbers: Numbers) -> list[Json]:
    """The claims with their verdicts; each part with its rule in words and its chart.

    Raises:
        ExpectedError: They are not those of data/paper/claims.yaml.
    """
    wanted = load_claims(numbers).claims
    if [(claim["id"], [part["what"] for part in claim["parts"]]) for claim in found] != [
        (claim.id, [part.what for part in claim.parts]) for claim in wanted
    ]:
        file = paths.comparison("json")
        raise ExpectedError(f"{file} judges other claims than {CLAIMS}; run dvc repro compare")
    return [
        claim
        | {"needs": rules.needs}
        | {
            "parts": [
                part
                | {"rule": render.rule(rule.supports, scale_of(part) * rule.margin)}
                | {"chart": "" if part["mean"] is None else charts.estimate(part, rule, f"{claim['id']}-{number}")}
                for number, (part, rule) in enumerate(zip(claim["parts"], rules.parts, strict=True), start=1)
            ]
        }
        for claim, rules in zip(found, wanted, strict=True)
    ]


def model_content(
    name: str,
    model: Model,
    trained: list[Trained],
    probabilities: np.ndarray,
    labels: np.ndarray,
    dataset: Json,
    judged: bool,
) -> Json:
    """A model's curves and mistakes."""
    classes = dataset["classes"]
    same = [one for one in trained if one.run.model == name and (one.answers or one.run.name == OWN)]
    runs = [one for one in same if one.answers] or same  # on synthetic data no run may have the paper's parameters
    counts = confusion(probabilities, labels)
    mistakes = [
        f"{classes[truth]} for {classes[taken]} {count} times"
        for truth, taken, count in most_often_mistaken(counts, SHOWN_MISTAKES)
    ]
    return {
        "title": model.title,
        "curves": charts.learning(name, model, runs, judged),
        "curves_text": render.curves_text(
            [one.run.parameters["seed"] for one in runs], model.paper_validation if judged else "", model.remark
        ),
        "confusion": counts.tolist(),
        "mistakes": ", ".join(mistakes),
    }


def cost(
    trained: list[Trained], titles: dict[str, str], probabilities: dict[str, np.ndarray], labels: np.ndarray
) -> Json:
    """Accuracy against operations and seconds, and a table of both models and of both together.

    Nothing where there are not two models, or where stages/page/cost.py does not know their layers.
    """
    if len(titles) != 2 or titles.keys() - LAYERS.keys():
        return {"cost_text": "", "cost_charts": [], "cost_table": []}
    own = [one for one in trained if one.run.name == OWN]
    answers = [*probabilities.values(), ensemble(*probabilities.values())]
    scores = [accuracy_and_loss(answer, labels) for answer in answers]
    costs = [
        Cost(
            weights=one.scores["parameters"],
            predicting=predicting_operations(one.run.model, one.run.parameters),
            training=one.operations or 0,
            seconds=one.seconds or 0.0,
        )
        for one in own
    ]
    both_costs = Cost(*(a + b for a, b in zip(*costs, strict=True)))
    costs.append(both_costs)
    single, both = max(accuracy for accuracy, _ in scores[:-1]), scores[-1][0]
    return {
        "cost_text": (
            f"The mean of both models' probabilities is right on {render.percent(both)} of the test images, "
            f"{100 * (both - single):+.2f} points from the better of the two ({render.percent(single)}), "
            "for the cost of both."
        ),
        "cost_charts": charts.costs(
            trained,
            titles,
            {"operations": both_costs.training / 1e15, "seconds": both_costs.seconds, "accuracy": 100 * both},
        ),
        "cost_table": [
            ["test accuracy", *(render.percent(accuracy) for accuracy, _ in scores)],
            ["test loss (nats)", *(f"{loss:.3f}" for _, loss in scores)],
            ["weights (millions)", *(f"{cost.weights / 1e6:.2f}" for cost in costs)],
            ["predicting an image (MFLOP)", *(f"{cost.predicting / 1e6:,.1f}" for cost in costs)],
            ["training (PFLOP)", *(f"{cost.training / 1e15:.2f}" for cost in costs)],
            ["training (s)", *(f"{cost.seconds:,.0f}" for cost in costs)],
        ],
    }


def calibrated(probabilities: dict[str, np.ndarray], labels: np.ndarray) -> Json:
    """The reliability diagram and its figures."""
    found = {name: calibration(rows, labels) for name, rows in probabilities.items()}
    sure = [rows.max(axis=1).mean(dtype=np.float64) for rows in probabilities.values()]
    return {
        "bins": BINS,
        "fewest": FEWEST_IN_A_POINT,
        "reliability": charts.reliability(found),
        "calibration_table": [
            ["mean confidence", *map(render.percent, sure)],
            ["accuracy", *(render.percent(accuracy_and_loss(rows, labels)[0]) for rows in probabilities.values())],
            ["expected calibration error", *(f"{one.error:.3f}" for one in found.values())],
        ],
    }


def samples(probabilities: dict[str, np.ndarray], classes: list[str]) -> list[Json]:
    """The first test images, their classes, and what each model takes them for."""
    stored = read_arrays(SAMPLES)
    return [
        {
            "picture": render.picture(image),
            "truth": classes[truth],
            "predictions": [
                {
                    "title": title,
                    "predicted": classes[rows[number].argmax()],
                    "probability": render.percent(rows[number].max(), 0),
                    "is_right": rows[number].argmax() == truth,
                }
                for title, rows in probabilities.items()
            ],
        }
        for number, (image, truth) in enumerate(zip(stored["test_images"], stored["test_labels"], strict=True))
    ]


def experiments(trained: list[Trained], numbers: Numbers) -> Json:
    """A line for each machine, and one for each run.

    A run's line has the first epoch with a validation accuracy, if the paper's file names one.
    """
    reached, found = numbers.reached, machines(trained, numbers.models)
    places = {where: str(number) for number, where in enumerate(found, start=1)}
    title = [] if reached is None else [render.percent(reached, 0)]
    return {
        "experiments_header": ["Run", "Accuracy", "Loss", "Epoch kept", *title, "Seconds", "Machine"],
        "machines": list(found.values()),
        "experiments": [
            [
                f"{one.run.name}, {numbers.models[one.run.model]}" if one.run.name == OWN else one.run.name,
                render.percent(one.scores["test.accuracy"]),
                f"{one.scores['test.loss']:.3f}",
                f"{one.scores['best_epoch']} of {one.scores['epochs']}",
                *([] if reached is None else [plain(first_epoch_with(reached, one.run.validation_accuracy()))]),
                "-" if one.seconds is None else f"{one.seconds:,.0f}",
                places[machine(one)],
            ]
            for one in trained
        ],
        "reached": "".join(title),
    }


if __name__ == "__main__":
    run_stage("report", main)
