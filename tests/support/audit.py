"""What a process reads and writes in a folder, and which parameters it reads of params.yaml.

Files: `Watch`, by Linux's inotify, which sees every process and every library below Python. It sees which files are
opened, changed, made and removed, and which folders are listed. It does not see a check whether a file exists.

Parameters: this file, on the path of a Python process as `sitecustomize.py`, makes PyYAML and
ruamel.yaml return params.yaml as a mapping that notes which keys are read, and pydantic's models note which fields are.
"""

import ctypes
import errno
import os
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

# linux/inotify.h
ACCESS, MODIFY, ATTRIB, CLOSE_WRITE, CLOSE_NOWRITE, OPEN, MOVED_FROM, MOVED_TO, CREATE, DELETE = (
    1 << bit for bit in range(10)
)
OVERFLOW, IGNORED, IS_FOLDER = 0x4000, 0x8000, 0x40000000
READ = ACCESS | CLOSE_NOWRITE  # the latter for what is opened to be read, and mapped into memory
WRITTEN = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE
EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows


class Watch:
    """Everything that happens in the folders below `root`, from now until `end`.

    New folders are not watched: their creation is seen, and they hold nothing from before.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.read: set[str] = set()  # files, as paths from the root, like all the others
        self.listed: set[str] = set()  # folders
        self.written: set[str] = set()  # files and folders
        self.opened: Counter[str] = Counter()  # files, how often
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._queue = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._folders = {}
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]:
            path = ctypes.c_char_p(os.fsencode(folder))
            number = self._checked(self._libc.inotify_add_watch(self._queue, path, READ | WRITTEN | OPEN))
            self._folders[number] = folder.relative_to(root)

    def end(self) -> None:
        """Take what has happened out of the system's queue."""
        try:
            while True:
                self._note(os.read(self._queue, 1 << 20))
        except BlockingIOError:
            os.close(self._queue)

    def _note(self, events: bytes) -> None:
        start = 0
        while start < len(events):
            watch, mask, _, length = EVENT.unpack_from(events, start)
            start += EVENT.size + length
            if mask & OVERFLOW:
                raise OSError(errno.EOVERFLOW, "more happened than the system's queue holds (fs.inotify)")
            if mask & IGNORED:  # a watched folder is gone
                continue
            path = (self._folders[watch] / os.fsdecode(events[start - length : start].rstrip(b"\0"))).as_posix()
            if mask & WRITTEN:
                self.written.add(path)
            elif mask & IS_FOLDER:
                if mask & ACCESS:
                    self.listed.add(path)
            elif mask & READ:
                self.read.add(path)
            else:
                self.opened[path] += 1

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}")
        return result


class Asked(MutableMapping, dict):
    """A mapping that notes which keys are read. It is a dict for `isinstance`, but dict's own methods find it empty."""

    def __init__(self, content: dict[str, Any], note: Callable[[str], None]) -> None:
        self._content, self._note = content, note

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return self._content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __setitem__(self, key: str, value: Any) -> None:
        self._content[key] = value

    def __delitem__(self, key: str) -> None:
        del self._content[key]


def note_parameters(text: str, record: Path) -> None:
    """From now on, write a line into `record` whenever YAML of this text is loaded, and for each key read of it.

    Args:
        text: Of params.yaml.
        record: Grows by `loaded`, `dropout`, `keras_cnn`, `keras_cnn.epochs` and so on.
    """
    import ruamel.yaml
    import yaml

    def note(line: str) -> None:
        with record.open("a") as file:
            file.write(f"{line}\n")

    def noting(given: Any, load: Callable[[Any], Any]) -> Any:
        given = given.read() if hasattr(given, "read") else given
        content = load(given)
        if (given.decode() if isinstance(given, bytes) else given) != text:
            return content
        note("loaded")
        if "pydantic" in sys.modules:
            note_fields(set(content), note)
        return Asked(content, note)

    pyyaml, ruamel_yaml = yaml.load, ruamel.yaml.YAML.load
    yaml.load = lambda stream, Loader: noting(stream, lambda given: pyyaml(given, Loader))
    ruamel.yaml.YAML.load = lambda reader, stream: noting(stream, lambda given: ruamel_yaml(reader, given))


def note_fields(keys: set[str], note: Callable[[str], None]) -> None:
    """From now on, note each field that is read of a model whose fields are among these keys, and of those within it.

    A read of all fields at once (a check, a record of the run) is not noted: it would hide a field that nothing uses.
    """
    from pydantic import BaseModel

    read = BaseModel.__getattribute__
    within: dict[int, tuple[str, BaseModel]] = {}  # by id, which lasts as long as the model that is kept with it

    def noting_read(model: BaseModel, name: str) -> Any:
        value = read(model, name)
        fields = type(model).model_fields
        prefix = "" if keys.issuperset(fields) else within.get(id(model), (None,))[0]
        if name in fields and prefix is not None:
            if isinstance(value, BaseModel):
                within[id(value)] = (f"{prefix}{name}.", value)
            else:
                note(f"{prefix}{name}")
        return value

    BaseModel.__getattribute__ = noting_read


if __name__ == "sitecustomize":
    note_parameters(os.environ["AUDITED_TEXT"], Path(os.environ["AUDITED_RECORD"]))
