"""All metrics of a set of clips: what each of them scores, by the instruments that are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tts.eval.packages import optional
from tts.eval.quality import RATE, dnsmos, pesq_wb, stoi
from tts.eval.speaker import Resemblyzer, SpeakerEncoder, similarity
from tts.eval.wer import Asr, PocketsphinxAsr, lost_words, transcribe_all, word_errors

SPEECH_DB = 40.0  # speech begins and ends where the sound comes within this of its loudest 50 ms

# (samples [N] at 16 kHz, text) -> (phone errors, phones of the text)
PhoneErrors = Callable[[np.ndarray, str], tuple[int, int]]
# (samples [N] at 16 kHz, text) -> what was heard and what was not, see `tts.eval.phones.PhoneEars.said`
Listener = Callable[[np.ndarray, str], dict[str, Any]]
# (samples [N] at 16 kHz, text) -> (phone, start, end) in seconds, for each phone of the text; [] where they do not fit in
Aligner = Callable[[np.ndarray, str], list[tuple[str, float, float]]]


@dataclass(frozen=True)
class Meters:
    """The instruments; a metric whose instrument is None is left out."""

    asr: Asr | None = field(default_factory=PocketsphinxAsr)
    speaker: SpeakerEncoder | None = field(default_factory=Resemblyzer)
    quality: Callable[[np.ndarray], dict[str, float]] | None = dnsmos
    phones: PhoneErrors | None = None
    align: Aligner | None = None
    said: Listener | None = None
    workers: int = 2  # processes of the recognizer of words
    cache: Path | None = None  # transcripts, see `transcribe_all`

    @property
    def names(self) -> dict[str, str | None]:
        """What measured, for the report."""
        quality = None if self.quality is None else f"{self.quality.__module__}.{self.quality.__qualname__}"
        return {
            "asr": self.asr.name if self.asr else None,
            "speaker": self.speaker.name if self.speaker else None,
            "quality": quality,
        }

    def require(self) -> None:
        """Raise MissingPackageError now rather than after an hour of synthesis."""
        packages = ["librosa", "matplotlib"]
        packages += ["jiwer"] if self.asr is not None else []
        packages += ["speechmos.dnsmos"] if self.quality is dnsmos else []
        for name in packages:
            optional(name)
        _ = self.names  # which asks each instrument for its version


@dataclass(frozen=True)
class Clip:
    """One sound to measure, [N] float32 at 16 kHz; what it cannot be compared with is None."""

    id: str
    samples: np.ndarray
    text: str | None = None
    voice: np.ndarray | None = None  # a recording of the speaker it should sound like
    reference: np.ndarray | None = None  # the recording it should equal, sample by sample
    planned_seconds: float | None = None


def measure(clips: Sequence[Clip], meters: Meters) -> list[dict[str, Any]]:
    """What each clip scores, in order; the keys are those that `tts.eval.report.METRICS` is made of."""
    rows: list[dict[str, Any]] = [{"id": clip.id} for clip in clips]
    # 1. words
    if meters.asr is not None:
        spoken = [(clip, row) for clip, row in zip(clips, rows, strict=True) if clip.text is not None]
        sounds = [clip.samples for clip, _ in spoken]
        for (clip, row), heard in zip(
            spoken, transcribe_all(meters.asr, sounds, RATE, meters.workers, meters.cache), strict=True
        ):
            errors, words = word_errors(clip.text or "", heard)
            row |= {"text": clip.text, "heard": heard, "word_errors": errors, "words": words}
            row["words_lost"] = lost_words(clip.text or "", heard)
            row |= {"utterance_wer": errors / words} if words else {}
    # 2. everything else
    for clip, row in zip(clips, rows, strict=True):
        row |= _measure_one(clip, meters)
    return rows


def _measure_one(clip: Clip, meters: Meters) -> dict[str, Any]:
    start, end = speech_extent(clip.samples)
    seconds = len(clip.samples) / RATE
    row: dict[str, Any] = {"seconds": seconds, "speech_seconds": end - start, "empty": float(end == start)}
    if clip.planned_seconds is not None:
        row["filled"] = (end - start) / clip.planned_seconds
        row["well_filled"] = float(0.7 <= row["filled"] <= 1.0)
    if meters.phones is not None and clip.text is not None:
        errors, phones = meters.phones(clip.samples, clip.text)
        row |= {"phone_errors": errors, "phones": phones}
    if meters.said is not None and clip.text is not None:
        row |= meters.said(clip.samples, clip.text)
    if meters.align is not None and clip.text is not None:
        spans = meters.align(clip.samples, clip.text)
        inside = all(0 <= start < end <= seconds + 1e-6 for _, start, end in spans)
        row |= {"alignment": spans, "aligned": float(bool(spans) and inside)}
    if meters.speaker is not None and clip.voice is not None:
        row["sim"] = similarity(meters.speaker.embed(clip.samples, RATE), meters.speaker.embed(clip.voice, RATE))
    if meters.quality is not None:
        row |= meters.quality(clip.samples)
    if clip.reference is not None:
        row |= {"pesq": pesq_wb(clip.reference, clip.samples), "stoi": stoi(clip.reference, clip.samples)}
    return row


def speech_extent(samples: np.ndarray) -> tuple[float, float]:
    """Seconds at which speech begins and ends in samples [N]: the first and last 50 ms within SPEECH_DB of the loudest.

    Both are 0 where the clip is empty or silent (peak below -60 dB of full scale).
    """
    if not len(samples) or np.abs(samples).max() < 1e-3:
        return 0.0, 0.0
    from librosa.effects import trim

    _, (start, end) = trim(samples, top_db=SPEECH_DB, frame_length=RATE // 20, hop_length=RATE // 100)
    return float(start / RATE), float(end / RATE)


def read_clip(path: str | Path) -> np.ndarray:
    """A sound file, silent and empty ones too, as [N] float32 at 16 kHz, the mean of its channels."""
    import torch

    from tts.audio import resample

    samples, rate = optional("soundfile").read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples.mean(axis=1))
    return resample(mono, rate, RATE).numpy() if len(mono) else mono.numpy()
