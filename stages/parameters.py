"""params.yaml, typed and checked before anything is computed.

Each stage declares its own schema, a `Section` that names the top-level keys of params.yaml which that stage reads, so
that a change to one model's schema retrains that model alone.
"""

import math
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.errors import BadParameter, ExpectedError

PARAMETERS_FILE = Path("params.yaml")
TOP_LEVEL_KEYS = ("seed", "dropout", "batch_size", "data", "split", "keras_cnn", "resnet18", "evaluate")
Seed = Annotated[int, Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")]


class Section(BaseModel):
    """A mapping in params.yaml: no unknown keys, no silent conversions ("3" is not 3), nothing missing.

    Every field says in its `description` what is allowed; the error message quotes it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them make more than memory holds, and no parameter needs one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name), which no parameter needs")
        return super().compose_node(parent, index)


def load(schema: type[S], path: Path = PARAMETERS_FILE) -> S:
    """The parameters that `schema` names, checked.

    Args:
        schema: A `Section` whose fields are top-level keys of the file.
        path: The YAML file.

    Returns:
        An instance of `schema`.

    Raises:
        ExpectedError: The file is missing.
        BadParameter: It is not YAML, or a key is unknown, missing, of a wrong type or out of range.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (it is a SafeLoader)
    except FileNotFoundError:
        raise ExpectedError(f"{path} is missing; git restore {path} brings it back") from None
    except OSError:
        raise
    except Exception as error:  # on "!!int ''", "!!bool maybe" and their like PyYAML raises whatever Python does
        raise BadParameter(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise BadParameter(f"{path} must hold a mapping of parameters, not {type(content).__name__}")
    if unknown := [key for key in content if key not in TOP_LEVEL_KEYS]:
        raise BadParameter(f"{path}: unknown key {unknown[0]!r}; allowed: {', '.join(TOP_LEVEL_KEYS)}")
    try:
        return schema.model_validate({key: content[key] for key in schema.model_fields if key in content})
    except ValidationError as error:
        faults = "; ".join(_describe(schema, fault) for fault in error.errors())
        raise BadParameter(f"{path}: {faults}") from None


def _describe(schema: type[Section], fault: Any) -> str:
    """One fault as `key is value; allowed: ...`."""
    location = [part for part in fault["loc"] if isinstance(part, int) or part in _known_names(schema, fault["loc"])]
    key = ".".join(str(part) for part in location) or str(fault["loc"][-1] if fault["loc"] else "")
    try:
        value = repr(fault["input"])
    except ValueError:  # Python writes no whole number of more than 4300 digits
        value = "a number of thousands of digits"
    value = value if len(value) <= 80 else value[:77] + "..."
    if fault["type"] == "extra_forbidden":
        names = ".".join(str(part) for part in fault["loc"])
        parent = _section_at(schema, fault["loc"][:-1])
        return f"unknown key {names!r}; allowed: {', '.join(parent.model_fields) if parent else 'nothing more'}"
    allowed = _allowed(schema, fault["loc"])
    if fault["type"] == "missing":
        return f"{key} is missing; allowed: {allowed}"
    if fault["type"] == "value_error":  # a check across keys, written in the stage's schema
        return str(fault["ctx"]["error"])
    hint = ""
    if isinstance(fault["input"], str) and (number := _number(fault["input"])) is not None:
        hint = f" (YAML reads it as text: write {number!r})"
    return f"{key} is {value}{hint}; allowed: {allowed or fault['msg']}"


def _known_names(schema: type[Section], location: tuple[int | str, ...]) -> set[str]:
    """The parts of a location that are keys of the file; pydantic adds the names of a union's members."""
    names: set[str] = set()
    section: type[Section] | None = schema
    for part in location:
        if section is not None and isinstance(part, str) and part in section.model_fields:
            names.add(part)
            section = _nested(section, part)
    return names or {str(part) for part in location}


def _section_at(schema: type[Section], location: tuple[int | str, ...]) -> type[Section] | None:
    section: type[Section] | None = schema
    for part in location:
        section = _nested(section, str(part)) if section is not None and part in section.model_fields else None
    return section


def _nested(section: type[Section], name: str) -> type[Section] | None:
    annotation = section.model_fields[name].annotation
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Section)), None)


def _allowed(schema: type[Section], location: tuple[int | str, ...]) -> str:
    section: type[Section] | None = schema
    allowed = ""
    for part in location:
        if section is None or part not in section.model_fields:
            break
        allowed = section.model_fields[str(part)].description or ""
        section = _nested(section, str(part))
    return allowed or (f"a mapping with the keys {', '.join(section.model_fields)}" if section else "")


def _number(text: str) -> int | float | None:
    """The finite number that a text spells, whole where it is spelt so."""
    for read in (int, float):
        try:
            number = read(text)
            return number if math.isfinite(number) else None
        except (ValueError, OverflowError):
            continue
    return None
