"""Training steps of ours, an expert's and the paper's notebook, in turns, so that a busy machine slows all alike."""

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
from stages.common.errors import ExpectedError

Json = dict[str, Any]
ROOT = Path(__file__).parents[1]
MODELS = ("keras_cnn", "resnet18")
WAYS = ("ours", "expert", "notebook")
FALLEN = 0.95  # the last round's mean loss is at most this part of the first steps'


class Plan(NamedTuple):
    """How long to measure: rounds, and steps in each of them; what a worker leaves out of them is not counted."""

    rounds: int
    steps: int


# About five minutes in all on two cores.
PLANS = {
    ("keras_cnn", 64): Plan(4, 4 * STRETCH),
    ("keras_cnn", 128): Plan(4, 3 * STRETCH),
    ("resnet18", 64): Plan(4, 2 * STRETCH),
    ("resnet18", 128): Plan(4, STRETCH),
}
GPU_PLANS = dict.fromkeys(PLANS, Plan(4, 8 * STRETCH))
QUICK_PLANS = {(model, 8): Plan(2, 2 * STRETCH) for model in MODELS}


def measure(model: str, batch_size: int, device: str, data: Path, plan: Plan) -> Json:
    """One model with one batch size in each way; the expert's is measured on the CPU alone.

    Raises:
        ExpectedError: A process failed, or a loss did not fall.
    """
    ways = WAYS if device == "cpu" else ("ours", "notebook")
    with contextlib.ExitStack() as stack:
        workers = {way: stack.enter_context(worker(model, way, batch_size, device, data)) for way in ways}
        settings = {way: process.settings for way, process in workers.items()}
        if any(others != settings["ours"] for others in settings.values()):
            raise ExpectedError(
                f"{model}: params.yaml is not what the notebook ran, so they cannot be compared "
                f"({', '.join(f'{way} {value}' for way, value in settings.items())}); git restore params.yaml"
            )
        # The order alternates, so that a machine that slows down does not favour one way.
        turns = [ways if number % 2 == 0 else ways[::-1] for number in range(plan.rounds)]
        rounds = [{way: ask(workers[way], plan.steps) for way in turn} for turn in turns]
        first = {way: process.first_loss for way, process in workers.items()}
        forms = {way: process.form for way, process in workers.items()}
    for way in ways:
        check_falling(first[way], rounds[-1][way]["loss"], f"{model}, {way}, batch {batch_size}, {device}")
    result = {"model": model, "batch_size": batch_size, "device": device, "settings": settings["ours"]}
    result |= {"first_loss": first, "forms": forms}
    return result | summary(rounds, batch_size)


def summary(rounds: list[Json], batch_size: int) -> Json:
    """Medians over all stretches of steps. A ratio is the median of the ratios of the rounds."""
    result: Json = {}
    ways = list(rounds[0])
    for way in ways:
        seconds = median(value for answer in rounds for value in answer[way]["seconds"])
        left_out = [value for answer in rounds for value in answer[way]["left_out"]]
        result[way] = {
            "images_per_second": round(batch_size / seconds, 1),
            "ms_per_step": round(1000 * seconds, 3),
            "left_out_ms_per_step": round(1000 * median(left_out), 3) if left_out else None,
            "last_loss": rounds[-1][way]["loss"],
        }
    times = [{way: 1000 * median(answer[way]["seconds"]) for way in ways} for answer in rounds]
    for way in sorted(set(ways) - {"ours"}):
        result[f"ratio_to_{way}"] = round(median(time[way] / time["ours"] for time in times), 3)
    result["rounds_ms_per_step"] = [{way: round(value, 3) for way, value in time.items()} for time in times]
    return result


def check_falling(first: float, last: float, what: str) -> None:
    """Raise an ExpectedError if the last round's mean loss is not well below the warm-up's.

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
    form: str = ""
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
