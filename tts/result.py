"""What comes back: the sound, the report on how it was made, or the failure of one request of a batch."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from tts.errors import MynahError
from tts.frames import Request


@dataclass(frozen=True)
class Sentence:
    """What became of one sentence, or of the part of one that a pause cuts off.

    passed: the verdict on the try that was kept; None: nobody listened. missed and repeated are phones, error_rate the share of
    wrong ones (see tts/asr/check.py).
    """

    text: str
    seed: int  # of the try that was kept
    tries: int
    planned_seconds: float
    seconds: float
    passed: bool | None = None
    missed: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    error_rate: float | None = None

    @property
    def complaint(self) -> str:
        """What to say of a sentence that failed its check, or ""."""
        if self.passed is not False:
            return ""
        faults = [
            f"{kind} {' '.join(phones)}" for kind, phones in (("missed", self.missed), ("repeated", self.repeated)) if phones
        ]
        often = f"the best of {self.tries} tries" if self.tries > 1 else "the only try"
        return f"In {self.text[:40]!r} {often} {' and '.join(faults)}; another seed may do better."


@dataclass(frozen=True)
class Edit:
    """Samples `old` of a recording, (first, last + 1), became samples `new`; cross-fades included."""

    old: tuple[int, int]
    new: tuple[int, int]


@dataclass(frozen=True)
class Model:
    """Which weights spoke. parts: the first digits of the SHA-256 of each part's weights."""

    name: str
    version: str
    licence: str
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """How an Audio was made, truthfully: also what went wrong and was kept since no try was better.

    planned_seconds: of the whole, pauses included. spent_seconds: wall time; stages: the same by stage; of what was made beside
    other requests (tts/together.py) its share, by length, so that they about add up. first_audio_seconds: of a stream, what of
    it was spent when the first samples were out. edits: of an edited recording, one for each of its `sentences`; all other
    samples are the recording's.
    """

    seed: int
    sentences: tuple[Sentence, ...]
    planned_seconds: float
    seconds: float
    spent_seconds: float
    stages: Mapping[str, float]
    warnings: tuple[str, ...]
    model: Model
    backend: str
    settings: Mapping[str, Any]
    language: str
    real_time_factor: float  # seconds spent for each second of sound; 0 where there is none
    first_audio_seconds: float | None = None
    edits: tuple[Edit, ...] = ()

    @property
    def tries(self) -> int:
        return sum(sentence.tries for sentence in self.sentences)

    @property
    def checked(self) -> bool:
        """Whether the recognizer listened to every sentence."""
        return all(sentence.passed is not None for sentence in self.sentences)

    @property
    def missed(self) -> tuple[str, ...]:
        """Phones asked for and not heard."""
        return tuple(phone for sentence in self.sentences for phone in sentence.missed)

    @property
    def repeated(self) -> tuple[str, ...]:
        """Phones heard twice in a row."""
        return tuple(phone for sentence in self.sentences for phone in sentence.repeated)

    def provenance(self) -> dict[str, Any]:
        """What a file says about where it comes from: whatever made its samples, and no time of day."""
        return {
            "generator": "mynah-tts",
            "model": asdict(self.model),
            "backend": self.backend,
            "settings": dict(self.settings),
            "language": self.language,
            "seed": self.seed,
            "seeds": [sentence.seed for sentence in self.sentences],
            **({"edits": [edit.new for edit in self.edits]} if self.edits else {}),
        }


@dataclass(frozen=True)
class CopyReport:
    """How the copy of a recording was made. n_codebooks 0: by the vocoder alone, and there is no bit rate."""

    n_codebooks: int
    bits_per_second: float | None
    seconds: float
    spent_seconds: float
    real_time_factor: float  # seconds spent for each second of sound; 0 where there is none
    stages: Mapping[str, float]
    model: Model

    def provenance(self) -> dict[str, Any]:
        """As that of a Report."""
        return {"generator": "mynah-tts", "model": asdict(self.model), "copy": True, "n_codebooks": self.n_codebooks}


Told = TypeVar("Told", Report, CopyReport)


@dataclass(frozen=True)
class Audio(Generic[Told]):
    """Speech: samples float32 [N] in [-1, 1], sample_rate in Hz, and the report on how it was made or copied."""

    samples: np.ndarray
    sample_rate: int
    report: Told

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write wav, flac, ogg, opus or mp3, as the extension says, whole or not at all. Raises OutputError."""
        import torch

        from tts.audio import save

        return save(path, torch.from_numpy(self.samples), self.sample_rate, **self.report.provenance())

    def encode(self, extension: str) -> bytes:
        """The bytes of such a file; extension: ".wav" and so on. Raises OutputError."""
        import torch

        from tts.audio import encode

        return encode(torch.from_numpy(self.samples), self.sample_rate, extension, provenance=self.report.provenance())

    def _repr_html_(self) -> str:
        """A player, where a notebook shows it."""
        return f'<audio controls src="data:audio/wav;base64,{b64encode(self.encode(".wav")).decode()}"></audio>'


@dataclass(frozen=True)
class Failure:
    """A request of a batch that could not be spoken, and why."""

    request: Request
    error: MynahError
