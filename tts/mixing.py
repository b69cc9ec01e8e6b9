"""A backend made of two others of one codec: one says the first seconds, the other all the rest at once.

    text, prompt ─┬► lead (ar) ────► the first seconds, or books, kept ───┐
                  └► rest (masked) ◄──────────────────────────────────────┘ ─► all frames
                       ▲ each pass keeps what is surest: weight * p of a judge + (1 - weight) * p of its own
                     judge: the lead, which knows what may follow what, or the recognizer, which hears what was asked for

Both parts are those of the system, by the names of its backends; a mixed backend has no weights of its own. Source: MAGNeT
(arXiv:2401.04577), its rescoring and its hybrid, where lead and judge are MusicGen; Pheme (arXiv:2401.02839) for books.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tts.config import from_mapping, settle
from tts.decoding.masked import Rescoring
from tts.errors import FitError, SettingsError, nearest
from tts.frames import Frames, Utterance, check_fit
from tts.interfaces import FrameCodec, Recognizer, Streaming
from tts.nn.text import lay
from tts.parts import Parts
from tts.text.tokens import PHONES

LogProbs = Callable[[int, Tensor, Tensor], Tensor]  # see Rescoring


@runtime_checkable
class Judge(Protocol):
    """A backend that can say how likely codes are."""

    def log_probs(self, utterance: Utterance, codes: Frames) -> Tensor:
        """codes [B, K, T], V where a cell is not known, to log-probabilities [B, K, T]; those of unknown cells mean nothing."""
        ...


@runtime_checkable
class Rescored(Protocol):
    """A backend that weighs what it is sure of against another's opinion."""

    def rescored(self, utterance: Utterance, settings: Any, judge: Rescoring) -> Frames: ...


@dataclass(frozen=True)
class MixedConfig:
    """Names of backends of the same system."""

    lead: str = "ar"
    rest: str = "masked"


@dataclass(frozen=True)
class MixedSettings:
    """lead_seconds: what the lead says, 0: nothing. weight, judge: of rescoring, 0: none; "lead" or "recognizer".

    lead_books: so many of the first books are the lead's from beginning to end; with lead_seconds=0, Pheme's two stages are 1.
    lead, rest: settings of the two backends, or mappings of their fields.
    """

    lead_seconds: float = 1.0
    weight: float = 0.0
    judge: str = "lead"
    lead_books: int = 0
    lead: Any = None
    rest: Any = None

    def __post_init__(self) -> None:
        settle(self)
        if not 0 <= self.lead_seconds < float("inf"):
            raise SettingsError(f"lead_seconds must be at least 0, got {self.lead_seconds!r}")
        if self.lead_books < 0:
            raise SettingsError(f"lead_books must be at least 0, got {self.lead_books!r}")
        if not 0 <= self.weight <= 1:
            raise SettingsError(f"weight must be in 0..1, got {self.weight!r}")
        if self.judge not in JUDGES:
            raise SettingsError(f"judge must be one of {', '.join(JUDGES)}, got {self.judge!r}{nearest(self.judge, JUDGES)}")


JUDGES = ["lead", "recognizer"]


class MixedBackend:
    """A Backend (tts/interfaces.py); `join` makes it one, when the parts of its system are known."""

    settings_type = MixedSettings

    def __init__(self, config: MixedConfig = MixedConfig()) -> None:
        self.config = config

    def join(self, parts: Parts) -> None:
        """Raises FitError: the system lacks one of the two, they differ in codes or symbols, or cannot do their parts."""
        names = ", ".join(parts.backends)
        for name, kind, does in ((self.config.lead, Streaming, "streams"), (self.config.rest, Rescored, "can be rescored")):
            if not isinstance(parts.backends.get(name), kind):
                raise FitError(f"a mixed backend needs one that {does}, which {name!r} is not; the system has {names}")
        self.lead, self.rest = parts.backends[self.config.lead], parts.backends[self.config.rest]
        check_fit(self.config.lead, self.lead.emits, self.config.rest, self.rest.emits)
        if self.lead.plans != "exact" or self.lead.table != self.rest.table:
            raise FitError(
                f"{self.config.lead} and {self.config.rest} must speak the same symbols for exactly as long as planned"
            )
        self.codec, self.recognizer = parts.codec, parts.recognizer
        self.emits, self.table, self.plans = self.rest.emits, self.rest.table, "exact"
        self.needs = {**self.lead.needs, **self.rest.needs}
        limits = self.lead.prompt_seconds, self.rest.prompt_seconds
        self.prompt_seconds = max(low for low, _ in limits), min(high for _, high in limits)

    def generate(self, utterance: Utterance, settings: MixedSettings | Mapping[str, Any] | None = None) -> Frames:
        """As many frames as planned, row after row. Raises as its two backends, and FitError: the lead is not asked to speak
        what comes after frames that are to be kept."""
        chosen: MixedSettings = _own(self, settings)
        if (chosen.lead_seconds or chosen.lead_books) and utterance.keep is not None:
            raise FitError(
                "a mixed backend leads from the beginning on, so not where frames are kept; set lead_seconds=0, lead_books=0"
            )
        if chosen.lead_books > self.emits.width:
            raise SettingsError(f"lead_books must be 0..{self.emits.width}, the books there are, got {chosen.lead_books}")
        lead, rest = _own(self.lead, chosen.lead), _own(self.rest, chosen.rest)
        chosen = replace(chosen, lead=lead, rest=rest)
        rows = [self._row(one(utterance, b), chosen) for b in range(len(utterance.seeds))]
        lengths = torch.cat([row.lengths for row in rows]) if rows else utterance.seeds
        T = int(lengths.max()) if rows else 0
        data = [torch.nn.functional.pad(row.data, (0, T - row.data.shape[2])) for row in rows]
        return Frames(torch.cat(data) if rows else torch.zeros(0, self.emits.width, 0).long(), lengths, self.emits)

    def _row(self, utterance: Utterance, settings: MixedSettings) -> Frames:
        assert utterance.plan is not None
        T = int(utterance.plan.frames(self.emits.rate)[0])
        n = min(T, round(settings.lead_seconds * float(self.emits.rate)))
        asked, rest = utterance, settings.rest
        if n or settings.lead_books:
            begun = self._begin(utterance, settings.lead, T if settings.lead_books else n)
            if n == T:
                return begun
            context = torch.nn.functional.pad(begun.data, (0, T - begun.data.shape[2]))
            keep = torch.arange(T, device=context.device)[None] < n
            asked = replace(utterance, context=Frames(context, utterance.plan.frames(self.emits.rate), self.emits), keep=keep)
        if settings.lead_books:
            rest = replace(rest, given_books=settings.lead_books)
        if not settings.weight:
            return self.rest.generate(asked, rest)
        assert isinstance(self.rest, Rescored)
        judge = Rescoring(self._judge(settings.judge, replace(utterance, context=None, keep=None)), settings.weight)
        return self.rest.rescored(asked, rest, judge)

    def _begin(self, utterance: Utterance, settings: Any, n: int) -> Frames:
        """The first n frames, by the lead."""
        assert isinstance(self.lead, Streaming)
        coming = [frames for frames, _ in zip(self.lead.stream(utterance, settings), range(n), strict=False)]
        if sum(int(frames.lengths) for frames in coming) < n:
            raise FitError(f"{self.config.lead} ended before its plan did; in a mixed backend it must keep to it, pointer=plan")
        codes = torch.cat([frames.data for frames in coming], dim=2)
        return Frames(codes, torch.tensor([n], device=codes.device), self.emits)

    def _judge(self, name: str, utterance: Utterance) -> LogProbs:
        if name == "lead":
            lead = self.lead
            if not isinstance(lead, Judge):
                raise FitError(f"{self.config.lead} cannot say how likely codes are; choose the recognizer as judge")
            return lambda book, codes, _own: lead.log_probs(utterance, self._frames(codes))[:, book]
        if not isinstance(self.codec, FrameCodec):
            raise FitError(
                "the recognizer hears codes through a codec over mels, and the system has none; choose the lead as judge"
            )
        return heard(utterance, self.codec, self.recognizer)

    def _frames(self, codes: Tensor) -> Frames:
        return Frames(codes, torch.full((len(codes),), codes.shape[2], device=codes.device), self.emits)


def _own(backend: Any, settings: Any) -> Any:
    """Settings of a backend, made of a mapping or of nothing where they are none yet. Raises SettingsError."""
    kind = backend.settings_type
    return settings if isinstance(settings, kind) else from_mapping(kind, settings if settings is not None else {})


def heard(utterance: Utterance, codec: FrameCodec, recognizer: Recognizer) -> LogProbs:
    """How surely a recognizer hears the phone that each frame of an utterance of one row is to say; pauses keep their own p."""
    assert utterance.plan is not None
    token_frames = utterance.plan.token_frames(codec.embeds.rate)
    ids = utterance.tokens.ids[:, : int(utterance.tokens.lengths[0])]
    wanted = torch.tensor([PHONES.to_recognizer[i] for i in ids[0].tolist()] + [0])  # the last: no token

    def log_probs(book: int, codes: Tensor, own: Tensor) -> Tensor:
        T = codes.shape[2]
        sizes = torch.tensor(codec.emits.sizes, device=codes.device)[:, None]
        known = codes.masked_fill(codes >= sizes, 0)
        lengths = torch.tensor([T], device=codes.device)
        mel = codec.embed(Frames(known, lengths, codec.emits), n_codebooks=book + 1)
        posteriors = recognizer.posteriors(mel).data[0].float()  # [V, T * mel frames a code]
        token, _ = lay(token_frames[:, : len(ids[0])].to(codes.device), posteriors.shape[1])
        phone = wanted.to(codes.device)[token[0]]
        said = posteriors.gather(0, phone.clamp(min=0)[None])[0].view(T, -1)
        return torch.where((phone > 0).view(T, -1).all(1)[None], said.mean(1)[None], own)

    return log_probs


def one(utterance: Utterance, b: int) -> Utterance:
    """Row b of an utterance, as wide as it was."""

    def cut(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x[b : b + 1]
        if isinstance(x, Mapping):
            return {name: cut(value) for name, value in x.items()}
        if hasattr(x, "__dataclass_fields__") and any(isinstance(value, Tensor | Mapping) for value in vars(x).values()):
            return type(x)(**{name: cut(value) for name, value in vars(x).items()})
        return x

    row: Utterance = cut(utterance)
    return row
