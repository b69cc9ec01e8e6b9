"""Codes of a codec as vectors: those of a frame together, and those of a whole prompt as its voice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STD = 0.02  # of tables at the start


class CodeEmbedding(nn.Module):
    """The K codes of a step to one vector: the sum of one row of each book's table, row V where a book has no code.

    With a `rank`, the rows of the books stand side by side and one product makes D channels of them.
    """

    def __init__(self, codebooks: int, size: int, dim: int, rank: int | None = None) -> None:
        super().__init__()
        K, V = codebooks, size
        self.table = nn.Embedding(K * (V + 1), rank if rank is not None else dim)
        nn.init.normal_(self.table.weight, std=STD if rank is None else 1.0)
        self.join = None if rank is None else nn.Linear(K * rank, dim, bias=False)
        self.register_buffer("first_row", torch.arange(K) * (V + 1), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """codes [..., K] int64 in [0, V] to [..., D]."""
        rows = self.rows(codes)
        out: Tensor = rows.sum(-2) if self.join is None else self.join(rows.flatten(-2))
        return out

    def rows(self, codes: Tensor) -> Tensor:
        """codes [..., K] to the rows of the tables [..., K, rank or D]."""
        rows: Tensor = self.table(codes + self.get_buffer("first_row"))
        return rows

    @torch.no_grad()
    def adopt(self, vectors: Sequence[Tensor]) -> None:
        """Begin with what the codec knows of its codes: vectors [V, C] of each book.

        Each book's are turned to their principal axes, cut or filled to the rank of the table and brought to unit deviation,
        so that codes that sound alike are alike from the first step on.
        """
        table = self.table.weight.unflatten(0, (len(vectors), -1))  # [K, V + 1, rank]
        for k, book in enumerate(vectors):
            centred = book.float() - book.float().mean(0)
            axes = torch.linalg.svd(centred, full_matrices=False)
            own = (axes.U * axes.S)[:, : table.shape[2]]  # [V, rank], the largest first
            own = own / own.square().sum(1).mean().sqrt().clamp(min=1e-8) * table.shape[2] ** 0.5
            table[k, :-1] *= 0.1
            table[k, :-1, : own.shape[1]] += own.to(table)


class Voice(nn.Module):
    """A prompt's codes as one vector, whatever their order and number: zero for none.

    It serves short prompts, which attention learns to look at late in training.
    Source: Zaheer et al. 2017, "Deep Sets" (arXiv:1703.06114), theorem 2.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.each = nn.Linear(width, dim)
        self.all = nn.Linear(dim, dim)

    def forward(self, rows: Tensor, known: Tensor) -> Tensor:
        """rows [B, T, W] of the code tables, known [B, T] bool (the prompt's frames) to [B, D]."""
        share = known.to(rows.dtype) / known.sum(1, keepdim=True).clamp(min=1)
        mean = (share[:, None] @ F.silu(self.each(rows)))[:, 0]
        out: Tensor = self.all(mean) * known.any(1, keepdim=True)
        return out
