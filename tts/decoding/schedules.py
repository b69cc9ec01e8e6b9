"""Schedules of parallel decoding: how many cells stay masked after each pass, and what anneals meanwhile.

    cosine, 10 frames, 4 passes        after pass 1   . x x x x x x x x x      9 still masked (x)
                                       after pass 2   . . . x x x x x x x      7
                                       after pass 3   . . . . . . . x x x      3
                                       after pass 4   . . . . . . . . . .      0

Early passes commit few, since little is known yet. A unit is whatever is committed as one: a cell, or a span of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import torch

from tts.errors import SettingsError, nearest

Rate: TypeAlias = Callable[[float], float]  # the part of the passes that is over, 0..1, to the part that is masked, 1..0
Counts: TypeAlias = Callable[[int, int], tuple[int, ...]]

RATES: dict[str, Rate] = {
    "cosine": lambda done: math.cos(math.pi / 2 * done),  # MaskGIT (arXiv:2202.04200); MaskGCT writes sin(pi/2 * (1 - done))
    "linear": lambda done: 1 - done,
    "square": lambda done: 1 - done**2,
    "cubic": lambda done: 1 - done**3,
    "root": lambda done: 1 - math.sqrt(done),
}
SCHEDULES = (*RATES, "magnet")


def counts(units: int, steps: int, schedule: str | Rate = "cosine") -> tuple[int, ...]:
    """How many of `units` are still masked after each of `steps` passes: floor(rate * units), the last one 0.

    counts(100, 10) is 98, 95, 89, 80, 70, 58, 45, 30, 15, 0.

    schedule: a name of SCHEDULES, or a rate of your own. "magnet" is MAGNeT's cosine (arXiv:2401.04577), which spreads its
        rates over steps - 1 passes and keeps at least one unit for the last. It is counted in float32 as it is there, where
        cos(pi/3) is a bit less than half: of ten passes the seventh leaves 6 of 14, not 7.
    Raises SettingsError: no steps, more steps than units, an unknown name, a rate that grows, leaves 0..1 or does not end at 0.
    """
    for name, value in (("units", units), ("steps", steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingsError(f"{name} must be a whole number of at least 1, got {value!r}")
    if steps > units:
        raise SettingsError(
            f"{steps} steps for {units} frames or spans to be filled: a pass commits at least one; ask for fewer"
        )
    if schedule == "magnet":
        rates = torch.cos(torch.linspace(0, 1, steps, device="cpu") * math.pi * 0.5)[1:]
        return (*(rates * units).int().clamp(min=1).tolist(), 0)
    left = tuple(_part(rate_of(schedule)((i + 1) / steps), units) for i in range(steps))
    if list(left) != sorted(left, reverse=True) or not 0 <= left[0] <= units:
        raise SettingsError(f"a schedule's rate must fall from 1 to 0, got {left} masked of {units}")
    if left[-1] != 0:
        raise SettingsError(f"a schedule must end at zero, this one leaves {left[-1]} of {units} masked")
    return left


def rate_of(schedule: str | Rate) -> Rate:
    """The rate of a schedule by its name. Raises SettingsError with the names there are."""
    if not isinstance(schedule, str):
        return schedule
    name = "cosine" if schedule == "magnet" else schedule
    if name not in RATES:
        raise SettingsError(f"no schedule {schedule!r}{nearest(schedule, list(SCHEDULES))}; there are {', '.join(SCHEDULES)}")
    return RATES[name]


def _part(rate: float, units: int) -> int:
    """floor(rate * units), where cos(pi/3) is half and not a bit less. A rate that is not finite is refused as one below 0."""
    return math.floor(round(rate * units, 9)) if math.isfinite(rate) else -1


ANNEALS = ("none", "maskgct", "magnet")


def temperatures(steps: int, first: float, anneal: str = "none") -> tuple[float, ...]:
    """The temperature of each pass; 0 stays 0.

    none: `first` in all of them.
    maskgct: falls in proportion to the passes that are left, this one included; the last takes the likeliest code (0), but
        where it is the only one, 0.2.
    magnet: falls in proportion to the passes that are left after this one, down to 0.01.
    """
    if anneal == "none" or (first == 0 and anneal in ANNEALS):
        return (first,) * steps
    if anneal == "maskgct":
        return (0.2,) if steps == 1 else (*(max(first * (1 - i / steps), 1e-3) for i in range(steps - 1)), 0.0)
    if anneal == "magnet":
        return tuple(max(first * (steps - 1 - i) / steps, 0.01) for i in range(steps))
    raise SettingsError(f"no annealing {anneal!r}{nearest(anneal, list(ANNEALS))}; there are {', '.join(ANNEALS)}")


def span_rate(frames: int, length: int, starts: int) -> float:
    """The mean part of `frames` that is masked by spans of `length` at `starts` different places: 1 - C(T - L, u) / C(T, u).

    A frame is left out when none of the u starts is among the L places whose spans cover it; spans at the left edge are fewer,
    which the rule takes no notice of. Source: MAGNeT (arXiv:2401.04577).
    """
    return 1 - math.prod((frames - starts - j) / (frames - j) for j in range(length))


@cache
def span_table(frames: int, length: int = 3, percents: Sequence[int] = tuple(range(101))) -> tuple[int, ...]:
    """MAGNeT's table: for each per cent of frames to be masked, the fewest span starts that mask so many in the mean.

    span_table(500)[25], [50], [75], [100] are 46, 103, 185, 498.
    """
    if not 1 <= length <= frames:
        raise SettingsError(f"spans must be 1..{frames} frames long, got {length}")
    rates = [span_rate(frames, length, starts) for starts in range(frames - length + 2)]  # the last one masks all
    found, u = [], 0
    for percent in percents:
        while rates[u] < percent / 100:
            u += 1
        found.append(u)
    return tuple(found)


def span_starts(frames: int, length: int, rate: float) -> int:
    """How many spans to start so that `rate` of the frames is masked in the mean; at least one (training masks something)."""
    return max(span_table(frames, length)[min(round(100 * rate), 100)], 1)


def guidances(steps: int, first: float, last: float, schedule: str | Rate = "cosine") -> tuple[float, ...]:
    """The scale of guidance in each pass: first * rate + last * (1 - rate) of the rate that is masked before it.

    MAGNeT goes from 10 to 1.
    """
    rate = rate_of(schedule)
    between = steps - 1 if schedule == "magnet" else steps
    rates = [rate(i / between) if i else 1.0 for i in range(steps)]
    return tuple(first * r + last * (1 - r) for r in rates)


@dataclass(frozen=True)
class Passes:
    """How many passes each book takes and what changes from one to the next.

    steps: of each book. schedule: see `counts`. anneal: of the temperature, see `temperatures`.
    last_guidance: where the scale of guidance goes as cells are committed; None: it stays.
    fewer: an item with fewer units to fill than steps takes one pass a unit; False: it is refused with a SettingsError.
    """

    steps: tuple[int, ...]
    schedule: str | Rate = "cosine"
    anneal: str = "none"
    last_guidance: float | None = None
    fewer: bool = False

    def __post_init__(self) -> None:
        if not self.steps or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in self.steps):
            raise SettingsError(f"steps must be whole numbers of at least 1, one for each codebook; got {self.steps!r}")
        if self.last_guidance is not None and not 0 <= self.last_guidance <= 20:
            raise SettingsError(f"last_guidance must be a number in 0..20, or None; got {self.last_guidance!r}")
        rate_of(self.schedule)
        temperatures(1, 1.0, self.anneal)

    def of(self, book: int, units: int) -> int:
        """How many passes a book of so many units takes."""
        return min(self.steps[book], units) if self.fewer else self.steps[book]
