"""The short-time Fourier transform and its inverse on the two grids of a mel recipe, for rows of unequal length.

    "same"     frame t's window is centred on samples [t * hop, (t + 1) * hop):   T frames <-> T * hop samples
    "center"   frame t's window is centred on sample t * hop:                     T frames <-> (T - 1) * hop samples

torch.istft knows "center" alone: it refuses edges that one window reaches, as on the "same" grid every edge is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def edge(window: int, hop: int, padding: str) -> int:
    """Samples by which the first window begins before sample 0. Raises ValueError for a grid that does not exist."""
    if padding not in ("same", "center"):
        raise ValueError(f"padding must be 'same' or 'center', got {padding!r}")
    if window < 2 * hop or window % 2 or (window - hop) % 2:
        raise ValueError(f"a window must be even, an even number over its hop and at least 2 hops of {hop}, got {window}")
    return (window - hop) // 2 if padding == "same" else window // 2


def stft(samples: Tensor, window: Tensor, hop: int, padding: str, n_fft: int) -> Tensor:
    """Samples [B, N], N a multiple of hop, to spectra [B, T, n_fft / 2 + 1]; silence is what lies beyond the edges."""
    out = edge(len(window), hop, padding)
    frames = F.pad(samples, (out, out)).unfold(1, len(window), hop) * window  # [B, T, W]
    return torch.fft.rfft(frames, n=n_fft)


def inverse_stft(spectrum: Tensor, window: Tensor, hop: int, padding: str, real: Tensor | None = None) -> Tensor:
    """Spectra [B, T, n_fft / 2 + 1] to samples [B, N]: windowed frames added, over the squared windows that met there.

    real: [B, T] bool, the frames that each row has (None: all). Others neither sound nor count, and the samples after a
    row's end are zero, so that a padded row equals the row alone.
    Source: Griffin & Lim 1984, "Signal estimation from modified short-time Fourier transform", equation 6.
    """
    T, W = spectrum.shape[1], len(window)
    intervals = T if padding == "same" else T - 1
    if intervals <= 0:
        return spectrum.real.new_zeros(len(spectrum), 0)
    frames = torch.fft.irfft(spectrum)[..., :W] * window  # [B, T, W]
    weight = (window**2).expand(1, T, W)
    if real is not None:
        frames, weight = frames * real[..., None], weight * real[..., None]
    out = edge(W, hop, padding)
    samples = overlap_add(frames, hop)[:, out : out + intervals * hop]  # [B, N]
    samples = samples / overlap_add(weight, hop)[:, out : out + intervals * hop].clamp(min=1e-8)
    if real is not None:  # a last window reaches past the row's end
        samples = samples * real[:, T - intervals :].repeat_interleave(hop, dim=1)
    return samples


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """[B, T, W] to [B, (T - 1) * hop + W]: frame t is added from sample t * hop on."""
    T, W = frames.shape[1:]
    N = (T - 1) * hop + W
    return F.fold(frames.transpose(1, 2), (1, N), kernel_size=(1, W), stride=(1, hop))[:, 0, 0]


def reach(window: int, hop: int, padding: str) -> tuple[int, int]:
    """Frames left and right of frame t whose windows touch its samples [t * hop, (t + 1) * hop)."""
    if padding == "same":
        both = -(-edge(window, hop, padding) // hop)
        return both, both
    half = -(-window // (2 * hop))
    return half - 1, half
