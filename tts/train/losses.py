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
    convergence: float = 1.0  # weights of the four terms in `total`
    log_magnitude: float = 1.0
    mel: float = 1.0
    modulation: float = 0.0
    modulated: tuple[int, ...] = (64, 128, 256)  # windows whose bands' envelopes are compared by their spectra
    modulated_bands: tuple[int, ...] = (8, 14, 20)

    def __post_init__(self) -> None:
        pairs = ((self.windows, self.bands), (self.modulated, self.modulated_bands))
        if not self.windows or any(len(windows) != len(bands) for windows, bands in pairs):
            raise ValueError(f"give one number of bands for each window, got {pairs}")


class SpectralLoss(nn.Module):
    """Multi-resolution STFT loss and multi-scale mel loss from one set of spectrograms.

    - convergence: |S - Ŝ|_F / |S|_F, and log_magnitude: mean |log S - log Ŝ| (Yamamoto et al. 2020, "Parallel WaveGAN",
      arXiv:1910.11480, equations 4 and 5), averaged over the windows.
    - mel: mean |log M - log M̂| with windows from 32 to 2048 samples (Kumar et al. 2023, "High-fidelity audio compression
      with improved RVQGAN", arXiv:2306.06546, section 3.4). Changed: fewer bands at long windows, which 16 kHz cannot fill.

    - modulation: mean | |F(log E)| - |F(log Ê)| |, where E is the envelope of a band heard through a short window, sample after
      sample a millisecond, and F the spectrum of 64 ms of it: how deep and how fast a band beats, not when. A mel says
      how high a voice is but not when its pulses come; losses that compare short windows frame by frame punish pulses at
      other moments as they punish none at all, and teach a buzz between. (After Andén & Mallat 2014, "Deep scattering
      spectrum", arXiv:1304.6763.)

    Windows are scaled to unit energy, so that the floor means the same level at each size.
    """

    slow: Tensor  # [64], a window over milliseconds

    def __init__(self, config: SpectralLossConfig = SpectralLossConfig()) -> None:
        super().__init__()
        self.config = config
        kinds = {"": (config.windows, config.bands)}
        if config.modulation:
            kinds["modulated_"] = (config.modulated, config.modulated_bands)
        for kind, (windows, bands_of) in kinds.items():
            for window, bands in zip(windows, bands_of, strict=True):
                shape = torch.hann_window(window)
                self.register_buffer(f"window_{window}", shape / shape.norm(), persistent=False)
                filters = mel_triangles(window // 2 + 1, bands, config.sample_rate)
                self.register_buffer(f"{kind}filters_{window}", filters, persistent=False)
        self.register_buffer("slow", torch.hann_window(64), persistent=False)

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
        if self.config.modulation:
            for window in self.config.modulated:
                with torch.no_grad():
                    beats = self.modulation(real, window)
                terms.setdefault("modulation", []).append(F.l1_loss(self.modulation(made, window), beats))
        means = {name: torch.stack(values).mean() for name, values in terms.items()}
        total = sum((getattr(self.config, name) * mean for name, mean in means.items()), start=made.new_zeros(()))
        return {"total": total, **means}

    def magnitude(self, samples: Tensor, window: int, hop: int | None = None) -> Tensor:
        """[B, N] to [B, T, window / 2 + 1], time before frequency, as the filterbank's product wants it."""
        shape = self.get_buffer(f"window_{window}")
        padded = F.pad(samples[:, None], (window // 2, window // 2), mode="reflect")[:, 0]
        frames = padded.unfold(1, window, hop or window // 4) * shape  # [B, T, window]
        return torch.fft.rfft(frames).abs()

    def modulation(self, samples: Tensor, window: int) -> Tensor:
        """[B, N] to the spectra of its bands' log envelopes, [B, bands, n, 32]: 16 to 500 Hz, every 16 ms."""
        filters = self.get_buffer(f"modulated_filters_{window}")
        magnitude = self.magnitude(samples, window, self.config.sample_rate // 1000)
        envelope = _log(magnitude @ filters, self.config.floor).mT  # [B, bands, T], a thousand a second
        frames = envelope.unfold(2, len(self.slow), len(self.slow) // 4)
        frames = (frames - frames.mean(-1, keepdim=True)) * self.slow
        return torch.fft.rfft(frames)[..., 1:].abs() / self.slow.norm()


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
