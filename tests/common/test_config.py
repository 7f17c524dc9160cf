"""params.yaml: read as DVC reads it; what each stage's schema accepts and refuses, and how it says so."""

import errno
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml
from ruamel.yaml import YAML

from stages import evaluate, split, train_keras_cnn, train_resnet18
from stages.common.config import TOP_LEVEL_KEYS, load, read
from stages.common.errors import WAY_BACK, BadParameter, ExpectedError
from stages.common.errors import run_program as ending
from tests.support.stage_runs import ROOT, STAGES_WITH_PARAMETERS, change_parameters, run_stage, schema

EVERY_LAYER = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]

# (stage, key, value, message): a bound or a choice of each kind of field; pydantic's own tests are not repeated.
REFUSED: list[tuple[str, str, Any, str]] = [
    ("train_keras_cnn", "dropout", -0.1, "dropout is -0.1: input should be greater than or equal to 0"),
    ("train_keras_cnn", "dropout", 1.0, "dropout is 1.0: input should be less than 1"),
    ("train_keras_cnn", "dropout", "abc", "dropout is 'abc': input should be a valid number"),
    ("train_keras_cnn", "dropout", True, "dropout is True: input should be a valid number"),
    ("train_keras_cnn", "dropout", None, "dropout is None: input should be a valid number"),
    ("train_keras_cnn", "dropout", math.nan, "dropout is nan: input should be a finite number"),
    ("train_keras_cnn", "dropout", 0.6, "dropout is 0.6: with keras_cnn.dropout_profile=rising it is at most 0.5"),
    ("train_keras_cnn", "batch_size", 0, "batch_size is 0: input should be greater than or equal to 1"),
    ("train_keras_cnn", "batch_size", True, "batch_size is True: input should be a valid integer"),
    ("train_keras_cnn", "batch_size", 64.0, "batch_size is 64.0: input should be a valid integer"),
    ("train_keras_cnn", "batch_size", [64, 128], "batch_size is [64, 128]: input should be a valid integer"),
    ("train_keras_cnn", "seed", -1, "seed is -1: input should be greater than or equal to 0"),
    ("train_keras_cnn", "seed", 2**32, "seed is 4294967296: input should be less than 4294967296"),
    ("train_keras_cnn", "keras_cnn.learning_rate", "1e-3", "keras_cnn.learning_rate is '1e-3': input should be a"),
    ("train_keras_cnn", "keras_cnn.learning_rate", 0, "keras_cnn.learning_rate is 0: input should be greater than 0"),
    ("train_keras_cnn", "keras_cnn.filters", [0], "keras_cnn.filters.0 is 0: input should be greater than or equal"),
    ("train_keras_cnn", "keras_cnn.filters", [], "keras_cnn.filters is []: list should have at least 1 item"),
    ("train_keras_cnn", "keras_cnn.filters", [8] * 6, "list should have at most 5 items after validation, not 6"),
    ("train_keras_cnn", "keras_cnn.backend", "theano", "'theano': input should be 'tensorflow', 'torch' or 'jax'"),
    ("train_keras_cnn", "keras_cnn.augmentation", "flips", "'flips': input should be 'none', 'flip' or 'flip_crop'"),
    ("train_keras_cnn", "keras_cnn.reduce_lr_factor", 1, "reduce_lr_factor is 1: input should be less than 1"),
    ("train_keras_cnn", "keras_cnn.early_stopping_patience", 0, "patience is 0: input should be greater than or equal"),
    ("train_keras_cnn", "keras_cnn", [1], "keras_cnn: not a mapping; allowed: one with the keys backend, device, epo"),
    ("train_keras_cnn", "keras_cnn.droput", 0.3, "keras_cnn: unknown key 'droput'; allowed: backend, device, epochs"),
    ("split", "split.validation_fraction", 1, "split.validation_fraction is 1: input should be less than 1"),
    ("download", "data.source", "cifar100", "data.source is 'cifar100': input should be 'cifar10' or 'synthetic'"),
    ("download", "data.synthetic.train_images", 60, "train_images is 60: input should be a multiple of 50"),
    ("download", "data.synthetic.sed", 1, "data.synthetic: unknown key 'sed'; allowed: seed, train_images, test_im"),
    ("train_resnet18", "resnet18.frozen", ["layer9"], "resnet18.frozen.0 is 'layer9': input should be 'conv1', "),
    ("train_resnet18", "resnet18.frozen", "conv1", "resnet18.frozen is 'conv1': input should be a valid list"),
    ("train_resnet18", "resnet18.frozen", EVERY_LAYER[::-1], "resnet18: frozen names every layer; leave one to train"),
    (
        "train_resnet18",
        "resnet18.batch_size",
        1,
        "resnet18.batch_size is 1: input should be greater than or equal",
    ),
    ("train_resnet18", "resnet18.std", [0.2, 0.0, 0.2], "resnet18.std.1 is 0.0: input should be greater than 0"),
    ("train_resnet18", "resnet18.mean", [0.5], "resnet18.mean is [0.5]: list should have at least 3 items"),
    ("train_resnet18", "resnet18.weight_decay", -0.1, "weight_decay is -0.1: input should be greater than or equal"),
    ("train_resnet18", "resnet18.validation", "train", "is 'train': input should be 'test' or 'held_out'"),
    ("evaluate", "evaluate.augmented_draws", -1, "augmented_draws is -1: input should be greater than or equal to 0"),
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
    committed = read(ROOT / "params.yaml")
    loaded = load(schema(stage), ROOT / "params.yaml").model_dump()
    assert loaded == {key: committed[key] for key in loaded}


def test_every_float_that_dvc_writes_is_read_back_equal(tmp_path: Path) -> None:
    """`dvc exp run -S` writes 0.00005 as 5e-05, which YAML 1.1 takes for a text."""
    digits = np.random.default_rng(7).uniform(1, 10, 15)
    values = [sign * float(d) * 10.0**e for e in range(-12, 12) for d in (1, 5, *digits) for sign in (1, -1)]
    path = tmp_path / "params.yaml"
    path.write_text("\n".join(f"v{number}: 0.0" for number in range(len(values))))
    apply_overrides(path, [f"v{number}={value!r}" for number, value in enumerate(values)])
    assert list(read(path).values()) == values


@pytest.mark.parametrize(
    "text",
    ["0412", "0o17", "0x1F", "1_000", "1:30", "off", "yes", "1e-3", "5e-05", "+.5", ".inf", "~", "2001-01-01", "'7'"],
)
def test_the_stages_see_the_values_that_dvc_records(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"seed: {text}\n")
    ours, dvcs = read(path)["seed"], load_yaml(path)["seed"]
    assert (ours, type(ours)) == (dvcs, type(dvcs))


def test_a_seed_with_a_leading_zero_is_no_octal(parameters: Path) -> None:
    parameters.write_text(parameters.read_text().replace("\nseed: 7 ", "\nseed: 0412 "))
    assert load(train_keras_cnn.Parameters).seed == load_yaml(parameters)["seed"] == 412


@pytest.mark.parametrize("stage", STAGES_WITH_PARAMETERS)
def test_dvc_declares_the_parameters_that_the_stage_reads(stage: str) -> None:
    stages = read(ROOT / "dvc.yaml")["stages"]
    assert sorted(stages[stage].get("do", stages[stage])["params"]) == sorted(schema(stage).model_fields)


def test_every_key_of_the_file_is_some_stages_and_known() -> None:
    committed = read(ROOT / "params.yaml")
    used = {key for stage in STAGES_WITH_PARAMETERS for key in schema(stage).model_fields}
    assert set(committed) == set(TOP_LEVEL_KEYS) == used


def test_the_committed_values_are_those_of_table_1_as_run() -> None:
    """The notebook's values, section by section. The comments of params.yaml give the places."""
    keras = load(train_keras_cnn.Parameters, ROOT / "params.yaml")
    assert (keras.dropout, keras.batch_size) == (0.3, 64)
    assert keras.keras_cnn.model_dump(exclude={"backend", "device"}) == {
        "epochs": 50,
        "learning_rate": 0.001,
        "filters": [32, 64, 128],
        "convolutions_per_block": 1,
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
    assert resnet.model_dump(exclude={"device", "weights_file"}) == {
        "epochs": 20,
        "batch_size": 64,
        "learning_rate": 0.001,
        "weight_decay": 0,
        "weights": "none",
        "frozen": [],
        "augmentation": "flip_crop",
        "validation": "test",
        "validation_augmentation": "flip_crop",
        "mean": [0.4914, 0.4822, 0.4465],
        "std": [0.2023, 0.1994, 0.2010],
        "early_stopping_patience": None,
        "reduce_lr_patience": None,
        "reduce_lr_factor": 0.5,
        "min_learning_rate": 1e-5,
    }
    part = load(split.Parameters, ROOT / "params.yaml").split
    assert (part.validation_fraction, part.random_state) == (0.2, 7)
    assert load(evaluate.Parameters, ROOT / "params.yaml").evaluate.augmented_draws == 10


@pytest.mark.parametrize(
    ("stage", "key", "value", "message"), REFUSED, ids=[f"{key}={value}" for _, key, value, _ in REFUSED]
)
def test_refuses(parameters: Path, stage: str, key: str, value: Any, message: str) -> None:
    change_parameters({key: value})
    line = refusal(stage)
    assert message in line
    assert line.endswith(f"; {WAY_BACK}")


@pytest.mark.parametrize(("stage", "changes"), ACCEPTED, ids=[str(changes) for _, changes in ACCEPTED])
def test_accepts(parameters: Path, stage: str, changes: dict[str, Any]) -> None:
    change_parameters(changes)
    load(schema(stage))


def test_names_every_fault_at_once(parameters: Path) -> None:
    change_parameters({"dropout": -1, "batch_size": 0, "keras_cnn.epochs": "many"})
    line = refusal("train_keras_cnn")
    assert "dropout is -1: input should" in line
    assert "batch_size is 0: input should" in line
    assert "keras_cnn.epochs is 'many': input should" in line


@pytest.mark.parametrize("stage", STAGES_WITH_PARAMETERS)
def test_refuses_an_unknown_key_at_the_top_in_every_stage(parameters: Path, stage: str) -> None:
    change_parameters({"drop_out": 0.4})
    line = refusal(stage)
    assert f"unknown key 'drop_out'; allowed: {', '.join(TOP_LEVEL_KEYS)}; {WAY_BACK}" in line


@pytest.mark.parametrize(
    ("stage", "key", "message"),
    [
        ("train_keras_cnn", "batch_size", "batch_size is missing"),
        ("train_keras_cnn", "keras_cnn.epochs", "keras_cnn.epochs is missing"),
        ("train_resnet18", "resnet18", "resnet18 is missing"),
        ("split", "split.random_state", "split.random_state is missing"),
        ("download", "data.synthetic", "data.synthetic is missing"),
    ],
)
def test_refuses_a_missing_key(parameters: Path, stage: str, key: str, message: str) -> None:
    content = read(parameters)
    *sections, name = key.split(".")
    holder = content
    for section in sections:
        holder = holder[section]
    del holder[name]
    YAML().dump(content, parameters)
    line = refusal(stage)
    assert message in line
    assert WAY_BACK in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dropout: [0.3\nseed: 7\n", "params.yaml: not valid YAML"),
        (b"dropout: 0.3\n\tseed: 7\n", "params.yaml: not valid YAML"),
        (b"dropout: \xff\xfe\n", "params.yaml: not valid YAML"),
        (b"a: !!python/object/apply:os.system ['touch ran']\n", "params.yaml: not valid YAML"),
        (b"[" * 50_000, "params.yaml: not valid YAML"),
        (b"? {a: b}\n: 2\n", "params.yaml: not valid YAML"),
        (b"seed: 7\nseed: 8\n", 'params.yaml: not valid YAML: found duplicate key "seed"'),
        (b"seed: &a [7]\ndropout: *a\n", "params.yaml: not valid YAML: an alias (*a) of a list"),
        (b"- seed\n- dropout\n", "params.yaml: it must hold a mapping, not list"),
        (b"", "params.yaml: it must hold a mapping, not NoneType"),
        (b"dropout\n", "params.yaml: it must hold a mapping, not str"),
        (b"7: 7\n", "params.yaml: unknown key 7"),
    ],
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
        (
            "train_keras_cnn",
            {"dropout": 1.5},
            "train_keras_cnn: params.yaml: dropout is 1.5: input should",
        ),
        ("train_resnet18", {"resnet18.frozen": ["stem"]}, "resnet18.frozen.0 is 'stem': input should be 'conv1', "),
        ("split", {"split.validation_fraction": 1.0}, "split: params.yaml: split.validation_fraction is 1.0: input"),
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
from stages.common.errors import run_program
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
        (BadParameter("dropout is 7: less"), f"stage: dropout is 7: less; {WAY_BACK}"),
        (KeyboardInterrupt(), "stage: interrupted; the same command resumes"),
        (
            OSError(errno.ENOSPC, "No space left on device", "models/x"),
            "stage: models/x: No space left on device; correct this and run the same command again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "metrics"),
            "stage: metrics: Permission denied; correct this and run the same command again",
        ),
        (
            OSError(errno.EROFS, "Read-only file system"),
            "stage: an output file: Read-only file system; correct this and run the same command again",
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


def test_a_program_may_say_what_the_same_command_does() -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match=r"^bench: interrupted; the same command begins anew$"):
        ending("bench", main, again="begins anew")


def test_only_a_run_in_the_workspace_needs_a_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary copy is thrown away; DVC keeps it in the workspace's .dvc/tmp."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for folder, ends in ((tmp_path, f"; {WAY_BACK}"), (tmp_path / ".dvc/tmp/exps/standalone/tmp1", "")):
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        assert str(BadParameter("dropout is 7")) == f"dropout is 7{ends}"
