"""The runs beside that of `dvc repro`: in experiments.yaml, in DVC's experiments, and collected in metrics/runs.csv.

A run is one configuration with one seed. Two runs add up where the code that trained and scored them and the data that
they were given are the same, wherever and whenever they were made.
"""

import contextlib
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import Field, model_validator

from stages.checked_yaml import load_checked
from stages.errors import ExpectedError
from stages.files import read_rows, write_rows
from stages.parameters import PARAMETERS_FILE, Section, Seed

EXPERIMENTS = Path("experiments.yaml")
RUNS = Path("metrics/runs.csv")
HISTORIES = Path("metrics/experiments")
LOCK = Path("dvc.lock")

NEVER_EMPTY = ("name", "model", "source", "code", "data")

Json = dict[str, Any]
Model = Literal["keras_cnn", "resnet18"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")  # as git takes it for a reference
OVERRIDE = re.compile(r"[a-z0-9_.]+=.+", re.DOTALL)


class Configuration(Section):
    """What a row of experiments.yaml says."""

    model: Model
    seeds: Annotated[list[Seed], Field(min_length=1)]
    set: list[str]

    @model_validator(mode="after")
    def _is_for_dvc(self) -> "Configuration":
        for override in self.set:
            if not OVERRIDE.fullmatch(override) or override.startswith("seed="):
                raise ValueError(f"set has {override!r}; allowed: key=value, as in params.yaml, but for seed")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds has one twice: {self.seeds}")
        return self


class SameResults(Section):
    """That code gave the results of other code, and what showed it."""

    same_as: str
    shown: str


class Experiments(Section):
    """The whole file."""

    configurations: dict[str, Configuration]
    same_results: dict[str, SameResults]


class Run(NamedTuple):
    """One configuration with one seed."""

    name: str
    configuration: str
    model: str
    seed: int
    overrides: list[str]


class Origin(NamedTuple):
    """What a run was made from: short hashes of the code that trained and scored it, and of its images and labels."""

    code: str
    data: str


def load_experiments(path: Path = EXPERIMENTS) -> Experiments:
    """What experiments.yaml says.

    Raises:
        ExpectedError: As `load_checked`, or a name is none for an experiment.
    """
    experiments = load_checked(path, Experiments)
    for name in experiments.configurations:
        if not NAME.fullmatch(name) or name.endswith(".lock"):
            raise ExpectedError(f"{path}: {name!r} is no name for an experiment; allowed: letters, digits, - _ and .")
    return experiments


def all_runs(experiments: Experiments) -> dict[str, Run]:
    """The runs by the names of their experiments, in the file's order."""
    return {
        run.name: run
        for name, configuration in experiments.configurations.items()
        for seed in configuration.seeds
        for run in [Run(f"{name}-seed{seed}", name, configuration.model, seed, configuration.set)]
    }


def origin(lock: Json, model: str) -> Origin:
    """Of a model's run, given the content of the dvc.lock that it left behind.

    Raises:
        ExpectedError: It has no such run.
    """
    stages = ("split", f"train_{model}", f"evaluate@{model}")
    try:
        deps = {dep["path"]: dep["md5"] for stage in stages for dep in lock["stages"][stage]["deps"]}
    except (KeyError, TypeError):
        raise ExpectedError(
            f"{LOCK} knows no run of {' and '.join(stages)}; git restore {LOCK}, or dvc repro"
        ) from None
    code = {path: md5 for path, md5 in deps.items() if path.startswith("stages/")}
    # Which of them train and which validate follows from these, from stages/split.py and from its parameters.
    data = {path: md5 for path, md5 in deps.items() if path.startswith("data/processed/") and path.endswith(".npy")}
    return Origin(_short_hash(code), _short_hash(data))


def _short_hash(content: Json) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def read_lock(path: Path = LOCK) -> Json:
    """The content of dvc.lock.

    Raises:
        ExpectedError: It is missing or not YAML.
    """
    try:
        content: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ExpectedError(f"{path} cannot be read ({error}); git restore {path} brings it back") from None
    return content


def file_in(commit: str, path: str) -> str:
    """A file's text in a commit."""
    return git("show", f"{commit}:{path}")


def lock_in(commit: str) -> Json:
    """The content of dvc.lock in a commit."""
    content: Json = yaml.safe_load(file_in(commit, str(LOCK)))
    return content


def same_origin(one: Origin, other: Origin, experiments: Experiments) -> bool:
    """Whether runs of both may stand in one table."""

    def code(of: Origin) -> str:
        same = experiments.same_results.get(of.code)
        return same.same_as if same else of.code

    return one.data == other.data and code(one) == code(other)


def git(*arguments: str, stdin: str = "", **environment: str) -> str:
    """What a git command prints.

    Raises:
        ExpectedError: It failed, or there is no git.
    """
    try:
        result = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            input=stdin,
            env=os.environ | environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    except FileNotFoundError:
        raise ExpectedError("git is not on the PATH; install it") from None
    if result.returncode:
        raise ExpectedError(f"git {arguments[0]} failed: {' '.join(result.stderr.split()) or result.returncode}")
    return result.stdout


def experiments_in_git() -> dict[str, list[str]]:
    """The commits of DVC's experiments by name; one name may be there once for each commit that it started from."""
    found: dict[str, list[str]] = {}
    listing = git("for-each-ref", "--sort=-creatordate", "--format=%(objectname) %(refname)", "refs/exps")
    for line in listing.splitlines():
        commit, _, reference = line.partition(" ")
        parts = reference.split("/")
        if len(parts) == 5:  # refs/exps/<2 digits>/<38 digits>/<name>; DVC's own stand elsewhere
            found.setdefault(parts[4], []).append(commit)
    return found


def made(run: Run, commits: list[str], wanted: Origin, experiments: Experiments) -> str | None:
    """The commit among those of an experiment that holds this run, made from the wanted code and data."""
    for commit in commits:
        with contextlib.suppress(ExpectedError):  # one that never scored this model has not made the run
            lock = lock_in(commit)
            record = json.loads(file_in(commit, f"metrics/runs/{run.model}.json"))
            as_asked = not differing(run, recorded_parameters(record)) and is_scored(lock, run.model)
            if as_asked and same_origin(origin(lock, run.model), wanted, experiments):
                return commit
    return None


def is_scored(lock: Json, model: str) -> bool:
    """Whether the model that was scored is the one that was trained: an experiment may end after its training."""
    stages = lock["stages"]
    trained = {out["path"]: out["md5"] for out in stages[f"train_{model}"]["outs"]}
    return all(trained.get(dep["path"], dep["md5"]) == dep["md5"] for dep in stages[f"evaluate@{model}"]["deps"])


def differing(run: Run, ran: Json) -> list[str]:
    """Which parameters, by dotted keys, a run has otherwise than params.yaml and experiments.yaml, a sentence each."""
    asked = flat(yaml.safe_load(PARAMETERS_FILE.read_text(encoding="utf-8")))
    for override in [*run.overrides, f"seed={run.seed}"]:
        key, _, text = override.partition("=")
        asked[key] = _parameter(text)
    # A run has no record of the parameters of data, of evaluate and of the other model.
    return [f"{key} is {ran[key]}, not {value}" for key, value in asked.items() if key in ran and ran[key] != value]


def recorded_parameters(record: Json) -> Json:
    """The parameters of a record in metrics/runs by their dotted keys."""
    return flat({**record["parameters"], "split": record["split"]})


def _parameter(text: str) -> Any:
    """The value that `dvc exp run -S key=text` sets."""
    value = yaml.safe_load(text)
    with contextlib.suppress(TypeError, ValueError):
        return float(value) if isinstance(value, str) else value  # YAML takes 1e-3 for a text, and DVC does not
    return value


def md5_of(path: Path) -> str:
    """A file's or a folder's MD5 sum as DVC forms it: a folder's is that of the JSON list of its files."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    listing = json.dumps([{"md5": md5_of(path / file), "relpath": file} for file in files])
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def flat(content: Json, prefix: str = "") -> Json:
    """Nested mappings as dotted keys."""
    leaves: Json = {}
    for key, value in content.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def read_runs(path: Path = RUNS) -> list[Json]:
    """The rows of metrics/runs.csv, a run each: its fields but the empty ones, as JSON where they are that.

    Raises:
        ExpectedError: The file is missing, or a row is not whole.
    """
    rows = read_rows(path)
    for number, row in enumerate(rows, start=2):
        # Fields beyond the header come under None, and missing ones are None.
        if None in row or None in row.values() or not all(map(row.get, NEVER_EMPTY)):
            raise ExpectedError(f"{path}: line {number} is no whole row; mend it, or git restore {path}")
    return [{name: _value(text) for name, text in row.items() if text} for row in rows]


def write_runs(rows: list[Json], path: Path = RUNS) -> None:
    """Write rows, with the columns that any of them has; all or nothing."""
    columns = tuple(dict.fromkeys(name for row in rows for name in row)) or ("name",)
    texts = [{name: _text(value) for name, value in row.items()} for row in rows]
    new = path.with_name(f".{path.name}.new")
    write_rows(new, texts, columns)
    new.replace(path)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    """As `_value` reads it; a text that looks like a number (a hash may) gets quotes."""
    return value if isinstance(value, str) and _value(value) == value else json.dumps(value)
