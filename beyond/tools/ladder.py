"""Run the runs of beyond/experiments.yaml that are missing, and collect them in beyond/runs. It is no stage.

Each run is `dvc exp run --temp --name <name> -S ... beyond/dvc.yaml:evaluate` in a temporary copy of the last commit. A
finished run is an experiment and is not repeated; an interrupted one resumes after its last epoch with the same
command. Of each, a row of beyond/runs/runs.csv is kept, its history, and in short its predictions. A row stays as it
is; docs/using-dvc.md says how to repeat a run. Rows of other settings or data than the present ones are refused.
"""

import argparse
import contextlib
import io
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from beyond.ladder.plan import (
    DETERMINING,
    EXPERIMENTS,
    KINDS,
    RUNS,
    STAGES,
    TABLE,
    Run,
    all_runs,
    collected_rows,
    history_file,
    load_ladder,
    origin_of,
    predictions_file,
    present_origin,
    settings_of,
)
from beyond.recipe import paths
from beyond.recipe.cost import CIFAR10_IMAGES, PETA, training_flop
from beyond.recipe.settings import PARAMETERS
from stages.common.config import parse_mapping
from stages.common.errors import ExpectedError, run_program
from stages.common.files import Json, flat
from stages.common.process import ancestor, end_with
from stages.experiments.git import bytes_in, experiments_in_git, file_in
from stages.experiments.origin import Origin
from stages.experiments.predictions import in_short, to_bytes
from stages.experiments.table import write_runs
from stages.tools.grid import at_least_one, check_clean, only_grid
from stages.tools.runs import Processes, run_all, say, share_cores

TARGET = "beyond/dvc.yaml:evaluate"


def main() -> None:
    options = arguments()
    end_with(ancestor("make"))  # which cannot tell us when it is killed
    runs = all_runs(load_ladder())
    check_clean(DETERMINING)
    present = present_origin()
    rows, references = collected_rows(runs), experiments_in_git()
    check_rows(rows, runs, present)
    for pattern in options.runs:
        if not any(fnmatch(name, pattern) for name in runs):
            raise ExpectedError(f"{EXPERIMENTS} has no {pattern!r}; it has {', '.join(runs)}")
    wanted = [run for run in runs.values() if any(fnmatch(run.name, pattern) for pattern in options.runs)]
    waiting = [run for run in wanted if run.name not in rows and not made(run, references.get(run.name, []), present)]
    for run in waiting:
        check_cost(run)
    say(f"{len(wanted)} runs, {len(wanted) - len(waiting)} of them done")
    share_cores(options.jobs)
    with only_grid():
        failed = run_all(waiting, Processes(command_of), options.jobs)
        collect(runs, present)
    if failed:
        raise ExpectedError(
            f"{len(failed)} of {len(waiting)} runs failed: {', '.join(failed)}; the others are done, and dvc repro "
            "--single-item beyond/dvc.yaml:compare shows them"
        )


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m beyond.tools.ladder", description=__doc__)
    parser.add_argument("runs", nargs="*", default=["*"], help="names of runs, * for any letters")
    parser.add_argument("--jobs", type=at_least_one, default=1, help="runs at once")
    return parser.parse_args()


def check_cost(run: Run) -> None:
    """Raise an ExpectedError where a run would cost more than its budget, or the test set could choose its settings."""
    settings = settings_of(run.overrides)
    cost = training_flop(CIFAR10_IMAGES, settings) / PETA
    if cost > run.pflop:
        raise ExpectedError(
            f"{EXPERIMENTS}: {run.name} would cost {cost:.4f} PFLOP, more than its {run.pflop:g}; lower its epochs or "
            "widths"
        )
    if settings.validation != "none":
        raise ExpectedError(f"{EXPERIMENTS}: {run.name} holds images out; a run of the ladder has validation=none")


def check_rows(rows: dict[str, Json], runs: dict[str, Run], present: Origin) -> None:
    """Stop if a row is of other settings or data than a run that starts now: the page gives one mean for a budget.

    Raises:
        ExpectedError: A row is of other settings, or of other data.
    """
    for name, row in rows.items():
        settings = settings_of(runs[name].overrides)
        wanted = flat(settings.model_dump(exclude={"evaluate"})) | {"test_augmented.views": settings.evaluate.views}
        other = [f"{key} {row.get(key)}, not {value}" for key, value in wanted.items() if row.get(key) != value]
        if row["data"] != present.data:
            other.append(f"data {row['data']}, not {present.data}")
        if other:
            raise ExpectedError(f"{TABLE}: {name} was run with {', '.join(other)}; remove its row, or change that back")


def command_of(run: Run) -> list[str]:
    """What dvc is to do for a run."""
    overrides = [part for override in run.overrides for part in ("-S", f"{PARAMETERS}:{override}")]
    return ["exp", "run", "--temp", "--name", run.name, *overrides, TARGET]


def origin_in(commit: str) -> Origin:
    """The origin of the run that an experiment's commit holds."""
    stages = parse_mapping(file_in(commit, "beyond/dvc.lock"))["stages"]
    return origin_of({dep["path"]: dep["md5"] for stage in STAGES for dep in stages[stage]["deps"]})


def made(run: Run, commits: list[str], present: Origin) -> str | None:
    """The commit among those of an experiment that holds this run, made from the present code and data."""
    settings = settings_of(run.overrides)
    wanted = settings.model_dump(exclude={"evaluate"})
    for commit in commits:
        with contextlib.suppress(ExpectedError, ValueError, KeyError):  # one that was never scored has no such files
            record = json.loads(file_in(commit, paths.RUN.as_posix()))
            scores = json.loads(file_in(commit, paths.SCORES.as_posix()))
            as_asked = record["parameters"] == wanted and scores["test_augmented"]["views"] == settings.evaluate.views
            if as_asked and origin_in(commit) == present:
                return commit
    return None


def collect(runs: dict[str, Run], present: Origin) -> None:
    """Add the new runs: their files first, then the table."""
    rows, references = collected_rows(runs), experiments_in_git()
    new = 0
    for run in runs.values():
        commit = None if run.name in rows else made(run, references.get(run.name, []), present)
        if commit:
            rows[run.name] = row_of(run, commit)
            RUNS.mkdir(exist_ok=True)
            history_file(run.name).write_text(file_in(commit, paths.HISTORY.as_posix()), encoding="utf-8")
            with np.load(io.BytesIO(bytes_in(commit, paths.PREDICTIONS.as_posix())), allow_pickle=False) as arrays:
                for kind in KINDS:
                    content = to_bytes(in_short(arrays[kind], arrays["labels"]))
                    predictions_file(run.name, kind).write_bytes(content)
            new += 1
        elif run.name not in rows and run.name in references:
            say(f"left out: {run.name}: its experiment is of other code, data or settings, or was not scored")
    write_runs([rows[name] for name in runs if name in rows], TABLE)
    say(f"{TABLE}: {len(rows)} runs of {len(runs)} in {EXPERIMENTS}, {new} of them new")


def row_of(run: Run, commit: str) -> Json:
    """The row of a run, from the files in its experiment's commit."""

    def content(path: Path) -> Any:
        return json.loads(file_in(commit, path.as_posix()))

    scores, record, runtime = content(paths.SCORES), content(paths.RUN), content(paths.RUNTIME)
    origin = origin_in(commit)
    return {
        "name": run.name,
        "model": "beyond",
        "budget": run.pflop,
        "code": origin.code,
        "data": origin.data,
        "processor": runtime["processor"],
        "device": runtime["device"],
        "threads": runtime["threads"],
        "versions": " ".join(f"{name}-{number}" for name, number in runtime["versions"].items()),
        "seconds": runtime["seconds"],
        **flat(scores),
        **flat(record["parameters"]),
    }


if __name__ == "__main__":
    run_program("ladder", main)
