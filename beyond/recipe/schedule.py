"""The learning rate over the training: in straight lines from a start to the peak, and from there to an end."""

from beyond.recipe.settings import ScheduleSettings


def rate(done: float, settings: ScheduleSettings) -> float:
    """The learning rate as a part of its peak.

    Args:
        done: Part of the training that is done, 0 to 1.
        settings: Where it starts, has its peak and ends.
    """
    if done < settings.peak:
        return settings.start + (1 - settings.start) * done / settings.peak
    return 1 + (settings.end - 1) * (done - settings.peak) / (1 - settings.peak)
