"""Patterns: in which order a model of one step after another says the codes [K, T] of a codec.

    parallel        delay (0, 1, 2)     flatten                   coarse first

    1 2 3 4         1 2 3 4 . .         1 . . 2 . . 3 . . 4 . .   1 2 3 4 . . . .
    5 6 7 8         . 5 6 7 8 .         . 5 . . 6 . . 7 . . 8 .   . . . . 5 6 7 8
    9 a b c         . . 9 a b c         . . 9 . . a . . b . . c   . . . . 9 a b c

Columns are steps; `.` is the pad. All are one rule: book k says frame t at step `begin of its stage + period * t + shift of k`.
Source: MusicGen, Copet et al. 2023 (arXiv:2306.05284), section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tts.errors import SettingsError, ShapeError


@dataclass(frozen=True)
class Pattern:
    """shifts: K steps >= 0. period: steps a frame. stages: K numbers 0, 1, …: a stage begins when the one before has said all.

    Raises SettingsError for numbers that make no pattern.
    """

    shifts: tuple[int, ...]
    period: int = 1
    stages: tuple[int, ...] = ()  # empty: all books in one stage

    def __post_init__(self) -> None:
        object.__setattr__(self, "shifts", tuple(self.shifts))
        object.__setattr__(self, "stages", tuple(self.stages) or (0,) * len(self.shifts))
        numbers = (*self.shifts, *self.stages, self.period)
        if not self.shifts or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
            raise SettingsError(f"a pattern has at least one book, and whole numbers from 0, got {self.shifts}, {self.stages}")
        if self.period < 1:
            raise SettingsError(f"a frame takes at least 1 step, got {self.period}")
        if len(self.stages) != len(self.shifts) or set(self.stages) != set(range(max(self.stages) + 1)):
            raise SettingsError(f"stages are {len(self.shifts)} numbers that leave none out, got {self.stages}")

    @classmethod
    def delay(cls, delays: Sequence[int]) -> Pattern:
        """Book k comes delays[k] steps late, so that one step says K codes of different frames."""
        return cls(tuple(delays))

    @classmethod
    def parallel(cls, n_codebooks: int) -> Pattern:
        """All books of a frame at one step."""
        return cls((0,) * n_codebooks)

    @classmethod
    def flatten(cls, n_codebooks: int) -> Pattern:
        """One code a step."""
        return cls(tuple(range(n_codebooks)), period=n_codebooks)

    @classmethod
    def coarse_first(cls, n_codebooks: int, delays: Sequence[int] = ()) -> Pattern:
        """Book 0 of all frames, then the other books together, each by its delay (K - 1 of them; none: no delay)."""
        return cls((0, *(delays or (0,) * (n_codebooks - 1))), stages=(0,) + (1,) * (n_codebooks - 1))

    @property
    def n_codebooks(self) -> int:
        return len(self.shifts)

    @property
    def waits(self) -> int:
        """Steps from the first code of a frame to its last, where there is one stage: the latency of a stream."""
        return max(self.shifts)

    def n_steps(self, T: int) -> int:
        """S of T frames; grows with T."""
        return sum(self._stage_steps(T))

    def n_complete(self, steps: int, T: int | None = None) -> int:
        """How many leading frames are complete after so many steps. T: frames in all; several stages need to know it."""
        begins = self._begins(T if T is not None else 0)
        if T is None and max(self.stages) > 0:
            raise SettingsError("a pattern of several stages completes frames only when it is known how many there are")
        ready = min(
            (steps - 1 - begins[stage] - shift) // self.period + 1
            for stage, shift in zip(self.stages, self.shifts, strict=True)
        )
        return max(0, ready if T is None else min(ready, T))

    def build(self, codes: Tensor, pad: int) -> Tensor:
        """codes [B, K, T] int64 to steps [B, K, S]; pad: the id for "no frame here", usually V. ShapeError: another K."""
        B, K, T = self._shape(codes)
        steps = codes.new_full((B, K, self.n_steps(T)), pad)
        return steps.scatter_(2, self._places(T, codes.device).expand(B, K, T), codes)

    def revert(self, steps: Tensor) -> Tensor:
        """The inverse of `build`: steps [B, K, S] to codes [B, K, T]. Raises ShapeError for an S that no T has."""
        B, K, S = self._shape(steps)
        T = 0 if self.n_steps(0) == S else 1 + (S - self.n_steps(1)) // (self.period * (max(self.stages) + 1))
        if T < 0 or self.n_steps(T) != S:
            raise ShapeError(f"no number of frames takes {S} steps of {self}")
        return steps.gather(2, self._places(T, steps.device).expand(B, K, T))

    def _stage_steps(self, T: int) -> list[int]:
        """The steps of each stage."""
        last = [max(s for s, g in zip(self.shifts, self.stages, strict=True) if g == n) for n in range(max(self.stages) + 1)]
        return [max(0, self.period * (T - 1) + shift + 1) for shift in last]

    def _begins(self, T: int) -> list[int]:
        steps = self._stage_steps(T)
        return [sum(steps[:n]) for n in range(len(steps))]

    def _places(self, T: int, device: torch.device) -> Tensor:
        """The step of each code: [K, T]."""
        begins = self._begins(T)
        starts = [begins[stage] + shift for stage, shift in zip(self.stages, self.shifts, strict=True)]
        return torch.tensor(starts, device=device)[:, None] + self.period * torch.arange(T, device=device)

    def _shape(self, x: Tensor) -> tuple[int, int, int]:
        if x.dim() != 3 or x.shape[1] != self.n_codebooks:
            raise ShapeError(f"codes must be [B, {self.n_codebooks}, T], got {tuple(x.shape)}")
        B, K, T = x.shape
        return B, K, T
