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
    differing,
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
    collect(load_experiments(), read_lock(), read_json(DATASET)["source"])


def collect(experiments: Experiments, lock: Json, source: str) -> None:
    """Add what is new, histories first, then the table, all or nothing.

    Raises:
        ExpectedError: A row of the table does not belong there any more; nothing is written then.
    """
    runs, references = all_runs(experiments), experiments_in_git()
    rows = {row["name"]: row for row in read_runs()}
    check_rows(rows, runs, lock, source, experiments)
    new: dict[str, str] = {}
    for run in runs.values():
        if run.name in rows:
            continue
        commits = references.get(run.name, [])
        commit = made(run, commits, origin(lock, run.model), experiments)
        row = row_of(run, commit) if commit else None
        if commit and row and row["source"] == source:
            rows[run.name] = row
            new[run.name] = file_in(commit, f"metrics/history/{run.model}.csv")
        elif commits:
            print(f"left out: {run.name}: its experiment is of other code, data or parameters, or was not scored")
    HISTORIES.mkdir(parents=True, exist_ok=True)
    for name, history in new.items():
        (HISTORIES / f"{name}.csv").write_text(history, encoding="utf-8")
    write_runs([rows[name] for name in runs if name in rows])
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


def check_rows(rows: dict[str, Json], runs: dict[str, Run], lock: Json, source: str, experiments: Experiments) -> None:
    """Stop where a row does not belong to the table any more: results are not thrown away.

    Raises:
        ExpectedError: A row is of a run that experiments.yaml does not name, of other parameters, code or data.
    """
    for name, row in rows.items():
        remove = f"remove its row and {HISTORIES}/{name}.csv"
        if name not in runs:
            raise ExpectedError(f"{RUNS} has {name}, which {EXPERIMENTS} does not name; name it there, or {remove}")
        if other := differing(runs[name], row):
            raise ExpectedError(f"{name} in {RUNS} was run with other parameters ({'; '.join(other)}); {remove}")
        wanted = origin(lock, row["model"])
        if row["source"] != source or not same_origin(Origin(row["code"], row["data"]), wanted, experiments):
            raise ExpectedError(
                f"{name} in {RUNS} is of code {row['code']} and data {row['data']} ({row['source']}), and {LOCK} has "
                f"{wanted.code} and {wanted.data} ({source}): {remove}, and run it again, or, where a short run showed "
                f"that the results are the same, say so under same_results in {EXPERIMENTS}"
            )


if __name__ == "__main__":
    run_program("collect", main)
