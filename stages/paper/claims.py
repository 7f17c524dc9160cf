"""data/paper/claims.yaml: the paper's claims, and the verdict of our runs on each.

The file's own comments explain its words. A verdict follows from 95 % intervals over runs of at least three seeds:
supported, not supported, or cannot tell, with about how many runs would decide it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stages.common import paths
from stages.common.config import Section, load_checked
from stages.common.errors import ExpectedError
from stages.common.files import Json, read_arrays, read_json
from stages.common.paths import DATASET, PAPER
from stages.experiments.predictions import RESAMPLED, Predictions, in_short, read_predictions
from stages.paper.interpretations import Interpretations
from stages.paper.numbers import Numbers
from stages.paper.ours import OWN, Run, first_epoch_with, rounded
from stages.paper.rows import differing
from stages.paper.statistics import (
    FEWEST,
    Estimate,
    for_other_images,
    image_weights,
    mean_estimate,
    paired_difference,
    welch_difference,
)

CLAIMS = PAPER / "claims.yaml"
SUPPORTED, NOT_SUPPORTED, CANNOT_TELL = "supported", "not supported", "cannot tell"
BOOTSTRAP_DECIMALS = 4  # fewer than the last bits of a sum, on any machine

Region = Literal["above", "below", "within", "outside", "not_below"]
Curve = Mapping[int, float]


@dataclass(frozen=True)
class Evidence:
    """What is known of a run.

    Parameters and scores are by dotted keys, the validation accuracy is by epoch. An epoch takes `steps` of the
    optimiser and `seconds` in the mean, on a `machine` (processor, device, threads), and `predictions` are those of the
    test images; None where not kept.
    """

    parameters: dict[str, Any]
    scores: dict[str, Any]
    validation_accuracy: Curve = field(default_factory=dict)
    steps: int | None = None
    seconds: float | None = None
    machine: tuple[Any, ...] | None = None
    predictions: Predictions | None = None


class Group(Section):
    """Runs that a claim speaks of."""

    configuration: str = ""
    table: str = ""
    but: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if bool(self.configuration) == bool(self.table):
            raise ValueError("a group needs either a configuration or a table")
        return self


class Value(Section):
    """One number of each run; exactly one of these is given."""

    score: str | None = None
    epochs_to: float | None = None
    steps_to: float | None = None
    seconds_to: float | None = None
    accuracy_after: int | None = None
    dip_at: int | None = None
    gap: Literal["loss", "accuracy"] | None = None  # train_clean has both

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"a value needs exactly one of {', '.join(type(self).model_fields)}")
        return self

    def of(self, run: Evidence) -> float | None:
        """The number, or None where the run has none."""
        curve = run.validation_accuracy
        if self.score is not None:
            return run.scores.get(self.score)
        if self.gap is not None:
            test, train = run.scores.get(f"test.{self.gap}"), run.scores.get(f"train_clean.{self.gap}")
            return None if test is None or train is None else test - train
        if self.accuracy_after is not None:
            return curve.get(self.accuracy_after)
        if self.dip_at is not None:
            around = [curve.get(self.dip_at + step) for step in (-1, 0, 1)]
            return None if None in around else around[1] - (around[0] + around[2]) / 2  # type: ignore[operator]
        epochs = first_epoch_with(self.goal, curve)
        of_epoch = 1 if self.epochs_to is not None else run.steps if self.steps_to is not None else run.seconds
        return None if epochs is None or of_epoch is None else epochs * of_epoch

    @property
    def unit(self) -> str:
        """Points (hundredths) for accuracies, which papers print in percent; none for losses and other scores."""
        accuracy = self.gap == "accuracy" or (self.score or "").rpartition(".")[2] == "accuracy"
        return "points" if accuracy or self.accuracy_after is not None or self.dip_at is not None else ""

    @property
    def goal(self) -> float:
        """The validation accuracy that a run has to reach; infinite where the value is not about reaching one."""
        goals = (self.epochs_to, self.steps_to, self.seconds_to)
        return next((goal for goal in goals if goal is not None), math.inf)

    def missed_by(self, run: Evidence) -> bool:
        """Whether a run has ended without the accuracy that it had to reach."""
        curve = run.validation_accuracy
        return self.goal < math.inf and bool(curve) and max(curve.values()) < self.goal


class Part(Section):
    """One comparison that a claim rests on."""

    what: str
    value: Value
    of: str
    less: str = ""
    paired_by: list[str] = Field(default_factory=list)
    supports: Region
    contradicts: Region | None = None
    margin: Annotated[float, Field(ge=0)] = 0.0
    counts: bool = True


class Claim(Section):
    """A sentence of the paper, and the rule that decides it; `note` says what a reader of the verdict has to know."""

    id: str
    where: str
    says: str
    note: str = ""
    needs: Literal["all", "any"] = "all"
    parts: Annotated[list[Part], Field(min_length=1)]

    @model_validator(mode="after")
    def _rests_on_something(self) -> Self:
        if not any(part.counts for part in self.parts):
            raise ValueError(f"{self.id}: a claim needs a part that counts")
        return self


class Claims(Section):
    """The whole file; `known` says which runs were known when the rules were written."""

    known: str
    groups: dict[str, Group]
    claims: list[Claim]

    @model_validator(mode="after")
    def _groups_are_known(self) -> Self:
        for claim in self.claims:
            for part in claim.parts:
                for name in filter(None, (part.of, part.less)):
                    if name not in self.groups:
                        raise ValueError(f"{claim.id}: group {name!r} is not among {', '.join(self.groups)}")
        return self


def load_claims(numbers: Numbers, path: Path = CLAIMS) -> Claims:
    """The claims, checked against the paper's numbers.

    Raises:
        ExpectedError: The file is missing or damaged, or a group names a cell, or what numbers.yaml does not have.
    """
    claims = load_checked(path, Claims)
    for name, group in claims.groups.items():
        known: Mapping[str, Any] = numbers.grids if group.table else numbers.configurations
        if (wanted := group.table or group.configuration) not in known:
            raise ExpectedError(f"{path}: {name} names {wanted!r}; numbers.yaml has {', '.join(known)}")
        if group.configuration and (table := numbers.configurations[wanted].grid):
            raise ExpectedError(
                f"{path}: {name} names {wanted}, a cell, which says too little to choose runs; name its table "
                f"({table}) instead, and its keys under `but`"
            )
    return claims


def verdicts(claims: Claims, numbers: Numbers, grids: Mapping[str, Interpretations], runs: list[Run]) -> list[Json]:
    """The verdict on each claim, from our runs on the paper's data.

    Args:
        claims: What the paper claims.
        numbers: Whose configurations and grids the groups name.
        grids: Our runs of each grid, by interpretation.
        runs: All our runs.

    Raises:
        ExpectedError: A rule names what no run has, or does not tell two runs apart.
    """
    _check_keys(claims, numbers, runs)
    test_set = TestSet(numbers)

    @cache
    def runs_of(name: str, interpretation: str | None = None) -> list[Evidence]:
        group = claims.groups[name]
        if group.table:
            grid = grids[group.table]
            found = [run for cell in grid.runs.get(interpretation or grid.nearest or "", {}).values() for run in cell]
            chosen = [run for run in found if run.is_with(group.but)]
        else:
            base = numbers.configurations[group.configuration]
            wanted = base.model_copy(update={"parameters": base.parameters | group.but})
            chosen = [run for run in runs if run.model == base.model and not differing(wanted, run.parameters)]
        return [evidence_of(run, test_set) for run in chosen if not numbers.paper.warning(run.source)]

    scores = {key for run in runs for key in run.scores()}
    for claim in claims.claims:
        for score, name in ((part.value.score, name) for part in claim.parts for name in (part.of, part.less) if name):
            if score and score not in scores and runs_of(name):
                raise ExpectedError(f"{CLAIMS}: {claim.id}: no run has {score}")

    def under(interpretation: str, part: Part) -> Estimate | None:
        partners = _partners(part, partial(runs_of, interpretation=interpretation))
        return _estimate(part, _with_value(part, partners))

    def with_interpretations(claim: Claim) -> Json:
        """The verdict, under the nearest interpretation of its table, and what the parts have under the others."""
        judged = judge(claim, runs_of, test_set)
        tables = {claims.groups[name].table for part in claim.parts for name in (part.of, part.less) if name} - {""}
        for part, said in zip(claim.parts, judged["parts"], strict=True):
            said["others"] = [
                {"interpretation": name} | _numbers(estimate)
                for table in sorted(tables)
                for name in grids[table].others
                if (estimate := under(name, part))
            ]
        nearest = ", ".join(grids[table].nearest or "" for table in sorted(tables))
        return judged | {"note": claim.note, "interpretation": nearest}

    return [with_interpretations(claim) for claim in claims.claims]


def _check_keys(claims: Claims, numbers: Numbers, runs: list[Run]) -> None:
    """Stop where a key of `but` is no parameter of the model's runs: none would ever be in the group."""
    for name, group in claims.groups.items():
        base = numbers.grids[group.table].base if group.table else group.configuration
        model = numbers.configurations[base].model
        recorded = {key for run in runs if run.model == model for key in run.parameters}
        if unknown := sorted(group.but.keys() - recorded):
            raise ExpectedError(f"{CLAIMS}: {name}: no run of {model} has a parameter {unknown[0]}")


class TestSet:
    """The classes of the test images, and samples of them for the bootstrap, read and drawn when they are needed."""

    __test__ = False  # for pytest

    def __init__(self, numbers: Numbers) -> None:
        self.model = next(iter(numbers.models))  # `make verify` checks that all have the same labels

    @cached_property
    def labels(self) -> np.ndarray:
        labels: np.ndarray = read_arrays(paths.predictions(self.model))["labels"]
        return labels

    @cached_property
    def weights(self) -> np.ndarray:
        return image_weights(len(self.labels))


def evidence_of(run: Run, test_set: TestSet) -> Evidence:
    """What the files in metrics hold of a run; `make verify` says which files a collected run lacks."""
    own = run.name == OWN
    # The run of `dvc repro` keeps its run time out of the comparison, which two runs would make different.
    seconds = None if own else run.row["seconds"] / run.row["epochs"]
    machine = None if own else tuple(run.row.get(name) for name in ("processor", "device", "threads"))
    predictions = None
    if own:
        predictions = in_short(read_arrays(paths.predictions(run.model))["probabilities"], test_set.labels)
    elif (kept := paths.collected_predictions(run.name)).exists():
        predictions = read_predictions(kept, len(test_set.labels))
    return Evidence(
        run.parameters, run.scores(), run.validation_accuracy(), steps_of(run), seconds, machine, predictions
    )


def steps_of(run: Run) -> int | None:
    """The steps of the optimiser in an epoch; None for a model that is not trained in batches."""
    images = run.training_images(read_json(DATASET)["train_images"])
    batch_size = run.parameters.get(f"{run.model}.batch_size") or run.parameters.get("batch_size")
    return -(-images // int(batch_size)) if batch_size else None


def judge(claim: Claim, runs_of: Callable[[str], Sequence[Evidence]], test_set: TestSet) -> dict[str, Any]:
    """The verdict on a claim.

    Args:
        claim: What is claimed.
        runs_of: The runs of a group, by the group's name.
        test_set: What the runs' predictions are of.

    Returns:
        The claim with its `verdict`, and for each part the estimate (accuracies as shares), what it says, about how
        many runs or pairs would decide, and the interval for `other_images` where predictions are kept.
    """
    parts = [_judge_part(part, runs_of, test_set) for part in claim.parts]
    said = [part["says"] for part in parts if part["counts"]]
    enough = any if claim.needs == "any" else all
    against = all if claim.needs == "any" else any
    verdict = CANNOT_TELL
    if enough(word == SUPPORTED for word in said):
        verdict = SUPPORTED
    elif against(word == NOT_SUPPORTED for word in said):
        verdict = NOT_SUPPORTED
    return {"id": claim.id, "where": claim.where, "says": claim.says, "verdict": verdict, "parts": parts}


def _judge_part(part: Part, runs_of: Callable[[str], Sequence[Evidence]], test_set: TestSet) -> dict[str, Any]:
    partners = _partners(part, runs_of)
    missed = sum(part.value.missed_by(run) for group in partners for run in group.values())
    groups = _with_value(part, partners)
    estimate = _estimate(part, groups)
    seeds = min(len({run.parameters["seed"] for run in group.values()}) for group in groups)
    cells = [_seeds_of_cells(part, group) for group in groups]
    fewest = min((count for group in cells for count in group), default=0)
    says, needed, leans = CANNOT_TELL, None, None
    if estimate is not None and estimate.low is not None and estimate.high is not None:
        enough = fewest >= FEWEST and not missed
        if enough and lies_in(part.supports, part.margin, estimate.low, estimate.high):
            says = SUPPORTED
        elif enough and part.contradicts and lies_in(part.contradicts, part.margin, estimate.low, estimate.high):
            says = NOT_SUPPORTED
        elif not missed:
            needed = _runs_needed(part, estimate, len(cells[0]))
            leans = "for" if lies_in(part.supports, part.margin, estimate.mean, estimate.mean) else "against"
    return {
        "what": part.what,
        **_numbers(estimate),
        "seeds": seeds if estimate else 0,
        "cells": len(cells[0]),
        "seeds_of_each": fewest,
        "missed": missed,
        "paired": bool(part.paired_by),
        "unit": part.value.unit,
        "decimals": 1 if part.value.goal < math.inf else 2 if part.value.unit else 4,
        "counts": part.counts,
        "says": says,
        "runs_needed": needed,
        "leans": leans if needed else None,
        "other_images": _other_images(part, groups, test_set),
        "others": [],  # other interpretations
    }


def _numbers(estimate: Estimate | None) -> Json:
    numbers = {name: getattr(estimate, name, None) for name in ("mean", "low", "high")}
    return {name: None if number is None else rounded(number) for name, number in numbers.items()} | {
        "runs": estimate.runs if estimate else 0
    }


def _partners(part: Part, runs_of: Callable[[str], Sequence[Evidence]]) -> list[dict[Any, Evidence]]:
    """The runs of a part's one or two groups; where it is paired, those that have a partner."""
    return _pairs(part, [_keyed(part, name, runs_of(name)) for name in (part.of, part.less) if name])


def _with_value(part: Part, groups: list[dict[Any, Evidence]]) -> list[dict[Any, Evidence]]:
    """Those of them, and of the pairs, that have the part's value."""
    return _pairs(
        part, [{key: run for key, run in group.items() if part.value.of(run) is not None} for group in groups]
    )


def _seeds_of_cells(part: Part, group: Mapping[Any, Evidence]) -> list[int]:
    """How many seeds there are for each combination of the other keys of `paired_by`."""
    others = [key for key in part.paired_by if key != "seed"]
    seeds: dict[Any, set[Any]] = {}
    for run in group.values():
        seeds.setdefault(tuple(run.parameters[key] for key in others), set()).add(run.parameters["seed"])
    return [len(found) for found in seeds.values()]


def _keyed(part: Part, name: str, runs: Sequence[Evidence]) -> dict[Any, Evidence]:
    """The runs of a group by what makes a pair of two; unpaired ones are numbered.

    A pair is of one device, and a pair of seconds of one machine.

    Raises:
        ExpectedError: `paired_by` names what a run does not record, or does not tell two runs apart.
    """
    if not part.paired_by:
        return dict(enumerate(runs))
    keyed: dict[Any, Evidence] = {}
    for run in runs:
        if unknown := [key for key in part.paired_by if key not in run.parameters]:
            raise ExpectedError(
                f"{CLAIMS}: {part.what}: paired_by names {unknown[0]!r}, which no run of {name} records"
            )
        key = tuple(run.parameters[key] for key in part.paired_by)
        key += tuple(value for name, value in sorted(run.parameters.items()) if name.endswith(".device"))
        if part.value.seconds_to is not None:
            key += (run.machine,)
        if key in keyed:
            raise ExpectedError(
                f"{CLAIMS}: {part.what}: two runs of {name} have the same {', '.join(part.paired_by)}; name in "
                "paired_by what tells them apart"
            )
        keyed[key] = run
    return keyed


def _pairs(part: Part, groups: list[dict[Any, Evidence]]) -> list[dict[Any, Evidence]]:
    """Where a part is paired, the runs that have a partner."""
    if not part.paired_by:
        return groups
    return [{key: run for key, run in group.items() if all(key in other for other in groups)} for group in groups]


def _runs_needed(part: Part, estimate: Estimate, cells: int) -> int | None:
    """About how many runs or pairs would decide; None where that is not known, or where none would."""
    # `estimate.needed` is about an interval that leaves out 0, which a margin moves, on the side of the mean.
    decides = part.contradicts is not None or lies_in(part.supports, 0, estimate.mean, estimate.mean)
    if estimate.needed is None or not decides or part.margin:
        return None
    return max(estimate.needed, FEWEST * cells)


def _estimate(part: Part, groups: list[dict[Any, Evidence]]) -> Estimate | None:
    """What the runs say of a part; None where there are none, or no pairs."""
    values = [{key: part.value.of(run) for key, run in group.items()} for group in groups]
    ours: list[dict[Any, float]] = values  # type: ignore[assignment]  # those without a value were left out
    try:
        if len(ours) == 1:
            return mean_estimate(list(ours[0].values()))
        if part.paired_by:
            return paired_difference(*ours)
        return welch_difference(*(list(of.values()) for of in ours))
    except ValueError:
        return None


def _other_images(part: Part, groups: list[dict[Any, Evidence]], test_set: TestSet) -> Json | None:
    """The interval for other images too, where a score has one and several runs kept their predictions."""
    resampled = RESAMPLED.get(part.value.score or "")
    if resampled is None or len(groups) == 1:
        return None
    groups = _pairs(part, [{key: run for key, run in group.items() if run.predictions} for group in groups])
    estimate = _estimate(part, groups)
    if estimate is None:
        return None
    kept = [[run.predictions for run in group.values() if run.predictions] for group in groups]
    samples = [np.stack([resampled(one, test_set.labels, test_set.weights) for one in group]) for group in kept]
    ends = for_other_images(estimate, samples[0], samples[1])
    if ends is None:
        return None
    low, high = (round(end, BOOTSTRAP_DECIMALS) + 0.0 for end in ends)
    return {"low": low, "high": high, "runs": estimate.runs}


def lies_in(region: Region, margin: float, low: float, high: float) -> bool:
    """Whether a whole interval lies in a region."""
    return {
        "above": low > margin,
        "below": high < -margin,
        "within": low > -margin and high < margin,
        "outside": low > margin or high < -margin,
        "not_below": low > -margin,
    }[region]
