"""Two judges of whether a sound is a recording: one looks at its periods, the other at its spectrograms.

    samples [B, N] ─┬─► folded into p columns ─► convolutions down the column          p = 2, 3, 5, 7, 11: pitch, pulses
                    └─► complex spectrogram, window w ─► convolutions over the plane   w = 256, 512, 1024: harmonics, noise

A vocoder that minimises a spectral distance alone says the mean of all sounds that a mel may stand for, which buzzes; a judge
that tells copies from recordings pulls it to one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1  # of the leaky rectifier


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Which judges there are, and how wide; the defaults are far narrower than the papers', for training on a CPU."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # samples
    period_channels: tuple[int, ...] = (8, 32, 64, 128, 128)
    windows: tuple[int, ...] = (1024, 512, 256)  # samples; a hop is a quarter of it
    window_channels: tuple[int, ...] = (16, 16, 32, 32)


@dataclass(frozen=True)
class Judgement:
    """What one judge says of a batch: scores [B, …], high for a recording; features, the layers below, for matching."""

    scores: Tensor
    features: tuple[Tensor, ...]


class PeriodDiscriminator(nn.Module):
    """Sees every p-th sample: convolutions run down the columns of a signal folded to [N / p, p].

    Source: Kong et al. 2020, "HiFi-GAN" (arXiv:2010.05646), section 2.3, multi-period discriminator.
    """

    def __init__(self, period: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        widths = (1, *channels)
        strides = [3] * (len(channels) - 1) + [1]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (stride, 1), padding=(2, 0)))
            for a, b, stride in zip(widths, channels, strides, strict=False)
        )
        self.out = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, samples: Tensor) -> Judgement:
        """[B, N] to scores [B, 1, n, p]."""
        samples = F.pad(samples, (0, -samples.shape[1] % self.period), mode="reflect")
        x = samples.unflatten(1, (-1, self.period))[:, None]  # [B, 1, N / p, p]
        return _judge(x, self.layers, self.out)


class SpectrogramDiscriminator(nn.Module):
    """Sees a complex spectrogram, so that it hears phase too.

    Source: Défossez et al. 2022, "EnCodec" (arXiv:2210.13438), section 3.4, in the multi-resolution form of Jang et al. 2021,
    "UnivNet" (arXiv:2106.07889); changed: strides fall on frequency alone, and there are few channels.
    """

    shape: Tensor  # [window]

    def __init__(self, window: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.window = window
        shape = torch.hann_window(window)
        self.register_buffer("shape", shape / shape.norm(), persistent=False)
        widths = (2, *channels)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (3, 9), (1, 2), padding=(1, 4))) for a, b in zip(widths, channels, strict=False)
        )
        self.out = weight_norm(nn.Conv2d(channels[-1], 1, (3, 3), padding=(1, 1)))

    def forward(self, samples: Tensor) -> Judgement:
        """[B, N] to scores [B, 1, T, f]."""
        W = self.window
        with torch.autocast(samples.device.type, enabled=False):
            padded = F.pad(samples[:, None].float(), (W // 2, W // 2), mode="reflect")[:, 0]
            spectrum = torch.fft.rfft(padded.unfold(1, W, W // 4) * self.shape)  # [B, T, W / 2 + 1]
            x = torch.view_as_real(spectrum).permute(0, 3, 1, 2)  # [B, 2, T, f], channels last as it lies in memory
        return _judge(x, self.layers, self.out)


def _judge(x: Tensor, layers: nn.ModuleList, out: nn.Module) -> Judgement:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), SLOPE)
        features.append(x)
    return Judgement(out(x).float(), tuple(features))


class Discriminators(nn.Module):
    """All judges of a config."""

    def __init__(self, config: DiscriminatorConfig = DiscriminatorConfig()) -> None:
        super().__init__()
        self.config = config
        periods = [PeriodDiscriminator(period, config.period_channels) for period in config.periods]
        windows = [SpectrogramDiscriminator(window, config.window_channels) for window in config.windows]
        self.judges = nn.ModuleList([*periods, *windows])

    def forward(self, samples: Tensor) -> list[Judgement]:
        """[B, N] to one judgement a judge. N must exceed half of the longest window."""
        return [judge(samples) for judge in self.judges]
