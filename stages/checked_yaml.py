"""YAML files that people write, checked against a schema: a fault is one clear line."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from stages.errors import ExpectedError
from stages.parameters import Section

S = TypeVar("S", bound=Section)


class _Loader(yaml.SafeLoader):
    """As the safe loader, but it takes no key twice: the last one would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_checked(path: Path, schema: type[S]) -> S:
    """The content of a file as a `Section`.

    Raises:
        ExpectedError: The file is missing, is not YAML, or a key in it is unknown, missing, there twice or of a wrong
            type.
    """
    try:
        return schema.model_validate(yaml.load(path.read_text(encoding="utf-8"), _Loader))  # noqa: S506
    except FileNotFoundError:
        raise ExpectedError(f"{path} is missing; git restore {path} brings it back") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ExpectedError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise ExpectedError(f"{path}: {place or 'content'}: {fault['msg']}") from None
