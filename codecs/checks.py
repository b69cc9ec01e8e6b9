"""What every codec refuses at its door: codes that are not its own, counts of codebooks that it lacks, an empty wave."""

from __future__ import annotations

import torch
from torch import Tensor

from tts.errors import FitError, InputError, SettingsError
from tts.frames import Frames, FrameSpec, Wave, check_fit


def check_wave(wave: Wave, sample_rate: int) -> None:
    """Raise FitError for a wave of another rate, InputError for one with an empty row (or none)."""
    if wave.sample_rate != sample_rate:
        raise FitError(f"the codec takes {sample_rate} Hz, got {wave.sample_rate} Hz; resample the wave first")
    _check_lengths(wave.lengths, "samples")


def check_codes(codes: Frames, spec: FrameSpec, n_codebooks: int | None = None) -> Tensor:
    """The first n_codebooks (None: all) of some codes, [B, n, T] int64, zero where a row has ended.

    Raises:
        FitError: codes of another K, V, rate or flavour. SettingsError: n_codebooks outside 1..K.
        InputError: a row without frames, codes that are no integers, or one outside [0, V).
    """
    check_fit("this stream of codes", codes.spec, "the codec", spec)
    K = spec.width
    n = K if n_codebooks is None else n_codebooks
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= K:
        raise SettingsError(f"n_codebooks must be 1..{K}, got {n!r}")
    _check_lengths(codes.lengths, "frames")
    if codes.data.is_floating_point():
        raise InputError(f"codes must be whole numbers, got {codes.data.dtype}")
    data = codes.data[:, :n]
    T = data.shape[-1]
    real = torch.arange(T, device=data.device) < codes.lengths.to(data.device)[:, None, None]  # [B, 1, T]
    data = data.masked_fill(~real, 0)  # what fills up a row may be anything
    sizes = torch.tensor(spec.sizes[:n], device=data.device)[:, None]
    wrong = (data < 0) | (data >= sizes)
    if bool(wrong.any()):
        _, k, _ = (int(i) for i in wrong.nonzero()[0])
        raise InputError(f"codes of codebook {k} must be 0..{spec.sizes[k] - 1}, got {int(data[wrong][0])}")
    return data


def _check_lengths(lengths: Tensor, of_what: str) -> None:
    if len(lengths) == 0 or int(lengths.min()) < 1:
        raise InputError(f"a codec needs at least one of the {of_what} in every row, got {lengths.tolist()}")
