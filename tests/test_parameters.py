"""params.yaml: what each stage's schema accepts and refuses, and how it says so."""

import errno
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages import evaluate, split, train_keras_cnn, train_resnet18
from stages.errors import WAY_BACK, BadParameter, ExpectedError
from stages.errors import run_program as ending
from stages.parameters import TOP_LEVEL_KEYS, load
from tests.stage_runs import ROOT, STAGES_WITH_PARAMETERS, change_parameters, run_stage, schema

RATE = "a number from 0 to below 1"
LAYERS = "a list of layers out of conv1, bn1, layer1, layer2, layer3, layer4, fc, not all of them"
EVERY_LAYER = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
NUMBER_AS_TEXT = "(YAML reads it as text: write 0.001)"

# (stage, key, value): the key and the value as the message names them, and what it says is allowed.
REFUSED: list[tuple[str, str, Any, str]] = [
    ("train_keras_cnn", "dropout", -0.1, f"dropout is -0.1; allowed: {RATE}"),
    ("train_keras_cnn", "dropout", 1.0, f"dropout is 1.0; allowed: {RATE}"),
    ("train_keras_cnn", "dropout", "abc", f"dropout is 'abc'; allowed: {RATE}"),
    ("train_keras_cnn", "dropout", True, f"dropout is True; allowed: {RATE}"),
    ("train_keras_cnn", "dropout", None, f"dropout is None; allowed: {RATE}"),
    ("train_keras_cnn", "dropout", math.nan, f"dropout is nan; allowed: {RATE}"),
    (
        "train_keras_cnn",
        "dropout",
        0.6,
        "dropout is 0.6; allowed with keras_cnn.dropout_profile=rising: 0 to 0.5",
    ),
    ("train_keras_cnn", "batch_size", 0, "batch_size is 0; allowed: a whole number from 1"),
    ("train_keras_cnn", "batch_size", True, "batch_size is True; allowed: a whole number from 1"),
    ("train_keras_cnn", "batch_size", 64.0, "batch_size is 64.0; allowed: a whole number from 1"),
    ("train_keras_cnn", "batch_size", [64, 128], "batch_size is [64, 128]; allowed: a whole number from 1"),
    ("train_keras_cnn", "seed", -1, "seed is -1; allowed: a whole number from 0 to 4294967295"),
    ("train_keras_cnn", "seed", 2**32, "seed is 4294967296; allowed: a whole number from 0 to 4294967295"),
    (
        "train_keras_cnn",
        "keras_cnn.learning_rate",
        "1e-3",
        f"keras_cnn.learning_rate is '1e-3' {NUMBER_AS_TEXT}; allowed: a number above 0",
    ),
    (
        "train_keras_cnn",
        "keras_cnn.learning_rate",
        math.inf,
        "keras_cnn.learning_rate is inf; allowed: a number above 0",
    ),
    ("train_keras_cnn", "keras_cnn.learning_rate", 0, "keras_cnn.learning_rate is 0; allowed: a number above 0"),
    ("train_keras_cnn", "keras_cnn.epochs", 0, "keras_cnn.epochs is 0; allowed: a whole number from 1"),
    ("train_keras_cnn", "keras_cnn.epochs", "50", "keras_cnn.epochs is '50' (YAML reads it as text: write 50)"),
    (
        "train_keras_cnn",
        "keras_cnn.filters",
        [0],
        "keras_cnn.filters is [0]; allowed: 1 to 5 whole numbers from 1",
    ),
    (
        "train_keras_cnn",
        "keras_cnn.filters",
        [],
        "keras_cnn.filters is []; allowed: 1 to 5 whole numbers from 1, one a block",
    ),
    (
        "train_keras_cnn",
        "keras_cnn.filters",
        [32, "64"],
        "keras_cnn.filters.1 is '64' (YAML reads it as text: write 64); allowed: 1 to 5 whole numbers from 1",
    ),
    ("train_keras_cnn", "keras_cnn.backend", "theano", "keras_cnn.backend is 'theano'; allowed: tensorflow, torch or"),
    (
        "train_keras_cnn",
        "keras_cnn.augmentation",
        "flips",
        "keras_cnn.augmentation is 'flips'; allowed: none, flip or flip_crop",
    ),
    (
        "train_keras_cnn",
        "keras_cnn.reduce_lr_factor",
        1,
        "keras_cnn.reduce_lr_factor is 1; allowed: a number above 0 and below 1",
    ),
    (
        "train_keras_cnn",
        "keras_cnn.early_stopping_patience",
        0,
        "keras_cnn.early_stopping_patience is 0; allowed: a whole number from 1, or null (off)",
    ),
    ("train_keras_cnn", "keras_cnn", [1], "keras_cnn is [1]; allowed: a mapping with the keys backend, device, epochs"),
    (
        "train_keras_cnn",
        "keras_cnn.droput",
        0.3,
        "unknown key 'keras_cnn.droput'; allowed: backend, device, epochs, learning_rate, filters, kernel_size",
    ),
    ("split", "split.validation_fraction", 1, "split.validation_fraction is 1; allowed: a number from 0"),
    ("split", "split.validation_fraction", "0,2", "split.validation_fraction is '0,2'; allowed: a number from 0"),
    ("split", "split.stratify", True, "unknown key 'split.stratify'; allowed: validation_fraction, random_state"),
    ("download", "data.source", "cifar100", "data.source is 'cifar100'; allowed: cifar10 or synthetic"),
    (
        "download",
        "data.synthetic.train_images",
        60,
        "data.synthetic.train_images is 60; allowed: a multiple of 50 (five batches) from 50 to 50000",
    ),
    ("download", "data.synthetic.sed", 1, "unknown key 'data.synthetic.sed'; allowed: seed, train_images, test_images"),
    ("train_resnet18", "resnet18.frozen", ["layer9"], f"resnet18.frozen.0 is 'layer9'; allowed: {LAYERS}"),
    ("train_resnet18", "resnet18.frozen", "conv1", f"resnet18.frozen is 'conv1'; allowed: {LAYERS}"),
    (
        "train_resnet18",
        "resnet18.frozen",
        EVERY_LAYER[::-1],
        "resnet18.frozen names every layer; allowed: a list that leaves one to train",
    ),
    ("train_resnet18", "resnet18.epochs", 0, "resnet18.epochs is 0; allowed: a whole number from 1"),
    ("train_resnet18", "resnet18.batch_size", 1, "resnet18.batch_size is 1; allowed: a whole number from 2"),
    (
        "train_resnet18",
        "resnet18.std",
        [0.2, 0.0, 0.2],
        "resnet18.std is [0.2, 0.0, 0.2]; allowed: three numbers above 0",
    ),
    ("train_resnet18", "resnet18.mean", [0.5], "resnet18.mean is [0.5]; allowed: three numbers, one for each channel"),
    ("train_resnet18", "resnet18.mean", [0.5, math.nan, 0.5], "resnet18.mean.1 is nan; allowed: three numbers"),
    ("train_resnet18", "resnet18.weight_decay", -0.1, "resnet18.weight_decay is -0.1; allowed: a number from 0"),
    ("train_resnet18", "resnet18.weights", "imagnet", "resnet18.weights is 'imagnet'; allowed: none, imagenet or file"),
    ("train_resnet18", "resnet18.validation", "train", "resnet18.validation is 'train'; allowed: test or held_out"),
    ("train_resnet18", "resnet18.pretrained", True, "unknown key 'resnet18.pretrained'; allowed: device, epochs"),
    (
        "evaluate",
        "evaluate.augmented_draws",
        -1,
        "evaluate.augmented_draws is -1; allowed: a whole number from 0 to 1000",
    ),
    ("evaluate", "evaluate.augmented_draws", None, "evaluate.augmented_draws is None; allowed: a whole number from 0"),
]

# What may look odd and is meant.
ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("train_keras_cnn", {"dropout": 0}),  # a whole number where a number is asked for
    ("train_keras_cnn", {"dropout": 0.5}),
    ("train_keras_cnn", {"dropout": 0, "keras_cnn.dropout_profile": "uniform"}),
    ("train_keras_cnn", {"dropout": 0.6, "keras_cnn.dropout_profile": "uniform"}),
    ("train_keras_cnn", {"keras_cnn.early_stopping_patience": None, "keras_cnn.reduce_lr_patience": None}),
    ("train_keras_cnn", {"seed": 2**32 - 1, "batch_size": 1}),
    ("split", {"split.validation_fraction": 0}),
    ("train_resnet18", {"resnet18.frozen": EVERY_LAYER[:-1]}),
    ("evaluate", {"evaluate.augmented_draws": 0}),
    ("evaluate", {"dropout": 7, "keras_cnn": "nonsense"}),  # another stage's, which that stage refuses
]


def refusal(stage: str) -> str:
    """The one line in which `load` refuses the current directory's params.yaml."""
    with pytest.raises(ExpectedError) as caught:
        load(schema(stage))
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("params.yaml")
    return line


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, made the current one, with the committed params.yaml."""
    monkeypatch.chdir(tmp_path)
    path = Path("params.yaml")
    path.write_bytes((ROOT / path).read_bytes())
    return path


@pytest.mark.parametrize("stage", STAGES_WITH_PARAMETERS)
def test_the_committed_parameters_are_what_the_stage_reads(stage: str) -> None:
    committed = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    loaded = load(schema(stage), ROOT / "params.yaml").model_dump()
    assert loaded == {key: committed[key] for key in loaded}


@pytest.mark.parametrize("stage", STAGES_WITH_PARAMETERS)
def test_dvc_declares_the_parameters_that_the_stage_reads(stage: str) -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert sorted(stages[stage].get("do", stages[stage])["params"]) == sorted(schema(stage).model_fields)


def test_every_key_of_the_file_is_some_stages_and_known() -> None:
    committed = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    read = {key for stage in STAGES_WITH_PARAMETERS for key in schema(stage).model_fields}
    assert set(committed) == set(TOP_LEVEL_KEYS) == read


def test_the_committed_values_are_those_of_table_1_as_run() -> None:
    """FACTS of the notebook, section by section; params.yaml's comments give the places."""
    keras = load(train_keras_cnn.Parameters, ROOT / "params.yaml")
    assert (keras.dropout, keras.batch_size) == (0.3, 64)
    assert keras.keras_cnn.model_dump(exclude={"backend", "device"}) == {
        "epochs": 50,
        "learning_rate": 0.001,
        "filters": [32, 64, 128],
        "kernel_size": 3,
        "dense_units": 128,
        "dropout_profile": "rising",
        "augmentation": "none",
        "early_stopping_patience": 10,
        "reduce_lr_patience": 5,
        "reduce_lr_factor": 0.5,
        "min_learning_rate": 1e-5,
    }
    resnet = load(train_resnet18.Parameters, ROOT / "params.yaml").resnet18
    assert (resnet.epochs, resnet.batch_size, resnet.learning_rate, resnet.weight_decay) == (20, 64, 0.001, 0)
    assert (resnet.weights, resnet.frozen, resnet.augmentation) == ("none", [], "flip_crop")
    assert (resnet.validation, resnet.validation_augmentation) == ("test", "flip_crop")
    assert (resnet.mean, resnet.std) == ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
    assert (resnet.early_stopping_patience, resnet.reduce_lr_patience) == (None, None)
    part = load(split.Parameters, ROOT / "params.yaml").split
    assert (part.validation_fraction, part.random_state) == (0.2, 7)
    assert load(evaluate.Parameters, ROOT / "params.yaml").evaluate.augmented_draws == 10


@pytest.mark.parametrize(
    ("stage", "key", "value", "message"), REFUSED, ids=[f"{key}={value}" for _, key, value, _ in REFUSED]
)
def test_refuses(parameters: Path, stage: str, key: str, value: Any, message: str) -> None:
    change_parameters({key: value})
    line = refusal(stage)
    assert f"params.yaml: {message}" in line
    assert line.endswith(f"; {WAY_BACK}")


@pytest.mark.parametrize(("stage", "changes"), ACCEPTED, ids=[str(changes) for _, changes in ACCEPTED])
def test_accepts(parameters: Path, stage: str, changes: dict[str, Any]) -> None:
    change_parameters(changes)
    load(schema(stage))


def test_names_every_fault_at_once(parameters: Path) -> None:
    change_parameters({"dropout": -1, "batch_size": 0, "keras_cnn.epochs": "many"})
    line = refusal("train_keras_cnn")
    assert "dropout is -1; allowed:" in line
    assert "batch_size is 0; allowed:" in line
    assert "keras_cnn.epochs is 'many'; allowed:" in line


@pytest.mark.parametrize("stage", STAGES_WITH_PARAMETERS)
def test_refuses_an_unknown_key_at_the_top_in_every_stage(parameters: Path, stage: str) -> None:
    change_parameters({"drop_out": 0.4})
    line = refusal(stage)
    assert f"unknown key 'drop_out'; allowed: {', '.join(TOP_LEVEL_KEYS)}; {WAY_BACK}" in line


@pytest.mark.parametrize(
    ("stage", "key", "message"),
    [
        ("train_keras_cnn", "batch_size", "batch_size is missing; allowed: a whole number from 1"),
        ("train_keras_cnn", "keras_cnn.epochs", "keras_cnn.epochs is missing; allowed: a whole number from 1"),
        ("train_resnet18", "resnet18", "resnet18 is missing; allowed: a mapping with the keys device, epochs"),
        ("split", "split.random_state", "split.random_state is missing; allowed: a whole number from 0"),
        ("download", "data.synthetic", "data.synthetic is missing; allowed: a mapping with the keys seed, train_im"),
    ],
)
def test_refuses_a_missing_key(parameters: Path, stage: str, key: str, message: str) -> None:
    content = yaml.safe_load(parameters.read_text(encoding="utf-8"))
    *sections, name = key.split(".")
    holder = content
    for section in sections:
        holder = holder[section]
    del holder[name]
    parameters.write_text(yaml.safe_dump(content), encoding="utf-8")
    line = refusal(stage)
    assert message in line
    assert WAY_BACK in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dropout: [0.3\nseed: 7\n", "params.yaml is not valid YAML"),
        (b"dropout: 0.3\n\tseed: 7\n", "params.yaml is not valid YAML"),
        (b"dropout: \xff\xfe\n", "params.yaml is not valid YAML"),
        (b"a: !!python/object/apply:os.system ['touch ran']\n", "params.yaml is not valid YAML"),
        (b"[" * 50_000, "params.yaml is not valid YAML"),
        (b"? [1]\n: 2\n", "params.yaml is not valid YAML"),
        (b"- seed\n- dropout\n", "params.yaml must hold a mapping of parameters, not list"),
        (b"", "params.yaml must hold a mapping of parameters, not NoneType"),
        (b"dropout\n", "params.yaml must hold a mapping of parameters, not str"),
        (b"7: 7\n", "params.yaml: unknown key 7"),
    ],
    ids=["open list", "tab", "not text", "code", "deep", "list as key", "list", "empty", "a word", "number as key"],
)
def test_refuses_what_is_no_mapping(parameters: Path, content: bytes, message: str) -> None:
    parameters.write_bytes(content)
    line = refusal("train_keras_cnn")
    assert message in line
    assert line.endswith(WAY_BACK)
    assert not Path("ran").exists()


def test_a_missing_file_is_named_with_the_way_back(parameters: Path) -> None:
    parameters.unlink()
    assert refusal("train_keras_cnn") == "params.yaml is missing; git restore params.yaml brings it back"


def test_a_value_of_many_lines_stays_one_line_of_bounded_length(parameters: Path) -> None:
    change_parameters({"keras_cnn.backend": "a\nb" * 1000})
    assert len(refusal("train_keras_cnn")) < 400


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ("train_keras_cnn", {"dropout": 1.5}, f"train_keras_cnn: params.yaml: dropout is 1.5; allowed: {RATE}"),
        ("train_resnet18", {"resnet18.frozen": ["stem"]}, f"resnet18.frozen.0 is 'stem'; allowed: {LAYERS}"),
        ("split", {"split.validation_fraction": 1.0}, "split: params.yaml: split.validation_fraction is 1.0; allowed:"),
    ],
)
def test_the_stage_ends_with_one_line_and_leaves_nothing(
    parameters: Path, stage: str, changes: dict[str, Any], message: str
) -> None:
    """As `dvc repro` runs it: parameters come first, so that nothing else needs to be there."""
    change_parameters(changes)
    result = run_stage(stage)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.rstrip().endswith(WAY_BACK)
    assert result.stdout == ""
    assert sorted(path.name for path in Path().iterdir()) == [".locks", "params.yaml"]


BUG = """
from stages import split
from stages.errors import run_program
split.load = lambda schema: 1 / 0
run_program("split", split.main)
"""


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", BUG], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "in main" in result.stderr


@pytest.mark.parametrize("bug", [ValueError, KeyError, AssertionError, MemoryError, FileNotFoundError, RuntimeError])
def test_no_error_of_the_programs_own_is_hushed(bug: type[Exception]) -> None:
    def main() -> None:
        raise bug("planted")

    with pytest.raises(bug, match="planted"):
        ending("stage", main)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (ExpectedError("the archive is empty; get another"), "stage: the archive is empty; get another"),
        (BadParameter("dropout is 7; allowed: 0"), f"stage: dropout is 7; allowed: 0; {WAY_BACK}"),
        (KeyboardInterrupt(), "stage: interrupted; the same command goes on"),
        (
            OSError(errno.ENOSPC, "No space left on device", "models/x"),
            "stage: models/x: No space left on device; free some space and run the same command again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "metrics"),
            "stage: metrics: Permission denied; change its permissions or its owner and run the same command again",
        ),
        (
            OSError(errno.EROFS, "Read-only file system"),
            "stage: an output file: Read-only file system; work in a clone on a file system that can be written",
        ),
    ],
    ids=["expected", "parameter", "interrupted", "disk full", "permission", "read-only"],
)
def test_a_fault_that_the_user_can_mend_is_one_line(fault: BaseException, line: str) -> None:
    def main() -> None:
        raise fault

    with pytest.raises(SystemExit) as caught:
        ending("stage", main)
    assert caught.value.code == line  # Python prints it to standard error and ends with status 1
