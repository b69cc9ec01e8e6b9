"""Convolutional layers over time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tts.nn.norm import GlobalResponseNorm


def blank(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zero x [B, T, C] where mask [B, T] is False; None keeps everything."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0)


class ConvNeXtV2Block(nn.Module):
    """Depthwise convolution, then a two-layer network on each position, with a residual connection.

    Source: Woo et al. 2023 (arXiv:2301.00808), in one dimension, as F5-TTS (arXiv:2410.06885) refines its text with it.
    """

    def __init__(self, dim: int, hidden: int, kernel: int = 7) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, hidden)
        self.grn = GlobalResponseNorm(hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, T, C], zero where mask [B, T] is False, to [B, T, C]; there the result means nothing."""
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)  # [B, T, C]
        y = blank(F.gelu(self.expand(self.norm(y))), mask)
        return x + self.contract(self.grn(y))


class ConvPositionEmbedding(nn.Module):
    """Two grouped convolutions that tell each position what surrounds it.

    Source: Baevski et al. 2020, wav2vec 2.0 (arXiv:2006.11477), section 2; two layers with Mish as in Voicebox and F5-TTS.
    """

    def __init__(self, dim: int, kernel: int = 31, groups: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        self.second = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, T, C] to [B, T, C]; positions where mask [B, T] is False are zero before and after each convolution."""
        for conv in (self.first, self.second):
            x = F.mish(conv(blank(x, mask).transpose(1, 2)).transpose(1, 2))
        return blank(x, mask)
