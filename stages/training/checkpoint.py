"""The checkpoint of a training, from which the same command resumes after the last finished epoch, whatever ended it.

It is a file in `.resume/` of the main repository, outside every output (DVC removes a stage's outputs before it runs,
and a temporary copy of the repository altogether). Its name is a hash of all that determines the result, so no run with
other parameters, data, code, versions or machine ever resumes from it. It is replaced as a whole after each epoch, and
removed when the training has written its outputs.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from stages.common.files import write_whole
from stages.common.paths import main_repository

FOLDER = Path(".resume")
MOST_BYTES = 2**30  # of all checkpoints together; one of ResNet-18 has up to 0.18 GB, one of the Keras CNN 6 MB
WAIT_SECONDS = 10.0  # for a killed run's process, which ends within two seconds of dvc
DIGEST_BYTES = hashlib.sha256().digest_size


class Checkpoint:
    """The checkpoint of one training; a context in which it belongs to this process alone.

    If another process has it, or its folder cannot be used, the training runs without one.
    """

    def __init__(self, stage: str, facts: dict[str, Any], arrays: Iterable[np.ndarray]) -> None:
        """Name what determines the result.

        Args:
            stage: The stage's name.
            facts: Parameters, source of the data, machine and versions: JSON.
            arrays: The data and the weights at the start, in a fixed order.
        """
        digest = hashlib.sha256(json.dumps([facts, code()], sort_keys=True).encode())
        for array in arrays:
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        self.path = main_repository() / FOLDER / f"{stage}-{digest.hexdigest()[:24]}.checkpoint"
        self.lock = FileLock(self.path.with_suffix(".lock"))

    def __enter__(self) -> "Checkpoint":
        try:
            self.path.parent.mkdir(exist_ok=True)
            self.lock.acquire(timeout=WAIT_SECONDS)
            self._make_room()
        except Timeout:
            _say("the same training runs elsewhere; this one starts at epoch 1 and keeps no checkpoint")
        except (OSError, NotImplementedError) as error:
            _say(f"no checkpoint can be kept in {self.path.parent} ({error}); if interrupted, the training starts anew")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.lock.release()

    def load(self) -> bytes | None:
        """What was saved last, or None if there is nothing; a damaged file is moved aside."""
        if not (self.lock.is_locked and self.path.exists()):
            return None
        try:
            content = self.path.read_bytes()
        except OSError as error:
            _say(f"the checkpoint {self.path} cannot be read ({error}); the training starts at epoch 1")
            return None
        digest, checkpoint = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(checkpoint).digest() != digest:
            aside = self.path.with_suffix(".damaged")
            self.path.replace(aside)
            _say(f"a damaged checkpoint was moved to {aside}; the training starts at epoch 1")
            return None
        return checkpoint

    def save(self, checkpoint: bytes) -> None:
        """Replace what was saved before, all or nothing; a full disk costs the checkpoint, not the training."""
        if not self.lock.is_locked:
            return
        try:
            write_whole(self.path, hashlib.sha256(checkpoint).digest() + checkpoint)
        except OSError as error:
            _say(f"the checkpoint cannot be saved in {self.path.parent} ({error}); the training continues")

    def clear(self) -> None:
        """Remove it: the training is done."""
        if self.lock.is_locked:
            for suffix in (".checkpoint", ".new", ".damaged", ".lock"):  # the lock last, while it is still held
                self.path.with_suffix(suffix).unlink(missing_ok=True)

    def _make_room(self) -> None:
        """Remove what was left by trainings that were never resumed, oldest first, above the limit for all together."""
        files = {path: path.stat() for path in self.path.parent.iterdir() if path.suffix != ".lock"}
        total = sum(facts.st_size for facts in files.values())
        for path in sorted(files, key=lambda path: files[path].st_mtime):
            if total <= MOST_BYTES:
                break
            if path.stem != self.path.stem:
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
                total -= files[path].st_size


def code() -> dict[str, str]:
    """The SHA-256 sum of each module of this project that the process has imported."""
    folder = Path(__file__).parents[1]
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    ours = sorted(path for path in map(Path, filter(None, files)) if folder in path.parents)
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in ours}


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
