"""Codes out of the trunk: the two heads that say the books of a frame.

    delay           h ─► one product ─► logits of all K books, each of another frame (see patterns.py)
    hierarchical    h ─► small transformer over the books:  h  c0  c1 … ─► logits of book 0, 1, 2 … of one frame

Source: Copet et al. 2023 (arXiv:2306.05284) for delays; Fish-Speech, Liao et al. 2024 (arXiv:2411.01156), "dual AR", for the
small transformer, whose cache lasts one frame. Changed: tables may be of low rank, what few hours of speech can fill.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.backends.ar.config import ARConfig
from tts.nn.decoder import Decoder, DecoderConfig
from tts.nn.kv_cache import KVCache
from tts.nn.stepping import step

STD = 0.02  # of places at the start


class DelayHead(nn.Module):
    """Logits of all books at once from one hidden state."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        K, V, rank = config.codebooks, config.size, config.code_dim
        self.books = K
        if rank is None:
            self.out = nn.Linear(config.dim, K * V, bias=False)
        else:
            self.split = nn.Linear(config.dim, K * rank)
            self.table = nn.Parameter(torch.randn(K, rank, V) * rank**-0.5)
            self.bias = nn.Parameter(torch.zeros(K, 1, V))
        self.end = nn.Linear(config.dim, 1) if config.end else None

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [N, D] to logits [N, K, W] (see tts/decoding/scores.py)."""
        if hasattr(self, "out"):
            logits = self.out(hidden).unflatten(-1, (self.books, -1))
        else:
            each = self.split(hidden).unflatten(-1, (self.books, -1)).transpose(0, 1)  # [K, N, rank]
            logits = torch.baddbmm(self.bias.to(each.dtype), each, self.table.to(each.dtype)).transpose(0, 1)
        return logits if self.end is None else _with_end(logits, self.end(hidden))

    @torch.no_grad()
    def adopt(self, table: Tensor) -> None:
        """Begin with what is known of codes: table [K, V, rank]."""
        self.table.copy_(table.transpose(1, 2) * table.shape[2] ** -0.5)


@dataclass(frozen=True)
class FrameState:
    """What a DepthHead keeps while it says one frame."""

    hidden: Tensor  # [R, D]
    cache: KVCache
    places: tuple[Tensor, ...]  # [d] of each book
    out: tuple[Tensor, ...]  # [d, V] of each book


class DepthHead(nn.Module):
    """Logits of one book after another; a DepthScorer (tts/decoding/scores.py)."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        K, V, dim = config.codebooks, config.size, config.depth_dim
        rank = config.code_dim if config.code_dim is not None else dim
        self.size = V
        self.enter = nn.Linear(config.dim, dim)
        self.table = nn.Embedding(max(1, K - 1) * V, rank)  # of the books before the last
        self.widen = nn.Linear(rank, dim, bias=False)
        self.place = nn.Parameter(torch.randn(K, dim) * STD)
        self.decoder = Decoder(
            DecoderConfig(
                dim=dim,
                depth=config.depth_layers,
                heads=config.depth_heads,
                head_dim=dim // config.depth_heads,
                hidden=round(dim * config.ff_mult),
                context=K,
                activation=config.activation,
                norm=config.norm,
                bias=config.bias,
                rope=False,
                dropout=config.dropout,
            )
        )
        self.out = nn.Parameter(torch.randn(K, dim, V) * dim**-0.5)
        self.end = nn.Linear(dim, 1) if config.end else None

    def forward(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """hidden [N, D] and the frame's codes [N, K] in [0, V) to logits [N, K, W]; book k knows the codes of those before."""
        K = codes.shape[1]
        books = torch.arange(K - 1, device=codes.device) * self.size
        before = self.widen(self.table(codes[:, :-1] + books))  # [N, K - 1, d]
        x = torch.cat((self.enter(hidden)[:, None], before), 1) + self.place
        x = self.decoder(x).transpose(0, 1)  # [K, N, d]
        logits = torch.bmm(x, self.out.to(x.dtype)).transpose(0, 1)
        return logits if self.end is None else _with_end(logits, self.end(x[0]))

    @torch.no_grad()
    def adopt(self, table: Tensor) -> None:
        """Begin with what is known of codes: table [K, V, rank]; in the first channels where there are more, or fewer."""
        self.table.weight.copy_(table[: max(1, len(table) - 1)].flatten(0, 1))
        n = min(table.shape[2], self.out.shape[1])
        self.out[:, :n] = table.transpose(1, 2)[:, :n] * n**-0.5

    def begin(self, hidden: Tensor) -> FrameState:
        return FrameState(hidden, self.decoder.cache(len(hidden), len(self.place)), self.place.unbind(0), self.out.unbind(0))

    def book(self, k: int, previous: Tensor | None, state: FrameState) -> Tensor:
        x = self.enter(state.hidden) if previous is None else self.widen(self.table(previous + (k - 1) * self.size))
        x = step(self.decoder, x + state.places[k], state.cache)
        state.cache.advance(1)
        logits = x @ state.out[k]  # [R, V]
        if self.end is not None:
            end = self.end(x) if k == 0 else x.new_full((len(x), 1), float("-inf"))
            logits = _with_end(logits[:, None], end)[:, 0]
        return logits.float()


def _with_end(logits: Tensor, end: Tensor) -> Tensor:
    """logits [N, K, V] and those of the end [N, 1] to [N, K, V + 1]; books beyond the first cannot end."""
    whole = F.pad(logits, (0, 1), value=float("-inf"))
    whole[:, 0, -1] = end[:, 0]
    return whole
