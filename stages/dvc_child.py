"""`dvc` as the child of another program: gone soon after it, whatever ends that one.

    python -m stages.dvc_child PARENT exp run ...

It leads a process group of its own, which it ends as Ctrl-C does, so that DVC and the stage clear up behind them.
"""

import os
import signal
import sys
import threading
import time

from dvc.cli import main as dvc

LOOK_SECONDS = 1.0  # how often it looks whether its parent lives
END_SECONDS = 10.0  # for the group to end by itself


def main() -> None:
    parent, *arguments = sys.argv[1:]
    threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()
    sys.exit(dvc(arguments))


def _watch(parent: int) -> None:
    while os.getppid() == parent:  # a process whose parent ends gets another one
        time.sleep(LOOK_SECONDS)
    os.killpg(0, signal.SIGINT)
    time.sleep(END_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
