"""Sound in and out: load, save, resample, trim, loudness, mel."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from tts.frames import Frames, FrameSpec, Wave


@dataclass(frozen=True)
class MelRecipe:
    """Every number of a log-mel spectrogram; the default is the house's mel, 50 frames a second.

    padding "same": (win_length - hop) / 2 samples are mirrored on both sides, so N samples give ceil(N / hop) frames and
    frame t is centred on samples [t * hop, (t + 1) * hop). "center" (torch.stft's, which Vocos and F5 use) mirrors
    n_fft / 2 and gives N // hop + 1 frames centred on t * hop.
    """

    sample_rate: int = 16_000  # Hz
    n_fft: int = 1024
    win_length: int = 1024  # samples
    hop: int = 320  # samples
    bands: int = 80
    low: float = 0.0  # Hz
    high: float = 8_000.0  # Hz
    scale: str = "htk"  # or "slaney"
    power: int = 1  # 1: magnitude, 2: power
    floor: float = 1e-5  # the natural logarithm is taken of max(value, floor)
    padding: str = "same"  # or "center"

    @property
    def spec(self) -> FrameSpec:
        flavour = (
            f"log-mel {self.sample_rate} Hz, n_fft {self.n_fft}, window {self.win_length}, hop {self.hop}, {self.bands} "
            f"{self.scale} bands {self.low:g}-{self.high:g} Hz, power {self.power}, floor {self.floor:g}, {self.padding}"
        )
        return FrameSpec("mel", self.bands, Fraction(self.sample_rate, self.hop), flavour=flavour)


@lru_cache(maxsize=8)
def _mel_filters(recipe: MelRecipe) -> tuple[Tensor, Tensor]:
    """The window [win_length] and the filterbank [n_fft // 2 + 1, bands] of a recipe, on the CPU."""
    from torchaudio.functional import melscale_fbanks

    filters = melscale_fbanks(
        recipe.n_fft // 2 + 1, recipe.low, recipe.high, recipe.bands, recipe.sample_rate, None, recipe.scale
    )
    return torch.hann_window(recipe.win_length), filters


def log_mel(samples: Tensor, recipe: MelRecipe = MelRecipe()) -> Tensor:
    """Natural-log mel spectrogram.

    Args:
        samples: [B, N] float32 at recipe.sample_rate.
    Returns:
        [B, bands, T] float32; T = ceil(N / hop) for "same", N // hop + 1 for "center".
    """
    window, filters = (x.to(samples.device) for x in _mel_filters(recipe))
    if recipe.padding == "same":
        edge = (recipe.win_length - recipe.hop) // 2
        samples = F.pad(samples, (0, -samples.shape[-1] % recipe.hop))
        mode = "reflect" if samples.shape[-1] > edge else "constant"
        samples = F.pad(samples[:, None], (edge, edge), mode=mode)[:, 0]
    spectrum = torch.stft(
        samples,
        recipe.n_fft,
        recipe.hop,
        recipe.win_length,
        window,
        center=recipe.padding == "center",
        return_complex=True,
    ).abs()  # [B, n_fft // 2 + 1, T]
    if recipe.power != 1:
        spectrum = spectrum.pow(recipe.power)
    mel = filters.T @ spectrum  # [B, bands, T]
    return mel.clamp(min=recipe.floor).log()


class MelEncoder:
    """The mel as an Encoder: waves to log-mel frames."""

    def __init__(self, recipe: MelRecipe = MelRecipe()) -> None:
        self.recipe = recipe
        self.emits = recipe.spec

    def encode(self, wave: Wave) -> Frames:
        """Samples [B, N] at the recipe's rate to mel frames [B, bands, T]; padding beyond a row's length reads as silence."""
        assert wave.sample_rate == self.recipe.sample_rate, (wave.sample_rate, self.recipe.sample_rate)
        hop = self.recipe.hop
        extra = 1 if self.recipe.padding == "center" else 0
        lengths = wave.lengths // hop + 1 if extra else -(-wave.lengths // hop)
        return Frames(log_mel(wave.samples, self.recipe), lengths, self.emits)
