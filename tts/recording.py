"""A recording from outside becomes samples, or is refused in a sentence that says what to do."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from tts.errors import PromptError

RATES = (8_000, 192_000)  # Hz, lowest and highest that are read
MAX_CHANNELS = 8
SECONDS = (0.5, 600.0)  # shortest and longest recording that is read
SILENCE = 1e-4  # peak amplitude (-80 dB of full scale) below which a recording says nothing


def load(source: Any) -> tuple[Tensor, int, list[str]]:
    """Read a recording.

    Args:
        source: a path; an open binary file; or (samples, rate) with samples [N], [channels, N] or [N, channels], a NumPy
            array, a tensor or a list, floats in [-1, 1] or integers of full scale. Files: whatever libsndfile reads.
    Returns:
        samples [N] float32, the mean of the channels; the sample rate in Hz; a sentence for each thing that will cost quality.
    Raises:
        PromptError: as `read`, and silent or outside SECONDS.
    """
    name, blocks, rate = _blocks(source, SECONDS[1])
    samples = _mono(name, blocks)
    _check_length(name, len(samples) / rate)
    if np.abs(samples - samples.mean()).max() < SILENCE:
        raise PromptError(f"{name} is silent; give a recording in which somebody speaks")
    full_scale = sum(int((np.abs(block) >= 0.999).any(axis=1).sum()) for block in blocks) / len(samples)
    return torch.from_numpy(samples), rate, _complaints(samples, rate, blocks[0].shape[1], full_scale)


def read(source: Any) -> tuple[Tensor, int]:
    """Read a recording of any length, a silent one too; for those who only copy it.

    Args:
        source: as `load` takes it.
    Returns:
        samples [N] float32, N at least 1, the mean of the channels; the sample rate in Hz.
    Raises:
        PromptError: missing, empty, truncated, not audio, not finite, or outside RATES or MAX_CHANNELS.
    """
    name, blocks, rate = _blocks(source, float("inf"))
    return torch.from_numpy(_mono(name, blocks)), rate


def _blocks(source: Any, longest: float) -> tuple[str, list[np.ndarray], int]:
    """What to call a source in a message, its samples as blocks [n, channels] float32, and its rate in Hz."""
    if isinstance(source, tuple) and len(source) == 2:
        return "the array of samples", *_array_blocks(*source)
    name, file = _open(source)
    with file:
        return name, *_file_blocks(name, file, longest)


def _mono(name: str, blocks: list[np.ndarray]) -> np.ndarray:
    """The mean of the channels, [N] float32. Raises PromptError where there is nothing, or what is no number."""
    if not sum(map(len, blocks)):
        raise PromptError(f"{name} holds no samples: it is empty or truncated; copy or record it again")
    samples = np.concatenate([block.mean(axis=1) for block in blocks])
    if not np.isfinite(samples).all():
        raise PromptError(f"{name} holds samples that are not numbers (NaN or infinite); record or export it again")
    return np.ascontiguousarray(samples, dtype=np.float32)


def _open(source: Any) -> tuple[str, BinaryIO]:
    """What to call a source in a message, and the source as a seekable binary file."""
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "the file object"))
        try:
            data = source.read()
        except (OSError, ValueError) as error:
            raise PromptError(f"{name} cannot be read ({error}); give an open binary file") from error
        if not isinstance(data, bytes):
            raise PromptError(f"{name} gives text, not bytes; open it in mode 'rb'")
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        name = str(path)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise PromptError(f"{name} does not exist; give the path of a recording") from error
        except IsADirectoryError as error:
            raise PromptError(f"{name} is a folder; give the path of one recording in it") from error
        except (OSError, ValueError) as error:
            raise PromptError(f"{name} cannot be read ({error}); check the path and its permissions") from error
    else:
        got = type(source).__name__
        raise PromptError(f"a recording is a path, an open binary file or (samples, rate), got {got}")
    if not data:
        raise PromptError(f"{name} is empty; give a recording in which somebody speaks")
    return name, io.BytesIO(data)


def _file_blocks(name: str, file: BinaryIO, longest: float) -> tuple[list[np.ndarray], int]:
    """All samples of a sound file, at most `longest` seconds, as blocks [n, channels] float32, and its rate in Hz."""
    import soundfile

    data = file.read()
    file.seek(0)
    # A stream's header says 0 or nearly 2 or 4 GiB for "unknown"; some writers are a few bytes off.
    declared = int.from_bytes(data[4:8], "big" if data[:4] == b"FORM" else "little")
    if data[:4] + data[8:12] in (b"RIFFWAVE", b"FORMAIFF", b"FORMAIFC") and len(data) + 64 < declared < 0x7FFF_0000:
        raise PromptError(f"{name} is truncated: it holds {len(data)} of {declared + 8} bytes; copy or record it again")
    if _ends_within_page(data):
        raise PromptError(f"{name} is truncated: it ends in the middle of a page; copy or record it again")
    try:
        with soundfile.SoundFile(file) as sound:
            rate, declared = sound.samplerate, sound.frames
            _check_shape(name, rate, sound.channels)
            if declared < 2**62:  # a streamed FLAC does not know its length
                _check_length(name, declared / rate, 0.0, longest)
            blocks: list[np.ndarray] = []
            count = 0
            while len(block := sound.read(rate, dtype="float32", always_2d=True)):
                blocks.append(block)
                count += len(block)
                _check_length(name, count / rate, 0.0, longest)
    except soundfile.LibsndfileError as error:
        raise PromptError(
            f"{name} is not a sound file, or a broken one ({error.error_string}); give wav, flac, ogg, opus or mp3"
        ) from error
    if declared < 2**62 and declared - count > 0.1 * rate:
        raise PromptError(f"{name} is truncated: it holds {count} of {declared} samples; copy or record it again")
    return blocks, rate


def _ends_within_page(data: bytes) -> bool:
    """Whether a file is cut Ogg, which libsndfile would read as a shorter recording. Pages: RFC 3533, section 6."""
    start = 0
    while data[start : start + 4] == b"OggS":
        sizes = data[start + 27 : start + 27 + data[start + 26]] if start + 27 <= len(data) else b""
        end = start + 27 + len(sizes) + sum(sizes)
        if end > len(data) or len(sizes) < data[start + 26]:
            return True
        start = end
    return False


def _array_blocks(samples: Any, rate: Any) -> tuple[list[np.ndarray], int]:
    """Samples in memory as one block [n, channels] float32, and the rate in Hz."""
    name = "the array of samples"
    data = samples.detach().cpu().float().numpy() if isinstance(samples, Tensor) and samples.is_floating_point() else samples
    try:
        data = np.asarray(data)
        hertz = int(rate)
    except (TypeError, ValueError, OverflowError) as error:
        raise PromptError(f"{name} is not numbers with a sample rate ({error}); give (samples, rate)") from error
    if hertz != rate:
        raise PromptError(f"{name} has a rate of {rate} Hz; give a whole number of Hz")
    if data.ndim not in (1, 2) or data.dtype.kind not in "iuf":
        raise PromptError(
            f"{name} is {data.dtype} of shape {data.shape}; give [N], [channels, N] or [N, channels] real numbers"
        )
    if data.dtype.kind == "i":
        data = data / -float(np.iinfo(data.dtype).min)
    elif data.dtype.kind == "u":  # as in 8-bit wav files, silence is the middle of the range
        middle = (np.iinfo(data.dtype).max + 1) / 2
        data = data / middle - 1
    if data.ndim == 1:
        data = data[:, None]  # [N, 1]
    elif data.shape[0] < data.shape[1]:
        data = data.T  # [N, channels]
    _check_shape(name, hertz, data.shape[1])
    return [data.astype(np.float32)], hertz


def _check_shape(name: str, rate: int, channels: int) -> None:
    low, high = RATES
    if not low <= rate <= high:
        raise PromptError(f"{name} has a sample rate of {rate} Hz; {low} to {high} Hz are accepted, resample it")
    if not 1 <= channels <= MAX_CHANNELS:
        raise PromptError(f"{name} has {channels} channels; 1 to {MAX_CHANNELS} are accepted, mix it down")


def _check_length(name: str, seconds: float, shortest: float = SECONDS[0], longest: float = SECONDS[1]) -> None:
    if not shortest <= seconds <= longest:
        got = f"{seconds:.2f} seconds" if seconds < 60 else f"{seconds / 60:.1f} minutes"
        raise PromptError(
            f"{name} is {got} long; {SECONDS[0]:g} seconds to {SECONDS[1] / 60:g} minutes are accepted, "
            "and 3 to 12 seconds of clear speech are best"
        )


def _complaints(samples: np.ndarray, rate: int, channels: int, full_scale: float) -> list[str]:
    """Sentences on what will cost quality; full_scale is the share of samples at the limit of the format."""
    warnings = []
    if rate < 16_000:
        warnings.append(
            f"The recording has a low sample rate ({rate} Hz), so the voice will sound dull; 16000 Hz or more is better."
        )
    if channels > 2:
        warnings.append(f"The recording has {channels} channels, which were averaged; one microphone is better.")
    if full_scale > 5e-4:
        warnings.append(
            f"The recording is clipped ({full_scale:.1%} of its samples are at full scale); record it at a lower gain."
        )
    longest, total = _silences(samples, rate)
    if longest > 2.0 or total > 0.5 * len(samples) / rate:
        warnings.append(
            f"The recording is silent for {total:.1f} of {len(samples) / rate:.1f} seconds; continuous speech is better."
        )
    return warnings


def _silences(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """Seconds of the longest silence and of all silences: blocks of 50 ms that are 40 dB below the loudest one."""
    block = rate // 20
    energy = np.square(samples[: len(samples) // block * block].reshape(-1, block)).mean(axis=1)
    longest = run = total = 0
    for quiet in energy < 1e-4 * energy.max():
        run = run + 1 if quiet else 0
        longest = max(longest, run)
        total += int(quiet)
    return longest / 20, total / 20
