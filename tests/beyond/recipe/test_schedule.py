"""The schedule's three corners, and its straight lines."""

import pytest

from beyond.recipe.schedule import rate
from tests.support.beyond import settings


def test_a_triangle_has_its_corners_and_straight_lines() -> None:
    triangle = settings("schedule.start=0.2", "schedule.peak=0.25", "schedule.end=0.1").schedule
    found = [rate(done, triangle) for done in (0, 0.125, 0.25, 0.625, 1)]
    assert found == pytest.approx([0.2, 0.6, 1.0, 0.55, 0.1])


def test_without_a_peak_it_only_falls_and_can_be_turned_off() -> None:
    falling, constant = settings().schedule, settings("schedule.end=1.0").schedule
    assert [rate(done, falling) for done in (0, 0.5, 1)] == [1, 0.5, 0]
    assert [rate(done, constant) for done in (0, 0.5, 1)] == [1, 1, 1]
