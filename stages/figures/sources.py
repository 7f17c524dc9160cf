"""What figures may show together."""

from stages.common.errors import ExpectedError


def require_same_data(name: str, sources: set[str]) -> None:
    """Stop where a model's results come from other data than the samples.

    Raises:
        ExpectedError: `sources` holds more than one source.
    """
    if len(sources) > 1:
        found = ", ".join(sorted(sources))
        raise ExpectedError(f"the results of {name} and the samples are of different data ({found}); run dvc repro")
