"""Our runs with what the report needs of each: where it answers, its history, its scores and its cost."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from stages.common import paths
from stages.common.files import Json, read_history, read_json
from stages.page.cost import LAYERS, training_operations
from stages.paper.markdown import counted
from stages.paper.numbers import Numbers
from stages.paper.ours import OWN, Run, read_collected, read_own_run
from stages.paper.rows import differing

MACHINE = ("processor", "device", "threads")


class Trained(NamedTuple):
    """A run.

    Attributes:
        run: Itself.
        answers: Whether it has the very parameters of its model's configuration in Table 1.
        scores: By dotted keys, as in metrics/<model>.json.
        operations: Of its training; None where they cannot be counted.
        seconds: Likewise; None where that is not recorded.
    """

    run: Run
    answers: bool
    scores: Json
    operations: int | None
    seconds: float | None

    def history(self) -> dict[str, np.ndarray]:
        return read_history(self.run.history_file())


def read_trained(numbers: Numbers, images: int) -> list[Trained]:
    """The runs of `dvc repro`, then those of metrics/runs.csv that are of the same data.

    Args:
        numbers: Of the paper.
        images: Of the training set.
    """
    own = [read_own_run(model) for model in numbers.models]
    return [_trained(run, numbers, images) for run in [*own, *read_collected(own)]]


def _trained(run: Run, numbers: Numbers, images: int) -> Trained:
    scores = run.scores()
    seconds = read_json(paths.runtime(run.model))["seconds"] if run.name == OWN else run.row.get("seconds")
    operations = None
    if run.model in LAYERS:
        seen = scores["epochs"] * run.training_images(images)
        operations = seen * training_operations(run.model, run.parameters)
    wanted = [curve.configuration for curve in numbers.curves]
    answers = any(
        numbers.configurations[name].model == run.model and not differing(numbers.configurations[name], run.parameters)
        for name in wanted
    )
    return Trained(run, answers, scores, operations, seconds)


def machine(one: Trained) -> tuple[str, ...]:
    """Where a run was made and with which versions: its model, processor, device, threads and versions."""
    record = one.run.row or read_json(paths.runtime(one.run.model))
    versions = record.get("versions", "")
    if isinstance(versions, dict):
        versions = " ".join(f"{name}-{number}" for name, number in versions.items())
    return one.run.model, *(str(record.get(name, "-")) for name in MACHINE), versions


def machines(trained: list[Trained], titles: dict[str, str]) -> dict[tuple[str, ...], str]:
    """A line for each `machine` of these runs, those of `dvc repro` first."""
    lines = {}
    for where, count in Counter(map(machine, trained)).items():
        model, processor, device, threads, versions = where
        made = f"{titles.get(model, model)}, {counted(count, 'run')}"
        lines[where] = f"{made}: {processor}, {device}, threads: {threads}; {versions}"
    return lines
