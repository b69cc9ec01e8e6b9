"""What makes little speech go further: other tempos and throats, noise, lost bandwidth, masks; functions of a generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tts.audio import MelRecipe, log_mel, mel_filters

COLOURS = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # the amplitude falls with hertz to the power of it
NOISES = (*COLOURS, "hum", "babble")


def chance(generator: Generator) -> float:
    """Uniform in 0 to 1."""
    return float(torch.rand((), generator=generator))


def stretch(mel: Tensor, labels: Tensor, tempo: float, warp: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Another tempo and another throat (Jaitly & Hinton 2013): each axis of a mel is stretched by up to its share.

    Args:
        mel: [bands, T]; labels: [T], which follow the tempo.
    Returns:
        mel [bands, T'] and labels [T'].
    """
    faster, higher = (2 * torch.rand(2, generator=generator) - 1).tolist()
    bands, T = mel.shape[0], max(1, round(mel.shape[1] * (1 + tempo * faster)))
    height = round(bands * (1 + warp * higher))
    mel = F.interpolate(mel[None, None], (height, T), mode="bilinear", align_corners=False)[0, 0]  # [height, T]
    mel = mel[:bands]
    if height < bands:
        mel = torch.cat([mel, mel[-1:].expand(bands - height, T)])
    index = (torch.arange(T) * labels.shape[0] // T).clamp(max=labels.shape[0] - 1)
    return mel, labels[index]


def muffle(mel: Tensor, generator: Generator) -> Tensor:
    """A log-mel [bands, T] as after a low-pass: from an edge in its upper half on, it is 3 to 7 lower (26 to 61 dB)."""
    edge = int(len(mel) * (0.55 + 0.4 * chance(generator)))
    return torch.cat([mel[:edge], mel[edge:] - 3 - 4 * chance(generator)])


def add_noise(mel: Tensor, generator: Generator) -> Tensor:
    """A log-mel [bands, T] veiled with noise of a random colour, 3 above to 4 below its mean at the lowest band."""
    colour = (torch.linspace(0, 1, len(mel)) * (4 * chance(generator) - 3))[:, None]  # [bands, 1]
    level = mel.mean() + 3 - 7 * chance(generator)
    return torch.logaddexp(mel, level + colour + 0.6 * torch.randn(mel.shape, generator=generator))


def make_noise(kind: str, T: int, recipe: MelRecipe, generator: Generator, voices: Sequence[Tensor] = ()) -> Tensor:
    """The log-mel [bands, T] of a noise of any level.

    Args:
        kind: of NOISES. "hum" is that of the mains, 50 or 60 Hz and its overtones.
        voices: log-mels [bands, T'], the speakers of "babble", each begun anywhere and repeated as long as is needed.
    """
    if kind == "babble":
        total = torch.full((recipe.bands, T), float("-inf"))
        for voice in voices:
            start = int(chance(generator) * voice.shape[1])
            total = _power_add(total, voice[:, (start + torch.arange(T)) % voice.shape[1]].float(), recipe)
        return total
    N = T * recipe.hop
    hertz = torch.fft.rfftfreq(N, 1 / recipe.sample_rate)
    if kind == "hum":
        mains = 50.0 if chance(generator) < 0.5 else 60.0
        order = torch.arange(1, 21)[:, None]  # [20, 1], the overtones
        phase = 2 * torch.pi * (torch.rand(20, 1, generator=generator) + order * mains * torch.arange(N) / recipe.sample_rate)
        samples = (torch.sin(phase) / order).sum(0)
    else:
        spectrum = torch.randn(2, len(hertz), generator=generator) / hertz.clamp(min=20) ** COLOURS[kind]
        samples = torch.fft.irfft(torch.complex(*spectrum), n=N)
        samples = samples / samples.square().mean().sqrt()
    return log_mel(samples[None], recipe)[0, :, :T]


def veil(mel: Tensor, noise: Tensor, snr_db: float, recipe: MelRecipe) -> Tensor:
    """A log-mel [bands, T] with that of a noise [bands, T] so much below it; where both sound, their powers add.

    Source: the mixing of AudioGen, Kreuk et al. 2022 (arXiv:2209.15352), section 3.2. Changed: mels are mixed, not samples.
    """
    gain = (mel_power(mel, recipe) / mel_power(noise, recipe)).log() - snr_db * np.log(10) / 10  # of power
    return _power_add(mel, noise + gain * recipe.power / 2, recipe)


def mel_power(mel: Tensor, recipe: MelRecipe) -> Tensor:
    """Mean power of the frames of a log-mel [bands, T], in units of its own.

    A band adds up the magnitudes of so many bins, so that its square counts that many times too much where they are alike.
    """
    width = mel_filters(recipe)[1].sum(0).clamp(min=1e-3)[:, None]  # [bands, 1], in bins
    return (torch.exp(mel * 2 / recipe.power) / width ** (2 - recipe.power)).sum(0).mean()


def _power_add(one: Tensor, other: Tensor, recipe: MelRecipe) -> Tensor:
    """The log-mel of two sounds together, whose phases have nothing to do with each other."""
    return torch.logaddexp(one * 2 / recipe.power, other * 2 / recipe.power) * recipe.power / 2


def spec_augment(mel: Tensor, time_masks: int, longest: float, band_masks: int, widest: int, generator: Generator) -> Tensor:
    """SpecAugment (Park et al. 2019) without warping: runs of frames and of bands become the mean of a mel [bands, T].

    A run has less than `longest` frames and at most a sixth of T, or less than `widest` bands.
    """
    bands, T = mel.shape
    mean, mel = mel.mean(), mel.clone()
    for _ in range(time_masks):
        width = min(T // 6, int(chance(generator) * longest))
        start = int(chance(generator) * (T - width))
        mel[:, start : start + width] = mean
    for _ in range(band_masks):
        width = int(chance(generator) * widest)
        start = int(chance(generator) * (bands - width))
        mel[start : start + width] = mean
    return mel


def vary(
    samples: Tensor, random: np.random.Generator, gain_db: float, share: float, hz: tuple[float, float], sample_rate: int
) -> Tensor:
    """Crops [B, N] at other levels, up to gain_db up or down without clipping, and a share of them low-passed within `hz`."""
    gains = 10 ** (random.uniform(-gain_db, gain_db, (len(samples), 1)) / 20)
    samples = samples * torch.from_numpy(gains).float()
    samples = samples / samples.abs().amax(1, keepdim=True).clamp(min=1)  # what would clip is made as loud as can be
    for b in np.flatnonzero(random.random(len(samples)) < share):
        samples[b] = lowpass(samples[b], random.uniform(*hz), sample_rate)
    return samples


def lowpass(samples: Tensor, cutoff_hz: float, sample_rate: int) -> Tensor:
    """[N] without what lies above cutoff_hz: a raised-cosine edge 500 Hz wide, laid over the spectrum of the whole crop."""
    spectrum = torch.fft.rfft(samples)
    hz = torch.linspace(0, sample_rate / 2, len(spectrum), device=samples.device)
    fall = ((hz - cutoff_hz) / 500).clamp(0, 1)
    return torch.fft.irfft(spectrum * (0.5 + 0.5 * torch.cos(torch.pi * fall)), n=len(samples))
