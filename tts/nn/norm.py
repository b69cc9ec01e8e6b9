"""Normalisation layers that torch lacks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GlobalResponseNorm(nn.Module):
    """Channels compete by their energy over time: y = gamma * (x * n) + beta + x, n = |x|_time / mean over channels.

    Source: Woo et al. 2023, ConvNeXt V2 (arXiv:2301.00808), section 4, in one dimension. The energy is a sum over time, so
    positions that are not real must be zero in x.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] to [B, T, C]."""
        energy = x.norm(dim=1, keepdim=True)  # [B, 1, C]
        share = energy / (energy.mean(-1, keepdim=True) + 1e-6)
        return self.gamma * (x * share) + self.beta + x


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm of x [B, T, D] without weights of its own, then x * (1 + scale) + shift, both [B, 1, D] (adaLN)."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
