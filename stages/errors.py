"""Expected errors: one line for the person at the prompt, and no traceback; a bug keeps its own."""

import errno
import signal
import sys
from collections.abc import Callable
from types import FrameType

# What the operating system says when the fault is the machine's or the user's, not the program's.
_MACHINE_FAULTS = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) and run the same command again",
    errno.EACCES: "change its permissions or its owner and run the same command again",
    errno.EPERM: "change its permissions or its owner and run the same command again",
    errno.EROFS: "work in a clone on a file system that can be written",
}


# From git and not from its index, in which core.autostage puts a new dvc.lock.
WAY_BACK = (
    "to put params.yaml and the results back: "
    "git restore --staged --worktree params.yaml dvc.lock metrics && dvc checkout --allow-missing"
)


# DVC believes a read-only file of its cache, the normal state, and puts it over what a stage writes anew.
FROM_SCRATCH = "chmod -R u+w .dvc/cache (or DVC puts its copy back), remove {} and run dvc repro"


class ExpectedError(Exception):
    """A fault that a user can mend; its text is one line: what is wrong, where, and what to do next."""


class BadParameter(ExpectedError):
    """A value in params.yaml that cannot be; the line ends with the way back.

    A failed `dvc exp run -S` leaves the value in params.yaml, and the failed stage's outputs removed.
    """

    def __str__(self) -> str:
        return f"{super().__str__()}; {WAY_BACK}"


def run_program(name: str, main: Callable[[], None]) -> None:
    """Run a program's `main`, and end the process with one line and status 1 where an expected error stops it.

    Args:
        name: The program's name, which opens the line; for a stage, the stage's.
        main: The program.

    Raises:
        SystemExit: For an `ExpectedError`; for a full disk, a missing permission and their like; and when it is told to
            end by Ctrl-C, by SIGTERM or by the end of its terminal.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has the terminal's end ignored
            signal.signal(number, _interrupt)
    try:
        main()
    except ExpectedError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; the same command goes on")
    except OSError as error:
        if error.errno not in _MACHINE_FAULTS:
            raise
        place = error.filename or "an output file"
        sys.exit(f"{name}: {place}: {error.strerror}; {_MACHINE_FAULTS[error.errno]}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
