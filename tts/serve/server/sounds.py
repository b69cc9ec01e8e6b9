"""Samples become the bytes of a sound file while they are still being made.

samples ─► 24 kHz, for pcm ─► libsndfile ─► Pipe ─► bytes, as soon as a block or a page of the format is full

A file's header is out before its length is known. So a wav says "as long as it goes", and what mp3 would write over its
beginning at the end is left out. A flac without its length is one that libsndfile cannot read: it comes at the end, whole.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tts.audio import FORMATS, encode, resample
from tts.errors import SettingsError

PCM_RATE = 24_000  # Hz: what OpenAI's pcm has, and their clients play
UNKNOWN = 0xFFFF_FFFF  # the length of a wav that nobody knows yet
TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "flac": "audio/flac", "wav": "audio/wav", "pcm": "audio/pcm"}
MARGIN = 16  # samples on both sides that the filter of `resample` reads; it reads 7 for 16 to 24 kHz


class Writer(Protocol):
    """Samples float32 [N] in, bytes out; those of all calls and of `close` are the file."""

    def __call__(self, samples: np.ndarray) -> bytes: ...

    def close(self) -> bytes: ...


def open_writer(kind: str, rate: int, provenance: Mapping[str, Any]) -> Writer:
    """A writer of "wav", "flac", "opus", "mp3" or "pcm" (16 bits, little-endian, 24 kHz); rate: of the samples, in Hz.

    provenance: where the sound comes from, for the file's comment; pcm and wav have no place for it.
    """
    if kind == "pcm":
        return Pcm(rate, PCM_RATE)
    if kind == "wav":
        return Wav(rate)
    if kind == "flac":
        return Flac(rate, provenance)
    if kind in TYPES:
        return Packed(kind, rate, provenance)
    raise SettingsError(f"the format must be one of {', '.join(TYPES)}, got {kind!r}")


def sixteen_bits(samples: np.ndarray) -> bytes:
    """As `tts.audio.encode` rounds."""
    return np.rint(np.clip(samples, -1, 1) * 32768.0).clip(-32768, 32767).astype("<i2").tobytes()


class Pcm:
    """Plain samples at another rate."""

    def __init__(self, rate: int, wanted: int) -> None:
        self._resampler = Resampler(rate, wanted)

    def __call__(self, samples: np.ndarray) -> bytes:
        return sixteen_bits(self._resampler(samples))

    def close(self) -> bytes:
        return sixteen_bits(self._resampler.close())


class Wav:
    """A header that does not know the length, then samples."""

    def __init__(self, rate: int) -> None:
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
        self._header = struct.pack("<4sI4s", b"RIFF", UNKNOWN, b"WAVE") + form + struct.pack("<4sI", b"data", UNKNOWN)

    def __call__(self, samples: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + sixteen_bits(samples)

    def close(self) -> bytes:
        return self(np.zeros(0, np.float32))


class Flac:
    """Nothing, and then everything."""

    def __init__(self, rate: int, provenance: Mapping[str, Any]) -> None:
        self._rate, self._provenance = rate, dict(provenance)
        self._held: list[np.ndarray] = []

    def __call__(self, samples: np.ndarray) -> bytes:
        self._held.append(samples)
        return b""

    def close(self) -> bytes:
        samples = torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *self._held]))
        return encode(samples, self._rate, ".flac", provenance=self._provenance)


class Packed:
    """Through libsndfile, which writes whenever it has enough."""

    def __init__(self, kind: str, rate: int, provenance: Mapping[str, Any]) -> None:
        import soundfile

        container, subtype = FORMATS[f".{kind}"]
        # A player guesses the length of an mp3 without a table from its first frames, so these are all alike.
        how = {"bitrate_mode": "CONSTANT", "compression_level": 0.5} if kind == "mp3" else {}
        self._pipe = Pipe()
        self._file = soundfile.SoundFile(self._pipe, "w", rate, 1, subtype, format=container, **how)
        self._file.comment = json.dumps(dict(provenance), sort_keys=True, default=str)

    def __call__(self, samples: np.ndarray) -> bytes:
        self._file.write(samples)
        return self._pipe.take()

    def close(self) -> bytes:
        self._file.close()
        return self._pipe.take()


class Pipe(io.RawIOBase):
    """What libsndfile takes for a file: it may go back and write anew, but what was once written stays as it was."""

    def __init__(self) -> None:
        self._at = self._end = 0
        self._ready = bytearray()

    def write(self, data: Any) -> int:
        data = bytes(data)
        self._ready += data[max(0, self._end - self._at) :]
        self._at += len(data)
        self._end = max(self._end, self._at)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def take(self) -> bytes:
        """The bytes that were written since the last time."""
        ready, self._ready = bytes(self._ready), bytearray()
        return ready


class Resampler:
    """`tts.audio.resample` in pieces: joined, they are what it makes of the whole.

    held   └ before ┘├──── turned now ────┤└ MARGIN ┘         what lies in the margins is heard, and made another time
    """

    def __init__(self, old: int, new: int) -> None:
        self._turn: Callable[[Tensor], Tensor] = lambda samples: resample(samples, old, new)
        self._old, self._new = (rate // np.gcd(old, new) for rate in (old, new))
        self._margin = -(-MARGIN // self._old) * self._old  # so that both edges fall on a sample of either rate
        self._held = torch.zeros(0)
        self._before = 0  # samples of `held` that were turned already

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        self._held = torch.cat((self._held, torch.from_numpy(samples)))
        ready = (len(self._held) - self._before - self._margin) // self._old * self._old
        return self._next(self._before + ready, len(self._held)) if ready > 0 else np.zeros(0, np.float32)

    def close(self) -> np.ndarray:
        return self._next(len(self._held), len(self._held))

    def _next(self, until: int, heard: int) -> np.ndarray:
        if until == self._before:
            return np.zeros(0, np.float32)
        turned = self._turn(self._held[:heard])
        first = self._before // self._old * self._new
        last = until // self._old * self._new if until < heard else len(turned)
        keep = min(until, self._margin)
        self._held, self._before = self._held[until - keep :], keep
        return turned[first:last].numpy()
