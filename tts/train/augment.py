"""What makes little speech go further: masked mels, noise and lost bandwidth; pure functions of their generator."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def spec_augment(
    mel: Tensor,
    lengths: Tensor,
    generator: Generator,
    time_masks: int = 2,
    time_share: float = 0.05,
    band_masks: int = 2,
    band_width: int = 15,
) -> Tensor:
    """SpecAugment (Park et al. 2019) without warping: runs of frames and of bands become each row's mean.

    Args:
        mel: [B, bands, T]; lengths: [B] frames.
        time_share: longest masked run, as a share of the row's frames; band_width: most bands of one mask.
    Returns:
        a new [B, bands, T]; frames beyond a row's length keep their values.
    """
    B, bands, T = mel.shape
    real = torch.arange(T)[None] < lengths.cpu()[:, None]  # [B, T]
    masked = torch.zeros(B, bands, T, dtype=torch.bool)
    for _ in range(time_masks):
        masked |= _runs(lengths.cpu(), lengths.cpu() * time_share, T, generator)[:, None]
    for _ in range(band_masks):
        width = torch.full((B,), float(band_width))
        masked |= _runs(torch.full((B,), bands), width, bands, generator)[:, :, None]
    masked &= real[:, None]
    real, masked = real.to(mel.device), masked.to(mel.device)
    mean = (mel * real[:, None]).sum((1, 2)) / (bands * real.sum(1).clamp(min=1))  # [B]
    return torch.where(masked, mean[:, None, None], mel)


def _runs(lengths: Tensor, longest: Tensor, size: int, generator: Generator) -> Tensor:
    """One run [B, size] bool a row, of uniform width up to `longest`, at a uniform place within the row's length."""
    width = (torch.rand(len(lengths), generator=generator) * (longest + 1)).floor()
    width = torch.minimum(width, lengths.float())
    start = (torch.rand(len(lengths), generator=generator) * (lengths - width + 1)).floor()
    place = torch.arange(size)[None]
    return (place >= start[:, None]) & (place < (start + width)[:, None])


def add_noise(samples: Tensor, generator: Generator, snr_db: tuple[float, float] = (10.0, 40.0)) -> Tensor:
    """Gaussian noise, at a level drawn for each row, with a spectral slope drawn between white and pink to brown.

    Args:
        samples: [B, N]; snr_db: range of the ratio of a row's mean power to the noise's.
    Returns:
        a new [B, N]. A silent row stays silent.
    """
    B, N = samples.shape
    spectrum = torch.fft.rfft(torch.randn(B, N, generator=generator))
    slope = 2 * torch.rand(B, 1, generator=generator)  # power falls with frequency to this: 0 white, 1 pink, 2 brown
    frequency = torch.arange(spectrum.shape[1]).clamp(min=1)[None]
    noise = torch.fft.irfft(spectrum * frequency ** (-slope / 2), n=N).to(samples.device)
    snr = snr_db[0] + (snr_db[1] - snr_db[0]) * torch.rand(B, 1, generator=generator)  # dB
    power = samples.square().mean(1, keepdim=True) / 10 ** (snr.to(samples.device) / 10)
    return samples + noise * (power / noise.square().mean(1, keepdim=True).clamp(min=1e-20)).sqrt()


def low_pass(samples: Tensor, cutoff_hz: Tensor, sample_rate: int, width_hz: float = 300.0) -> Tensor:
    """Remove what lies above a cutoff, as telephones and codecs do, with a raised-cosine edge of width_hz.

    Args:
        samples: [B, N]; cutoff_hz: [B], where the edge begins; at sample_rate / 2 a row passes unchanged.
    Returns:
        a new [B, N].
    """
    N = samples.shape[-1]
    frequency = torch.fft.rfftfreq(N, 1 / sample_rate).to(samples.device)[None]  # [1, N // 2 + 1] Hz
    above = ((frequency - cutoff_hz.to(samples.device)[:, None]) / width_hz).clamp(0, 1)
    gain = 0.5 * (1 + torch.cos(torch.pi * above))
    return torch.fft.irfft(torch.fft.rfft(samples) * gain, n=N)


def random_low_pass(
    samples: Tensor, generator: Generator, sample_rate: int, share: float = 0.3, hz: tuple[float, float] = (3_000.0, 7_500.0)
) -> Tensor:
    """`low_pass` of a share of the rows [B, N], each at its own cutoff; the others pass unchanged."""
    B = len(samples)
    chosen = torch.rand(B, generator=generator) < share
    cutoff = hz[0] + (hz[1] - hz[0]) * torch.rand(B, generator=generator)
    out = samples.clone()
    if bool(chosen.any()):
        out[chosen] = low_pass(samples[chosen], cutoff[chosen], sample_rate)
    return out
