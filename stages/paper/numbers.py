"""data/paper/numbers.yaml, typed and checked: what the paper prints, under which parameters, and what answers it.

The file's own comments explain it to whoever writes one for another paper.
"""

from collections import Counter
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from stages.common.config import Section, load_checked
from stages.common.paths import NUMBERS

SOME = "some"  # the text says that there is one, and not which

Unit = Literal["percent", "rate", "nats", "weights", "images"]
Value = int | float
Decimals = Annotated[int, Field(ge=0)] | None  # that the paper prints; None: as usual for the unit


class Paper(Section):
    """What is reproduced; `data` and `source` name its data as people do and as metrics/dataset.json does.

    `same_test_images` says whether the paper is known to score the test images that we score.
    """

    short: str
    title: str
    by: str
    data: str
    source: str
    same_test_images: bool = True

    def warning(self, source: str) -> str:
        """What results of other data are marked with, which are never compared; "" for those of the paper's data."""
        return "" if source == self.source else f"{source} data, not {self.data}"


class Configuration(Section):
    """The parameters under which rows hold; `free` are patterns of keys that may have any value.

    One with a `grid` is a cell of it: the paper says only its `parameters`, and an interpretation adds the rest. If
    `collected`, runs of metrics/runs.csv answer its rows, because `dvc repro` has other parameters.
    """

    model: str
    parameters: dict[str, Any]
    free: list[str] = Field(default_factory=list)
    grid: str = ""
    collected: bool = False

    @property
    def is_of_dvc_repro(self) -> bool:
        """Whether the run of `dvc repro` may have it: it is neither a cell nor collected."""
        return not self.grid and not self.collected

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if self.grid and self.collected:
            raise ValueError(
                "a configuration with a grid needs no `collected`: its cells are answered by such runs, too"
            )
        return self


class Grid(Section):
    """A table over some parameters, the `axes`, whose other settings the paper leaves open.

    `open` says so in a sentence. An interpretation is what runs have differently from the configuration `base`, or
    `base_is`; a run that changes a key of `in_full` is a shorter one.
    """

    where: str
    open: str
    base: str
    base_is: str
    axes: list[str]
    in_full: list[str]


class Row(Section):
    """What every number has: its place in the paper, its nature, and the address of ours."""

    id: str
    where: str
    what: str
    really: str
    known_from: str
    configuration: str
    ours: str


class Also(Section):
    """A number of ours to show with a row, because it is not measured as the paper's was."""

    what: str
    ours: str


class Number(Row):
    value: Value
    unit: Unit
    decimals: Decimals = None
    ours_is: str = ""
    also: list[Also] = Field(default_factory=list)
    label: str = ""  # in the overview
    headline: bool = False


class NumberList(Row):
    """A number for each class."""

    values: list[Value]
    unit: Unit
    decimals: Decimals = None


class Curve(Row):
    """A figure; `paper` and `ours` are CSV files with a row an epoch.

    `validation` is what the paper validated on, and `remark` is said below the curves.
    """

    paper: str
    validation: str = "validation"
    remark: str = ""


class Setting(Section):
    """What the paper says that was run, and the address of what was."""

    id: str
    where: str
    what: str
    text: Any
    notebook: Any = None
    model: str
    ran: str

    @property
    def ran_in_notebook(self) -> Any:
        """What the notebook ran: as the text says, unless the row says otherwise (null is a value too)."""
        return self.notebook if "notebook" in self.model_fields_set else self.text


class NotCompared(Section):
    id: str
    where: str
    what: str
    printed: str
    known_from: str
    why: str


class Numbers(Section):
    """The whole file."""

    paper: Paper
    sources: dict[str, str]
    models: dict[str, str]
    configurations: dict[str, Configuration]
    grids: dict[str, Grid]
    results: Annotated[list[Number], Field(min_length=1)]
    details: list[Number]
    lists: list[NumberList]
    curves: list[Curve]
    reached: Annotated[float, Field(gt=0, le=1)] | None = None
    settings: list[Setting]
    fixed: str
    not_compared: list[NotCompared]

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        rows: list[Row] = [*self.results, *self.details, *self.lists, *self.curves]
        ids = [row.id for row in rows]
        ids += [row.id for row in self.settings] + [row.id for row in self.not_compared]
        if twice := [row_id for row_id, count in Counter(ids).items() if count > 1]:
            raise ValueError(f"more than one row has the id {twice[0]}")
        for row in rows:
            _require(row.configuration, self.configurations, f"{row.id}: configuration")
            _require(row.known_from, self.sources, f"{row.id}: known_from")
        for name, configuration in self.configurations.items():
            _require(configuration.model, self.models, f"{name}: model")
            if configuration.grid:
                _require(configuration.grid, self.grids, f"{name}: grid")
        for row in rows:
            self._is_of_its_model(row)
        for part in (*self.lists, *self.curves):
            if self.configurations[part.configuration].collected:
                raise ValueError(
                    f"{part.id}: {part.configuration} is collected, and only `dvc repro` has lists and curves"
                )
        for name, grid in self.grids.items():
            _require(grid.base, self.configurations, f"{name}: base")
            self._is_a_grid(name, grid)
        for setting in self.settings:
            _require(setting.model, {*self.models, "dataset"}, f"{setting.id}: model")
        return self

    def _is_of_its_model(self, row: Row) -> None:
        """A run of one model does not answer a row with a file of the other."""
        model = self.configurations[row.configuration].model
        for address in [row.ours, *(also.ours for also in (row.also if isinstance(row, Number) else []))]:
            if Path(file := address.partition(" ")[0]).stem != model:
                raise ValueError(f"{row.id}: ours is in {file}, and its configuration is of {model}")

    def _is_a_grid(self, name: str, grid: Grid) -> None:
        """The charts have two axes, and each cell is compared in accuracy and in loss."""
        if len(grid.axes) != 2:
            raise ValueError(f"{name}: axes are {', '.join(grid.axes) or 'none'}; allowed: two keys of params.yaml")
        known = [*self.configurations[grid.base].parameters, *self.configurations[grid.base].free]
        for key in (*grid.axes, *grid.in_full):
            if not any(fnmatch(key, pattern) for pattern in known):
                raise ValueError(f"{name}: {grid.base} has no {key}; it has {', '.join(known)}")
        cells = {key: one for key, one in self.configurations.items() if one.grid == name}
        if not cells:
            raise ValueError(f"{name}: no configuration has this grid, so it has no cell")
        for cell, configuration in cells.items():
            for axis in grid.axes:
                if axis not in configuration.parameters:
                    raise ValueError(f"{cell}, a cell of {name}, has no {axis}; each cell has a value for each axis")
            if type(value := configuration.parameters[grid.axes[1]]) not in (int, float):
                raise ValueError(f"{cell}: {grid.axes[1]} is {value!r}; allowed on the second axis: numbers")
            units = sorted(row.unit for row in self.results if row.configuration == cell)
            if units != ["nats", "percent"]:
                raise ValueError(
                    f"{cell}, a cell of {name}, has {', '.join(units) or 'no results'}; allowed: nats, percent"
                )


def _require(name: str, known: Collection[str], place: str) -> None:
    if name not in known:
        raise ValueError(f"{place} is {name!r}; allowed: {', '.join(sorted(known))}")


def load_numbers(path: Path = NUMBERS) -> Numbers:
    """The paper's numbers.

    Raises:
        ExpectedError: As `load_checked`.
    """
    return load_checked(path, Numbers)
