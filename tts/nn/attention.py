"""Multi-head self-attention with rotary positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.nn.rope import rotate


class SelfAttention(nn.Module):
    """Every position attends to every real one.

    rope_heads: how many leading heads carry rotary positions (None: all).
    qk_norm: queries and keys are scaled to unit root mean square before they are rotated.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        rope_heads: int | None = None,
        qk_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads, self.rope_heads = heads, heads if rope_heads is None else rope_heads
        self.query = nn.Linear(dim, inner)
        self.key = nn.Linear(dim, inner)
        self.value = nn.Linear(dim, inner)
        self.query_norm = nn.RMSNorm(head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.out = nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        """x [B, N, D], `rotary_table` of N positions, mask [B, N] bool (True: real; None: all are) to [B, N, D].

        What comes out at positions that are not real means nothing; it is finite.
        """
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # [B, heads, N, head_dim]
        q, k = self._place(self.query_norm(q), table), self._place(self.key_norm(k), table)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])
        return self.dropout(self.out(y.transpose(1, 2).flatten(2)))

    def _place(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        if self.rope_heads == self.heads:
            return rotate(x, table)
        return torch.cat((rotate(x[:, : self.rope_heads], table), x[:, self.rope_heads :]), 1)
