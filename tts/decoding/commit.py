"""Which of the codes drawn in a pass are kept: by confidence, by span, at random, or as a small network has learned.

    drawn        7    3    3    1    9        a schedule lets 2 of the 4 masked cells stay masked
    confidence  .9   .2    ·   .6   .4        · was committed before, and is never opened again
    kept         7    _    3    1    _

A policy ranks units (cells or spans) of each item by themselves, so nothing depends on a neighbour in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from tts.errors import SettingsError
from tts.interfaces import Noise
from tts.sampling.philox import Purpose


@dataclass(frozen=True)
class Candidates:
    """What one pass proposes for a book of B items.

    step: [B] int64, which pass of its schedule each item is at. left: [B] float32, the part of its passes that was left before
        this one: 1 at the first.
    masked: [B, T] bool, the cells that were asked for. codes: [B, T] int64, drawn where masked, known elsewhere.
    confidence: [B, T] float32, the probability of each drawn code; 1 elsewhere.
    uniforms: those that a policy may rank by [B, T], where somebody has them ready; None: `noise` makes them.
    """

    book: int
    step: Tensor
    left: Tensor
    masked: Tensor
    codes: Tensor
    confidence: Tensor
    seeds: Tensor
    noise: Noise
    uniforms: Callable[[], Tensor] | None = None


class CommitPolicy(Protocol):
    def units(self, masked: Tensor) -> Tensor:
        """Masked cells [B, T] bool to units [B, U] bool that have such a cell: what a schedule counts."""
        ...

    def commit(self, candidates: Candidates, stay: Tensor) -> Tensor:
        """The masked cells [B, T] bool to be kept, so that at most stay [B] int64 units of each item are left masked."""
        ...


@dataclass(frozen=True)
class ByConfidence:
    """The likeliest cells first. noise: of Gumbel noise on confidence, falling with the passes that are left (1 in MaskGCT).

    Source: MaskGIT (arXiv:2202.04200); MaskGCT (arXiv:2409.00750).
    """

    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 100:
            raise SettingsError(f"the noise of confidence must be a number in 0..100, got {self.noise!r}")

    def units(self, masked: Tensor) -> Tensor:
        return masked

    def commit(self, candidates: Candidates, stay: Tensor) -> Tensor:
        score = candidates.confidence
        if self.noise:
            gumbel = -(-_uniforms(candidates).log()).log()
            score = score + self.noise * candidates.left[:, None] * gumbel
        return _all_but_worst(score, candidates.masked, stay)


@dataclass(frozen=True)
class BySpan:
    """Spans of neighbouring frames, on a grid from frame 0, are committed together: the surest span first.

    A span is as sure as its surest cell ("max"), or as all of its cells together ("product"). The last may be shorter.
    Source: MAGNeT (arXiv:2401.04577).
    """

    length: int = 3
    join: str = "max"

    def __post_init__(self) -> None:
        if isinstance(self.length, bool) or not isinstance(self.length, int) or self.length < 1:
            raise SettingsError(f"a span must be a whole number of frames, at least 1; got {self.length!r}")
        if self.join not in ("max", "product"):
            raise SettingsError(f'the cells of a span are joined by "max" or "product", got {self.join!r}')

    def units(self, masked: Tensor) -> Tensor:
        return in_blocks(masked, self.length, False).any(-1)

    def commit(self, candidates: Candidates, stay: Tensor) -> Tensor:
        masked = in_blocks(candidates.masked, self.length, False)  # [B, U, L]
        sure = in_blocks(candidates.confidence, self.length, 1.0)
        score = sure.masked_fill(~masked, 0.0).amax(-1) if self.join == "max" else sure.log().sum(-1)
        kept = _all_but_worst(score, masked.any(-1), stay)  # [B, U]
        return kept.repeat_interleave(self.length, dim=1)[:, : candidates.masked.shape[1]] & candidates.masked


@dataclass(frozen=True)
class AtRandom:
    """Any cell is as good as any other. Alone among these policies it leaves the law of independent cells as it is."""

    def units(self, masked: Tensor) -> Tensor:
        return masked

    def commit(self, candidates: Candidates, stay: Tensor) -> Tensor:
        return _all_but_worst(_uniforms(candidates), candidates.masked, stay)


@dataclass(frozen=True)
class Learned:
    """Beside what `least` commits: every cell that a filter believes to be what it would be after all passes.

    A book so ends as soon as nothing in it is masked, often in half of its passes. Source: Learn2PD (arXiv:2509.25188).

    filter: confidences [N, block] float32 of neighbouring frames (1 where committed, or past the end) to logits [N, block].
    threshold: the filter's probability above which a cell is committed; at 1 it never is, and `least` decides alone.
    """

    filter: Callable[[Tensor], Tensor]
    block: int = 32
    threshold: float = 0.9
    least: CommitPolicy = field(default_factory=ByConfidence)

    def __post_init__(self) -> None:
        if self.block < 1 or not 0 <= self.threshold <= 1:
            raise SettingsError(f"a filter needs a block >= 1 and a threshold in 0..1, got {self.block!r}, {self.threshold!r}")

    def units(self, masked: Tensor) -> Tensor:
        return self.least.units(masked)

    def commit(self, candidates: Candidates, stay: Tensor) -> Tensor:
        blocks = in_blocks(candidates.confidence, self.block, 1.0)  # [B, U, block]
        sure = self.filter(blocks.flatten(0, 1)).sigmoid().view(blocks.shape) > self.threshold
        sure = sure.flatten(1)[:, : candidates.masked.shape[1]]
        return self.least.commit(candidates, stay) | (sure & candidates.masked)


@dataclass(frozen=True)
class FilterConfig:
    """block: frames that are seen together. hidden: width between."""

    block: int = 32
    hidden: int = 64


class CommitFilter(nn.Module):
    """Learn2PD's filter: is what is drawn now what it will be in the end? Confidences [N, block] to logits [N, block]."""

    def __init__(self, config: FilterConfig):
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Linear(config.block, config.hidden), nn.SiLU(), nn.Linear(config.hidden, config.block))

    def forward(self, confidence: Tensor) -> Tensor:
        return self.layers(confidence)


def in_blocks(x: Tensor, length: int, fill: float | bool) -> Tensor:
    """[B, T] to [B, U, length], the last block filled up: frames on one grid from frame 0, whatever T is."""
    B, T = x.shape
    return nn.functional.pad(x, (0, -T % length), value=fill).view(B, -1, length)


def _all_but_worst(score: Tensor, masked: Tensor, stay: Tensor) -> Tensor:
    """Masked units [B, U] but for those with the `stay` [B] lowest scores, of equal ones the first."""
    order = _rising(score.masked_fill(~masked, torch.inf))
    worst = torch.arange(order.shape[1], device=order.device) < stay[:, None]
    return masked & ~torch.zeros_like(masked).scatter(1, order, worst)


def _rising(x: Tensor) -> Tensor:
    """The order of each row, equal ones as they stand; of few numbers NumPy takes a quarter of torch's time."""
    if x.device.type != "cpu":
        return x.argsort(dim=-1, stable=True)
    return torch.from_numpy(x.numpy().argsort(-1, kind="stable"))


def _uniforms(candidates: Candidates) -> Tensor:
    """[B, T] in (0, 1)."""
    if candidates.uniforms is not None:
        return candidates.uniforms()
    frames = torch.arange(candidates.masked.shape[1], device=candidates.masked.device)
    seeds, step = candidates.seeds[:, None], candidates.step[:, None]
    return candidates.noise.uniform(seeds, Purpose.COMMIT, candidates.book, frames, step)
