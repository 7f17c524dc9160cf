"""A stage as a process: alone at its outputs, and gone soon after the `dvc` that started it."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from stages.errors import ExpectedError, run_program

LOCKS = Path(".locks")
WAIT_SECONDS = 30.0  # for the process of a dvc that was killed; it ends much sooner
LOOK_SECONDS = 1.0  # how often a stage looks whether its dvc lives
END_SECONDS = 10.0  # for a stage to end by itself
SHELLS = {"sh", "ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "tcsh", "zsh"}  # dvc starts a stage through one


def run_stage(name: str, main: Callable[[], None]) -> None:
    """Run a stage's `main` as `dvc repro` does: once at a time, no longer than dvc, with one line for a fault.

    Args:
        name: The stage's name.
        main: The stage.

    Raises:
        SystemExit: As `errors.run_program`.
    """
    end_with_dvc()
    run_program(name, lambda: alone(name, main))


def main_repository() -> Path:
    """The main repository, even in a temporary copy of it (`dvc exp run --temp`), where DVC sets DVC_ROOT."""
    return Path(os.environ.get("DVC_ROOT") or ".")


def alone(name: str, main: Callable[[], None]) -> None:
    """Run `main` while no other process runs this stage in this folder: DVC's own lock dies with a killed dvc.

    Raises:
        ExpectedError: One does, and does not end.
    """
    LOCKS.mkdir(exist_ok=True)
    lock = FileLock(LOCKS / f"{name}.lock")
    module = name.partition("@")[0]
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        raise ExpectedError(
            f"another process runs this stage in this folder (pgrep -af stages.{module} shows it); "
            "wait for its end, or end it"
        ) from None
    with lock:
        main()


def end_with_dvc() -> None:
    """Start to watch the `dvc` that started this process, if one did: when it is gone, this process ends too."""
    if "DVC_STAGE" not in os.environ:
        return
    watched = ancestors()
    if watched:
        threading.Thread(target=_watch, args=(watched[-1],), daemon=True).start()


def ancestors() -> list[int]:
    """The parent of this process, its parent, and so on up to the first that is no shell: dvc itself."""
    found: list[int] = []
    with contextlib.suppress(psutil.Error):
        process = psutil.Process().parent()
        while process is not None:  # step by step: what is above dvc may end meanwhile, and does not matter
            found.append(process.pid)
            if Path(process.name()).stem not in SHELLS:
                break
            process = process.parent()
    return found


def _watch(dvc: int) -> None:
    # A process whose parent ends gets another one. Twice: psutil compares start times, which a set clock moves.
    while dvc in ancestors() or dvc in ancestors():
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_SECONDS)
    os._exit(1)
