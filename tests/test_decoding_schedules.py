"""Schedules: counts exact to the papers, spans by MAGNeT's table, and what anneals."""

import math
import random
from itertools import pairwise
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.decoding.schedules import (
    ANNEALS,
    SCHEDULES,
    Passes,
    counts,
    guidances,
    span_rate,
    span_starts,
    span_table,
    temperatures,
)
from tts.errors import SettingsError


def test_counts_of_the_cosine_are_maskgcts():
    assert counts(100, 10) == (98, 95, 89, 80, 70, 58, 45, 30, 15, 0)
    assert counts(100, 25)[-5:] == (24, 18, 12, 6, 0)
    assert counts(7, 1) == (0,)
    for units, steps in ((100, 10), (750, 40), (33, 7)):
        sines = [math.sin(math.pi / 2 * (1 - (i + 1) / steps)) for i in range(steps)]
        assert counts(units, steps) == tuple(math.floor(s * units + 1e-9) for s in sines)


def test_half_of_the_cells_is_not_a_cell_less_for_want_of_a_bit():
    assert counts(100, 3)[1] == 50  # cos(pi / 3); the sine of pi / 6 is 0.49999999999999994
    assert counts(10, 10, "linear") == tuple(range(9, -1, -1))


def test_magnet_spreads_its_rates_over_one_pass_less_and_keeps_one_unit_for_the_last():
    assert counts(100, 5, "magnet") == (92, 70, 38, 1, 0)  # cos(pi/2 * i/4) of 100, then at least one
    assert counts(9, 1, "magnet") == (0,)


@given(st.integers(1, 400), st.data(), st.sampled_from(SCHEDULES))
def test_every_schedule_falls_to_zero(units, data, name):
    steps = data.draw(st.integers(1, units))
    left = counts(units, steps, name)
    assert len(left) == steps and left[-1] == 0
    assert all(units >= a >= b for a, b in pairwise(left))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((10, 0), "steps must be"),
        ((0, 1), "units must be"),
        ((10, 2.0), "steps must be"),
        ((10, True), "steps must be"),
        ((3, 4), "4 steps for 3"),
        ((10, 4, "cosin"), "did you mean 'cosine'"),
        ((10, 4, lambda done: 1 - done / 2), "must end at zero, this one leaves 5 of 10"),
        ((10, 4, lambda done: done), "must fall"),
        ((10, 4, lambda done: 2 - 2 * done), "must fall"),
        ((10, 4, lambda done: math.nan), "must"),
    ],
)
def test_impossible_schedules_are_refused(arguments, says):
    with pytest.raises(SettingsError, match=says):
        counts(*arguments)


def test_the_span_table_is_magnets():
    table = span_table(500, 3)
    assert [table[percent] for percent in (25, 50, 75, 100)] == [46, 103, 185, 498]
    assert len(table) == 101 and table[0] == 0
    assert [round(span_rate(500, 3, u), 4) for u in (50, 150, 300)] == [0.2715, 0.6579, 0.9366]


@given(st.integers(3, 60), st.integers(1, 3), st.data())
def test_the_span_rate_is_the_binomial_rule(frames, length, data):
    u = data.draw(st.integers(0, frames - length + 1))
    assert span_rate(frames, length, u) == pytest.approx(1 - comb(frames - length, u) / comb(frames, u))


def test_spans_started_by_the_table_mask_what_was_asked_for():
    frames, length, rate = 500, 3, 0.5
    starts, draw, masked = span_starts(frames, length, rate), random.Random(1), []
    for _ in range(400):
        spans = draw.sample(range(frames), starts)
        masked.append(len({t for s in spans for t in range(s, min(s + length, frames))}) / frames)
    assert sum(masked) / len(masked) == pytest.approx(rate, abs=0.005)


def test_training_masks_at_least_one_span_and_spans_fit():
    assert span_starts(500, 3, 0.0) == 1
    assert span_starts(500, 3, 1.0) == 498
    assert span_starts(3, 3, 1.0) == 1
    with pytest.raises(SettingsError, match=r"1\.\.2"):
        span_table(2, 3)


def test_temperatures_fall_as_the_papers_have_them():
    assert temperatures(3, 0.7) == (0.7,) * 3
    assert temperatures(4, 1.5, "maskgct") == pytest.approx((1.5, 1.125, 0.75, 0.0))
    assert temperatures(1, 1.5, "maskgct") == (0.2,)
    assert temperatures(4, 3.0, "magnet") == pytest.approx((2.25, 1.5, 0.75, 0.01))
    assert all(temperatures(3, 0.0, anneal) == (0.0,) * 3 for anneal in ANNEALS)  # the likeliest stays the likeliest
    with pytest.raises(SettingsError, match="maskgct"):
        temperatures(3, 1.0, "maskgt")


def test_guidance_falls_with_what_is_masked():
    assert guidances(5, 10.0, 1.0, "magnet") == pytest.approx(
        [10 * p + (1 - p) for p in (1, math.cos(math.pi / 8), math.sqrt(0.5), math.cos(3 * math.pi / 8), 0)]
    )
    assert guidances(2, 4.0, 2.0, "linear") == (4.0, 3.0)
    assert guidances(1, 10.0, 1.0, "magnet") == (10.0,)
    assert guidances(3, 2.5, 2.5) == (2.5,) * 3


@pytest.mark.parametrize(
    "options",
    [
        {"steps": ()},
        {"steps": (4, 0)},
        {"steps": (4.0,)},
        {"steps": (4,), "schedule": "sine"},
        {"steps": (4,), "anneal": "slowly"},
        {"steps": (4,), "last_guidance": -1.0},
    ],
)
def test_impossible_passes_are_refused(options):
    with pytest.raises(SettingsError):
        Passes(**options)


def test_short_items_take_fewer_passes_only_where_that_is_allowed():
    assert Passes((20, 10), fewer=True).of(0, 7) == 7
    assert Passes((20, 10)).of(1, 7) == 10
