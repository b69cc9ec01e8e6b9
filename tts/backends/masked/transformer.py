"""A transformer that looks both ways: every position sees every real one, or only those around it.

x ─► norm ─► self-attention ─► + ─► norm ─► attention to a text ─► + ─► norm ─► feed-forward ─► + ─► …  ─► norm
      ▲                              └──────── where there is one ───┘    ▲                                ▲
     time, where norms are told it ───────────────────────────────────────┴────────────────────────────────┘
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.backends.masked.config import MaskedConfig
from tts.nn.decoder import ACTIVATIONS
from tts.nn.kv_cache import Memory
from tts.nn.rope import rotary_table, rotate

EPS = 1e-6


class TimeNorm(nn.Module):
    """RMS norm whose scale is a linear function of the time's embedding: 1 at first. Source: MaskGCT (arXiv:2409.00750)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Linear(dim, dim)
        nn.init.zeros_(self.scale.weight)
        nn.init.ones_(self.scale.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [R, N, D], time [R, D] to [R, N, D]."""
        normed: Tensor = F.rms_norm(x, x.shape[-1:], eps=EPS) * self.scale(time)[:, None]
        return normed


class PlainNorm(nn.Module):
    """Layer or RMS norm that is told the time, and does not care."""

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        self.norm: nn.Module = nn.LayerNorm(dim, eps=1e-5) if kind == "layer" else nn.RMSNorm(dim, eps=EPS)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed


class StepTime(nn.Module):
    """The time of a step [R] in [0, 1] to a vector [R, D]: sines and cosines of it, unscaled, then two layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, 4 * dim)
        self.second = nn.Linear(4 * dim, dim)

    def forward(self, t: Tensor) -> Tensor:
        half = self.first.in_features // 2
        speeds = torch.exp(torch.arange(half, device=t.device).float() * (-math.log(10_000) / max(1, half - 1)))
        angles = t.float()[:, None] * speeds
        waves = torch.cat((angles.sin(), angles.cos()), -1).to(self.first.weight.dtype)
        time: Tensor = self.second(F.silu(self.first(waves)))
        return time


class Layer(nn.Module):
    """One layer, its norms before what they serve. Queries, keys and values are one matrix product, gate and input another."""

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        dim, bias, inner = config.dim, config.bias, config.heads * config.head_dim
        hidden = round(dim * config.ff_mult)
        self.heads, self.dropout, self.gated = config.heads, config.dropout, config.gated
        self.activation = ACTIVATIONS[config.activation]
        self.attention_norm = make_norm(config)
        self.qkv = nn.Linear(dim, 3 * inner, bias=bias)
        self.attention_out = nn.Linear(inner, dim, bias=bias)
        if config.text == "cross":
            self.cross_norm = make_norm(config)
            self.cross_query = nn.Linear(dim, inner, bias=bias)
            self.cross_keys_values = nn.Linear(dim, 2 * inner, bias=bias)
            self.cross_out = nn.Linear(inner, dim, bias=bias)
        self.feed_norm = make_norm(config)
        self.feed_in = nn.Linear(dim, hidden * (2 if config.gated else 1), bias=bias)
        self.feed_out = nn.Linear(hidden, dim, bias=bias)

    def remember(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """text [R, L, D] to the keys and values [R, heads, L, head_dim] that `attend` reads."""
        k, v = self._heads(self.cross_keys_values(text)).chunk(2, 1)
        return k, v

    def attend_to_self(
        self, x: Tensor, time: Tensor | None, table: tuple[Tensor, Tensor] | None, mask: Tensor | None
    ) -> Tensor:
        qkv = self._heads(self.qkv(self.attention_norm(x, time)))  # [R, 3 heads, N, head_dim]
        q, k, v = qkv.split(self.heads, 1)
        if table is not None:
            q, k = rotate(qkv[:, : 2 * self.heads], table).split(self.heads, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self._drop(self.attention_out(y.transpose(1, 2).flatten(2)))

    def attend(self, x: Tensor, time: Tensor | None, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        q = self._heads(self.cross_query(self.cross_norm(x, time)))
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self._drop(self.cross_out(y.transpose(1, 2).flatten(2)))

    def feed(self, x: Tensor, time: Tensor | None) -> Tensor:
        y = self.feed_in(self.feed_norm(x, time))
        if self.gated:
            gate, y = y.chunk(2, -1)
            y = self.activation(gate) * y
        else:
            y = self.activation(y)
        return self._drop(self.feed_out(y))

    def _heads(self, x: Tensor) -> Tensor:
        """[R, N, n * head_dim] to [R, n, N, head_dim]."""
        head_dim = self.attention_out.in_features // self.heads
        return x.view(*x.shape[:2], -1, head_dim).transpose(1, 2)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


class Transformer(nn.Module):
    """Layers and a last norm."""

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.time = StepTime(config.dim) if config.norm == "time" else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = make_norm(config)
        if config.positions == "rope":
            cos, sin = rotary_table(config.context, config.head_dim)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.rope = config.positions == "rope"

    def forward(
        self, x: Tensor, t: Tensor, where: Tensor | None, mask: Tensor | None = None, memory: Memory | None = None
    ) -> Tensor:
        """x [R, N, D] to [R, N, D].

        Args:
            t: [R], the time of the step. where: [R, N] int64, the position of each; None: 0, 1, 2 … in every row.
            mask: bool that broadcasts to [R, 1, N, N], True where the position of the last axis is seen; None: all are.
            memory: of `remember`, where text is to be attended to.
        """
        time = None if self.time is None else self.time(t)
        table = None
        if self.rope:
            cos, sin = self.get_buffer("cos"), self.get_buffer("sin")
            table = (cos[: x.shape[1]], sin[: x.shape[1]]) if where is None else (cos[where][:, None], sin[where][:, None])
        for n, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            x = x + layer.attend_to_self(x, time, table, mask)
            if memory is not None:
                x = x + layer.attend(x, time, memory.keys[n], memory.values[n], memory.mask)
            x = x + layer.feed(x, time)
        normed: Tensor = self.norm(x, time)
        return normed

    def remember(self, text: Tensor, known: Tensor) -> Memory:
        """A text [R, L, D], known [R, L] bool, as every layer will look at it."""
        pairs = [layer.remember(text) for layer in self.layers if isinstance(layer, Layer)]
        seen = None if bool(known.all()) else known[:, None, None]
        return Memory(tuple(k for k, _ in pairs), tuple(v for _, v in pairs), seen)


def make_norm(config: MaskedConfig) -> nn.Module:
    return TimeNorm(config.dim) if config.norm == "time" else PlainNorm(config.dim, config.norm)
