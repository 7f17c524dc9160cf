"""What each search found: its finished trials, and full trainings with its best values beside the committed ones.

From what is in git: beyond/search.yaml, the tables of beyond/search, and the runs of metrics/runs.csv. Trials are short
and are scored on the validation part, and the best of many owes some of its accuracy to chance. So docs/beyond.md has a
rule for confirming the best values: full trainings with several seeds, compared on the test set. Writes a page.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from beyond.recipe.paths import METRICS
from stages.common.config import read
from stages.common.errors import ExpectedError
from stages.common.files import Json, read_rows
from stages.common.paths import PARAMETERS
from stages.common.process import run_stage
from stages.experiments.table import read_runs
from stages.paper.markdown import counted, measured, signed, table, wrap
from stages.paper.ours import read_collected, read_own_run
from stages.paper.rows import shown
from stages.paper.statistics import FEWEST, Estimate, paired_difference

SEARCHES = Path("beyond/search.yaml")
RESULTS = Path("beyond/search")
PAGE = METRICS / "search.md"
COMMITTED = "the committed values"  # the note of their trial
DIGITS = 3  # of the best values, in full trainings


def main() -> None:
    searches = read(SEARCHES)["studies"]
    sections = [section(name, searches[name]) for name in searches if results(name).exists()]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n\n".join(["# What the searches found", *(sections or ["None was run yet."])]) + "\n", "utf-8")


def results(name: str) -> Path:
    """The table of a study's trials, the best first."""
    return RESULTS / f"{name}.csv"


def pictures(name: str) -> dict[Path, str]:
    """Optuna's two pictures of a study, and what each shows: the importances of the parameters, and slices."""
    return {
        RESULTS / f"{name}_importance.png": "The finished trials: each parameter's importance, as Optuna estimates it",
        RESULTS / f"{name}_slice.png": "The finished trials: the accuracy against each parameter",
    }


def section(name: str, search: Json) -> str:
    """What the page says of a study.

    Raises:
        ExpectedError: Its table lacks a parameter, or a row of it is not whole.
    """
    space = [*search["space"]]
    file = results(name)
    if lacking := [key for key in space if key not in (read_rows(file) or [{}])[0]]:
        raise ExpectedError(
            f"{file} has no {lacking[0]}, which {SEARCHES} searches; give the changed study another name"
        )
    trials = read_runs(file, ("trial", "state", "epochs", *space))
    counts = Counter(trial["state"] for trial in trials)
    finished = [trial for trial in trials if trial["state"] == "complete"]
    epochs = sum(trial["epochs"] for trial in trials)
    changes = f" with {', '.join(search['set'])}" if search["set"] else ""
    said = (
        f"{len(trials)} trials of {search['target']}{changes}, {epochs} epochs of a budget of {search['epochs']}: "
        f"{counts['complete']} finished, {counts['pruned']} ended by the pruner, {counts['fail']} failed."
    )
    if not finished:
        return f"## {name}\n\n{wrap(said)}"
    said += (
        " The table has the finished trials, one run each, with their accuracy on the validation part. The best of "
        "many trials owes some of its accuracy to chance."
    )
    here = [
        f"![{text}]({os.path.relpath(file, PAGE.parent)})" for file, text in pictures(name).items() if file.exists()
    ]
    parts = [f"## {name}", wrap(said), trials_table(finished, space), *here, *confirmation(finished, search)]
    return "\n\n".join(parts)


def trials_table(finished: list[Json], space: list[str]) -> str:
    """A line for each finished trial, the best first."""
    lines = [
        [str(trial["trial"]), measured(100 * trial["validation_accuracy"], "percent"), str(trial["epochs"])]
        + [shown(_as_trained(trial[key])) for key in space]
        + [trial.get("note", "")]
        for trial in finished
    ]
    return table(["Trial", "Accuracy", "Epochs", *space, "Note"], lines)


def confirmation(finished: list[Json], search: Json) -> list[str]:
    """Full trainings with the best values and with the committed ones, seed by seed, on the test set."""
    best, committed = finished[0], next((trial for trial in finished if trial.get("note") == COMMITTED), None)
    if committed is None:
        return ["No finished trial has the committed values, so there is nothing to compare with."]
    before = {key: committed[key] for key in search["space"]}
    found = {key: _as_trained(best[key]) if best[key] != before[key] else before[key] for key in search["space"]}
    if found == before:
        return ["The best finished trial has the committed values."]
    if search["parameters"] != str(PARAMETERS):
        return ["The best values become a line of the [ladder](ladder.md)."]
    changed = ", ".join(f"{key}={shown(value)}" for key, value in found.items() if value != before[key])
    parts = [f"### Trained in full with {changed}"]
    own = read_own_run(Path(search["record"]).stem)
    runs = [own, *read_collected([own])]
    others = {key: value for key, value in own.parameters.items() if key != "seed"}  # as `dvc repro` has them
    ours, theirs = (
        {run.parameters["seed"]: run.scores() for run in runs if run.is_with(others | values)}
        for values in (found, before)
    )
    seeds = [seed for seed in sorted(ours) if seed in theirs]
    if not seeds:
        return [*parts, "Not run yet."]
    lines = [[str(seed), *_scores(ours[seed]), *_scores(theirs[seed])] for seed in seeds]
    headers = ["Seed", "Accuracy", "Loss", "Accuracy, committed values", "Loss, committed values"]
    said = []
    for score, scale, unit, what in (("accuracy", 100, "percent", "points of accuracy"), ("loss", 1, "nats", "nats")):
        first, second = ({seed: scale * run[f"test.{score}"] for seed, run in by.items()} for by in (ours, theirs))
        said.append(difference(paired_difference(first, second), unit, what))
    text = (
        "The mean difference on the test set, these values less the committed ones with the same seed, with its 95 % "
        f"interval: {'; '.join(said)}."
    )
    return [*parts, table(headers, lines), wrap(text)]


def difference(estimate: Estimate, unit: str, what: str) -> str:
    """A mean difference, and, where there are enough pairs, its 95 % interval and which one is higher."""
    mean, pairs = f"{signed(estimate.mean, unit)} {what}", counted(estimate.runs, "pair")
    if estimate.low is None or estimate.high is None or estimate.runs < FEWEST:
        return f"{mean} ({pairs}, no interval)"
    says = "higher" if estimate.low > 0 else "lower" if estimate.high < 0 else "cannot tell"
    return f"{mean} ({signed(estimate.low, unit)} to {signed(estimate.high, unit)}, {pairs}): {says}"


def _scores(run: Json) -> list[str]:
    return [measured(100 * run["test.accuracy"], "percent"), measured(run["test.loss"], "nats")]


def _as_trained(value: Any) -> Any:
    """A found value in full trainings."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


if __name__ == "__main__":
    run_stage("beyond.confirm", main)
