"""The models as `plot` and `report` title them, and where the paper's curves of them are."""

from pathlib import Path
from typing import NamedTuple

from stages.paper.numbers import Numbers


class Model(NamedTuple):
    """A model and its curves.

    Attributes:
        title: As people name it.
        paper_curves: Where the paper's curves are; None where it has none.
        paper_validation: What the paper's "validation" is.
        remark: What has to be known of its curves.
    """

    title: str
    paper_curves: Path | None
    paper_validation: str
    remark: str


def models_of(numbers: Numbers) -> dict[str, Model]:
    """The models by their names in files, as data/paper/numbers.yaml has them."""
    curves = {numbers.configurations[curve.configuration].model: curve for curve in numbers.curves}
    return {
        name: Model(title, Path(curves[name].paper), curves[name].validation, curves[name].remark)
        if name in curves
        else Model(title, None, "", "")
        for name, title in numbers.models.items()
    }
