"""The eight files of CIFAR-10's "python version": their names, and what tells the official ones from the stand-in's."""

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

# The `batch_label` of every batch that stages/synthetic.py draws.
SYNTHETIC_LABEL = "synthetic stand-in, not CIFAR-10"


def is_official(path: Path) -> bool:
    """Whether a file is, bit for bit, the official one of its name."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == OFFICIAL_SHA256[path.name]
