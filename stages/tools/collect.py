"""Bring experiments into git: `make collect`. It is no stage.

Experiments are references of one clone. Of each, this keeps a row of metrics/runs.csv, the history, and in short what
the model predicted for the test images. Only runs that experiments.yaml names are collected, made with the code and
data that dvc.lock records: a table never mixes rows of other code or data, or of synthetic data and CIFAR-10. A run
that is in the table stays as it is: the same run twice is one row.
"""

import io
import json
from typing import Any

import numpy as np

from stages.common import paths
from stages.common.errors import ExpectedError, run_program
from stages.common.files import Json, flat, read_json
from stages.common.paths import COLLECTED, DATASET, EXPERIMENTS, LOCK, RUNS
from stages.experiments.git import bytes_in, experiments_in_git, file_in
from stages.experiments.origin import Origin, lock_in, made, origin, read_lock, same_origin
from stages.experiments.plan import Experiments, Run, all_runs, differing, load_experiments, recorded_parameters
from stages.experiments.predictions import Predictions, in_short, to_bytes
from stages.experiments.table import read_runs, write_runs


def main() -> None:
    collect(load_experiments(), read_lock(), read_json(DATASET)["source"])


def collect(experiments: Experiments, lock: Json, source: str) -> None:
    """Add the new runs, their files first, then the table.

    Raises:
        ExpectedError: A row no longer belongs in the table; nothing is written then.
    """
    runs, references = all_runs(experiments), experiments_in_git()
    rows = {row["name"]: row for row in read_runs()}
    check_rows(rows, runs, lock, source, experiments)
    new: dict[str, tuple[str, Predictions]] = {}
    for run in runs.values():
        if run.name in rows:
            continue
        commits = references.get(run.name, [])
        commit = made(run, commits, origin(lock, run.model), experiments) if commits else None
        row = row_of(run, commit) if commit else None
        if commit and row and row["source"] == source:
            rows[run.name] = row
            new[run.name] = (file_in(commit, f"metrics/history/{run.model}.csv"), predictions_in(commit, run.model))
        elif commits:
            print(f"left out: {run.name}: its experiment is of other code, data or parameters, or was not scored")
    COLLECTED.mkdir(parents=True, exist_ok=True)
    for name, (history, predictions) in new.items():
        paths.collected_history(name).write_text(history, encoding="utf-8")
        paths.collected_predictions(name).write_bytes(to_bytes(predictions))
    write_runs([rows[name] for name in runs if name in rows])
    print(f"{RUNS}: {len(rows)} runs of {len(runs)} in {EXPERIMENTS}, {len(new)} of them new")


def predictions_in(commit: str, model: str) -> Predictions:
    """What the model of an experiment predicted, in short."""
    content = bytes_in(commit, paths.predictions(model).as_posix())
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return in_short(arrays["probabilities"], arrays["labels"])


def row_of(run: Run, commit: str) -> Json:
    """The row of a run, from the files in its experiment's commit."""

    def content(path: str) -> Any:
        return json.loads(file_in(commit, path))

    scores, record = content(f"metrics/{run.model}.json"), content(f"metrics/runs/{run.model}.json")
    runtime = content(f"metrics/runtime/{run.model}.json")
    lock = lock_in(commit)
    made_from = origin(lock, run.model)
    outs = {out["path"]: out["md5"] for out in lock["stages"][f"evaluate@{run.model}"]["outs"]}
    row = {
        "name": run.name,
        "model": run.model,
        "overrides": " ".join(run.overrides),
        "code": made_from.code,
        "data": made_from.data,
        "predictions": outs[f"metrics/predictions/{run.model}.npz"],  # shows whether another run gives the same
        "processor": runtime["processor"],
        "device": runtime["device"],
        "threads": runtime["threads"],
        "versions": " ".join(f"{name}-{number}" for name, number in runtime["versions"].items()),
        "seconds": runtime["seconds"],
        **flat(scores),
    }
    return with_parameters(row, recorded_parameters(record))


def with_parameters(row: Json, parameters: Json) -> Json:
    """A row, and the parameters of its run as further columns.

    Raises:
        ExpectedError: A parameter has the name of a column.
    """
    if taken := sorted(row.keys() & parameters.keys()):
        raise ExpectedError(
            f"{row['name']}: the parameter {taken[0]} has the name of a column of {RUNS}; put it into a section, as in "
            f"{row['model']}.{taken[0]}"
        )
    return row | parameters


def check_rows(rows: dict[str, Json], runs: dict[str, Run], lock: Json, source: str, experiments: Experiments) -> None:
    """Stop if a row no longer belongs in the table: results are not thrown away.

    Raises:
        ExpectedError: A row is of a run that experiments.yaml does not name, of other parameters, code or data.
    """
    for name, row in rows.items():
        remove = f"remove its row and {paths.collected_history(name).with_suffix('.*')}"
        if name not in runs:
            raise ExpectedError(f"{RUNS} has {name}, which {EXPERIMENTS} does not name; name it there, or {remove}")
        if other := differing(runs[name], row):
            raise ExpectedError(f"{name} in {RUNS} was run with other parameters ({'; '.join(other)}); {remove}")
        wanted = origin(lock, row["model"])
        if row["source"] != source or not same_origin(Origin(row["code"], row["data"]), wanted, experiments):
            raise ExpectedError(
                f"{name} in {RUNS} is of code {row['code']} and data {row['data']} ({row['source']}), and {LOCK} has "
                f"{wanted.code} and {wanted.data} ({source}): {remove}, and run it again; or, if a short run showed "
                f"that the results are the same, say so under same_results in {EXPERIMENTS}"
            )


if __name__ == "__main__":
    run_program("collect", main)
