"""experiments.yaml: the runs besides that of `dvc repro`, as interpretations and grids.

A run is one configuration with one seed. Runs are pooled only where the code that trained and scored them and the data
that they were given are the same, wherever and whenever they were made.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from stages.common.config import Section, Seed, load_checked, parse, read
from stages.common.files import Json, flat
from stages.common.paths import EXPERIMENTS, PARAMETERS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*(?<!\.lock)")  # as git takes it for a reference
OVERRIDE = re.compile(r"(?!seed=)[A-Za-z0-9_.]+=.+", re.DOTALL)


def parameters_of(overrides: list[str]) -> dict[str, Any]:
    """The values that `dvc exp run -S` sets, by dotted keys.

    Raises:
        ValueError: A value is not YAML.
    """
    return {key: parse(text) for key, _, text in (override.partition("=") for override in overrides)}


def _override(text: str) -> str:
    if not OVERRIDE.fullmatch(text):
        raise ValueError(f"{text!r} is no override; allowed: key=value, as in params.yaml, but not seed")
    parameters_of([text])
    return text


Overrides = list[Annotated[str, AfterValidator(_override)]]


class RunGrid(Section):
    """Runs of one model: each interpretation, with each combination of the axes' values, with each seed."""

    model: str
    interpretations: list[str] = Field(default_factory=list)
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    set: Overrides = Field(default_factory=list)
    seeds: Annotated[list[Seed], Field(min_length=1)]
    more_seeds: dict[str, list[Seed]] = Field(default_factory=dict)


class SameResults(Section):
    """A record that some code gives the same results as other code, and what showed it."""

    same_as: str
    shown: str


class Experiments(Section):
    """The whole file."""

    dvc_repro: dict[str, Any] = Field(default_factory=dict)
    interpretations: dict[str, Overrides] = Field(default_factory=dict)
    grids: dict[str, RunGrid]
    same_results: dict[str, SameResults]

    @model_validator(mode="after")
    def _same_results_lead_to_an_end(self) -> "Experiments":
        for code in self.same_results:
            self.first_with_the_results_of(code)
        return self

    def first_with_the_results_of(self, code: str) -> str:
        """The hash that `same_as` leads to from this one, over as many entries as there are.

        Raises:
            ValueError: They lead back to it.
        """
        seen = [code]
        while entry := self.same_results.get(seen[-1]):
            if entry.same_as in seen:
                raise ValueError(f"same_results leads from {entry.same_as} back to itself; same_as names older code")
            seen.append(entry.same_as)
        return seen[-1]

    @model_validator(mode="after")
    def _runs_have_names(self) -> "Experiments":
        for name, grid in self.grids.items():
            if unknown := sorted({*grid.interpretations} - self.interpretations.keys()):
                raise ValueError(f"grids.{name}.interpretations has {unknown[0]!r}, which is not defined")
            if unused := sorted(grid.more_seeds.keys() - {*grid.interpretations}):
                raise ValueError(f"grids.{name}.more_seeds has {unused[0]!r}, which is not one of its interpretations")
        for name, count in Counter(run.name for run in _every_run(self)).items():
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name for an experiment; allowed: letters, digits, - _ and .")
            if count > 1:
                raise ValueError(f"{name} is there twice")
        return self


class Run(NamedTuple):
    """One configuration with one seed."""

    name: str
    configuration: str
    interpretation: str  # its name, or "" in a grid without any
    model: str
    seed: int
    overrides: list[str]


def load_experiments(path: Path = EXPERIMENTS) -> Experiments:
    """What experiments.yaml says.

    Raises:
        ExpectedError: As `load_checked`.
    """
    return load_checked(path, Experiments)


def all_runs(experiments: Experiments) -> dict[str, Run]:
    """The runs by the names of their experiments, in the file's order, without the run of `dvc repro`."""
    own = experiments.dvc_repro.items()
    return {
        run.name: run
        for run in _every_run(experiments)
        if not parameters_of([*run.overrides, f"seed={run.seed}"]).items() <= own
    }


def _every_run(experiments: Experiments) -> Iterator[Run]:
    for name, grid in experiments.grids.items():
        for interpretation, values in product(grid.interpretations or [""], product(*grid.axes.values())):
            texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
            configuration = "-".join([name, *filter(None, [interpretation]), *texts])
            cell = [_override(f"{key}={text}") for key, text in zip(grid.axes, texts, strict=True)]
            overrides = [*grid.set, *experiments.interpretations.get(interpretation, []), *cell]
            for seed in [*grid.seeds, *grid.more_seeds.get(interpretation, [])]:
                run_name = f"{configuration}-seed{seed}"
                yield Run(run_name, configuration, interpretation, grid.model, seed, overrides)


def differing(run: Run, ran: Json) -> list[str]:
    """A sentence for each parameter that a run has differently from params.yaml and experiments.yaml."""
    asked = flat(read(PARAMETERS)) | parameters_of([*run.overrides, f"seed={run.seed}"])
    # A run has no record of the parameters of data, of evaluate and of the other model.
    return [f"{key} is {ran[key]}, not {value}" for key, value in asked.items() if key in ran and ran[key] != value]


def recorded_parameters(record: Json) -> Json:
    """The parameters of a record in metrics/runs by their dotted keys."""
    return flat({**record["parameters"], **({"split": record["split"]} if "split" in record else {})})
