"""Speech while it is being made: a line's frames become sound in pieces, as soon as the sound can no longer change.

backend   c c c c c c c c c c c c c c c c c c …            codes or frames, as they are made
          ├──── wait ────┤├ 1 ┤├── 2 ──┤├──── 3 ────┤      `wait`: what vocoder and codec hear of the future
sound                     ├ 1 ┤├── 2 ──┤├──── 3 ────┤      small pieces first, for a quick start; then larger, cheaper ones
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tts.clock import Clock
from tts.frames import Frames, Utterance, Wave
from tts.interfaces import Backend, Codec, Streaming, Vocoder
from tts.parts import Parts
from tts.result import Report
from tts.vocoders.streaming import decode_stream

FIRST_PIECE, LONGEST_PIECE = 0.12, 0.96  # seconds; each piece is twice as long as the one before


class Stream(Iterator[np.ndarray]):
    """Chunks of samples, float32 [N] in [-1, 1], at `sample_rate` Hz. Nothing is made before it is asked for.

    report: None until the last chunk is out. `close()`, or the end of a `with` block, ends it early and frees all it holds.
    """

    def __init__(self, chunks: Generator[np.ndarray, None, Report], sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.report: Report | None = None
        self._chunks = chunks

    def __next__(self) -> np.ndarray:
        try:
            return next(self._chunks)
        except StopIteration as end:
            self.report = end.value if end.value is not None else self.report
            raise

    def close(self) -> None:
        self._chunks.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class CodeVocoder:
    """A Vocoder of codes: a codec and the vocoder behind it, whose contexts add up."""

    def __init__(self, codec: Codec, vocoder: Vocoder) -> None:
        self.codec, self.vocoder = codec, vocoder
        self.accepts, self.sample_rate = codec.emits, vocoder.sample_rate
        per_code = codec.embeds.rate / codec.emits.rate
        left, right = (ceil(sum(side) / per_code) for side in zip(codec.context, vocoder.context, strict=True))
        self.context = (left, right)

    def decode(self, frames: Frames) -> Wave:
        return self.vocoder.decode(self.codec.embed(frames))


@torch.inference_mode()
def sound(parts: Parts, backend: Backend, utterance: Utterance, settings: Any, clock: Clock) -> Iterator[Tensor]:
    """The samples [N] of an utterance of one row, in pieces; a backend that cannot stream makes its frames at once.

    Joined, they are the samples of `parts.vocoder` on all frames, to 1e-5.
    clock: is told of the stages "backend" and "vocoder".
    """
    vocoder = parts.vocoder
    if backend.emits.kind == "codes":
        assert parts.codec is not None
        vocoder = CodeVocoder(parts.codec, vocoder)
    with closing(_made(backend, utterance, settings, clock)) as frames:
        pieces = grouped(frames, vocoder.context[1], float(backend.emits.rate))
        waves = decode_stream(vocoder, pieces)
        while True:
            before = clock.spent["backend"]
            with clock("vocoder"):
                wave = next(waves, None)
            clock.spent["vocoder"] -= clock.spent["backend"] - before  # which has worked meanwhile
            if wave is None:
                return
            yield wave.samples[0].float().cpu()


def grouped(frames: Iterator[Frames], wait: int, rate: float) -> Iterator[Frames]:
    """Frames, a few at a time, as pieces: the first of `wait` frames and FIRST_PIECE seconds, the last of what is left."""
    seconds = FIRST_PIECE
    size = wait + ceil(seconds * rate)
    held: list[Frames] = []
    for chunk in frames:
        held.append(chunk)
        if sum(piece.data.shape[2] for piece in held) >= size:
            yield _joined(held)
            held = []
            seconds = min(2 * seconds, LONGEST_PIECE)
            size = ceil(seconds * rate)
    if held:
        yield _joined(held)


def _joined(held: list[Frames]) -> Frames:
    data = torch.cat([piece.data for piece in held], dim=2)
    return Frames(data, torch.full((len(data),), data.shape[2], device=data.device), held[0].spec)


def _made(backend: Backend, utterance: Utterance, settings: Any, clock: Clock) -> Generator[Frames]:
    """The backend's frames, as they come."""
    if not isinstance(backend, Streaming):
        with clock("backend"):
            frames = backend.generate(utterance, settings)
        yield frames
        return
    coming = backend.stream(utterance, settings)
    while True:
        with clock("backend"):
            chunk = next(coming, None)
        if chunk is None:
            return
        yield chunk
