"""params.yaml, checked: an unknown key or an impossible value ends a stage with one line."""

from pydantic import Field

from stages.common.config import Section, Seed, load_checked
from stages.common.paths import PARAMETERS


class Split(Section):
    test_fraction: float = Field(gt=0, lt=1)
    random_state: Seed


class Rbm(Section):
    components: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    iterations: int = Field(ge=1)
    inverse_regularization: float = Field(gt=0)


class Raw(Section):
    inverse_regularization: float = Field(gt=0)


class Parameters(Section):
    """The whole file."""

    seed: Seed
    tolerance: float = Field(gt=0)
    split: Split
    rbm: Rbm
    raw: Raw


def load() -> Parameters:
    """The parameters.

    Raises:
        ExpectedError: As `load_checked`.
    """
    return load_checked(PARAMETERS, Parameters)
