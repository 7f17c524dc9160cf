"""Run the runs of experiments.yaml that are missing, several at once if asked: `make grid`. It is no stage.

Each run is `dvc exp run --temp --name <name> -S ... evaluate@<model>` in a temporary copy of this folder, which has to
be as the last commit: do not edit it meanwhile. The other model is not trained. A failed run does not stop the others.
At the end the results are collected. Whatever ends this program, no process is left, and the same command resumes:
finished runs are experiments and are not repeated, and an interrupted run resumes after its last epoch.

With `--cluster`, the same happens on the machines of a Ray cluster (`stages.tools.cluster_grid`).
"""

import argparse
import contextlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from stages.common.errors import ExpectedError, run_program
from stages.common.files import Json, read_json
from stages.common.paths import DATASET, EXPERIMENTS, LOCK
from stages.common.process import LOCKS, ancestor, end_with
from stages.experiments.git import experiments_in_git, git, require_full_clone
from stages.experiments.origin import Origin, dependencies, is_code, made, md5_of, origin, read_lock
from stages.experiments.plan import Run, all_runs, load_experiments
from stages.experiments.table import read_runs
from stages.tools import collect
from stages.tools.runs import Processes, alone, run_all, say, share_cores
from stages.training.machine import cores

DETERMINING = ("params.yaml", "dvc.yaml", "dvc.lock", "stages", "data")  # what a run is made from
MOST_JOBS = 200  # that wait for a place on a cluster, or run there


def main() -> None:
    options = arguments()
    end_with(ancestor("make"))  # which cannot tell us when it is killed
    experiments, lock = load_experiments(), read_lock()
    named = all_runs(experiments)
    runs = chosen(named, options.runs)
    models = {run.model for run in runs}
    check_clean([*DETERMINING, *(path for model in models for path in code_of(lock, model))])
    origins = {model: present_origin(lock, model) for model in models}
    rows, references = {row["name"]: row for row in read_runs()}, experiments_in_git()
    # As `collect` does at the end, which may be hours later. Then each row is of its run, and of this code and data.
    collect.check_rows(rows, named, lock, read_json(DATASET)["source"], experiments)
    cluster = None
    if options.cluster:
        from stages.tools.cluster_grid import Cluster  # which needs Ray, an optional extra

        cluster = Cluster(options.cluster, options.threads or cores(), options.mixed)
        cluster.gather()
        references = experiments_in_git()
    waiting = [
        run
        for run in runs
        if run.name not in rows and not made(run, references.get(run.name, []), origins[run.model], experiments)
    ]
    say(f"{len(runs)} runs, {len(runs) - len(waiting)} of them done")
    if cluster:
        cluster.check_fit(waiting)
    else:
        share_cores(options.jobs or 1, options.threads)
    with contextlib.nullcontext() if cluster else only_grid():
        failed = run_all(waiting, cluster or Processes(), options.jobs or (MOST_JOBS if cluster else 1))
        if cluster:
            cluster.fetch()
        collect.main()
    if failed:
        raise ExpectedError(
            f"{len(failed)} of {len(waiting)} runs failed: {', '.join(failed)}; the others are done, and make collect "
            "brings them into the tables"
        )


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m stages.tools.grid", description=__doc__)
    parser.add_argument("runs", nargs="*", default=["table2-*"], help="names in experiments.yaml, * for any letters")
    parser.add_argument("--jobs", type=at_least_one, help="runs at once; default: 1, or what a cluster takes")
    parser.add_argument("--cluster", metavar="HOST:PORT", help="run them on the machines of this Ray cluster")
    parser.add_argument("--threads", type=at_least_one, help="threads of each run; default: this machine's cores")
    parser.add_argument("--mixed", action="store_true", help="on a cluster, take other processors and GPUs too")
    options = parser.parse_args()
    if options.mixed and not options.cluster:
        parser.error("--mixed is for a cluster (--cluster)")
    return options


def at_least_one(text: str) -> int:
    """A whole number from 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: a whole number from 1")
    return int(text)


def chosen(runs: dict[str, Run], patterns: Sequence[str]) -> list[Run]:
    """The runs with a name or a configuration that one of the patterns matches.

    Raises:
        ExpectedError: A pattern matches none.
    """
    for pattern in patterns:
        if not any(_fits(run, pattern) for run in runs.values()):
            names = ", ".join(dict.fromkeys(run.configuration for run in runs.values()))
            raise ExpectedError(f"{EXPERIMENTS} has no {pattern!r}; it has {names or 'nothing'}")
    return [run for run in runs.values() if any(_fits(run, pattern) for pattern in patterns)]


def _fits(run: Run, pattern: str) -> bool:
    return fnmatch(run.name, pattern) or fnmatch(run.configuration, pattern)


def only_grid() -> contextlib.AbstractContextManager[None]:
    """While no other grid runs here: two would train the same runs, and both write the table."""
    return alone(LOCKS / "grid.lock", "another grid runs in this folder", "; JOBS=2 runs two of its runs at once")


def check_clean(determining: Sequence[str]) -> None:
    """Stop if a temporary copy of the last commit would differ from what is here.

    Args:
        determining: What a run is made from, files and folders.

    Raises:
        ExpectedError: A file that determines results is not committed, or the clone is shallow.
    """
    require_full_clone()
    changes = git("status", "--porcelain", "--untracked-files=no", "--", *determining).splitlines()
    code = [path for path in determining if path != "data"]  # where DVC and people put new files
    new = git("ls-files", "--others", "--exclude-standard", "--", *code).splitlines()
    if changes or new:
        files = ", ".join([change[3:] for change in changes] + new)
        raise ExpectedError(
            f"not committed: {files}; commit it, or undo it (git restore --staged --worktree, or remove a new file): "
            "runs start from HEAD"
        )


def present_origin(lock: Json, model: str) -> Origin:
    """The origin of a run that starts now.

    Raises:
        ExpectedError: dvc.lock was made with other code, so that no result here is comparable with the new runs.
    """
    present = origin(lock, model)
    for path, md5 in code_of(lock, model).items():  # a module, or a folder of modules
        if not (Path(path).exists() and md5_of(Path(path)) == md5):
            raise ExpectedError(f"{path} is not what {LOCK} records; run dvc repro, and commit, before a grid")
    return present


def code_of(lock: Json, model: str) -> dict[str, str]:
    """The code that trains and scores a model, and its MD5 sums in dvc.lock.

    Raises:
        ExpectedError: It has no such run.
    """
    return {path: md5 for path, md5 in dependencies(lock, model).items() if is_code(path)}


if __name__ == "__main__":
    run_program("grid", main)
