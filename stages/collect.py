"""Bring experiments into git: a row of metrics/runs.csv and a history for each; no stage: `make collect`.

Experiments live in references of one clone; these files are how their results survive it. Only runs that
experiments.yaml names are collected, of the code and data that dvc.lock records: rows of other code or data, and of the
synthetic stand-in beside real ones, never add up. A run that is there stays as it is: the same run twice is one row.
"""

import json
from pathlib import Path
from typing import Any

from stages.errors import ExpectedError, run_program
from stages.experiments import (
    EXPERIMENTS,
    HISTORIES,
    LOCK,
    RUNS,
    Experiments,
    Json,
    Origin,
    Run,
    all_runs,
    experiments_in_git,
    file_in,
    flat,
    load_experiments,
    lock_in,
    made,
    origin,
    read_lock,
    read_runs,
    recorded_parameters,
    same_origin,
    write_runs,
)
from stages.files import read_json

DATASET = Path("metrics/dataset.json")


def main() -> None:
    experiments, lock = load_experiments(), read_lock()
    runs = all_runs(experiments)
    source = read_json(DATASET)["source"]
    rows = {row["name"]: row for row in (read_runs() if RUNS.exists() else [])}
    references = experiments_in_git()
    new, left = [], []
    for run in runs.values():
        wanted = origin(lock, run.model)
        if run.name in rows and is_of(rows[run.name], wanted, source, experiments):
            continue
        commits = references.get(run.name, [])
        commit = made(run, commits, wanted, experiments)
        if commit is None:
            left += [f"{run.name}: its experiment is of other code, data or parameters"] if commits else []
            continue
        row = row_of(run, commit)
        if row["source"] != source:
            left.append(f"{run.name}: is of {row['source']} data, and {DATASET} of {source}")
            continue
        rows[run.name] = row
        new.append((run, commit))
    check_rows(rows, runs, lock, source, experiments)
    HISTORIES.mkdir(parents=True, exist_ok=True)
    for run, commit in new:
        (HISTORIES / f"{run.name}.csv").write_text(
            file_in(commit, f"metrics/history/{run.model}.csv"), encoding="utf-8"
        )
    write_runs([rows[name] for name in runs if name in rows])
    for line in left:
        print(f"left out: {line}")
    print(f"{RUNS}: {len(rows)} runs of {len(runs)} in {EXPERIMENTS}, {len(new)} of them new")


def row_of(run: Run, commit: str) -> Json:
    """The row of a run, from the files in its experiment's commit."""

    def content(path: str) -> Any:
        return json.loads(file_in(commit, path))

    scores, record = content(f"metrics/{run.model}.json"), content(f"metrics/runs/{run.model}.json")
    runtime = content(f"metrics/runtime/{run.model}.json")
    lock = lock_in(commit)
    made_from = origin(lock, run.model)
    outs = {out["path"]: out["md5"] for out in lock["stages"][f"evaluate@{run.model}"]["outs"]}
    return {
        "name": run.name,
        "model": run.model,
        "overrides": " ".join(run.overrides),
        "code": made_from.code,
        "data": made_from.data,
        "predictions": outs[
            f"metrics/predictions/{run.model}.npz"
        ],  # whoever runs it again sees whether it is the same
        "processor": runtime["processor"],
        "device": runtime["device"],
        "threads": runtime["threads"],
        "versions": " ".join(f"{name}-{number}" for name, number in runtime["versions"].items()),
        "seconds": runtime["seconds"],
        **flat(scores),
        **recorded_parameters(record),
    }


def is_of(row: Json, wanted: Origin, source: str, experiments: Experiments) -> bool:
    return row["source"] == source and same_origin(Origin(row["code"], row["data"]), wanted, experiments)


def check_rows(rows: dict[str, Json], runs: dict[str, Run], lock: Json, source: str, experiments: Experiments) -> None:
    """Stop, with nothing written, where a row does not belong to the table any more: results are not thrown away.

    Raises:
        ExpectedError: A row is of a run that experiments.yaml does not name, or of other code or data.
    """
    for name, row in rows.items():
        if name not in runs:
            raise ExpectedError(
                f"{RUNS} has {name}, which {EXPERIMENTS} does not name; name it there, or remove the row"
            )
        wanted = origin(lock, row["model"])
        if not is_of(row, wanted, source, experiments):
            raise ExpectedError(
                f"{name} in {RUNS} is of code {row['code']} and data {row['data']} ({row['source']}), and {LOCK} has "
                f"{wanted.code} and {wanted.data} ({source}): run it again and collect it, remove its row, or, where "
                f"its results are shown to be the same, name its code under same_results in {EXPERIMENTS}"
            )


if __name__ == "__main__":
    run_program("collect", main)
