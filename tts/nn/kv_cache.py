"""What a causal transformer keeps of the positions it has read: keys and values, in memory taken once.

    row 0   p p p p p t t . . . .          lengths (7, 4): rows stand left-aligned, each at its own length;
    row 1   p p t t . . . . . . .          what is written comes after it, what lies beyond is never looked at

A cache is an argument: the module that fills it remembers nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tts.errors import ShapeError


@dataclass(frozen=True)
class Memory:
    """Keys and values of a text to cross-attend to: a layer's are [R, heads, L, head_dim]. mask: [R, 1, 1, L] bool or None."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor | None = None


class KVCache:
    """kv: [layers, R, 2, heads, capacity, head_dim], and its halves k, v: [layers, R, heads, capacity, head_dim]; lengths:
    positions held by each row.

    It never grows and never copies what it holds: every layer `write`s, then all rows `advance` at once.
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        heads: int,
        capacity: int,
        head_dim: int,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        memory: Memory | None = None,
    ) -> None:
        self.kv = torch.zeros(layers, rows, 2, heads, capacity, head_dim, device=device, dtype=dtype)
        self.k, self.v = self.kv[:, :, 0], self.kv[:, :, 1]
        self.lengths = [0] * rows
        self.memory = memory
        self.prepared: Any = None  # what steps with this cache have in common, see tts/nn/stepping.py

    @property
    def capacity(self) -> int:
        return self.k.shape[3]

    @property
    def level(self) -> bool:
        """Do all rows hold as many positions?"""
        return min(self.lengths) == max(self.lengths)

    def positions(self, n: int) -> Tensor:
        """The positions of the next n of each row: [n] where all rows are level, else [R, n]."""
        ahead = torch.arange(n, device=self.k.device)
        if self.level:
            return ahead + self.lengths[0]
        return torch.tensor(self.lengths, device=self.k.device)[:, None] + ahead

    def check_room(self, n: int) -> None:
        """Raise ShapeError where a row has no room for n more."""
        if max(self.lengths) + n > self.capacity:
            raise ShapeError(f"the cache has {self.capacity} positions; {max(self.lengths)} are taken, {n} more do not fit")

    def mask(self, n: int) -> Tensor | None:
        """Which positions the next n of each row see: [R or 1, 1, n, M] bool, M = longest + n. None: all they are given."""
        if n == 1 and self.level:
            return None
        seen = torch.arange(max(self.lengths) + n, device=self.k.device)
        own = self.positions(n)
        own = own if own.dim() == 2 else own[None]
        return (seen <= own[..., None])[:, None]

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put k, v [R, heads, n, head_dim] after what each row holds; return all there is to see, [R, heads, M, head_dim]."""
        n, longest = k.shape[2], max(self.lengths)
        keys, values = self.k[layer], self.v[layer]
        if self.level:
            keys[:, :, longest : longest + n] = k
            values[:, :, longest : longest + n] = v
        else:
            for row, length in enumerate(self.lengths):
                keys[row, :, length : length + n] = k[row]
                values[row, :, length : length + n] = v[row]
        return keys[:, :, : longest + n], values[:, :, : longest + n]

    def advance(self, counts: int | Sequence[int]) -> None:
        """So many of the positions last written are real, in all rows or in each."""
        each = [counts] * len(self.lengths) if isinstance(counts, int) else counts
        self.lengths = [length + n for length, n in zip(self.lengths, each, strict=True)]

    def clear(self) -> None:
        """Hold nothing, in the same memory."""
        self.lengths = [0] * len(self.lengths)
