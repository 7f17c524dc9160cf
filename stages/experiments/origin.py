"""Provenance: the code and the data that a run was made from, as dvc.lock has them."""

import contextlib
import hashlib
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from stages.common.config import parse_mapping, read
from stages.common.errors import ExpectedError
from stages.common.files import Json
from stages.common.paths import EXPERIMENTS, LOCK
from stages.experiments.git import file_in
from stages.experiments.plan import Experiments, Run, differing, recorded_parameters

# What .dvcignore leaves out wherever it is: caches, and what editors keep beside a file that is open.
IGNORED = ("__pycache__/", ".DS_Store", "*.sw[a-p]", "*~", ".#*", ".ipynb_checkpoints/", ".*_cache/")


class Origin(NamedTuple):
    """What a run was made from: short hashes of the code that trained and scored it, and of its images and labels."""

    code: str
    data: str


def origin(lock: Json, model: str) -> Origin:
    """The origin of a model's run, from the content of the dvc.lock that it left behind.

    Raises:
        ExpectedError: It has no such run.
    """
    deps = dependencies(lock, model)
    code = {path: md5 for path, md5 in deps.items() if is_code(path)}
    # Which of them train and which validate follows from these, from stages/split.py and from its parameters.
    data = {path: md5 for path, md5 in deps.items() if path.startswith("data/processed/") and path.endswith(".npy")}
    if not data:  # all data would count as the same
        raise ExpectedError(
            f"{LOCK}: {', '.join(stages_of(model))} read no data/processed/*.npy, which tells data apart"
        )
    return Origin(short_hash(code), short_hash(data))


def stages_of(model: str) -> tuple[str, ...]:
    """The stages that make a model's run from the images."""
    return "split", f"train_{model}", f"evaluate@{model}"


def dependencies(lock: Json, model: str) -> dict[str, str]:
    """What a model's run was made from, and its MD5 sums, from the content of dvc.lock.

    Raises:
        ExpectedError: It has no such run.
    """
    stages = stages_of(model)
    try:
        return {dep["path"]: dep["md5"] for stage in stages for dep in lock["stages"][stage]["deps"]}
    except (KeyError, TypeError):
        raise ExpectedError(
            f"{LOCK} knows no run of {' and '.join(stages)}; correct the model's name in {EXPERIMENTS}, or run "
            "dvc repro"
        ) from None


def is_code(path: str) -> bool:
    """Whether a dependency in dvc.lock is code of this project; what lies outside is another's, as for examples/."""
    return not path.startswith(("data/", "metrics/", "models/", "../"))


def short_hash(content: Json) -> str:
    """The first digits of the SHA-256 of some content, as the columns `code` and `data` of metrics/runs.csv have it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def read_lock(path: Path = LOCK) -> Json:
    """The content of dvc.lock.

    Raises:
        ExpectedError: It is missing or no such file.
    """
    return read(path)


def lock_in(commit: str) -> Json:
    """The content of dvc.lock in a commit."""
    try:
        return parse_mapping(file_in(commit, str(LOCK)))
    except ValueError as error:
        raise ExpectedError(f"{LOCK} in {commit}: {error}") from None


def same_origin(one: Origin, other: Origin, experiments: Experiments) -> bool:
    """Whether runs of both origins may be pooled."""
    first, second = (experiments.first_with_the_results_of(origin.code) for origin in (one, other))
    return one.data == other.data and first == second


def made(run: Run, commits: list[str], wanted: Origin, experiments: Experiments) -> str | None:
    """The commit among those of an experiment that holds this run, made from the wanted code and data."""
    for commit in commits:
        # One that never scored this model, or has an unfinished dvc.lock, has not made the run.
        with contextlib.suppress(ExpectedError, KeyError, TypeError, ValueError):
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


def md5_of(path: Path) -> str:
    """The MD5 sum of a file or folder as DVC computes it: for a folder, that of a JSON list of its files."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    names = sorted(file.as_posix() for file in files if not _is_ignored(file))
    listing = json.dumps([{"md5": md5_of(path / name), "relpath": name} for name in names])
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _is_ignored(file: Path) -> bool:
    """Whether one of IGNORED is the file, or a folder above it; a pattern with / at its end is of folders alone."""
    *folders, _ = file.parts
    return any(
        fnmatch(name, pattern.rstrip("/"))
        for pattern in IGNORED
        for name in (folders if pattern.endswith("/") else file.parts)
    )
