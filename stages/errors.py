"""Expected errors: one line for the person at the prompt, and no traceback; a bug keeps its own."""

import errno
import sys
from collections.abc import Callable

# What the operating system says when the fault is the machine's or the user's, not the program's.
_MACHINE_FAULTS = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) and run the same command again",
    errno.EACCES: "change its permissions or its owner and run the same command again",
    errno.EPERM: "change its permissions or its owner and run the same command again",
    errno.EROFS: "work in a clone on a file system that can be written",
}


class ExpectedError(Exception):
    """A fault that a user can mend; its text is one line: what is wrong, where, and what to do next."""


def run_stage(name: str, main: Callable[[], None]) -> None:
    """Run a stage's `main`, and end the process with one line and status 1 where an expected error stops it.

    Args:
        name: The stage's name, which opens the line.
        main: The stage.

    Raises:
        SystemExit: For an `ExpectedError` and for a full disk, a missing permission and their like.
    """
    try:
        main()
    except ExpectedError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; the same command starts it again")
    except OSError as error:
        if error.errno not in _MACHINE_FAULTS:
            raise
        place = error.filename or "an output file"
        sys.exit(f"{name}: {place}: {error.strerror}; {_MACHINE_FAULTS[error.errno]}")
