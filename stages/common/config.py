"""YAML files that people write, read as DVC reads them (ruamel.yaml, YAML 1.2) and checked before anything is computed.

Each stage declares its own schema, a `Section` that names the top-level keys of params.yaml which that stage reads, so
that a change to one model's schema retrains that model alone.
"""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import CollectionNode

from stages.common.errors import BadParameter, ExpectedError
from stages.common.paths import PARAMETERS

TOP_LEVEL_KEYS = ("seed", "dropout", "batch_size", "data", "split", "keras_cnn", "resnet18", "evaluate")
LONGEST_VALUE = 80  # characters of a value in a message
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A mapping in a YAML file: no unknown keys, no silent conversions ("3" is not 3), nothing missing."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, content: Any) -> Any:
        if isinstance(content, dict):
            _check_keys(content, tuple(cls.model_fields))
        elif not isinstance(content, cls):
            raise ValueError(f"not a mapping; allowed: one with the keys {', '.join(cls.model_fields)}")
        return content


S = TypeVar("S", bound=Section)


def load(schema: type[S], path: Path = PARAMETERS) -> S:
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
    text = _text(path, BadParameter)
    try:
        content = parse_mapping(text)
        _check_keys(content, TOP_LEVEL_KEYS)
        return _checked(schema, {key: content[key] for key in schema.model_fields if key in content})
    except ValueError as error:
        raise BadParameter(f"{path}: {error}") from None


def load_checked(path: Path, schema: type[S]) -> S:
    """The whole content of a file as a `Section`.

    Raises:
        ExpectedError: The file is missing or not YAML, or a key is unknown, missing, there twice or of a wrong type.
    """
    content = read(path)
    try:
        return _checked(schema, content)
    except ValueError as error:
        raise ExpectedError(f"{path}: {error}") from None


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, unchecked.

    Raises:
        ExpectedError: The file is missing or is no such file.
    """
    text = _text(path, ExpectedError)
    try:
        return parse_mapping(text)
    except ValueError as error:
        raise ExpectedError(f"{path}: {error}") from None


def parse_mapping(text: str) -> dict[str, Any]:
    """The mapping in a YAML text.

    Raises:
        ValueError: As `parse`, or the text holds something else.
    """
    content = parse(text)
    if not isinstance(content, dict):
        raise ValueError(f"it must hold a mapping, not {type(content).__name__}")
    return content


def parse(text: str) -> Any:
    """The value that DVC reads in a YAML text.

    Raises:
        ValueError: It is not YAML, or has one key twice, an unknown tag, or an alias of a list or a mapping; one line.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"not valid YAML: {error.problem}{where}") from None
    except Exception as error:  # on "!!int ''", "!!bool maybe" and their like it raises whatever Python does
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None


class _Composer(Composer):
    """YAML without aliases of lists and mappings: a few lines of them make more than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.parser.check_event(AliasEvent):
            event = self.parser.peek_event()
            if isinstance(self.anchors.get(event.anchor), CollectionNode):
                problem = f"an alias (*{event.anchor}) of a list or a mapping; write it out"
                raise MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def _text(path: Path, fault: type[ExpectedError]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ExpectedError(f"{path} is missing; git restore {path} brings it back") from None
    except UnicodeDecodeError as error:
        raise fault(f"{path}: not valid YAML: {error}") from None


def _check_keys(content: dict[Any, Any], allowed: tuple[str, ...]) -> None:
    if unknown := [key for key in content if key not in allowed]:
        raise ValueError(f"unknown key {unknown[0]!r}; allowed: {', '.join(allowed)}")


def _checked(schema: type[S], content: dict[str, Any]) -> S:
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ValueError("; ".join(map(_describe, error.errors()))) from None


def _describe(fault: Any) -> str:
    """One fault as `key is value: what pydantic says of it`."""
    key = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] == "value_error":  # written in a schema
        return f"{key}: {fault['ctx']['error']}" if key else str(fault["ctx"]["error"])
    try:
        value = repr(fault["input"])
    except ValueError:  # Python writes no whole number of more than 4300 digits
        value = "a number of thousands of digits"
    value = value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 3]}..."
    return f"{key} is {value}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
