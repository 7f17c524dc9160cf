"""The eight files of CIFAR-10's "python version": their names, and what tells the official ones from synthetic data."""

import hashlib
from pathlib import Path

FOLDER = "cifar-10-batches-py"
TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH = "test_batch"
META = "batches.meta"

# Seven of the files also match the MD5 sums that torchvision publishes (torchvision.datasets.CIFAR10 has none for
# readme.html).
OFFICIAL_SHA256 = {
    "batches.meta": "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
    "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    "readme.html": "4d1c3fb199d6a183ae03f5162b469d7bc04edf2fad9547bd5f224271d52f98e5",
    "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
}

# The `batch_label` of every batch that stages/cifar10/synthetic.py draws.
SYNTHETIC_LABEL = "synthetic data, not CIFAR-10"


def holds_cifar10(folder: Path, *, alone: bool = False) -> bool:
    """Whether a folder has the eight official files, bit for bit; `alone`: and no other file."""
    files = [folder / name for name in OFFICIAL_SHA256]
    return all(map(_is_official, files)) and (not alone or set(folder.iterdir()) == set(files))


def holds_synthetic(folder: Path) -> bool:
    """Whether a folder has nothing but files that stages/cifar10/synthetic.py drew."""
    if not folder.is_dir():
        return False
    labelled = {path for path in folder.iterdir() if path.name in OFFICIAL_SHA256 and _is_labelled(path)}
    rest = set(folder.iterdir()) - labelled
    return not rest or (bool(labelled) and rest == {folder / META})  # which has no place for the label


def _is_official(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == OFFICIAL_SHA256[path.name]


def _is_labelled(path: Path) -> bool:
    return path.is_file() and SYNTHETIC_LABEL.encode() in path.read_bytes()
