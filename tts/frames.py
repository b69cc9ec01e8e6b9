"""What travels between the parts: frozen dataclasses of tensors, and what they are made of.

Letters: B batch, L text tokens, T frames, N samples, K codebooks. Layout [B, width, T] at every boundary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tts.errors import FitError, ShapeError

Kind = Literal["codes", "latents", "mel", "posteriors"]


@dataclass(frozen=True)
class FrameSpec:
    """What a stream of frames is made of; two parts fit when their specs are equal.

    `flavour` names every number of the recipe behind the frames (for a mel: window, hop, bands, scale, logarithm), so that
    frames of equal shape and different meaning are never taken for one another.
    """

    kind: Kind
    width: int  # channels; codebooks K where kind is "codes"
    rate: Fraction  # frames a second
    sizes: tuple[int, ...] = ()  # codes per codebook, where kind is "codes"
    flavour: str = ""


@dataclass(frozen=True)
class Frames:
    """data [B, width, T] (int64 for codes, else float), lengths [B] int64 in frames, spec."""

    data: Tensor
    lengths: Tensor
    spec: FrameSpec

    def __post_init__(self) -> None:
        if self.data.dim() != 3 or self.data.shape[1] != self.spec.width:
            got = tuple(self.data.shape)
            raise ShapeError(f"frames must be [B, {self.spec.width}, T], got {got}")
        if self.lengths.shape != self.data.shape[:1]:
            raise ShapeError(f"lengths must be [{self.data.shape[0]}], got {tuple(self.lengths.shape)}")


@dataclass(frozen=True)
class Wave:
    """samples [B, N] float32 in [-1, 1], lengths [B] int64 in samples, sample_rate in Hz."""

    samples: Tensor
    lengths: Tensor
    sample_rate: int

    def __post_init__(self) -> None:
        if self.samples.dim() != 2 or self.lengths.shape != self.samples.shape[:1]:
            got = tuple(self.samples.shape), tuple(self.lengths.shape)
            raise ShapeError(f"a wave is samples [B, N] with lengths [B], got {got}")

    @classmethod
    def of(cls, samples: Tensor, sample_rate: int) -> Wave:
        """One recording [N] as a batch of one."""
        return cls(samples[None], torch.tensor([samples.shape[-1]]), sample_rate)


@dataclass(frozen=True)
class Tokens:
    """ids [B, L] int64, lengths [B] (0: no phones are known), table: identity of the symbol table."""

    ids: Tensor
    lengths: Tensor
    table: str

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], table: str) -> Tokens:
        """Lists of ids, padded with 0 to one tensor."""
        L = max((len(row) for row in rows), default=0)
        ids = torch.zeros(len(rows), L, dtype=torch.int64)
        for b, row in enumerate(rows):
            ids[b, : len(row)] = torch.tensor(row, dtype=torch.int64)
        return cls(ids, torch.tensor([len(row) for row in rows]), table)


@dataclass(frozen=True)
class Prompt:
    """A voice: its frames by name ("mel", "acoustic", …), its phones, where each phone lies.

    token_frames [B, L] int64: frames of `frames["mel"]` that each token lasts (sum = the prompt's frames), or None when no
    alignment is known. seconds [B] float: how long the prompt speaks.
    """

    frames: Mapping[str, Frames]
    tokens: Tokens
    seconds: Tensor
    token_frames: Tensor | None = None
    speaker: Tensor | None = None


@dataclass(frozen=True)
class Plan:
    """How long to speak. seconds [B] float64; token_seconds [B, L] float64 or None: the share of each token, same sum.

    In seconds, since systems differ in rate; `frames` and `token_frames` carry the rounding.
    """

    seconds: Tensor
    token_seconds: Tensor | None = None

    def frames(self, rate: Fraction) -> Tensor:
        """[B] int64, at least one frame."""
        return (self.seconds.double() * float(rate)).round().long().clamp(min=1)

    def token_frames(self, rate: Fraction) -> Tensor:
        """[B, L] int64 whose sum over L is exactly `frames(rate)`: cumulative times are rounded, not durations.

        A token that takes any time has a frame at least, so that none is passed over, where there are frames enough for all.
        """
        if self.token_seconds is None:
            raise FitError("this plan has no durations of tokens; plan with a Duration that gives them")
        ends = (self.token_seconds.double().cumsum(1) * float(rate)).round().long()  # [B, L]
        total = self.frames(rate)[:, None]
        ends = torch.minimum(ends, total)
        ends[:, -1:] = total
        frames = torch.diff(ends, dim=1, prepend=ends.new_zeros(len(ends), 1))
        said = self.token_seconds > 0
        passed_over = ((said & (frames == 0)).any(1) & (said.sum(1) <= total[:, 0])).nonzero()[:, 0]
        for b in passed_over.tolist():
            frames[b] = frames.new_tensor(_with_one_each(frames[b].tolist(), said[b].tolist()))
        return frames


def _with_one_each(frames: list[int], said: list[bool]) -> list[int]:
    """The same sum, at least one for each that is said, taken from the nearest that have more."""
    ends, reached = [], 0
    for own, least in zip(accumulate(frames), said, strict=True):
        reached = max(own, reached + least)
        ends.append(reached)
    reached = sum(frames)
    for i in reversed(range(len(ends))):
        ends[i] = min(ends[i], reached)
        reached = ends[i] - said[i]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True)
class Utterance:
    """What a backend is asked to speak; one row of the batch is one sentence.

    context + keep: frames to keep while the rest is made (editing, continuation, hybrids).
    content: frames that say what and when instead of tokens (conversion, melody).
    """

    tokens: Tokens
    seeds: Tensor  # [B] int64, one seed an item
    prompt: Prompt | None = None
    plan: Plan | None = None
    context: Frames | None = None
    keep: Tensor | None = None  # [B, T] bool
    content: Frames | None = None


@dataclass(frozen=True)
class Request:
    """What a person asks; one row of a batch. Words and meanings as in `tts.synthesize`."""

    text: str
    prompt: Any = None  # path, file object, (samples, rate), a list of these, a voice's name, or None
    prompt_text: str | None = None
    backend: str = "flow"
    seed: int = 0
    speed: float = 1.0
    seconds: float | None = None
    language: str | None = None
    check: bool = True
    settings: Any = None  # the backend's frozen dataclass, a mapping of its fields, or None
    out: Path | None = None
    extra: Mapping[str, str] = field(default_factory=dict)  # travels along, untouched


def check_fit(giver: str, gives: FrameSpec, taker: str, takes: FrameSpec) -> None:
    """Raise FitError, in one readable sentence, unless the two specs are equal."""
    if gives == takes:
        return
    names = ("kind", "width", "rate", "sizes", "flavour")
    wrong = [
        f"{name}: {getattr(gives, name)} against {getattr(takes, name)}"
        for name in names
        if getattr(gives, name) != getattr(takes, name)
    ]
    raise FitError(f"{giver} does not fit {taker}: " + "; ".join(wrong))


def check_utterance(utterance: Utterance, taker: str, table: str, takes: FrameSpec) -> None:
    """Raise FitError where a backend cannot speak an utterance: no plan, tokens of another table, a prompt or context that
    is not of the frames it takes. Tokens do not matter where there is `content`."""
    if utterance.plan is None:
        raise FitError(f"{taker} needs a plan of the target's duration; it was given none")
    prompt = utterance.prompt
    if utterance.content is None:
        for tokens in (utterance.tokens, prompt.tokens if prompt is not None else utterance.tokens):
            if tokens.table != table:
                raise FitError(f"tokens are of the symbol table {tokens.table!r}, that of {taker} is {table!r}")
    if prompt is not None:
        if takes.kind not in prompt.frames:
            raise FitError(f"{taker} needs the prompt's {takes.kind}; it was given {sorted(prompt.frames)}")
        check_fit("the prompt", prompt.frames[takes.kind].spec, taker, takes)
    if utterance.context is not None:
        check_fit("the context", utterance.context.spec, taker, takes)


def frame_mask(lengths: Tensor, T: int) -> Tensor:
    """[B] lengths to a mask [B, T] bool, True where a frame is real."""
    return torch.arange(T, device=lengths.device)[None] < lengths[:, None]
