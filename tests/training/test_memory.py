"""A process that keeps the memory it frees gets no new pages for it."""

import platform
import subprocess
import sys

import pytest

from tests.support.stage_runs import ROOT

COUNT = """
import resource
{first}
b"x" * SIZE
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    b"x" * SIZE
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
""".replace("SIZE", str(40 * 2**20))
KEEP = "from stages.training.memory import keep_memory; keep_memory()"


def faults(first: str) -> int:
    """How many pages the system gave a process that allocates 40 MB ten times, and frees it each time."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(first=first)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not the GNU C library")
def test_freed_memory_is_kept() -> None:
    assert faults(KEEP) < faults("") / 10
