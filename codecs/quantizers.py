"""Quantizers without a learned codebook: each number is rounded to one of a few levels (FSQ, grouped FSQ, scalar).

    z [B, C, T] ─► groups of numbers ─► bounded by tanh ─► rounded ─► one code a group, its digits in a mixed radix

              FSQ (8, 8, 8, 5, 5)          grouped (8, 5, 5, 5) x 8                  scalar 19 x 32
    dims      ├──── code 0 ────┤           ├─ code 0 ─┤├─ code 1 ─┤ … ├─ code 7 ─┤   ├0┤├1┤├2┤ … ├31┤

All three are one grid, and the law of every quantizer, the residual one (tts/codecs/rvq.py) included, holds for them:
`embed(codes) == sum of vectors(k)[codes[:, k]]`, from the first codebooks up to any number of them.
Sources: Mentzer et al. 2023, "Finite Scalar Quantization" (arXiv:2309.15505); Fish Speech (arXiv:2411.01156) for the groups;
SimpleSpeech 2 (arXiv:2408.13893) for the scalars of SQ-Codec.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.errors import SettingsError


@dataclass(frozen=True)
class Quantized:
    """What a quantizer makes of vectors in training; the gradients of the vectors go straight through to the input.

    vectors [B, C, T]: what the decoder reads. codes [B, K, T] int64. first [B, C, T]: codebook 0 alone, which is what a
    recognition loss reads. losses: scalars to add to the loss, weighted already.
    """

    vectors: Tensor
    codes: Tensor
    first: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)


def draw_codebooks(B: int, K: int, dropout: float, device: torch.device) -> Tensor:
    """Quantizer dropout: [B] int64, uniform in 1..K for a share `dropout` of the rows, K for the others."""
    some = torch.randint(1, K + 1, (B,), device=device)
    return torch.where(torch.rand(B, device=device) < dropout, some, K)


class Quantizer(nn.Module, ABC):
    """What every quantizer is: K codebooks, whose vectors are summed."""

    sizes: tuple[int, ...]  # V of each codebook
    dim: int  # C

    @abstractmethod
    def forward(self, z: Tensor, lengths: Tensor | None = None, n_codebooks: Tensor | None = None) -> Quantized:
        """z [B, C, T]; frames beyond lengths [B] count in no loss and no statistic; row b reads n_codebooks[b] of them.

        n_codebooks None: in training as quantizer dropout draws them, else all.
        """

    @abstractmethod
    def encode(self, z: Tensor) -> Tensor:
        """z [B, C, T] to codes [B, K, T] int64; each frame for itself."""

    @abstractmethod
    def vectors(self, k: int) -> Tensor:
        """Codebook k as [V, C]: what each of its codes adds."""

    def embed(self, codes: Tensor) -> Tensor:
        """codes [B, n, T] of the first n of the codebooks, 1 <= n <= K, to the sum of their vectors [B, C, T]."""
        assert 1 <= codes.shape[1] <= len(self.sizes), (codes.shape, len(self.sizes))
        total = F.embedding(codes[:, 0], self.vectors(0))  # [B, T, C]
        for k in range(1, codes.shape[1]):
            total = total + F.embedding(codes[:, k], self.vectors(k))
        return total.transpose(1, 2)


class Grid(Quantizer):
    """`groups` codebooks, each of prod(levels) codes: a code is the choice of one level for each of len(levels) numbers.

    L levels are -1 … 1 in equal steps. FSQ's paper moves an even number of them by half a step, so that 0 is one of them;
    not here, where the levels are as they are for odd ones, and two of them are -1 and 1.
    """

    table: Tensor  # [V, D] the numbers of each code of one group
    radix: Tensor  # [D] int64
    steps: Tensor  # [D] from one end to the other, L - 1

    def __init__(self, levels: tuple[int, ...], groups: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if not levels or min(levels) < 2 or groups < 1:
            raise SettingsError(f"a grid has at least one group, of levels of at least 2, got {groups} of {levels}")
        D, V = len(levels), math.prod(levels)
        self.sizes, self.dim, self.dropout = (V,) * groups, D * groups, dropout
        radix = torch.tensor([math.prod(levels[:d]) for d in range(D)])
        digits = torch.arange(V)[:, None] // radix % torch.tensor(levels)  # [V, D]
        steps = torch.tensor(levels) - 1
        self.register_buffer("table", 2 * digits / steps - 1, persistent=False)
        self.register_buffer("radix", radix, persistent=False)
        self.register_buffer("steps", steps.float(), persistent=False)

    def forward(self, z: Tensor, lengths: Tensor | None = None, n_codebooks: Tensor | None = None) -> Quantized:
        bounded, digits = self._round(z)
        B, _, K, _ = bounded.shape
        values = 2 * digits / self.steps - 1 + (bounded - bounded.detach())  # [B, T, K, D]
        if n_codebooks is None and self.training and self.dropout > 0:
            n_codebooks = draw_codebooks(B, K, self.dropout, z.device)
        book = torch.arange(K, device=z.device)[:, None]  # [K, 1]
        read = values if n_codebooks is None else values * (book < n_codebooks[:, None, None, None])
        first = values * (book == 0)
        return Quantized(read.flatten(2).transpose(1, 2), self._codes(digits), first.flatten(2).transpose(1, 2))

    def encode(self, z: Tensor) -> Tensor:
        return self._codes(self._round(z)[1])

    def vectors(self, k: int) -> Tensor:
        D, K = len(self.radix), len(self.sizes)
        return F.pad(self.table, (k * D, (K - 1 - k) * D))

    def _round(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z [B, C, T] to numbers in -1 … 1 and the digits 0 … L - 1 of the levels next to them, [B, T, K, D] both."""
        bounded = torch.tanh(z.float()).transpose(1, 2).unflatten(2, (len(self.sizes), -1))
        return bounded, ((bounded.detach() + 1) / 2 * self.steps).round()

    def _codes(self, digits: Tensor) -> Tensor:
        return (digits.long() * self.radix).sum(-1).transpose(1, 2)  # [B, K, T]


@dataclass(frozen=True)
class FSQConfig:
    """One codebook; the default has 1000 codes as one group of Fish's has. (8, 8, 8, 5, 5) would have 12 800."""

    levels: tuple[int, ...] = (8, 5, 5, 5)


class FSQ(Grid):
    """Finite scalar quantization: one codebook of prod(levels) codes."""

    def __init__(self, config: FSQConfig = FSQConfig()) -> None:
        super().__init__(config.levels)
        self.config = config


@dataclass(frozen=True)
class GroupedFSQConfig:
    """Fish Speech 1.4's: 8 codebooks of 1000. dropout: the share of rows in training that read fewer of them."""

    levels: tuple[int, ...] = (8, 5, 5, 5)
    groups: int = 8
    dropout: float = 0.5


class GroupedFSQ(Grid):
    """Groups of channels, each its own FSQ. Of fewer codebooks than there are, the others add zero."""

    def __init__(self, config: GroupedFSQConfig = GroupedFSQConfig()) -> None:
        super().__init__(config.levels, config.groups, config.dropout)
        self.config = config


@dataclass(frozen=True)
class ScalarConfig:
    """SQ-Codec's: s = round(S tanh(z)) / S in each of dim channels."""

    steps: int = 9  # S
    dim: int = 32


class ScalarQuantizer(Grid):
    """Each channel is a codebook of 2 S + 1 values; it is off by at most 1 / (2 S)."""

    def __init__(self, config: ScalarConfig = ScalarConfig()) -> None:
        super().__init__((2 * config.steps + 1,), config.dim)
        self.config = config
