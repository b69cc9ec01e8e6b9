"""How far two waveforms are apart, by their spectrograms at many resolutions.

A long window tells harmonics apart, a short one tells when each pulse comes. Magnitudes at every size between leave little
freedom for a wrong phase, which is what lets a vocoder learn without a discriminator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SpectralLossConfig:
    """Windows in samples and the mel bands at each; a hop is a quarter of its window.

    Windows under `smallest_linear` are judged by their mel alone: their linear bins are as wide as the bands.
    """

    sample_rate: int = 16_000  # Hz
    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128, 64, 32)
    bands: tuple[int, ...] = (120, 80, 60, 40, 20, 10, 5)
    smallest_linear: int = 64
    floor: float = 1e-4  # of a magnitude before its logarithm: -80 dB of full scale
    convergence: float = 1.0  # weights of the three terms in `total`
    log_magnitude: float = 1.0
    mel: float = 1.0

    def __post_init__(self) -> None:
        if len(self.windows) != len(self.bands) or not self.windows:
            raise ValueError(f"give one number of bands for each window, got {len(self.bands)} for {len(self.windows)}")


class SpectralLoss(nn.Module):
    """Multi-resolution STFT loss and multi-scale mel loss from one set of spectrograms.

    - convergence: |S - Ŝ|_F / |S|_F, and log_magnitude: mean |log S - log Ŝ| (Yamamoto et al. 2020, "Parallel WaveGAN",
      arXiv:1910.11480, equations 4 and 5), averaged over the windows.
    - mel: mean |log M - log M̂| with windows from 32 to 2048 samples (Kumar et al. 2023, "High-fidelity audio compression
      with improved RVQGAN", arXiv:2306.06546, section 3.4). Changed: fewer bands at long windows, which 16 kHz cannot fill.

    Windows are scaled to unit energy, so that the floor means the same level at each size.
    """

    def __init__(self, config: SpectralLossConfig = SpectralLossConfig()) -> None:
        super().__init__()
        self.config = config
        for window, bands in zip(config.windows, config.bands, strict=True):
            shape = torch.hann_window(window)
            self.register_buffer(f"window_{window}", shape / shape.norm(), persistent=False)
            filters = mel_triangles(window // 2 + 1, bands, config.sample_rate)
            self.register_buffer(f"filters_{window}", filters, persistent=False)

    def forward(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Two waves [B, N] float32 to scalars "total", "convergence", "log_magnitude", "mel"; zero where they are equal.

        No gradient flows to `real`. N must exceed half of the longest window. Always computed in float32.
        """
        assert made.shape == real.shape and made.dim() == 2, (made.shape, real.shape)
        with torch.autocast(made.device.type, enabled=False):
            return self._compare(made.float(), real.float())

    def _compare(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        floor = self.config.floor
        terms: dict[str, list[Tensor]] = {"convergence": [], "log_magnitude": [], "mel": []}
        for window in self.config.windows:
            filters = self.get_buffer(f"filters_{window}")
            with torch.no_grad():
                target = self.magnitude(real, window)  # [B, T, F]
            guess = self.magnitude(made, window)
            if window >= self.config.smallest_linear:
                error = (guess - target).square().sum((1, 2)).clamp(min=1e-12).sqrt()
                size = target.square().sum((1, 2)).sqrt().clamp(min=1e-3)
                terms["convergence"].append((error / size).mean())
                terms["log_magnitude"].append(F.l1_loss(_log(guess, floor), _log(target, floor)))
            terms["mel"].append(F.l1_loss(_log(guess @ filters, floor), _log(target @ filters, floor)))
        means = {name: torch.stack(values).mean() for name, values in terms.items()}
        total = sum((getattr(self.config, name) * mean for name, mean in means.items()), start=made.new_zeros(()))
        return {"total": total, **means}

    def magnitude(self, samples: Tensor, window: int) -> Tensor:
        """[B, N] to [B, T, window / 2 + 1], time before frequency, as the filterbank's product wants it."""
        shape = self.get_buffer(f"window_{window}")
        padded = F.pad(samples[:, None], (window // 2, window // 2), mode="reflect")[:, 0]
        frames = padded.unfold(1, window, window // 4) * shape  # [B, T, window]
        return torch.fft.rfft(frames).abs()


def mel_triangles(bins: int, bands: int, sample_rate: int) -> Tensor:
    """[bins, bands] triangles evenly spaced on the mel scale (HTK's formula) from 0 Hz to half the rate, each of sum one.

    Unlike those of `tts.audio.mel_filters`, a triangle is at least two bins wide, so that no band of a short window is empty.
    """
    top = 2595 * torch.log10(torch.tensor(1 + sample_rate / 2 / 700))
    edges = 700 * (10 ** (torch.linspace(0, float(top), bands + 2) / 2595) - 1) * (2 * (bins - 1) / sample_rate)  # in bins
    centre = edges[1:-1]
    left = torch.minimum(edges[:-2], centre - 1)
    right = torch.maximum(edges[2:], centre + 1)
    place = torch.arange(bins)[:, None]
    triangles = torch.minimum((place - left) / (centre - left), (right - place) / (right - centre)).clamp(min=0)
    return triangles / triangles.sum(0, keepdim=True).clamp(min=1e-6)


def _log(x: Tensor, floor: float) -> Tensor:
    return x.clamp(min=floor).log()
