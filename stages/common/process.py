"""A stage as a process: only one at a time works on its outputs, and it ends soon after the `dvc` that started it."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from stages.common.errors import ExpectedError, run_program

LOCKS = Path(".locks")
WAIT_SECONDS = 30.0  # for the stage of a killed dvc, which ends much sooner
LOOK_SECONDS = 1.0  # how often a process looks whether the other one lives
END_SECONDS = 10.0  # for a process to end by itself


def run_stage(name: str, main: Callable[[], None]) -> None:
    """Run a stage's `main` as `dvc repro` does: one at a time, no longer than dvc lives, with one line for a fault.

    Args:
        name: The stage's name.
        main: The stage.

    Raises:
        SystemExit: As `errors.run_program`.
    """
    if "DVC_STAGE" in os.environ:
        end_with(ancestor("python", "dvc"))  # what started the shell that dvc starts a stage with
    run_program(name, lambda: alone(name, main))


def alone(name: str, main: Callable[[], None]) -> None:
    """Run `main` while no other process runs this stage in this folder: DVC's own lock dies with a killed dvc.

    Raises:
        ExpectedError: Another process runs it, and does not end.
    """
    LOCKS.mkdir(exist_ok=True)
    lock = FileLock(LOCKS / f"{name}.lock")
    module = name.partition("@")[0]
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        raise ExpectedError(
            f"another process runs this stage in this folder (pgrep -af 'python -m .*{module}' shows it); "
            "wait until it ends, or end it"
        ) from None
    with lock:
        main()


def ancestor(*programs: str) -> int | None:
    """The nearest process above this one whose program's name contains one of these words."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process().parent()
        while process is not None:
            if any(program in Path(process.exe()).name.lower() for program in programs):
                return process.pid
            process = process.parent()
    return None


def end_with(pid: int | None) -> None:
    """End this process soon after that one: first as `kill` does, and for certain `END_SECONDS` later."""

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            while process.status() != psutil.STATUS_ZOMBIE:  # as one stays if its parent reads a pipe that we hold open
                time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(END_SECONDS)
        os._exit(1)

    if pid is not None:
        threading.Thread(target=watch, daemon=True).start()
