"""beyond/experiments.yaml: the ladder's budgets and runs, where their results stand, and which code made them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, model_validator

from beyond.recipe.settings import PARAMETERS, Settings
from stages.common.config import Section, Seed, load_checked, read
from stages.common.errors import ExpectedError
from stages.common.files import Json
from stages.common.paths import LOCK
from stages.experiments.origin import Origin, md5_of, short_hash
from stages.experiments.plan import Overrides, parameters_of
from stages.experiments.table import read_runs

EXPERIMENTS = Path("beyond/experiments.yaml")
PIPELINE = Path("beyond/dvc.yaml")
RUNS = Path("beyond/runs")
TABLE = RUNS / "runs.csv"
RESULTS = ("beyond/models/", "beyond/metrics/")  # of these stages: what they depend on, and no code
STAGES = ("train", "evaluate")  # of a run
# What a run is made from.
DETERMINING = (
    *("dvc.yaml", "dvc.lock", "params.yaml", "stages", "data"),
    *("beyond/dvc.yaml", "beyond/params.yaml", "beyond/train.py", "beyond/evaluate.py", "beyond/recipe"),
)
KINDS = ("plain", "augmented")  # without and with test-time augmentation


class Budget(Section):
    """A budget of training, in PFLOP, and what its runs change of beyond/params.yaml; other settings have a name."""

    pflop: float = Field(gt=0)
    name: str = Field(default="", pattern=r"^\w*$")
    set: Overrides

    @property
    def label(self) -> str:
        """It and its name, as in the names of its runs."""
        return f"{self.pflop:g}-{self.name}" if self.name else f"{self.pflop:g}"


class Ladder(Section):
    """The whole file."""

    set: Overrides
    seeds: Annotated[list[Seed], Field(min_length=1)]
    budgets: Annotated[list[Budget], Field(min_length=1)]

    @model_validator(mode="after")
    def _a_budget_is_there_once(self) -> "Ladder":
        for values in ([budget.label for budget in self.budgets], self.seeds):
            if len(set(values)) < len(values):
                raise ValueError(f"a budget or a seed of {values} is there twice")
        return self


class Run(NamedTuple):
    """One budget with one seed; `overrides`, the seed included, as `dvc exp run -S` takes them."""

    name: str
    pflop: float
    seed: int
    overrides: list[str]


def load_ladder(path: Path = EXPERIMENTS) -> Ladder:
    """What the file says.

    Raises:
        ExpectedError: As `load_checked`.
    """
    return load_checked(path, Ladder)


def all_runs(ladder: Ladder) -> dict[str, Run]:
    """The runs by their names, in the file's order."""
    runs = [
        Run(f"ladder-{budget.label}-seed{seed}", budget.pflop, seed, [*ladder.set, *budget.set, f"seed={seed}"])
        for budget in ladder.budgets
        for seed in ladder.seeds
    ]
    return {run.name: run for run in runs}


def collected_rows(runs: dict[str, Run]) -> dict[str, Json]:
    """The collected runs by their names.

    Raises:
        ExpectedError: One is none of these.
    """
    rows = {row["name"]: row for row in read_runs(TABLE)}
    for name in rows:
        if name not in runs:
            raise ExpectedError(f"{TABLE} has {name}, which {EXPERIMENTS} does not name; name it, or remove its row")
    return rows


def label_of(run: str) -> str:
    """The budget's label in the name of a run."""
    return run.removeprefix("ladder-").rpartition("-seed")[0]


def settings_of(overrides: list[str], path: Path = PARAMETERS) -> Settings:
    """beyond/params.yaml with these changes.

    Raises:
        ExpectedError: A key is unknown, or a value is not allowed.
    """
    content = read(path)
    try:
        for key, value in parameters_of(overrides).items():
            *sections, name = key.split(".")
            section: Any = content
            for part in sections:
                section = section[part]
            if not isinstance(section, dict) or name not in section:
                raise KeyError(key)
            section[name] = value
        return Settings.model_validate(content)
    except (KeyError, TypeError):  # the latter from a part that is no section
        raise ExpectedError(f"{EXPERIMENTS}: {path} has no {key}") from None
    except ValueError as error:
        raise ExpectedError(f"{EXPERIMENTS}: {' '.join(str(error).split())[:300]}") from None


def history_file(name: str) -> Path:
    """A row for each epoch of a collected run."""
    return RUNS / f"{name}.csv"


def predictions_file(name: str, kind: str) -> Path:
    """What a collected run predicted for each test image, in short; `kind` is one of KINDS."""
    return RUNS / f"{name}-{kind}.npz"


def present_origin(pipeline: Path = PIPELINE, stages: Sequence[str] = STAGES) -> Origin:
    """The origin of a run that starts now: the code that is here, and the data of dvc.lock.

    Args:
        pipeline: A dvc.yaml; the paths in it start here.
        stages: Of it, those that the run runs.
    """
    declared = read(pipeline)["stages"]
    paths_of = {dep for stage in stages for dep in declared[stage]["deps"]}
    code = {path: md5_of(Path(path)) for path in paths_of if _is_code(path)}
    data = {out["path"]: out["md5"] for stage in read(LOCK)["stages"].values() for out in stage.get("outs", [])}
    return origin_of(code | {path: data[path] for path in paths_of if path in data})


def origin_of(dependencies: dict[str, str]) -> Origin:
    """The origin of a run, from the MD5 sums of what its stages depend on, by path."""
    code = {path: md5 for path, md5 in dependencies.items() if _is_code(path)}
    data = {path: md5 for path, md5 in dependencies.items() if path.startswith("data/processed/")}
    return Origin(short_hash(code), short_hash(data))


def _is_code(path: str) -> bool:
    return path.startswith(("beyond/", "stages/")) and not path.startswith(RESULTS)
