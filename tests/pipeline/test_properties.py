"""Any input at all gives a result or one line: parameters, the split, archives, batches, arrays, tables and metrics.

Hypothesis draws the same examples in each run, so a failure comes from a change and not from chance.
"""

import csv
import gzip
import io
import json
import math
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stages import download, split
from stages import evaluate as scoring
from stages.cifar10.batches import read_batch
from stages.cifar10.official import FOLDER, OFFICIAL_SHA256, SYNTHETIC_LABEL
from stages.common.config import load
from stages.common.errors import WAY_BACK, ExpectedError
from stages.common.files import read_array, read_arrays, read_json, read_rows
from stages.common.paths import RAW
from tests.support.archives import Members, assert_complete, good_members, member, packed, use_local
from tests.support.stage_runs import ROOT, STAGES_WITH_PARAMETERS, schema

pytestmark = pytest.mark.timeout(120)  # a hang is a failure of its own


def examples(count: int) -> settings:
    """This number of examples, the same ones each time. All of them use the test's one folder."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def outcome(read: Callable[[], Any]) -> Any:
    """What `read` gives, or the one line in which it refuses."""
    try:
        return read()
    except ExpectedError as error:
        line = str(error)
        assert "\n" not in line
        return line


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, most_from_start: int = 0) -> bytes:
    """`whole` with some bytes replaced, removed or put in, or cut short.

    Args:
        whole: What is damaged.
        most_from_start: How many bytes at the start are to be hit most, where the rest says little; 0 means all alike.
    """
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        near = most_from_start and draw(st.integers(0, 3))
        place = draw(st.integers(0, min(most_from_start, len(content)) if near else len(content)))
        removed = draw(st.sampled_from([0, 1, 1, 1, 2, 8, 100]))
        content[place : place + removed] = draw(st.binary(max_size=removed + 1))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content)


# --- parameters ---

COMMITTED = (ROOT / "params.yaml").read_bytes()
YAML_WORDS = st.sampled_from(
    [
        *"[]{}:,-?!&*|>'\"%@`#= \n\t\x00\ufeff\x85ä",
        *(": ", "\n  ", "---\n", "<<: ", "!!binary ", "!!set ", "!!python/object:os.system "),
        *("null", "~", "true", ".inf", ".nan", "0x1F", "1_000", "1e-3", "1:30", "2001-01-01"),
    ]
)
ANY_FILE = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.one_of(YAML_WORDS, st.sampled_from([*yaml.safe_load(COMMITTED)])), max_size=30).map(
        lambda words: "".join(words).encode()
    ),
    damaged(COMMITTED),
)
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    (name, *rest)
    for name, value in yaml.safe_load(COMMITTED).items()
    for rest in [(), *((inner,) for inner in (value if isinstance(value, dict) else ()))]
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_parameters(stage: str, content: bytes) -> None:
    """The stage takes the file as it says, or refuses it in one line of bounded length with the way back."""
    Path("params.yaml").write_bytes(content)
    found = outcome(lambda: load(schema(stage)).model_dump())
    if isinstance(found, str):
        assert found.startswith("params.yaml")
        assert found.endswith(WAY_BACK)
        assert len(found) < 10_000  # every key of a section may be at fault at once
    else:
        given_values = YAML(typ="safe").load(content.decode())  # as DVC
        assert found == {key: given_values[key] for key in found}  # nothing was converted


@examples(300)
@given(stage=st.sampled_from(STAGES_WITH_PARAMETERS), content=ANY_FILE)
def test_any_params_file_is_taken_or_refused(folder: Path, stage: str, content: bytes) -> None:
    check_parameters(stage, content)


@examples(300)
@given(key=st.sampled_from(KEYS), value=ANY_VALUE)
def test_any_value_of_any_key_is_taken_or_refused(folder: Path, key: tuple[str, ...], value: Any) -> None:
    stage = next(stage for stage in STAGES_WITH_PARAMETERS[::-1] if key[0] in schema(stage).model_fields)
    content = yaml.safe_load(COMMITTED)
    section = content
    for name in key[:-1]:
        section = section[name]
    section[key[-1]] = value
    try:
        text = yaml.safe_dump(content)
        assert yaml.safe_load(text) is not None
    except (yaml.YAMLError, UnicodeEncodeError):
        assume(False)  # no YAML has it: a lone surrogate
    check_parameters(stage, text.encode("utf-8"))


ALIASES = "".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 7))
MERGES = "".join(f"  m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 7))


@pytest.mark.parametrize(
    "value",
    [
        "!!int ''",
        "!!float ''",
        "!!bool maybe",
        "!!timestamp now",
        "0x" + "f" * 5000,
        '"' + "9" * 4000 + '"',
        "\n  l0: &l0 [1]\n" + ALIASES,
        "\n  m0: &m0 {x: 1}\n" + MERGES,
    ],
    ids=["int", "float", "bool", "timestamp", "huge", "huge text", "aliases of aliases", "merges of merges"],
)
def test_values_over_which_a_reader_or_python_stumbles_are_refused(folder: Path, value: str) -> None:
    """A few more aliases of aliases would fill the memory, so none is allowed."""
    others = {key: content for key, content in yaml.safe_load(COMMITTED).items() if key != "split"}
    check_parameters("split", f"{yaml.safe_dump(others)}split: {value}\n".encode())
    refused = outcome(lambda: load(split.Parameters))
    assert isinstance(refused, str)
    assert "not valid YAML" in refused or "&" not in value


# --- the split ---


@examples(200)
@given(
    count=st.integers(1, 400),
    fraction=st.floats(0, 1, exclude_max=True),
    random_state=st.integers(0, 2**32 - 1),
)
@example(count=1, fraction=0.0, random_state=0)
@example(count=1, fraction=5e-324, random_state=0)
@example(count=50, fraction=0.98, random_state=7)
@example(count=50, fraction=math.nextafter(1, 0), random_state=7)
def test_every_image_is_in_one_part_of_the_size_asked_for(count: int, fraction: float, random_state: int) -> None:
    parts = outcome(lambda: split.split_indices(count, fraction, random_state))
    if isinstance(parts, str):
        assert math.ceil(fraction * count) >= count
        assert parts.startswith(f"split.validation_fraction is {fraction}, which leaves none of the {count} images")
        return
    train, validation = parts
    assert sorted([*train, *validation]) == list(range(count))
    assert len(validation) == math.ceil(fraction * count)
    assert train.dtype == validation.dtype == np.int64
    again = split.split_indices(count, fraction, random_state)
    assert all(map(np.array_equal, parts, again))


# --- archives ---

KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
KINDS += [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE]
NAMES = st.one_of(
    st.sampled_from([f"{FOLDER}/{name}" for name in OFFICIAL_SHA256] + [FOLDER, "..", "/", ".", "", "a/../../b"]),
    st.text(max_size=20).filter(lambda name: max(name, default="") < "\ud800"),
)
RECORDS = st.tuples(
    st.sampled_from(["size", "path", "linkpath", "mtime", "hdrcharset", "GNU.sparse.major", "GNU.sparse.map", "x"]),
    st.sampled_from(["", "-1", "0", "512", "1e99", "nan", "99999999999999999999", "../x", "BINARY", "1,2,3", "ä"]),
)


def pax(record: tuple[str, str]) -> bytes:
    """A record of an extended header, which begins with its own length."""
    rest = f" {record[0]}={record[1]}\n".encode()
    return str(len(rest) + 2 if len(rest) < 98 else len(rest) + 3).encode() + rest


@st.composite
def archives(draw: st.DrawFn, good: Members) -> bytes:
    """Junk, gzipped junk, or the good archive damaged in its headers or with strange members among its own."""
    kind = draw(st.sampled_from(["junk", "gzipped junk", "damaged outside", "damaged inside", "members"]))
    if kind == "junk":
        return draw(st.binary(max_size=600))
    if kind == "gzipped junk":
        return gzip.compress(draw(st.binary(max_size=2000)))
    if kind == "members":
        content = st.one_of(st.binary(max_size=600), st.lists(RECORDS.map(pax), max_size=3).map(b"".join))
        strange = st.builds(member, NAMES, content, st.sampled_from(KINDS), NAMES)
        added = draw(st.lists(strange, min_size=1, max_size=3))
        place = draw(st.integers(0, len(good)))
        return packed([*good[:place], *added, *good[place:]])
    whole = packed(good)
    if kind == "damaged outside":
        return draw(damaged(whole))
    # Headers of 512 bytes each stand at known places; the rest is content, which the sums cover.
    tar = bytearray(gzip.decompress(whole))
    headers = [offset for offset in range(0, len(tar), 512) if tar[offset:].startswith(FOLDER.encode())]
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.sampled_from(headers)) + draw(st.integers(0, 511))
        tar[place] = draw(st.integers(0, 255))
    return gzip.compress(bytes(tar), compresslevel=1)


@examples(200)
@given(data=st.data())
def test_any_archive_gives_the_official_files_or_nothing(
    official: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    # The sums of single files are what tells a good copy, so a smaller archive is as hard to fake.
    use_local(monkeypatch, data.draw(archives(good_members(official))))
    found = outcome(download.main)
    if found is None:
        assert_complete(official)
        shutil.rmtree(RAW)
    else:
        assert found.startswith("CIFAR10_ARCHIVE=local.tar.gz: it")
        assert list(RAW.parent.iterdir()) == []


# --- batches ---

BATCH = pickle.dumps(
    {"batch_label": SYNTHETIC_LABEL, "labels": [3, 1], "data": np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)},
    protocol=4,
)
BEFORE_PIXELS = BATCH.index(bytes(range(256)))
OPERATIONS = [code for name in pickle.__all__ if isinstance(code := getattr(pickle, name), bytes)]
ANY_PICKLE = st.one_of(
    st.binary(max_size=100),
    # An index of the memo makes C's unpickler set aside as much memory as it says: small ones only.
    st.lists(
        st.sampled_from([code for code in OPERATIONS if code != pickle.LONG_BINPUT])
        | st.sampled_from([b"\x00", b"\x01", b"\x05", b"1\n", b"numpy\nndarray\n", b"os\nsystem\n", b"\x80\x04"]),
        max_size=20,
    ).map(b"".join),
    damaged(BATCH, BEFORE_PIXELS),
    damaged(BATCH[:BEFORE_PIXELS], 0).map(lambda start: start + BATCH[BEFORE_PIXELS:]),
)


def check_batch(content: bytes) -> None:
    path = Path("data_batch_1")
    path.write_bytes(content)
    found = outcome(lambda: read_batch(path, "synthetic"))
    if isinstance(found, str):
        assert found.startswith("data_batch_1")
        assert found.endswith("run dvc repro, which makes it anew")
    else:
        assert found.images.shape == (len(found.labels), 32, 32, 3)
        assert found.images.dtype == found.labels.dtype == np.uint8
        assert found.labels.max() < 10


@examples(600)
@given(content=ANY_PICKLE)
def test_any_pickle_gives_a_batch_or_one_line(folder: Path, content: bytes) -> None:
    check_batch(content)


@examples(200)
@given(
    batch=st.fixed_dictionaries(
        {},
        optional={
            "batch_label": st.just(SYNTHETIC_LABEL) | ANY_VALUE,
            "labels": st.lists(st.integers(-1, 10) | st.booleans(), max_size=3) | ANY_VALUE,
            "data": st.integers(0, 3).map(lambda count: np.zeros((count, 3072), np.uint8)) | ANY_VALUE,
        },
    )
)
def test_any_mapping_gives_a_batch_or_one_line(folder: Path, batch: dict[str, Any]) -> None:
    check_batch(pickle.dumps(batch))


def test_a_label_that_is_an_array_is_one_line(folder: Path) -> None:
    check_batch(pickle.dumps({"batch_label": np.arange(2)}))


# --- arrays and tables ---


def saved(save: Callable[..., None], *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


def array_file(header: str) -> bytes:
    """An .npy file of nothing but a header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("latin1")


def zip_file(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


SHAPE = "{{'descr': '|u1', 'fortran_order': False, 'shape': {}}}"
NPY = saved(np.save, np.arange(6, dtype=np.uint8))
NPZ = saved(np.savez, train=np.arange(3), validation=np.arange(2))
READERS = {"a.npy": read_array, "a.npz": read_arrays, "a.json": read_json, "a.csv": read_rows}
GOOD_FILES = {"a.npy": NPY, "a.npz": NPZ, "a.json": b'{"a": [1, 2.5, null, "\\u00e4"]}\n', "a.csv": b"a,b\n1,2\n"}
UNREAD = {  # kind of file: what its reader does not take for damage
    "a zip's first bytes": ("a.npy", b"PK\x03\x04junk"),
    "several arrays for one": ("a.npy", NPZ),
    "an endless header": ("a.npy", array_file("((((")),
    "a key that cannot be one": ("a.npy", array_file("{[]: 1}")),
    "a petabyte": ("a.npy", array_file(SHAPE.format("(10000000000000000,)"))),
    "more than any": ("a.npy", array_file(SHAPE.format("(100000000000000000000000,)"))),
    "one array for several": ("a.npz", NPY),
    "text in place of an array": ("a.npz", zip_file(train=b"text")),
    "a newer zip": ("a.npz", NPZ.replace(b"PK\x01\x02-\x03-", b"PK\x01\x02-\x03\xff")),
    "a locked zip": ("a.npz", NPZ.replace(b"PK\x01\x02-\x03-\x00\x00", b"PK\x01\x02-\x03-\x00\x01")),
    "lists in lists": ("a.json", b"[" * 100_000),
}


def check_file(name: str, content: bytes) -> None:
    path = Path(name)
    path.write_bytes(content)
    found = outcome(lambda: READERS[name](path))
    if isinstance(found, str) and found.startswith(f"{name} cannot be read ("):
        assert f"); if git has it: git restore {name}; else: " in found
    elif name == "a.npy":
        assert isinstance(found, np.ndarray)
    elif name == "a.npz":
        assert all(isinstance(array, np.ndarray) for array in found.values())
    elif name == "a.json":
        json.dumps(found)
    else:
        assert isinstance(found, list)


@examples(300)
@given(name=st.sampled_from(["a.json", "a.csv"]), data=st.data())
def test_any_table_is_read_or_named(folder: Path, name: str, data: st.DataObject) -> None:
    check_file(name, data.draw(st.binary(max_size=100) | damaged(GOOD_FILES[name])))


@examples(600)
@given(name=st.sampled_from(["a.npy", "a.npz"]), data=st.data())
def test_any_array_is_read_or_named(folder: Path, name: str, data: st.DataObject) -> None:
    check_file(name, data.draw(st.binary(max_size=100) | damaged(GOOD_FILES[name])))


@pytest.mark.parametrize(("name", "content"), UNREAD.values(), ids=UNREAD.keys())
def test_what_is_no_array_is_named(folder: Path, name: str, content: bytes) -> None:
    check_file(name, content)


# --- metrics ---


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, float32 (N, K), and labels (N,): few images, so that classes are missing, tied or all alike."""
    count, classes = draw(st.integers(1, 12)), draw(st.integers(2, 10))
    weight = st.integers(0, 5) if draw(st.booleans()) else st.integers(0, 10**6)
    row = st.lists(weight, min_size=classes, max_size=classes).filter(any)
    rows = np.array(draw(st.lists(row, min_size=count, max_size=count)), dtype=np.float64)
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32), np.array(labels, dtype=np.uint8)


def by_hand(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The formulas written out; 0 divided by 0 counts as 0."""
    rows = probabilities.astype(np.float64)
    true = rows[np.arange(len(labels)), labels] / rows.sum(axis=1)
    confusion = np.zeros((rows.shape[1], rows.shape[1]))
    np.add.at(confusion, (labels, rows.argmax(axis=1)), 1)
    hits = np.diag(confusion)
    precision = hits / np.maximum(confusion.sum(axis=0), 1)
    recall = hits / np.maximum(confusion.sum(axis=1), 1)
    f1 = 2 * hits / np.maximum(confusion.sum(axis=0) + confusion.sum(axis=1), 1)
    return {
        "accuracy": hits.sum() / len(labels),
        "loss": -np.log(np.maximum(true, np.finfo(np.float64).eps)).mean(),
        "precision_macro": precision.mean(),
        "recall_macro": recall.mean(),
        "f1_macro": f1.mean(),
    }


@pytest.mark.filterwarnings("error")
@examples(150)
@given(answers=predictions(), data=st.data())
def test_scores_are_the_formulas_and_do_not_depend_on_the_order(
    answers: tuple[np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    probabilities, labels = answers
    scores = scoring.score(probabilities, labels)
    assert scores == pytest.approx(by_hand(probabilities, labels), abs=1e-6)
    assert all(0 <= value <= 1 for name, value in scores.items() if name != "loss")
    assert 0 <= scores["loss"] < 37  # nothing costs more than a probability of 2e-16
    order = data.draw(st.permutations(range(len(labels))))
    assert scoring.score(probabilities[order], labels[order]) == pytest.approx(scores, abs=1e-6)

    rows = scoring.per_class(probabilities, labels, [str(number) for number in range(probabilities.shape[1])])
    assert sum(row["support"] for row in rows) == len(labels)
    for name in ("precision", "recall", "f1"):
        assert np.mean([row[name] for row in rows]) == pytest.approx(scores[f"{name}_macro"], abs=1e-5)
    weighted = sum(row["recall"] * row["support"] for row in rows) / len(labels)
    assert weighted == pytest.approx(scores["accuracy"], abs=1e-5)
    # What is written to metrics/ reads back as it was.
    assert json.loads(json.dumps(scores)) == scores
    buffer = io.StringIO()
    csv.DictWriter(buffer, list(rows[0])).writerows(rows)
    assert buffer.getvalue().count("\r\n") == len(rows)


@examples(50)
@given(answers=predictions())
def test_a_certain_and_right_model_is_perfect_and_a_wrong_one_worthless(answers: tuple[np.ndarray, np.ndarray]) -> None:
    labels, classes = answers[1], answers[0].shape[1]
    assert scoring.accuracy_and_loss(np.eye(classes)[labels], labels) == {"accuracy": 1.0, "loss": 0.0}
    wrong = scoring.score(np.eye(classes)[(labels + 1) % classes], labels)
    assert wrong == dict.fromkeys(wrong, 0.0) | {"loss": pytest.approx(36.04, abs=0.01)}
