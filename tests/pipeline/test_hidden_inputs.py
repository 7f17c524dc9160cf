"""No hidden inputs: each stage reads exactly what its entry in dvc.yaml declares, and writes only its outs.

Each stage runs as in dvc.yaml, with the configurations below, in a copy of the repository. tests/support/audit.py
watches every access to a file there. A declared folder counts as read when one file in it is.
"""

import contextlib
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.support import audit
from tests.support.clones import ALL_STAGES, Clone, copy_working_tree
from tests.support.stage_runs import ROOT, change_parameters

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify, which sees what is read, is Linux's")

SMALL = {
    "data.source": "synthetic",
    "data.synthetic.train_images": 50,
    "data.synthetic.test_images": 10,
    "batch_size": 16,
    "keras_cnn.epochs": 2,
    "keras_cnn.filters": [2, 3],
    "keras_cnn.dense_units": 4,
    "resnet18.epochs": 1,
    "resnet18.batch_size": 24,
    "resnet18.weights_file": "data/weights/trained.pt",
    "evaluate.augmented_draws": 2,
}
# Run one after another, each with SMALL and its own parameters. A declared input that only another configuration would
# read needs one more here. ImageNet weights and the download are not here, because what they read is outside the
# repository. The real CIFAR-10 has its own test below.
CONFIGURATIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "the results in git": ({}, ["plot", "compare", "report"]),  # of the real CIFAR-10: synthetic data are not compared
    "small, else as committed": ({}, ALL_STAGES),
    "ResNet-18 as in the paper's text, with weights from a file": (
        {
            "resnet18.weights": "file",  # those that the configuration before has trained
            "resnet18.frozen": ["conv1", "bn1", "layer1"],
            "resnet18.weight_decay": 0.01,
            "resnet18.validation": "held_out",
            "resnet18.validation_augmentation": "none",
            "resnet18.early_stopping_patience": 1,
            "resnet18.reduce_lr_patience": 1,
        },
        ["train_resnet18", "evaluate@resnet18"],  # reads the split, as nothing is held out in the configurations above
    ),
    "Keras CNN as in the paper's text, on PyTorch, without validation": (
        {
            "split.validation_fraction": 0.0,
            "keras_cnn.backend": "torch",
            "keras_cnn.dropout_profile": "uniform",
            "keras_cnn.augmentation": "flip_crop",
        },
        ["split", "train_keras_cnn"],
    ),
}
# What a stage may also read and write, apart from its lock: checkpoints, and an output that is not complete.
WORK = {
    "download": {"data/raw/.incomplete"},
    "train_keras_cnn": {".resume", "models/keras_cnn.new"},
    "train_resnet18": {".resume", "models/resnet18.new"},
    "export_keras_cnn": {"models/keras_cnn.new"},
    "export_resnet18": {"models/resnet18.new"},
    "cards": {"models/keras_cnn.new", "models/resnet18.new"},
}
IMPORTING = {".", "stages"}  # folders that Python lists to find a module


class Entry(NamedTuple):
    """A stage in dvc.yaml, with its variables filled in; paths and dotted keys."""

    command: str
    files: set[str]
    parameters: set[str]
    outs: set[str]


class Run(NamedTuple):
    """What a stage has declared and done in one configuration."""

    entry: Entry
    leaves: set[str]  # of params.yaml, dotted
    watch: audit.Watch
    parameters: list[str]  # lines of audit.note_parameters


class Copy:
    """A copy of the repository, without the results that are not in git, in which stages run and are watched."""

    def __init__(self, folder: Path) -> None:
        self.clone = Clone(folder / "repository")
        self.folder = self.clone.folder
        copy_working_tree(self.folder)
        self.clone.ok("git", "init", "--quiet", "--template=")  # DVC wants one
        self.hook = folder / "hook"
        self.hook.mkdir()
        shutil.copy(audit.__file__, self.hook / "sitecustomize.py")

    def configure(self, changes: dict[str, Any]) -> None:
        shutil.copy(ROOT / "params.yaml", self.folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            change_parameters(SMALL | changes)

    @contextlib.contextmanager
    def changed(self, file: str, old: str, new: str) -> Iterator[None]:
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        try:
            yield
        finally:
            path.write_text(text)

    def entries(self) -> dict[str, Entry]:
        """dvc.yaml as DVC itself reads it."""
        from dvc.dependency import ParamsDependency
        from dvc.repo import Repo

        found = {}
        with Repo(self.folder) as repo:
            for stage in repo.index.stages:
                if stage.path_in_repo != "dvc.yaml":  # beyond/ has tests of its own
                    continue
                parameters = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
                found[stage.name] = Entry(
                    stage.cmd,
                    {dep.def_path for dep in stage.deps if dep not in parameters},
                    {key for dep in parameters for key in dep.params},
                    {out.def_path for out in stage.outs},
                )
        return found

    def run(self, entry: Entry, **environment: str) -> Run:
        """Run a stage as DVC does, its outs removed before."""
        for out in entry.outs:
            if (self.folder / out).is_dir():
                shutil.rmtree(self.folder / out)
            else:
                (self.folder / out).unlink(missing_ok=True)
        text = (self.folder / "params.yaml").read_text()
        record = self.hook / "record"
        record.write_text("")
        watch = audit.Watch(self.folder)
        self.clone.ok(
            *shlex.split(entry.command),
            PYTHONPATH=str(self.hook),
            PYTHONDONTWRITEBYTECODE="1",
            AUDITED_TEXT=text,
            AUDITED_RECORD=str(record),
            **environment,
        )
        watch.end()
        return Run(entry, set(leaves(yaml.safe_load(text))), watch, record.read_text().splitlines())


def leaves(content: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in content.items():
        yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]


def within(name: str, declared: Iterable[str], separator: str) -> bool:
    return any(name == other or name.startswith(f"{other}{separator}") for other in declared)


def faults(name: str, runs: list[Run]) -> list[str]:
    """What a stage did in these runs without declaring it, and what it declares without reading it."""
    found = set()
    for entry, _, watch, parameters in runs:
        free = entry.outs | {".locks"} | WORK.get(name, set())
        files = entry.files | ({"params.yaml"} if entry.parameters else set())
        for file in watch.read:
            if not within(file, files | free, "/"):
                found.add(f"reads {file}, undeclared")
        for folder in watch.listed - IMPORTING:
            if not within(folder, files | free, "/"):
                found.add(f"lists {folder}, undeclared")
        for file in watch.written:
            if not within(file, free, "/"):
                found.add(f"writes {file}, no out")
        for key in set(parameters) - {"loaded"} if entry.parameters else []:
            if not within(key, entry.parameters, "."):
                found.add(f"reads the parameter {key}, undeclared")
        if watch.opened["params.yaml"] != parameters.count("loaded"):
            found.add("reads params.yaml in a way that does not show which parameters")
    for file in set().union(*(run.entry.files for run in runs)):
        if not any(within(read, [file], "/") for run in runs for read in run.watch.read):
            found.add(f"declares {file}, unread")
    for key in set().union(*(run.entry.parameters for run in runs)):
        for leaf in {leaf for run in runs for leaf in run.leaves if within(leaf, [key], ".")}:
            if not any(leaf in run.parameters for run in runs):
                found.add(f"declares the parameter {leaf}, unread")
    return sorted(found)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def runs(copy: Copy) -> dict[str, list[Run]]:
    """Every stage in every configuration that has it."""
    done: dict[str, list[Run]] = {name: [] for name in ALL_STAGES}
    for changes, stages in CONFIGURATIONS.values():
        copy.configure(changes)
        entries = copy.entries()
        assert set(entries) == set(ALL_STAGES)
        for name in stages:
            done[name].append(copy.run(entries[name]))
        if stages == ALL_STAGES:
            shutil.copy(copy.folder / "models/resnet18.pt", copy.folder / SMALL["resnet18.weights_file"])
    return done


@pytest.mark.parametrize("name", ALL_STAGES)
def test_a_stage_reads_what_it_declares_and_writes_its_outs(runs: dict[str, list[Run]], name: str) -> None:
    assert faults(name, runs[name]) == []


@pytest.mark.real_data
def test_so_do_the_stages_that_read_the_real_archive(
    runs: dict[str, list[Run]], copy: Copy, cifar10_archive: Path
) -> None:
    copy.configure({"data.source": "cifar10"})
    entries = copy.entries()
    for name in ("download", "preprocess"):
        run = copy.run(entries[name], CIFAR10_ARCHIVE=str(cifar10_archive))
        assert faults(name, [*runs[name], run]) == []


# Of each: a file, a text in it, what is put in its place, and the fault that the stage `download` then has.
CODE = "    data = load(Parameters).data\n"  # the first line of its main
PLANTED = {
    "an undeclared parameter": (
        "stages/download.py",
        "    data: Data\n",
        "    data: Data\n    seed: Seed\n",
        "reads the parameter seed, undeclared",
    ),
    "an undeclared parameter that may be missing": (
        "stages/download.py",
        CODE,
        f"{CODE}    __import__('yaml').safe_load(Path('params.yaml').open()).get('seed', 7)\n",
        "reads the parameter seed, undeclared",
    ),
    "an undeclared parameter, not as YAML": (
        "stages/download.py",
        CODE,
        f"{CODE}    'seed: 7' in Path('params.yaml').read_text()\n",
        "reads params.yaml in a way that does not show which parameters",
    ),
    "an undeclared file": (
        "stages/download.py",
        CODE,
        f"{CODE}    Path('README.md').read_text()\n",
        "reads README.md, undeclared",
    ),
    "an undeclared import": (
        "stages/download.py",
        CODE,
        f"{CODE}    import stages.split\n",
        "reads stages/split.py, undeclared",
    ),
    "an undeclared folder": (
        "stages/download.py",
        CODE,
        f"{CODE}    list(Path('data/paper').iterdir())\n",
        "lists data/paper, undeclared",
    ),
    "a read from C++": (  # it maps the file into memory, and Python's own audit does not hear of it
        "stages/download.py",
        CODE,
        f"{CODE}    __import__('torch').from_file('README.md', size=9)\n",
        "reads README.md, undeclared",
    ),
    "a read by another process": (
        "stages/download.py",
        CODE,
        f"{CODE}    os.system('cat README.md')\n",
        "reads README.md, undeclared",
    ),
    "a write outside its outs": (
        "stages/download.py",
        CODE,
        f"{CODE}    Path('data/note').write_text('')\n",
        "writes data/note, no out",
    ),
    "a declared file that is not read": (
        "dvc.yaml",
        "      - stages/download.py\n",
        "      - stages/download.py\n      - README.md\n",
        "declares README.md, unread",
    ),
    "a declared parameter that is not read": (
        "dvc.yaml",
        "      - data  ",
        "      - dropout\n      - data  ",
        "declares the parameter dropout, unread",
    ),
    "a key of a declared section that is not read": (
        "stages/download.py",
        "write_synthetic(folder, data.synthetic.seed, ",
        "write_synthetic(folder, 7, ",
        "declares the parameter data.synthetic.seed, unread",
    ),
    "parameters that are not declared at all": (
        "dvc.yaml",
        "    params:\n      - data  ",
        "    # ",
        "reads params.yaml, undeclared",
    ),
}


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_fault_is_found(copy: Copy, plant: str) -> None:
    file, old, new, fault = PLANTED[plant]
    copy.configure({})
    with copy.changed(file, old, new):
        assert faults("download", [copy.run(copy.entries()["download"])]) == [fault]
