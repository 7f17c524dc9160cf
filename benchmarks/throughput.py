"""Training steps of ours and of the paper's notebook, in turns, so that a busy machine slows both alike."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.worker import STRETCH
from stages.errors import ExpectedError

Json = dict[str, Any]
ROOT = Path(__file__).parents[1]
MODELS = ("keras_cnn", "resnet18")
WAYS = ("ours", "notebook")
FALLEN = 0.95  # the last round's mean loss is at most this part of the first steps'


class Plan(NamedTuple):
    """How long to measure: rounds, and steps in each of them; what a worker leaves out of them is not counted."""

    rounds: int
    steps: int


# About four minutes in all on two cores.
PLANS = {
    ("keras_cnn", 64): Plan(6, 4 * STRETCH),
    ("keras_cnn", 128): Plan(6, 3 * STRETCH),
    ("resnet18", 64): Plan(6, 2 * STRETCH),
    ("resnet18", 128): Plan(6, STRETCH),
}
GPU_PLANS = dict.fromkeys(PLANS, Plan(6, 8 * STRETCH))
QUICK_PLANS = {(model, 8): Plan(2, 2 * STRETCH) for model in MODELS}


def measure(model: str, batch_size: int, device: str, data: Path, plan: Plan) -> Json:
    """One model with one batch size, ours against the notebook's way.

    Raises:
        ExpectedError: A process failed, or a loss did not fall.
    """
    with contextlib.ExitStack() as stack:
        workers = {way: stack.enter_context(worker(model, way, batch_size, device, data)) for way in WAYS}
        settings = {way: process.settings for way, process in workers.items()}
        if settings["ours"] != settings["notebook"]:
            raise ExpectedError(
                f"{model}: params.yaml is not what the notebook ran, so the two cannot be compared "
                f"(ours {settings['ours']}, notebook {settings['notebook']}); git restore params.yaml"
            )
        # Who goes first changes: else a machine that grows slower would favour the same one each time.
        turns = [WAYS if number % 2 == 0 else WAYS[::-1] for number in range(plan.rounds)]
        rounds = [{way: ask(workers[way], plan.steps) for way in turn} for turn in turns]
        first = {way: process.first_loss for way, process in workers.items()}
    for way in WAYS:
        check_falling(first[way], rounds[-1][way]["loss"], f"{model}, {way}, batch {batch_size}, {device}")
    result = {"model": model, "batch_size": batch_size, "device": device, "settings": settings["ours"]}
    result["first_loss"] = first
    return result | summary(rounds, batch_size)


def summary(rounds: list[Json], batch_size: int) -> Json:
    """Medians over all stretches of steps; the ratio is the median of the rounds' own."""
    result: Json = {}
    for way in WAYS:
        seconds = median(value for answer in rounds for value in answer[way]["seconds"])
        left_out = [value for answer in rounds for value in answer[way]["left_out"]]
        result[way] = {
            "images_per_second": round(batch_size / seconds, 1),
            "ms_per_step": round(1000 * seconds, 3),
            "left_out_ms_per_step": round(1000 * median(left_out), 3) if left_out else None,
            "last_loss": rounds[-1][way]["loss"],
        }
    times = [{way: 1000 * median(answer[way]["seconds"]) for way in WAYS} for answer in rounds]
    result["ratio_to_notebook"] = round(median(time["notebook"] / time["ours"] for time in times), 3)
    result["rounds_ms_per_step"] = [{way: round(value, 3) for way, value in time.items()} for time in times]
    return result


def check_falling(first: float, last: float, what: str) -> None:
    """Raise an ExpectedError where the last round's mean loss is not well below that of the warm-up.

    A network that does not train stays within a percent or two of its first loss.
    """
    if not last < FALLEN * first:
        raise ExpectedError(
            f"{what}: the loss does not fall ({first:.4f} in the first steps, {last:.4f} in the last), so its speed "
            "says nothing; look for what broke the training"
        )


class Worker(NamedTuple):
    """A process of `benchmarks.worker` that has warmed up."""

    process: "subprocess.Popen[str]"
    errors: Any  # an open file with its standard error
    name: str
    settings: Json = {}  # noqa: RUF012
    first_loss: float = 0.0


@contextlib.contextmanager
def worker(model: str, way: str, batch_size: int, device: str, data: Path) -> Iterator[Worker]:
    """Start one, in a session of its own, so that Ctrl-C reaches the driver alone; it is gone afterwards."""
    arguments = [model, way, str(batch_size), device, str(data)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "benchmarks.worker", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            started = Worker(process, errors, " ".join(arguments[:4]))
            yield started._replace(**answer(started))
        finally:
            end_group(process)


def ask(asked: Worker, steps: int) -> Json:
    """Have a worker train for some steps, and wait for its answer."""
    with contextlib.suppress(BrokenPipeError):  # `answer` says why it is gone
        print(steps, file=asked.process.stdin, flush=True)
    return answer(asked)


def answer(asked: Worker) -> Json:
    """The next line of a worker.

    Raises:
        ExpectedError: It ended instead.
    """
    assert asked.process.stdout is not None
    line = asked.process.stdout.readline()
    if not line:
        code = asked.process.wait()
        asked.errors.seek(0)
        raise ExpectedError(
            f"benchmarks.worker {asked.name} ended with status {code}: {last_line(asked.errors.read())}"
        )
    result: Json = json.loads(line)
    return result


def last_line(text: str) -> str:
    """The last line of what a process printed, where it says what went wrong."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")


def end_group(process: "subprocess.Popen[Any]") -> None:
    """End a process that leads a session, and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS's word for one that has ended: the latter
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            if stream is not None:
                stream.close()
    process.wait()
