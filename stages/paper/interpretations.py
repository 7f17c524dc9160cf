"""Which interpretation of a table whose settings the paper leaves open comes nearest."""

from fnmatch import fnmatch
from statistics import mean

from stages.common.files import Json
from stages.experiments.plan import parameters_of
from stages.paper.numbers import Configuration, Grid, Number, Numbers
from stages.paper.ours import Run, rounded
from stages.paper.rows import ANSWERED, NOT_COMPARED, WAITS, Standing, measure, shown, unanswered

NOT_SAID = object()


class Interpretations:
    """The runs of a grid's cells, by what they have differently from the grid's base.

    Only those that experiments.yaml names count: a run that differs in something else, such as a search's best learning
    rate, does not interpret the paper. Shorter runs add to the name what makes them shorter.
    """

    def __init__(self, grid: Grid, numbers: Numbers, runs: list[Run], named: dict[str, list[str]]) -> None:
        self.grid, self.base, self.paper = grid, numbers.configurations[grid.base], numbers.paper
        self.cells = {
            name: cell
            for name, cell in numbers.configurations.items()
            if cell.grid and numbers.grids[cell.grid] is grid
        }
        self.rows = [row for row in numbers.results if row.configuration in self.cells]
        self.runs: dict[str, dict[str, list[Run]]] = {}
        self.full: set[str] = set()
        self.legend: dict[str, Json] = {grid.base_is: {}}  # what each name changes of the base
        known = {name: parameters_of(changes) for name, changes in named.items()}
        for run in runs:
            cell = next((name for name, cell in self.cells.items() if run.is_with(cell.parameters)), None)
            if not cell or run.model != self.base.model or self.paper.warning(run.source):
                continue
            changed = self.changed(run)
            shorter = {key: changed.pop(key) for key in grid.in_full if key in changed}
            found = next((name for name, changes in known.items() if changes == changed), None)
            name = found if changed else grid.base_is
            if name is None:
                continue
            self.legend[name] = changed
            if shorter:
                name += f" ({spelled({key.rpartition('.')[2]: value for key, value in shorter.items()})})"
            else:
                self.full.add(name)
            self.runs.setdefault(name, {}).setdefault(cell, []).append(run)
        self.names = sorted(self.runs, key=self._rank)

    def changed(self, run: Run) -> Json:
        """The parameters of a run that the base has differently, without the axes and those that may have any value."""
        free = [*self.grid.axes, *self.base.free]
        return {
            key: value
            for key, value in run.parameters.items()
            if self.base.parameters.get(key, NOT_SAID) != value and not any(fnmatch(key, pattern) for pattern in free)
        }

    def _rank(self, name: str) -> tuple[bool, int, float, str]:
        """First those at full length, then those with the most cells, then the nearest."""
        return name not in self.full, -len(self.runs[name]), self.distance(name, "percent") or 0.0, name

    @property
    def nearest(self) -> str | None:
        """Of the interpretations at full length with the most cells the nearest in accuracy: it answers the rows."""
        return self.names[0] if self.names and self.names[0] in self.full else None

    @property
    def others(self) -> list[str]:
        """The other interpretations at full length."""
        return [name for name in self.names if name in self.full and name != self.nearest]

    def measured(self, name: str, row: Number) -> Json | None:
        """A row's number under an interpretation, with its difference; None where the cell was not run."""
        if not (runs := self.runs[name].get(row.configuration)):
            return None
        number = measure(row.ours, row.unit, runs)
        return number | {"difference": rounded(number["ours"] - row.value)}

    def distance(self, name: str, unit: str) -> float | None:
        """The mean absolute difference over the rows of a unit whose cells were run."""
        gaps = [
            abs(number["difference"]) for row in self.rows if row.unit == unit if (number := self.measured(name, row))
        ]
        return rounded(mean(gaps)) if gaps else None

    def standing(self, wanted: Configuration, own: Run) -> Standing:
        """Which runs answer the rows of a cell."""
        if warning := self.paper.warning(own.source):
            return unanswered(NOT_COMPARED, warning)
        (cell,) = (name for name, cell in self.cells.items() if cell is wanted)
        if self.nearest is None:
            return unanswered(WAITS, "no run of this table yet")
        if not (runs := self.runs[self.nearest].get(cell)):
            return unanswered(WAITS, f"the nearest interpretation ({self.nearest}) has no run of this cell yet")
        return Standing(ANSWERED, runs, [], self.nearest)

    def described(self) -> Json:
        """The grid in the comparison: each interpretation's numbers, as ranked, and the highest accuracy."""
        rates = [row for row in self.rows if row.unit == "percent"]
        best = [
            {"interpretation": name, "row": row.id, "ours": max(number["values"])}
            for name in self.names
            for row in rates
            if (number := self.measured(name, row))
        ]
        return {
            "where": self.grid.where,
            "open": self.grid.open,
            "base": self.grid.base,
            "base_is": self.grid.base_is,
            "axes": self.grid.axes,
            "rows": [
                row.model_dump(include={"id", "what", "unit", "decimals"}, exclude_none=True)
                | {"paper": row.value}
                | {"cell": row.configuration}
                | {"at": [self.cells[row.configuration].parameters[axis] for axis in self.grid.axes]}
                for row in self.rows
            ],
            "interpretations": [
                {
                    "name": name,
                    "in_full": name in self.full,
                    "cells": len(self.runs[name]),
                    "distance": {unit: self.distance(name, unit) for unit in ("percent", "nats")},
                    "numbers": {row.id: self.measured(name, row) for row in self.rows},
                    "kept": {cell: [run.kept() for run in runs] for cell, runs in self.runs[name].items()},
                }
                for name in self.names
            ],
            "legend": self.legend,
            "nearest": self.nearest,
            "highest": max(best, key=lambda found: found["ours"], default=None),
            "highest_of_paper": max(row.value for row in rates),
        }


def spelled(parameters: Json) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in parameters.items())
