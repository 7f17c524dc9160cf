"""Compare our numbers with the paper's: metrics/comparison.json for programs, metrics/comparison.md for people.

data/paper/numbers.yaml holds what the paper prints, what that really is, and which of our numbers answers it. Only runs
with the very parameters under which a row holds answer it; otherwise the row names the parameters that differ. The runs
are that of `dvc repro` and those of metrics/runs.csv; where several seeds answer a row, their mean does. Nothing of
other data, such as synthetic data, is compared. The stage reads only tables of metrics and no run time, so two runs of
one commit give the same bytes.
"""

from pathlib import Path

from stages.common import paths
from stages.common.files import Json, flat, read_json, write_json
from stages.common.paths import DATASET, METRICS
from stages.common.process import run_stage
from stages.experiments.plan import all_runs, load_experiments
from stages.experiments.table import read_runs
from stages.paper.claims import load_claims, verdicts
from stages.paper.interpretations import Interpretations
from stages.paper.markdown import render
from stages.paper.numbers import Numbers, load_numbers
from stages.paper.ours import read_collected, read_own_run
from stages.paper.rows import compare_curve, compare_list, compare_number, compare_setting, standing_of


def main() -> None:
    write_comparison(load_numbers())


def write_comparison(numbers: Numbers, metrics: Path = METRICS) -> None:
    """Compare the files of metrics/ with the paper, and write that into a folder."""
    comparison = compare(numbers)
    write_json(paths.comparison("json", metrics), comparison)
    paths.comparison("md", metrics).write_text(render(comparison), encoding="utf-8")


def compare(numbers: Numbers) -> Json:
    """Every row of the paper's numbers with ours, from the files in metrics.

    Returns:
        The content of metrics/comparison.json. In a row, `paper`, `ours` (the mean of `values`), `difference` (ours
        less the paper's), `spread` and `interval` (of one more run) are in the row's `unit`; `status` is one of those
        of stages/paper/rows.py, `reasons` says why a row is not answered, and `runs` is how many runs answer it.

    Raises:
        ExpectedError: A file is missing or damaged, or two files of one model are of different data.
    """
    own = {model: read_own_run(model) for model in numbers.models}
    sources = {model: run.source for model, run in own.items()} | {"dataset": read_json(DATASET)["source"]}
    runs = [*own.values(), *read_collected(list(own.values()))]
    collected, experiments = {row["name"] for row in read_runs()}, load_experiments()
    named, claims = experiments.interpretations, load_claims(numbers)
    grids = {name: Interpretations(grid, numbers, runs, named) for name, grid in numbers.grids.items()}
    standings = {
        name: grids[wanted.grid].standing(wanted, own[wanted.model])
        if wanted.grid
        else standing_of(wanted, own[wanted.model], runs, numbers.paper)
        for name, wanted in numbers.configurations.items()
    }
    return {
        "paper": numbers.paper.model_dump(),
        "models": [
            {
                "model": model,
                "title": title,
                "source": sources[model],
                "warning": numbers.paper.warning(sources[model]),
                "data": numbers.paper.warning(sources[model]) or numbers.paper.data,
                "seed": own[model].parameters["seed"],
                "scores": flat(read_json(paths.scores(model))),
            }
            for model, title in numbers.models.items()
        ],
        "test_images": read_json(DATASET)["test_images"],
        "collected": len(collected),
        "without_predictions": sum(not paths.collected_predictions(name).exists() for name in collected),
        "rules_known": claims.known,
        "claims": verdicts(claims, numbers, grids, runs),
        "grids": [{"id": name, **interpretations.described()} for name, interpretations in grids.items()],
        "not_run": [name for name in all_runs(experiments) if name not in collected],
        "results": [compare_number(row, standings[row.configuration]) for row in numbers.results],
        "details": [compare_number(row, standings[row.configuration]) for row in numbers.details],
        "lists": [compare_list(row, standings[row.configuration]) for row in numbers.lists],
        "curves": [compare_curve(row, standings[row.configuration]) for row in numbers.curves],
        "settings": [compare_setting(row, not numbers.paper.warning(sources[row.model])) for row in numbers.settings],
        "fixed": numbers.fixed,
        "not_compared": [row.model_dump() for row in numbers.not_compared],
        "sources": numbers.sources,
    }


if __name__ == "__main__":
    run_stage("compare", main)
