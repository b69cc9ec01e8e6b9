"""One voice becomes several: pitch, formants and speed of a recording, each changed by itself.

samples ──► f0        (the source)     × pitch              ─┐
        ──► envelope  (the filter)     its Hz axis × formant ├──► samples of other length, by WORLD
        ──► noise in the source                              ┘    frames put closer together × speed
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from tts.errors import MissingPackageError, SettingsError

FRAME = 5.0  # milliseconds between two frames of the analysis
FACTORS = (0.5, 2.0)


@dataclass(frozen=True)
class Change:
    """What becomes of a voice, as factors: 1.1 is a tenth faster, higher, or a throat a tenth shorter."""

    speed: float = 1.0  # of speaking; the duration is divided by it
    pitch: float = 1.0  # of f0
    formant: float = 1.0  # of the frequencies of the spectral envelope

    def __post_init__(self) -> None:
        low, high = FACTORS
        for name, factor in vars(self).items():
            if not low <= factor <= high:
                raise SettingsError(f"{name} of a changed voice must be {low:g} to {high:g}, got {factor:g}")

    @property
    def name(self) -> str:
        """The factors that are not 1, in three digits: "p1.12f0.93"; "" where nothing changes."""
        return "".join(f"{f.name[0]}{getattr(self, f.name):.3g}" for f in fields(self) if getattr(self, f.name) != 1)


def changed(samples: Tensor, sample_rate: int, change: Change) -> Tensor:
    """A recording [N] float32 in a changed voice, [round(N / speed)]; factors of 1 give back what was given.

    Analysis and synthesis are WORLD's (Morise, Yokomori & Ozawa 2016), f0 by Harvest. Not a phase vocoder, which cannot tell
    the harmonics from the envelope, nor overlap-add, which moves neither without the other.

    Raises:
        MissingPackageError: pyworld is not installed.
    """
    if change == Change():
        return samples
    world = _world()
    x = samples.double().numpy()
    # 1. apart: f0 [T] in Hz, 0 where there is none; envelope (power) and aperiodicity [T, bins]
    f0, times = world.harvest(x, sample_rate, frame_period=FRAME)
    envelope = world.cheaptrick(x, f0, times, sample_rate)
    aperiodicity = world.d4c(x, f0, times, sample_rate)
    # 2. changed
    bins = np.arange(envelope.shape[1])
    at = np.minimum(bins / change.formant, bins[-1])  # beyond the last bin nothing is known: it is held
    left = np.minimum(at.astype(int), bins[-1] - 1)
    share = at - left
    log = np.log(np.maximum(envelope, 1e-16))
    warped = np.exp(log[:, left] * (1 - share) + log[:, left + 1] * share)
    # 3. together
    y = world.synthesize(f0 * change.pitch, np.ascontiguousarray(warped), aperiodicity, sample_rate, FRAME / change.speed)
    N = round(len(samples) / change.speed)
    return torch.from_numpy(np.pad(y, (0, max(0, N - len(y))))[:N]).float()


def _world() -> ModuleType:
    try:
        return importlib.import_module("pyworld")
    except ImportError as error:
        raise MissingPackageError("changing a voice needs pyworld: pip install 'mynah-tts[voices]'") from error
