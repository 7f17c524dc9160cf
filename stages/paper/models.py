"""The models as `plot` and `report` title them, and where the paper's curves of them are."""

from pathlib import Path
from typing import NamedTuple

from stages.paper.numbers import Numbers


class Model(NamedTuple):
    """How a model is titled, where the paper's curves of it are (if any), and what its "validation" is in the paper."""

    title: str
    paper_curves: Path | None
    paper_validation: str


def models_of(numbers: Numbers) -> dict[str, Model]:
    """The models by their names in files, as data/paper/numbers.yaml has them."""
    curves = {numbers.configurations[curve.configuration].model: curve for curve in numbers.curves}
    return {
        name: Model(title, Path(curves[name].paper), curves[name].validation)
        if name in curves
        else Model(title, None, "")
        for name, title in numbers.models.items()
    }
