"""Speech while it is being made: a line's frames become sound in pieces, as soon as the sound can no longer change.

backend   c c c c c c c c c c c c c c c c c c …            codes or frames, as they are made
          ├──── wait ────┤├ 1 ┤├── 2 ──┤├──── 3 ────┤      `wait`: what vocoder and codec hear of the future
sound                     ├ 1 ┤├── 2 ──┤├──── 3 ────┤      small pieces first, for a quick start; then larger, cheaper ones

A backend that streams is heard in these pieces always, so that its stream and what it says at once are the same samples.
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
# Seconds of codes that a stream hears before and after a piece. What lies beyond changes base-en's samples by -40 dB (measured:
# 0.24 s after, 40 dB; 0.16 s, 24 dB; 0.32 s, 53 dB), and waiting for all of it, 1.28 s, would be all that a listener hears.
BEFORE, AFTER = 0.48, 0.24


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
    """A Vocoder of codes: a codec and the vocoder behind it, whose contexts add up.

    most: codes (before, after) that are listened to at most; None: all that could matter.
    """

    def __init__(self, codec: Codec, vocoder: Vocoder, most: tuple[int, int] | None = None) -> None:
        self.codec, self.vocoder = codec, vocoder
        self.accepts, self.sample_rate = codec.emits, vocoder.sample_rate
        per_code = codec.embeds.rate / codec.emits.rate
        left, right = (ceil(sum(side) / per_code) for side in zip(codec.context, vocoder.context, strict=True))
        self.context = (left, right) if most is None else (min(left, most[0]), min(right, most[1]))

    def decode(self, frames: Frames) -> Wave:
        return self.vocoder.decode(self.codec.embed(frames))


@torch.inference_mode()
def sound(parts: Parts, backend: Backend, utterance: Utterance, settings: Any, clock: Clock) -> Iterator[Tensor]:
    """The samples [N] of an utterance of one row, in pieces; a backend that cannot stream makes its frames at once.

    Joined, they are those of `sound_of` all frames. clock: is told of the stages "backend" and "vocoder".
    """
    with closing(_made(backend, utterance, settings, clock)) as frames:
        waves = _heard(parts, backend, frames)
        while True:
            before = clock.spent["backend"]
            with clock("vocoder"):
                wave = next(waves, None)
            clock.spent["vocoder"] -= clock.spent["backend"] - before  # which has worked meanwhile
            if wave is None:
                return
            yield wave.samples[0].float().cpu()


def sound_of(parts: Parts, backend: Backend, frames: Frames) -> Tensor:
    """The samples [N] of all frames of one row that a backend has made."""
    if frames.data.shape[2] > int(frames.lengths[0]):
        frames = Frames(frames.data[..., : int(frames.lengths[0])], frames.lengths, frames.spec)
    waves = [wave.samples[0].float().cpu() for wave in _heard(parts, backend, iter([frames]))]
    return torch.cat(waves) if waves else torch.zeros(0)


def _heard(parts: Parts, backend: Backend, frames: Iterator[Frames]) -> Iterator[Wave]:
    vocoder, rate = parts.vocoder, float(backend.emits.rate)
    streams = isinstance(backend, Streaming)
    if backend.emits.kind == "codes":
        assert parts.codec is not None
        most = (round(BEFORE * rate), round(AFTER * rate)) if streams else None
        vocoder = CodeVocoder(parts.codec, vocoder, most)
    return decode_stream(vocoder, grouped(frames, vocoder.context[1], rate) if streams else frames)


def grouped(frames: Iterator[Frames], wait: int, rate: float) -> Iterator[Frames]:
    """The same frames in pieces: the first of `wait` frames and FIRST_PIECE seconds, the last of what is left."""
    seconds = FIRST_PIECE
    size = wait + ceil(seconds * rate)
    held: list[Frames] = []
    for chunk in frames:
        held.append(chunk)
        while sum(piece.data.shape[2] for piece in held) >= size:
            whole = _joined(held).data
            yield _frames(whole[..., :size], chunk)
            held = [_frames(whole[..., size:], chunk)]
            seconds = min(2 * seconds, LONGEST_PIECE)
            size = ceil(seconds * rate)
    if sum(piece.data.shape[2] for piece in held):
        yield _joined(held)


def _joined(held: list[Frames]) -> Frames:
    return _frames(torch.cat([piece.data for piece in held], dim=2), held[0])


def _frames(data: Tensor, like: Frames) -> Frames:
    return Frames(data, torch.full((len(data),), data.shape[2], device=data.device), like.spec)


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
