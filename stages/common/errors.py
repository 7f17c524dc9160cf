"""Expected errors: one line for the person at the prompt, without a traceback. A bug keeps its traceback."""

import errno
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

from stages.common.paths import main_repository

# The fault of the machine or the user, not of the program.
_MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}

# Ctrl-C, `kill` and the end of a terminal; Windows has no SIGHUP.
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
AGAIN_SECONDS = 60.0  # longer than an interrupted program takes to end


# From git and not from its index, in which core.autostage puts a new dvc.lock.
WAY_BACK = (
    "to put params.yaml and the results back: "
    "git restore --staged --worktree params.yaml dvc.lock metrics models && dvc checkout --allow-missing"
)


# DVC believes a read-only file of its cache, the normal state, and puts it over what a stage writes anew.
FROM_SCRATCH = "chmod -R u+w .dvc/cache (or DVC puts its copy back), remove {} and run dvc repro"


class ExpectedError(Exception):
    """A fault that the user can correct; its text is one line: what is wrong, where, and what to do next."""


class BadParameter(ExpectedError):
    """A value in params.yaml that is not allowed; the line ends with the way back, which is needed in the workspace.

    A failed `dvc exp run -S` leaves the value in params.yaml, and the failed stage's outputs removed.
    """

    way_back = WAY_BACK

    def __str__(self) -> str:
        return super().__str__() if _in_temporary_copy() else f"{super().__str__()}; {self.way_back}"


def _in_temporary_copy() -> bool:
    """Whether this is a run of DVC's queue or of `dvc exp run --temp`, for which DVC sets DVC_ROOT to the workspace."""
    return (main_repository() / ".dvc/tmp").resolve() in Path.cwd().parents


def run_program(name: str, main: Callable[[], None], again: str = "resumes") -> None:
    """Run a program's `main`; an expected error ends the process with one line and status 1.

    Args:
        name: The name of the program or the stage, with which the line begins.
        main: The program.
        again: What the same command does after an interruption.

    Raises:
        SystemExit: On an `ExpectedError`; on a full disk, a missing permission and the like; and on Ctrl-C, SIGTERM or
            the end of its terminal.
    """
    for number in _ENDING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # nohup ignores SIGHUP: so do we
            signal.signal(number, _interrupt)
    try:
        main()
    except ExpectedError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; the same command {again}")
    except OSError as error:
        if error.errno not in _MACHINE_FAULTS:
            raise
        place = error.filename or "an output file"
        sys.exit(f"{name}: {place}: {error.strerror}; correct this and run the same command again")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End the program on the first signal; another one would fall into the work that ends it, with a traceback.

    The others keep a handler: children would inherit SIG_IGN, and Python reports a signal that already waits for it.
    """
    for each in _ENDING:
        if signal.getsignal(each) is _interrupt:
            signal.signal(each, partial(_again, time.monotonic()))
    raise KeyboardInterrupt


def _again(first: float, number: int, frame: FrameType | None) -> None:
    """A later signal counts only if the program has not ended by then: Python drops an interruption of a `__del__`."""
    if time.monotonic() - first > AGAIN_SECONDS:
        raise KeyboardInterrupt
