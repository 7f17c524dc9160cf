"""beyond/params.yaml: its schema, and how it is read."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.common.config import Section, Seed, load_checked
from stages.common.errors import BadParameter, ExpectedError

PARAMETERS = Path("beyond/params.yaml")
WAY_BACK = (
    "to put beyond/params.yaml and the results back: "
    "git restore --staged --worktree beyond/params.yaml beyond/dvc.lock beyond/metrics && dvc checkout --allow-missing"
)


class BadSetting(BadParameter):
    """A value in beyond/params.yaml that is not allowed; the line ends with the way back."""

    way_back = WAY_BACK


class NetworkSettings(Section):
    """The section `network`."""

    widths: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=3, max_length=3)]
    activation: Literal["gelu", "silu", "relu"]
    whitening: bool
    whitening_bias_epochs: int = Field(ge=0)
    identity_start: bool
    batch_norm_keeps: float = Field(ge=0, lt=1)
    skip_unpooled: bool


class OptimiserSettings(Section):
    """The section `optimiser`."""

    filters: Literal["muon", "sgd"]
    filters_rate: float = Field(gt=0)
    filters_momentum: float = Field(gt=0, lt=1)
    newton_schulz_steps: int = Field(ge=1)
    head_rate: float = Field(gt=0)
    bias_rate: float = Field(gt=0)
    momentum: float = Field(gt=0, lt=1)
    weight_decay: float = Field(ge=0)


class ScheduleSettings(Section):
    """The section `schedule`."""

    start: float = Field(ge=0, le=1)
    peak: float = Field(ge=0, lt=1)
    end: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _a_peak_at_once_is_the_start(self) -> "ScheduleSettings":
        if self.peak == 0 and self.start != 1:
            raise ValueError(f"start is {self.start}, and peak 0 begins at the peak; allowed: start 1, or a later peak")
        return self


class AugmentationSettings(Section):
    """The section `augmentation`."""

    flip: Literal["alternating", "random", "none"]
    translate: int = Field(ge=0, le=16)


class AveragingSettings(Section):
    """The section `averaging`."""

    kind: Literal["none", "lookahead", "ema"]
    every: int = Field(ge=1)
    keeps: float = Field(ge=0, lt=1)


class EvaluateSettings(Section):
    """The section `evaluate`."""

    views: Literal[1, 2, 6]


class Settings(Section):
    """The whole file."""

    seed: Seed
    device: Literal["cpu", "cuda"]
    validation: Literal["held_out", "none"]
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    label_smoothing: float = Field(ge=0, lt=1)
    network: NetworkSettings
    optimiser: OptimiserSettings
    schedule: ScheduleSettings
    augmentation: AugmentationSettings
    averaging: AveragingSettings
    evaluate: EvaluateSettings


def load(path: Path = PARAMETERS) -> Settings:
    """The parameters, checked.

    Raises:
        BadSetting: The file is missing or not YAML, or a key is unknown, missing, of a wrong type or out of range.
    """
    try:
        return load_checked(path, Settings)
    except ExpectedError as error:
        raise BadSetting(str(error)) from None
