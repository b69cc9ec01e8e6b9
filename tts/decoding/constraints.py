"""Constraints: what keeps an autoregressive model to its text, as state that is handed around, never kept in a module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from tts.errors import SettingsError, ShapeError


@dataclass(frozen=True)
class Position:
    """Where each item is in its text: phone [B] int64, stayed [B] int64 frames that it has lasted before this one, done [B].

    Where done, all of the text has been said: phone stays the last one, and stayed is 0.
    """

    phone: Tensor
    stayed: Tensor
    done: Tensor


class TokenConstraint(Protocol):
    """Says after each frame where an item is in its text, and whether it may end there."""

    def start(self) -> Position:
        """Before the first frame."""
        ...

    def may_end(self, position: Position) -> Tensor:
        """[B] bool: items that may end before the frame of this position is said."""
        ...

    def follow(self, position: Position, odds: Tensor | None, uniforms: Tensor, push: Tensor) -> Position:
        """The position of the next frame.

        Args:
            position: of the frame just said.
            odds: [B] the model's log-odds of going on to the next phone, or None where it gives none.
            uniforms: [B] in (0, 1).
            push: [B] bool, items that are caught in a loop and should go on if they may.
        """
        ...


@dataclass(frozen=True)
class MonotonicPointer:
    """A pointer over the phones that stays or advances, never goes back, never skips, and ends only after the last phone.

        phones    h  ə  l  oʊ
        frame 0   x                least 1, most 3: frame 1 may stay on h, frame 3 may not
        frame 1   x
        frame 2      x

    It advances with probability sigmoid(odds), but never before a phone has lasted `least` frames and always once it has lasted
    `most`. least = most is a plan kept to the frame (see `planned`). A phone whose `most` is 0 has no frame and is passed by;
    any other has at least one. Source: VALL-E R (arXiv:2406.07855), section 3.3, where the odds come from the likelihoods of
    this phone and the next; here the model is trained to give them.

    least, most: [B, L] int64 frames, 0 <= least <= most; lengths [B]: phones of each item.
    """

    least: Tensor
    most: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if self.least.dim() != 2 or self.least.shape != self.most.shape or self.lengths.shape != self.least.shape[:1]:
            shapes = tuple(self.least.shape), tuple(self.most.shape), tuple(self.lengths.shape)
            raise ShapeError(f"least and most must be [B, L] and lengths [B], got {shapes}")
        if bool(((self.least < 0) | (self.least > self.most)).any()):
            raise SettingsError("a phone lasts at least 0 frames and no fewer than its least; least exceeds most somewhere")

    @classmethod
    def planned(cls, frames: Tensor, lengths: Tensor) -> MonotonicPointer:
        """Each phone lasts exactly frames [B, L]."""
        return cls(frames, frames, lengths)

    @property
    def cap(self) -> Tensor:
        """[B] the most frames that an item can last."""
        return (self.most * self._spoken).sum(1)

    @cached_property
    def fixed(self) -> bool:
        """Whether it is a plan kept to the frame, so that nobody has a say in when it advances."""
        return torch.equal(self.least, self.most)

    def ahead(self, T: int) -> Position:
        """Of a plan, the positions of frames 0 … T - 1 at once: [B, T] each."""
        assert self.fixed, "only a plan knows what comes"
        lasts = self.most * self._spoken
        ends = lasts.cumsum(1)
        t = torch.arange(T, device=ends.device).expand(len(ends), T).contiguous()
        last = (ends < ends[:, -1:]).sum(1, keepdim=True)  # the last phone that is spoken
        phone = torch.minimum(torch.searchsorted(ends, t, right=True), last)
        done = t >= ends[:, -1:]
        return Position(phone, (t - (ends - lasts).gather(1, phone)).masked_fill(done, 0), done)

    def start(self) -> Position:
        B = len(self.lengths)
        before = self.lengths.new_full((B,), -1)
        return self._arrive(before, torch.zeros_like(before))

    def may_end(self, position: Position) -> Tensor:
        is_last = self._following.gather(1, position.phone[:, None] + 1)[:, 0] == self.most.shape[1]
        return position.done | (is_last & (position.stayed >= self._of(self.least, position).clamp(min=1)))

    def follow(self, position: Position, odds: Tensor | None, uniforms: Tensor, push: Tensor) -> Position:
        lasted = position.stayed + 1
        wants = push if odds is None else push | (uniforms < odds.sigmoid())
        moves = (lasted >= self._of(self.most, position)) | (wants & (lasted >= self._of(self.least, position)))
        there = self._arrive(position.phone, position.phone)
        phone = position.phone.where(~moves | position.done, there.phone)
        return Position(phone, lasted.where(~moves & ~position.done, 0), position.done | (moves & there.done))

    @cached_property
    def _spoken(self) -> Tensor:
        """[B, L] bool: phones that have a frame."""
        return (self.most > 0) & (torch.arange(self.most.shape[1], device=self.most.device) < self.lengths[:, None])

    @cached_property
    def _following(self) -> Tensor:
        """[B, L + 1] int64: the first spoken phone at or after each place, L where there is none."""
        B, L = self.most.shape
        places = torch.arange(L + 1, device=self.most.device).expand(B, -1)
        spoken = torch.nn.functional.pad(self._spoken, (0, 1), value=True)
        return places.where(spoken, L).flip(1).cummin(1).values.flip(1)

    def _arrive(self, phone: Tensor, last: Tensor) -> Position:
        """At the first frame of the spoken phone after `phone` [B], or done, on the phone `last` [B]."""
        there = self._following.gather(1, phone[:, None] + 1)[:, 0]
        done = there == self.most.shape[1]
        return Position(last.where(done, there), torch.zeros_like(there), done)

    def _of(self, frames: Tensor, position: Position) -> Tensor:
        return frames.gather(1, position.phone[:, None])[:, 0]


@dataclass(frozen=True)
class Loops:
    """What counts as a loop: n codes in a row (n <= longest), said again `repeats` times without a change, for `frames` frames.

        longest 3, repeats 2, frames 4        1 2 1 2 1 2      a loop: 1 2, and twice again
                                              7 7 7            none yet: two frames said again
                                              7 7 7 7 7        a loop

    Looped speech says a syllable or a hum over and over; real speech hardly ever repeats codes exactly, but for silence, so
    `frames` should be longer than a pause inside a phone.
    """

    longest: int = 8
    repeats: int = 3
    frames: int = 25  # a second of codes in base-en

    def __post_init__(self) -> None:
        for name in ("longest", "repeats", "frames"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingsError(f"{name} of loops must be a whole number of at least 1, got {value!r}")

    def start(self, B: int, device: torch.device) -> Tensor:
        """Runs [B, longest]: for how many codes in a row each was the one n before it."""
        return torch.zeros(B, self.longest, dtype=torch.int64, device=device)

    def follow(self, runs: Tensor, codes: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """The runs after one more code [B], and whether it closes a loop [B]. before [B, longest]: the codes before it."""
        runs = (runs + 1) * (codes[:, None] == before.flip(1))  # column n - 1 holds the code n before
        needed = (torch.arange(1, self.longest + 1, device=runs.device) * self.repeats).clamp(min=self.frames)
        return runs, (runs >= needed).any(1)
