"""Everything random of a training step of a masked backend."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tts.decoding.schedules import span_starts


@dataclass(frozen=True)
class MaskedDraw:
    """So that the loss is a pure function of its arguments; all about rows of T frames.

    book: [B] int64, the book each row is asked for; those before are known, those after are not.
    masked: [B, T] bool, frames where it is masked, of real ones that are not given; the loss is of these.
    given: [B, T] bool, frames of which all books are known: the prompt, or what stands around a gap.
    tube: [B] bool, masked frames are masked in all books and the others given. t: [B], the time that the masks stand for.
    drop_text: [B] bool, no text at all, as guidance needs. hide_phones: [B] bool, those of given frames are not known.
    """

    book: Tensor
    masked: Tensor
    given: Tensor
    tube: Tensor
    t: Tensor
    drop_text: Tensor
    hide_phones: Tensor


@dataclass(frozen=True)
class MaskedDrawConfig:
    """How training draws."""

    rate: str = "sine"  # of masks at time t, uniform: sin(pi t / 2), MaskGCT's; or "cosine": cos(pi t / 2), MAGNeT's
    least: float = 0.0  # rates below it are it; MaskGCT's for its first network is 0.2
    books: str = "linear"  # how often which book is asked for: K - k, MaskGCT's; or "uniform", MAGNeT's
    first_book: float | None = None  # how often the first; None: as `books` says
    given_books: int = 0  # always known, never asked for: 1 for Pheme's second stage
    span: int = 1  # frames that are masked together; MAGNeT's is 3
    tube: float = 0.0  # how often masked frames are masked in all books, the temporal tubes of Lumos-1 (arXiv:2507.08801)
    longest_prompt: float = 0.6  # share of the row, uniform from 0
    join_prompt: float = 0.7  # how often the first of two joined utterances is the prompt
    infill: float = 0.1  # how often all but a gap is given, as editing needs
    drop_prompt: float = 0.1
    drop_all: float = 0.1  # the prompt and the text together
    hide_prompt_phones: float = 0.15


def draw(
    lengths: Tensor,
    codebooks: int,
    config: MaskedDrawConfig = MaskedDrawConfig(),
    generator: torch.Generator | None = None,
    joins: Tensor | None = None,
) -> MaskedDraw:
    """What one training step needs for rows of these lengths [B] in frames (CPU), T being the longest.

    joins: [B] int64, the first frame of the second utterance of a row that joins two, 0 for a row of one.
    """
    B, T = len(lengths), int(lengths.max()) if len(lengths) else 0
    frames = torch.arange(T)

    def chance(p: float) -> Tensor:
        return torch.rand(B, generator=generator) < p

    # 1. what is given: a prompt, or all but a gap of at least a tenth of the row
    prompt = (config.longest_prompt * torch.rand(B, generator=generator) * lengths).long()
    whole = chance(config.join_prompt)
    if joins is not None:
        prompt = torch.where(whole & (joins > 0), joins, prompt)
    drop_all = chance(config.drop_all)
    prompt = prompt.masked_fill(chance(config.drop_prompt) | drop_all, 0)
    gap = ((0.1 + 0.4 * torch.rand(B, generator=generator)) * lengths).long().clamp(min=1)
    begin = (torch.rand(B, generator=generator) * (lengths - gap + 1)).long()[:, None]
    around = (frames < begin) | (frames >= begin + gap[:, None])
    infill = (chance(config.infill) & ~drop_all)[:, None]
    given = torch.where(infill, around, frames < prompt[:, None])
    open_ = (frames < lengths[:, None]) & ~given  # frames that may be masked
    # 2. which book
    K, first = codebooks, config.given_books
    weights = torch.arange(K, 0, -1.0) if config.books == "linear" else torch.ones(K)
    weights[:first] = 0
    if config.first_book is not None and first == 0 and K > 1:
        weights[0] = config.first_book / max(1 - config.first_book, 1e-9) * weights[1:].sum()
    book = torch.multinomial(weights, B, replacement=True, generator=generator)
    # 3. which of its cells
    t = torch.rand(B, generator=generator).clamp(min=1e-5)
    angle = math.pi / 2 * t
    rate = (angle.sin() if config.rate == "sine" else angle.cos()).clamp(min=config.least)
    u = torch.rand(B, T, generator=generator)
    if config.span == 1:
        masked = u < rate[:, None]
    else:
        masked = torch.stack([_spans(u[b], open_[b], float(rate[b]), config.span) for b in range(B)])
    masked &= open_
    likeliest = u.masked_fill(~open_, 2).argmin(1) if T else u.new_zeros(0)
    none = ~masked.any(1) & open_.any(1)  # something is masked in every row
    masked[none, likeliest[none]] = True
    return MaskedDraw(book, masked, given, chance(config.tube), t, drop_all, chance(config.hide_prompt_phones))


def _spans(u: Tensor, open_: Tensor, rate: float, length: int) -> Tensor:
    """Spans at different places among the open frames, as many as mask `rate` of them in the mean: [T] bool."""
    n = int(open_.sum())
    masked = torch.zeros_like(open_)
    if n == 0:
        return masked
    length = min(length, n)
    starts = u.masked_fill(~open_, 2).argsort()[: span_starts(n, length, rate)]
    for shift in range(length):
        masked[(starts + shift).clamp(max=len(u) - 1)] = True
    return masked
