"""`dvc` as the child of another program, which ends soon after that program does.

    python -m stages.tools.dvc_child PARENT exp run ...

It leads a process group. When it is told to end, it sends the whole group what Ctrl-C sends, so that DVC and its stage
clean up.
"""

import os
import signal
import sys

from dvc.cli import main as dvc

from stages.common.process import end_with

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job ignores Ctrl-C until now
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGINT))
    end_with(int(sys.argv[1]))
    sys.exit(dvc(sys.argv[2:]))
