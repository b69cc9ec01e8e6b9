"""Scalars (flow times, positions) as vectors of sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Flow time t in [0, 1] to a vector [B, dim]: [sin | cos] of 1000 * t at geometric frequencies, then two layers.

    Source: Ho et al. 2020 (arXiv:2006.11239); frequencies 10000^(-j / (half - 1)).
    """

    def __init__(self, dim: int, waves: int = 256) -> None:
        super().__init__()
        self.waves = waves
        self.mlp = nn.Sequential(nn.Linear(waves, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        half = self.waves // 2
        speeds = torch.exp(torch.arange(half, device=t.device).float() * (-math.log(10_000) / (half - 1)))
        angles = 1000 * t.float()[:, None] * speeds
        return self.mlp(torch.cat((angles.sin(), angles.cos()), -1))


def position_table(n: int, dim: int, device: torch.device | None = None, last: bool = False) -> Tensor:
    """[n, dim] float32: [cos | sin] of position * 10000^(-2j / dim), the order in which F5-TTS places its text.

    last: the last speed is 1 / 10000 itself, 10000^(-j / (dim / 2 - 1)), as in MusicGen.
    """
    if last:
        speeds = torch.exp(torch.arange(dim // 2, device=device).float() * (-math.log(10_000) / (dim // 2 - 1)))
    else:
        speeds = 10_000.0 ** (-torch.arange(0, dim, 2, device=device).float() / dim)
    angles = torch.arange(n, device=device).float()[:, None] * speeds
    return torch.cat((angles.cos(), angles.sin()), -1)
