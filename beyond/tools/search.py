"""Search hyperparameters with Optuna: `make search`. It is no stage.

beyond/search.yaml names the studies. Each trial is `dvc exp run --temp` in a temporary copy of the last commit, so a
finished trial is an experiment. While it trains, its history file feeds the pruner. The study is in an SQLite file in
.search/: the same command goes on where it was ended, and a trial that was cut off is tried again and resumes after its
last epoch. What was found is exported to beyond/search: a table of all trials, after each of them, and Optuna's
pictures of it.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import re
import signal
import subprocess
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import psutil
from pydantic import Discriminator, Field, Tag, model_validator

from beyond.confirm import COMMITTED, RESULTS, SEARCHES, pictures, results
from beyond.ladder.plan import DETERMINING, present_origin
from stages.common.config import Section, Seed, load_checked, read
from stages.common.errors import ExpectedError, run_program
from stages.common.files import flat, read_history, write_rows
from stages.common.process import ancestor, end_with
from stages.experiments.git import experiments_in_git, file_in
from stages.experiments.plan import Overrides, parameters_of
from stages.experiments.table import as_text
from stages.tools.grid import at_least_one, check_clean
from stages.tools.runs import Processes, alone, end_all, run_dvc, say, share_cores
from stages.training.randomness import derived_seed

os.environ["MPLBACKEND"] = "agg"  # a notebook sets one that may not be installed here

try:
    import optuna
    import sqlalchemy
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState
except ImportError:
    raise SystemExit("search: Optuna is not installed: pip install -c requirements.txt optuna") from None

STORAGE = Path(".search")
REDUCTION = 3  # of successive halving: a third goes on
STARTUP_TRIALS = 5  # that the median pruner leaves alone: Optuna's default
FAILURES = 3  # in a row, without an epoch, that end the search: not one bad value then, but something else
BUSY_SECONDS = 60  # that SQLite waits for another thread
INCHES = 4  # of a picture's height, and of the width of each of its parts
DOTS_PER_INCH = 100
NO_HYPERPARAMETER = re.compile(r"seed|(data|split)\..+|(.+\.)?(device|backend|validation)")  # a search would misuse it
LAST_EPOCH = re.compile(r"epoch (\d+)/\1\b")


class Range(Section):
    """A parameter's range: whole numbers if both ends are."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if not self.low < self.high or (self.log and (self.low <= 0 or self.step is not None)):
            raise ValueError("not a range; allowed: low below high, and with log: low above 0 and no step")
        if isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, float):
            raise ValueError("not a range; allowed: a whole step between whole numbers, or low and high as 0.0")
        if self.step and not _is_whole((self.high - self.low) / self.step):
            raise ValueError("not a range; allowed: a step that leads from low to high")
        return self

    def distribution(self) -> IntDistribution | FloatDistribution:
        """As Optuna takes it."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def has(self, value: Any) -> bool:
        """Whether a value is in the range, and one of its steps."""
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        step = self.distribution().step
        return not step or _is_whole((value - self.low) / step)


def _is_whole(number: float) -> bool:
    return math.isclose(number, round(number), abs_tol=1e-9)


class Choices(Section):
    """A parameter's values."""

    choices: Annotated[list[str | int | float | bool | None], Field(min_length=2)]

    @model_validator(mode="after")
    def _are_different(self) -> "Choices":
        if len({repr(choice) for choice in self.choices}) < len(self.choices):
            raise ValueError(f"a value of {self.choices} is there twice")
        return self

    def distribution(self) -> BaseDistribution:
        """As Optuna takes it."""
        return CategoricalDistribution(self.choices)

    def has(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value in self.choices


class Pruner(Section):
    """When a trial is ended early."""

    kind: Literal["median", "halving", "none"]
    after: int = Field(default=1, ge=1)

    def pruner(self) -> optuna.pruners.BasePruner:
        """As Optuna takes it."""
        if self.kind == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=self.after)
        if self.kind == "halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=self.after, reduction_factor=REDUCTION)
        return optuna.pruners.NopPruner()


def _kind(given: Any) -> str:
    """Which of the two a value of `space` is, so that a fault is told of that one."""
    return "choices" if isinstance(given, Choices) or (isinstance(given, dict) and "choices" in given) else "range"


Values = Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)]


class Search(Section):
    """A study of beyond/search.yaml."""

    target: str
    parameters: str
    history: str
    record: str
    set: Overrides
    space: Annotated[dict[str, Values], Field(min_length=1)]
    pruner: Pruner
    epochs: int = Field(ge=1)
    seed: Seed


class Searches(Section):
    """The whole file."""

    studies: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], Search]


def main() -> None:
    options = arguments()
    end_with(ancestor("make"))  # which cannot tell us when it is killed
    searches = load_checked(SEARCHES, Searches).studies
    if options.study not in searches:
        raise ExpectedError(f"{SEARCHES} has no study {options.study!r}; it has {', '.join(searches)}")
    name, search = options.study, searches[options.study]
    check(search)
    check_clean(DETERMINING)
    busy = f"another process runs the search {name} in this folder"
    # Two would take each other's unfinished trials for cut off.
    with alone(STORAGE / f"{name}.lock", busy), storage_faults(name):
        study = open_study(name, search)
        try:
            run_trials(name, study, search, options.jobs)
        finally:  # also on Ctrl-C
            export(name, study, search)
            draw(name, study)
            report(name, study, search)


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m beyond.tools.search", description=__doc__)
    parser.add_argument("study", nargs="?", default="keras_cnn", help=f"one of {SEARCHES}")
    parser.add_argument("--jobs", type=at_least_one, default=1, help="how many trials at once")
    return parser.parse_args()


@contextlib.contextmanager
def storage_faults(name: str) -> Iterator[None]:
    """One line where the study's file cannot be read or written."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ExpectedError(
            f"{storage(name)}: {reason}; correct this and run the same command again, or begin anew: {anew(name)}"
        ) from None


def storage(name: str) -> Path:
    """The SQLite file of a study."""
    return STORAGE / f"{name}.db"


def anew(name: str) -> str:
    """The commands after which a study begins anew."""
    experiments = f"dvc exp list --all-commits --name-only | grep '^{experiment(name, '[0-9]*')}$'"
    files = [storage(name), results(name), *pictures(name)]
    return f"rm -f {' '.join(map(str, files))}; dvc exp remove $({experiments})"


def check(search: Search) -> None:
    """Refuse what a search would notice only after hours, or never.

    Raises:
        ExpectedError: A file is none that the stages write, a parameter none that they read, a range not of the
            parameter's kind; or the test set would choose.
    """
    _, stages = stages_of(search)
    written = set().union(*(outs_of(stage) for stage in stages.values()))
    for key in ("history", "record"):
        if (file := getattr(search, key)) not in written:
            raise ExpectedError(f"{SEARCHES}: {key} is {file}, which no stage of {search.target} writes")
    values, changes = flat(read(Path(search.parameters))), parameters_of(search.set)
    names = parameters_read(stages, search.parameters)
    for key in [*changes, *search.space]:
        if key not in values:
            raise ExpectedError(f"{SEARCHES}: {search.parameters} has no {key}")
        if not is_read(key, names):
            raise ExpectedError(f"{SEARCHES}: {search.target} does not depend on {key}")
    for key, given in search.space.items():
        if key in changes:
            raise ExpectedError(f"{SEARCHES}: {key} is both in `set` and in `space`; remove one")
        if NO_HYPERPARAMETER.fullmatch(key):
            raise ExpectedError(f"{SEARCHES}: {key} cannot be searched, only set")
        if isinstance(given, Range) and isinstance(values[key], float) and isinstance(given.low + given.high, int):
            raise ExpectedError(f"{SEARCHES}: {key} would be a whole number; write low and high as {given.low:.1f}")
    for key, value in (values | changes).items():
        if key.rpartition(".")[2] == "validation" and is_read(key, names) and value != "held_out":
            raise ExpectedError(f"{SEARCHES}: {key} is {value}, and a search needs {key}=held_out under `set`")
        if key == "split.validation_fraction" and is_read(key, names) and not value:
            raise ExpectedError(f"{SEARCHES}: {key} is {value}, so no image would validate; change it under `set`")


def committed_values(search: Search) -> dict[str, Any]:
    """The values that the parameters of the space have in their file."""
    values = flat(read(Path(search.parameters)))
    return {key: values[key] for key in search.space}


def open_study(name: str, search: Search) -> optuna.Study:
    """The study, new or as it was left; a trial that was cut off is waiting to be tried again.

    Raises:
        ExpectedError: It was begun with other code, data or settings, or it is new and another of its name has left
            results.
    """
    identity, committed = identity_of(search), committed_values(search)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = storage(name)
    if not file.exists() and results(name).exists():
        raise ExpectedError(
            f"{results(name)} is of an earlier search, and {file} is not here; name another study in {SEARCHES}, or "
            f"begin anew: {anew(name)}"
        )
    arguments = {"connect_args": {"timeout": BUSY_SECONDS}}
    database = optuna.storages.RDBStorage(f"sqlite:///{file}", engine_kwargs=arguments)
    study = optuna.create_study(storage=database, study_name=name, direction="maximize", load_if_exists=True)
    if study.user_attrs.setdefault("identity", identity) != identity:
        raise ExpectedError(
            f"the study {name} in {file} was begun with other code, data or settings, which no longer compare; "
            f"name another study in {SEARCHES}, or begin anew: {anew(name)}"
        )
    study.set_user_attr("identity", identity)
    ours = {experiment(name, trial.number) for trial in study.trials}
    for found in experiments_in_git():
        if re.fullmatch(experiment(name, r"\d+"), found) and found not in ours:
            raise ExpectedError(f"{found} is of an earlier search; begin anew: {anew(name)}")
    study.sampler = optuna.samplers.TPESampler(
        seed=derived_seed(search.seed, len(study.trials), "sampler"), constant_liar=True
    )
    study.pruner = search.pruner.pruner()
    again = cut_off(study)
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if trial.number not in again:
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        study.tell(trial.number, state=TrialState.FAIL)
    tried = [values_of(trial) for trial in study.trials if trial.state != TrialState.FAIL]
    if not fits(committed, search):
        say(f"{name}: the space of {SEARCHES} does not have the committed values, so no trial has them")
    elif committed not in tried:
        study.enqueue_trial(committed)
    return study


def experiment(name: str, number: int | str) -> str:
    """The name of a trial's experiment."""
    return f"search-{name}-{number}"


def values_of(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """The values of a trial, also of one that waits."""
    values = trial.system_attrs.get("fixed_params", {}) | trial.params
    return {key: short(value) for key, value in values.items()}


def identity_of(search: Search) -> str:
    """A hash of what a trial's value depends on besides the space's parameters: settings, code, data."""
    file, stages = stages_of(search)
    names = parameters_read(stages, search.parameters)
    settings = flat(read(Path(search.parameters))).items()
    others = {key: value for key, value in settings if is_read(key, names) and key not in search.space}
    definition = search.model_dump(include={"target", "history", "record", "set", "space"})
    content = json.dumps([definition, present_origin(file, list(stages)), others], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def stages_of(search: Search) -> tuple[Path, dict[str, Any]]:
    """The file of the target, and the entries in it of what a trial runs.

    Raises:
        ExpectedError: The target is no stage, or one of several under a `foreach`.
    """
    pipeline, _, target = search.target.rpartition(":")
    file = Path(pipeline or "dvc.yaml")
    stages = read(file)["stages"]
    if target not in (allowed := [name for name, entry in stages.items() if "foreach" not in entry]):
        raise ExpectedError(f"{SEARCHES}: target is {search.target}; allowed in {file}: {', '.join(allowed)}")
    return file, upstream(stages, target)


def upstream(stages: dict[str, Any], target: str) -> dict[str, Any]:
    """The entry of a stage, and those of the same file that it depends on."""
    found, waiting = {}, [target]
    while waiting:
        name = waiting.pop()
        found[name] = stages[name]
        for other, entry in stages.items():
            if other not in found and outs_of(entry) & set(stages[name]["deps"]):
                waiting.append(other)
    return found


def outs_of(stage: dict[str, Any]) -> set[str]:
    """The files and folders that an entry of a dvc.yaml says it writes."""
    kinds = ("outs", "metrics", "plots")
    return {path for kind in kinds for out in stage.get(kind, []) for path in ([out] if isinstance(out, str) else out)}


def parameters_read(stages: dict[str, Any], file: str) -> list[str]:
    """The parameters of a file, or their sections, that these entries of a dvc.yaml name."""
    items = [item for stage in stages.values() for item in stage.get("params", [])]
    named = [{"params.yaml": [item]} if isinstance(item, str) else item for item in items]
    return [name for item in named for name in item.get(file, [])]


def is_read(key: str, names: list[str]) -> bool:
    """Whether a parameter is among these, or in a section that is."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def fits(values: dict[str, Any], search: Search) -> bool:
    """Whether the space has these values."""
    return all(given.has(values[key]) for key, given in search.space.items())


def run_trials(name: str, study: optuna.Study, search: Search, jobs: int) -> None:
    """Run trials, several at once if asked, until the epochs are spent.

    Raises:
        ExpectedError: Several trials in a row failed.
    """
    share_cores(jobs)
    processes = Processes()
    shared = Shared(processes.active, threading.Event(), threading.Lock())
    pool = ThreadPoolExecutor(jobs)
    futures = [pool.submit(work, name, study, search, shared) for _ in range(jobs)]
    try:
        for future in as_completed(futures):
            future.result()
    finally:
        shared.ending.set()
        pool.shutdown(wait=False, cancel_futures=True)
        end_all(processes, futures)


class Shared(NamedTuple):
    """What the threads of a search share.

    Attributes:
        active: The processes that run.
        ending: Set when no further trial is to begin.
        lock: Held by the one that asks for a trial or tells of one: SQLite would give a waiting trial to two of them.
    """

    active: "list[subprocess.Popen[str]]"
    ending: threading.Event
    lock: threading.Lock


def work(name: str, study: optuna.Study, search: Search, shared: Shared) -> None:
    """Run one trial after another."""
    failures = 0
    while trial := next_trial(name, study, search, shared):
        state, value = run_trial(experiment(name, trial.number), trial, search, shared.active)
        if state == TrialState.FAIL and shared.ending.is_set():  # cut off: it is tried again when the search goes on
            return
        with shared.lock:
            study.tell(trial, value, state)
            export(name, study, search)
        failures = failures + 1 if state == TrialState.FAIL and not trial.user_attrs.get("epochs") else 0
        if failures == FAILURES:
            shared.ending.set()
            raise ExpectedError(f"{FAILURES} trials of {name} failed in a row; their last lines say why")


def next_trial(name: str, study: optuna.Study, search: Search, shared: Shared) -> optuna.Trial | None:
    """The next trial, or None where the epochs are spent or the search ends.

    Raises:
        ExpectedError: Code, data or settings have changed.
    """
    with shared.lock:
        spent = epochs_spent(study)
        if shared.ending.is_set() or spent >= search.epochs:
            return None
        if identity_of(search) != study.user_attrs["identity"]:  # while it runs, somebody may edit or commit here
            raise ExpectedError(f"code, data or settings have changed since the search {name} began; put them back")
        say(f"{name}: {spent} of {search.epochs} epochs are spent")
        return study.ask({key: given.distribution() for key, given in search.space.items()})


def epochs_spent(study: optuna.Study) -> int:
    """The epochs that all trials have trained; one that was cut off resumes, and its epochs count once."""
    return sum(trial.user_attrs.get("epochs", 0) for trial in study.trials if trial.number not in cut_off(study))


def cut_off(study: optuna.Study) -> set[int]:
    """The numbers of the trials that were cut off, and are or will be tried again."""
    return {trial.user_attrs["again"] for trial in study.trials if "again" in trial.user_attrs}


def run_trial(
    name: str, trial: optuna.Trial, search: Search, active: "list[subprocess.Popen[str]]"
) -> tuple[TrialState, float | None]:
    """Run a trial; return how it ended, and the objective.

    After each epoch but the last, the pruner is told the highest validation accuracy so far: a single epoch says
    little, and the weights of the best one are kept. The trial with the committed values is never ended: what was found
    is compared with it.
    """
    values = {key: short(value) for key, value in trial.params.items()}
    baseline = values == committed_values(search)
    overrides = [*search.set, *(f"{key}={json.dumps(value)}" for key, value in values.items())]
    options = [part for override in overrides for part in ("-S", f"{search.parameters}:{override}")]
    command = ["exp", "run", "--temp", "--name", name, *options, search.target]
    say(f"{name}: {' '.join(overrides)}")
    pruned = threading.Event()
    reported: list[float] = []

    def watch(process: "subprocess.Popen[str]", line: str) -> bool:
        for epoch, accuracy in list(enumerate(accuracies(process.pid, search.history), start=1))[len(reported) :]:
            reported.append(accuracy)
            trial.report(max(reported), epoch)
            trial.set_user_attr("epochs", epoch)
            if trial.should_prune() and not baseline and not LAST_EPOCH.match(line):
                pruned.set()
                os.killpg(process.pid, signal.SIGINT)
                return True
        return False

    status, last_lines = run_dvc(name, command, active, watch)
    if status == 0:  # also where the pruner came too late
        record = json.loads(file_in(experiments_in_git()[name][0], search.record))
        accuracy = (record["validation"] or {}).get("accuracy")
        if accuracy is None:
            raise ExpectedError(f"{name} has no validation accuracy; hold images out in {SEARCHES} (under `set`)")
        trial.set_user_attr("epochs", record["epochs"])
        trial.set_user_attr("experiment", name)
        say(f"{name}: validation accuracy {accuracy}")
        return TrialState.COMPLETE, accuracy
    if pruned.is_set():
        say(f"{name}: ended by the pruner after epoch {len(reported)}")
        return TrialState.PRUNED, None
    say("".join(f"    {line}" for line in last_lines).rstrip())
    return TrialState.FAIL, None


def short(value: Any) -> Any:
    """A value without the rounding error of Optuna's steps: 0.1 + 2 * 0.1 is 0.30000000000000004."""
    return float(f"{value:.10g}") if isinstance(value, float) else value


def accuracies(dvc: int, history: str) -> list[float]:
    """The validation accuracies so far of the training that this dvc runs in its temporary copy."""
    found: list[float] = []
    with contextlib.suppress(psutil.Error, ExpectedError, KeyError):  # it may have ended, or not begun to write
        for process in psutil.Process(dvc).children(recursive=True):
            folder = Path(process.cwd())
            if folder != Path.cwd() and (folder / history).exists():
                column = read_history(folder / history)["val_accuracy"]
                return column[np.isfinite(column)].tolist()  # none where nothing is held out
    return found


def export(name: str, study: optuna.Study, search: Search) -> None:
    """Write the table of all trials that ended by themselves, the best first; none yet where there are none."""
    ended = [
        trial
        for trial in study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
        if trial.number not in cut_off(study)
    ]
    ended.sort(key=lambda trial: (trial.state != TrialState.COMPLETE, -(trial.value or 0), trial.number))
    if not ended:
        return
    committed = committed_values(search)
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "validation_accuracy": trial.value if trial.state == TrialState.COMPLETE else None,
            "highest_of_an_epoch": max(trial.intermediate_values.values(), default=None),
            "epochs": trial.user_attrs.get("epochs", 0),
            "experiment": trial.user_attrs.get("experiment"),
            "note": COMMITTED if values_of(trial) == committed else None,
            **{key: as_text(value) for key, value in values_of(trial).items()},
        }
        for trial in ended
    ]
    columns = ("trial", "state", "validation_accuracy", "highest_of_an_epoch", "epochs", "experiment", "note")
    RESULTS.mkdir(parents=True, exist_ok=True)
    new = RESULTS / f".{name}.new"
    write_rows(new, rows, (*columns, *search.space))
    new.replace(results(name))


def draw(name: str, study: optuna.Study) -> None:
    """Optuna's pictures of what mattered: importances (functional ANOVA, Hutter et al. 2014), and a slice for each."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization.matplotlib import plot_param_importances, plot_slice

    complete = study.get_trials(states=[TrialState.COMPLETE])
    if len({trial.value for trial in complete}) < 2:
        say(f"{name}: no picture yet: it takes two finished trials of different accuracy")
        return
    with warnings.catch_warnings(), mpl.rc_context():  # Optuna switches the whole process to the style "ggplot"
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        plots = (
            lambda: plot_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)),
            lambda: plot_slice(study, target_name="validation accuracy"),
        )
        for file, plot in zip(pictures(name), plots, strict=True):
            plot()
            figure = plt.gcf()
            figure.set_size_inches(INCHES * len(figure.axes), INCHES)
            for axes in figure.axes:
                if axes.get_xscale() == "log":  # Optuna's labels overlap
                    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                    axes.xaxis.set_major_formatter("{x:g}")
                    axes.xaxis.set_minor_formatter("")
            figure.savefig(file, dpi=DOTS_PER_INCH, bbox_inches="tight", metadata={"Software": None})
            plt.close(figure)


def report(name: str, study: optuna.Study, search: Search) -> None:
    """Print what was found so far."""
    complete = study.get_trials(states=[TrialState.COMPLETE])
    say(f"{name}: {len(complete)} finished trials, {epochs_spent(study)} of {search.epochs} epochs are spent")
    if complete:
        say(f"{results(name)} has all trials")
        best = study.best_trial
        say(f"best: {best.user_attrs['experiment']}, validation accuracy {best.value}: {values_of(best)}")
        committed = committed_values(search)
        for trial in complete:
            if values_of(trial) == committed:
                say(f"{COMMITTED}: {trial.user_attrs['experiment']}, validation accuracy {trial.value}")
        say("docs/beyond.md says how its values are confirmed")


if __name__ == "__main__":
    run_program("search", main)
