"""Patterns: what a slow reference lays out cell by cell, and exact inverses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tts.backends.ar.patterns import Pattern
from tts.errors import SettingsError, ShapeError

PAD = -1


def slow(pattern: Pattern, T: int) -> list[tuple[int, int, int]]:
    """(step, book, frame) of every code: stage after stage, each waiting until all of the one before is said."""
    cells, begin = [], 0
    for stage in range(max(pattern.stages) + 1):
        own = [
            (begin + pattern.period * t + pattern.shifts[k], k, t)
            for k in range(pattern.n_codebooks)
            for t in range(T)
            if pattern.stages[k] == stage
        ]
        begin = max((step + 1 for step, _, _ in own), default=begin)
        cells += own
    return cells


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    K = draw(st.integers(1, 5))
    delays = draw(st.lists(st.integers(0, 6), min_size=K, max_size=K))
    late = Pattern.coarse_first(K, delays[1:]) if K > 1 else Pattern.parallel(1)
    mixed = Pattern(tuple(delays), draw(st.integers(1, 4)))
    return draw(st.sampled_from([Pattern.delay(delays), Pattern.parallel(K), Pattern.flatten(K), late, mixed]))


@given(patterns(), st.integers(0, 7))
@settings(deadline=None, max_examples=100)
def test_build_is_the_slow_reference_and_revert_its_inverse(pattern: Pattern, T: int) -> None:
    codes = torch.arange(2 * pattern.n_codebooks * T).view(2, pattern.n_codebooks, T)
    steps = pattern.build(codes, PAD)
    expected = torch.full_like(steps, PAD)
    for step, k, t in slow(pattern, T):
        expected[:, k, step] = codes[:, k, t]
    assert torch.equal(steps, expected)
    assert steps.shape[2] == pattern.n_steps(T) < pattern.n_steps(T + 1)
    assert torch.equal(pattern.revert(steps), codes)


@given(patterns(), st.integers(0, 5), st.integers(0, 30))
@settings(deadline=None, max_examples=100)
def test_a_frame_is_complete_when_all_its_codes_are_said(pattern: Pattern, T: int, steps: int) -> None:
    missing = {t for step, _, t in slow(pattern, T) if step >= steps}
    expected = min(missing, default=T)
    assert pattern.n_complete(steps, T) == expected
    if max(pattern.stages) == 0:
        assert min(T, pattern.n_complete(steps)) == expected


def rows(text: str) -> Tensor:
    return torch.tensor([[PAD if c == "." else int(c, 16) for c in row.split()] for row in text.split("/")])[None]


@pytest.mark.parametrize(
    ("pattern", "picture"),
    [
        (Pattern.delay((0, 1, 2)), "1 2 3 4 . . / . 5 6 7 8 . / . . 9 a b c"),
        (Pattern.parallel(3), "1 2 3 4 / 5 6 7 8 / 9 a b c"),
        (Pattern.flatten(3), "1 . . 2 . . 3 . . 4 . . / . 5 . . 6 . . 7 . . 8 . / . . 9 . . a . . b . . c"),
        (Pattern.coarse_first(3), "1 2 3 4 . . . . / . . . . 5 6 7 8 / . . . . 9 a b c"),
    ],
)
def test_the_pictures_are_true(pattern: Pattern, picture: str) -> None:
    codes = torch.arange(1, 13).view(1, 3, 4)
    assert torch.equal(pattern.build(codes, PAD), rows(picture))


def test_delays_of_zero_are_the_parallel_pattern() -> None:
    assert Pattern.delay((0, 0)) == Pattern.parallel(2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pattern(()),
        lambda: Pattern.delay((0, -1)),
        lambda: Pattern((0, 1), period=0),
        lambda: Pattern((0, 1), stages=(0, 2)),
        lambda: Pattern((0, 1), stages=(0,)),
        lambda: Pattern.delay((0, 1.5)),  # type: ignore[arg-type]
    ],
)
def test_impossible_numbers_are_refused(make) -> None:
    with pytest.raises(SettingsError):
        make()


def test_shapes_that_no_pattern_has_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\[B, 2, T\]"):
        Pattern.parallel(2).build(torch.zeros(1, 3, 4).long(), 0)
    with pytest.raises(ShapeError, match="no number of frames"):
        Pattern.flatten(2).revert(torch.zeros(1, 2, 3).long())
