"""Rotary position embedding: positions as rotations of pairs of channels."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(n: int, head_dim: int, base: float = 10_000.0, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines [n, head_dim / 2] float32 of the angles position * base^(-2j / head_dim)."""
    speeds = base ** (-torch.arange(0, head_dim, 2, device=device).float() / head_dim)
    angles = torch.arange(n, device=device).float()[:, None] * speeds
    return angles.cos(), angles.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the channel pairs (2j, 2j + 1) of x [..., n, head_dim] by the angles of their positions.

    Source: Su et al. 2021 (arXiv:2104.09864), equation 34, interleaved pairs. The other common layout pairs channel j with
    j + head_dim / 2; weights of one do not serve the other.
    """
    cos, sin = (t.to(x.dtype) for t in table)
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)  # [..., n, head_dim / 2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
