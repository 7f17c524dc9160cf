"""Run what experiments.yaml names and is not there yet, as many at once as asked for; no stage: `make grid` runs this.

Each run is `dvc exp run --temp --name <name> -S ... evaluate@<model>` in a temporary copy of the last commit, so that
the workspace stays as it is, and the other model is not trained. A run that failed does not stop the others.
What was run is collected at the end. Whatever ends this program, no process is left, and the same command goes on:
finished runs are experiments and are not repeated, and one that was cut goes on after its last epoch.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from stages import collect
from stages.errors import ExpectedError, run_program
from stages.experiments import (
    EXPERIMENTS,
    LOCK,
    Experiments,
    Json,
    Origin,
    Run,
    all_runs,
    differing,
    experiments_in_git,
    git,
    load_experiments,
    made,
    md5_of,
    origin,
    read_lock,
    read_runs,
    same_origin,
)
from stages.running import ancestors

DETERMINING = ("params.yaml", "dvc.yaml", "dvc.lock", "stages", "data")  # what a run is made from
SHOWN = ("epoch ", "goes on after")  # of what a run prints
KEPT_LINES = 30
LOOK_SECONDS = 0.2
END_SECONDS = 20.0  # for dvc and its stage to end by themselves


def main() -> None:
    options = arguments()
    end_with_make()
    experiments = load_experiments()
    runs = chosen(all_runs(experiments), options.runs)
    check_clean()
    origins = {model: present_origin(model) for model in {run.model for run in runs}}
    rows, references = {row["name"]: row for row in read_runs()}, experiments_in_git()
    waiting = [
        run
        for run in runs
        if not is_collected(run, rows.get(run.name), origins[run.model], experiments)
        and not made(run, references.get(run.name, []), origins[run.model], experiments)
    ]
    say(f"{len(runs)} runs, {len(runs) - len(waiting)} of them done")
    failed = run_all(waiting, options.jobs)
    collect.main()
    if failed:
        raise ExpectedError(f"{len(failed)} of {len(waiting)} runs failed: {', '.join(failed)}; the others are done")


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m stages.grid", description=__doc__)
    parser.add_argument("runs", nargs="*", default=["table2-*"], help="names in experiments.yaml, * for any letters")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs is {options.jobs}; allowed: a whole number from 1")
    return options


def chosen(runs: dict[str, Run], patterns: Sequence[str]) -> list[Run]:
    """The runs whose name or configuration one of the patterns fits.

    Raises:
        ExpectedError: A pattern fits none.
    """
    for pattern in patterns:
        if not any(_fits(run, pattern) for run in runs.values()):
            names = ", ".join(dict.fromkeys(run.configuration for run in runs.values()))
            raise ExpectedError(f"{EXPERIMENTS} has no {pattern!r}; it has {names or 'nothing'}")
    return [run for run in runs.values() if any(_fits(run, pattern) for pattern in patterns)]


def _fits(run: Run, pattern: str) -> bool:
    return fnmatch(run.name, pattern) or fnmatch(run.configuration, pattern)


def check_clean() -> None:
    """Stop where a temporary copy of the last commit would not be what is here.

    Raises:
        ExpectedError: A file that determines results is not committed.
    """
    changes = git("status", "--porcelain", "--untracked-files=no", "--", *DETERMINING).splitlines()
    if changes:
        files = ", ".join(change[3:] for change in changes[:5])
        raise ExpectedError(
            f"not committed: {files}; commit it or take it back (git restore), for runs start from HEAD"
        )


def present_origin(model: str) -> Origin:
    """The origin of a run that starts now.

    Raises:
        ExpectedError: dvc.lock is of other code, so that nothing here could stand beside the new runs.
    """
    lock = read_lock()
    present = origin(lock, model)
    for stage in (f"train_{model}", f"evaluate@{model}"):
        for dep in lock["stages"][stage]["deps"]:
            path = Path(dep["path"])
            if path.suffix == ".py" and not (path.exists() and md5_of(path) == dep["md5"]):
                raise ExpectedError(f"{path} is not the one of {LOCK}; dvc repro, and commit, before a grid")
    return present


def is_collected(run: Run, row: Json | None, wanted: Origin, experiments: Experiments) -> bool:
    """Whether a row of metrics/runs.csv is of this run, from the wanted code and data."""
    if row is None or differing(run, row):
        return False
    return same_origin(Origin(row["code"], row["data"]), wanted, experiments)


def end_with_make() -> None:
    """Where `make` started this, be gone soon after it; make itself is not there to tell when it is killed."""
    if "MAKELEVEL" in os.environ and (chain := ancestors()):
        threading.Thread(target=_watch, args=(chain[-1],), daemon=True).start()


def _watch(make: int) -> None:
    while make in ancestors():
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)  # as Ctrl-C for this program


def run_all(runs: list[Run], jobs: int) -> list[str]:
    """Run them, and return the names of those that failed."""
    waiting, active, failed = deque(runs), list[Process](), list[str]()
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                active.append(Process(waiting.popleft()))
            time.sleep(LOOK_SECONDS)
            for process in [process for process in active if process.ended()]:
                active.remove(process)
                done = len(runs) - len(waiting) - len(active)
                if process.failed():
                    failed.append(process.run.name)
                say(f"{process.run.name}: {'FAILED' if process.failed() else 'done'} ({done} of {len(runs)})")
    finally:
        for process in active:
            process.signal(signal.SIGINT)
        for process in active:
            process.end()
    return failed


class Process:
    """A run in a process group of its own, its progress on our standard output."""

    def __init__(self, run: Run) -> None:
        self.run = run
        overrides = [part for override in [*run.overrides, f"seed={run.seed}"] for part in ("-S", override)]
        command = ["exp", "run", "--temp", "--name", run.name, *overrides, f"evaluate@{run.model}"]
        say(f"{run.name}: dvc {' '.join(command)}")
        # dvc.yaml's commands say `python`, which has to be this one.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "stages.dvc_child", str(os.getpid()), *command],
            env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last_lines.append(line)
            if line.startswith(SHOWN):
                with contextlib.suppress(OSError):  # where nobody reads, the run must not wait
                    say(f"{self.run.name}: {line.rstrip()}")

    def ended(self) -> bool:
        """Whether it has; then what it printed last is there, and, where it failed, shown."""
        if self.process.poll() is None:
            return False
        self.reader.join(timeout=END_SECONDS)
        if self.failed():
            print("".join(f"    {line}" for line in self.last_lines), end="", flush=True)
        return True

    def failed(self) -> bool:
        return self.process.returncode != 0

    def signal(self, number: int) -> None:
        """To the whole group: dvc alone would leave its stage behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self) -> None:
        """Wait for it, and kill what is left of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_SECONDS)
        self.signal(signal.SIGKILL)
        self.process.wait()


def say(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    run_program("grid", main)
