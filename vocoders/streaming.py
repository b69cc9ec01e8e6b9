"""Sound while the frames are still being made: any Vocoder decodes a stream in chunks, and says what it would say at once.

    frames      0 . . . . . . . . . . . . . . . . .          have come so far
                ├── said ────────┤├ say now ┤├─ R ─┤         the last R must wait: their samples need frames that will come
                        ├─── L ──┤                           the last L that were said are kept, to be heard again
                        ├──────── decoded ─────────┤
                                  ├─ kept ──┤                what lies outside is cut off the decoded sound

(L, R) is the context that the vocoder declares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from tts.errors import ShapeError
from tts.frames import Frames, Wave, check_fit
from tts.interfaces import Vocoder, samples_per_frame


def decode_stream(vocoder: Vocoder, chunks: Iterable[Frames]) -> Iterator[Wave]:
    """The sound of `vocoder.decode` on all chunks joined, to 1e-5, piece by piece as they come.

    Latency: with n frames come, the samples of the first n - R are out, R = vocoder.context[1]; the rest follow with the end of
    the stream. That is R / rate seconds behind: 0.58 s for base-en's Vocos (29 frames of 50 Hz), 0.48 s for HiFi-GAN's default.
    Work: a piece of n frames costs what decoding L + n + R does, so pieces shorter than the context are dear.

    Args:
        vocoder: one whose samples follow from the frames around them; Griffin-Lim's start phase depends on where they stand.
        chunks: frames of `vocoder.accepts`, any number at a time, none too; the rows of a chunk are of one length, and all
            chunks have as many rows. The state of the stream lives in the iterator that is returned, none in the vocoder.
    Returns:
        An iterator of waves [B, N], N > 0, whose rows are of one length. An empty stream has none.
    Raises (at the chunk):
        FitError: frames of another spec. ShapeError: rows of unequal length, or another number of rows.
    """
    left, right = vocoder.context
    held: Tensor | None = None  # [B, width, T], the frames that are still needed
    said = 0  # how many of them have been said, and are there as context
    for chunk in chunks:
        _check(chunk, vocoder, held)
        held = chunk.data if held is None else torch.cat([held, chunk.data], dim=-1)
        ready = held.shape[-1] - right
        if ready > said:
            yield _say(vocoder, held, said, ready)
            dropped = max(0, ready - left)
            held, said = held[..., dropped:], ready - dropped
    if held is not None and held.shape[-1] > said:
        rest = _say(vocoder, held, said, None)
        if rest.samples.shape[-1] > 0:  # on the "center" grid the last frame has no samples of its own
            yield rest


def _check(chunk: Frames, vocoder: Vocoder, held: Tensor | None) -> None:
    check_fit("this chunk", chunk.spec, "the vocoder", vocoder.accepts)
    B, _, T = chunk.data.shape
    if (chunk.lengths != T).any():
        raise ShapeError(f"the rows of a chunk must be of one length, {T} frames, got {chunk.lengths.tolist()}")
    if held is not None and len(held) != B:
        raise ShapeError(f"every chunk of a stream must have as many rows as the first, {len(held)}, got {B}")


def _say(vocoder: Vocoder, held: Tensor, first: int, end: int | None) -> Wave:
    """The samples of frames first to end (None: to the end of the sound) of those held."""
    B, _, T = held.shape
    hop = samples_per_frame(vocoder.sample_rate, vocoder.accepts.rate)
    whole = vocoder.decode(Frames(held, torch.full((B,), T, device=held.device), vocoder.accepts)).samples
    samples = whole[:, first * hop : None if end is None else end * hop]
    return Wave(samples, torch.full((B,), samples.shape[-1], device=held.device), vocoder.sample_rate)
