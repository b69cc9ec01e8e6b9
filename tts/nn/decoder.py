"""A causal transformer: read positions all at once in training, or some at a time with a cache, with the same result.

Not causal, it is an encoder: all positions at once, each knowing all real ones.

x ─► norm ─► self-attention ─► + ─► norm ─► attention to a text ─► + ─► norm ─► feed-forward ─► + ─► …  ─► norm
                                     └──────── where there is one ───┘
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tts.errors import SettingsError, nearest
from tts.nn.kv_cache import KVCache, Memory
from tts.nn.rope import rotary_table, rotate

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}
NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and options of a `Decoder`. context: positions that rotary tables cover, where rope is on."""

    dim: int
    depth: int
    heads: int
    head_dim: int
    hidden: int  # of the feed-forward network
    context: int
    activation: str = "gelu"
    norm: str = "layer"
    bias: bool = False  # of attention and feed-forward
    rope: bool = True
    cross: bool = False  # is there a text to attend to?
    dropout: float = 0.0
    kv_heads: int | None = None  # of keys and values, each for heads / kv_heads queries (arXiv:2305.13245); None: one for each
    causal: bool = True  # a position knows none after it; else all, and there is no cache

    def __post_init__(self) -> None:
        for name, legal in (("activation", list(ACTIVATIONS)), ("norm", list(NORMS))):
            value = getattr(self, name)
            if value not in legal:
                raise SettingsError(f"{name} must be one of {legal}, got {value!r}{nearest(str(value), legal)}")
        for name in ("dim", "depth", "heads", "head_dim", "hidden", "context"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.head_dim % 2:
            raise SettingsError(f"head_dim must be even, got {self.head_dim}")
        if self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads):
            raise SettingsError(f"kv_heads must divide the {self.heads} heads, got {self.kv_heads}")

    @property
    def shared(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads


class DecoderLayer(nn.Module):
    """One layer, its norms before what they serve. Queries, keys and values are one matrix product."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        inner, shared = config.heads * config.head_dim, config.shared * config.head_dim
        self.heads, self.shared, self.dropout, self.causal = config.heads, config.shared, config.dropout, config.causal
        self.activation = ACTIVATIONS[config.activation]
        norm = NORMS[config.norm]
        self.attention_norm = norm(config.dim, eps=1e-5)
        self.qkv = nn.Linear(config.dim, inner + 2 * shared, bias=config.bias)
        self.attention_out = nn.Linear(inner, config.dim, bias=config.bias)
        if config.cross:
            self.cross_norm = norm(config.dim, eps=1e-5)
            self.cross_query = nn.Linear(config.dim, inner, bias=config.bias)
            self.cross_keys_values = nn.Linear(config.dim, 2 * inner, bias=config.bias)
            self.cross_out = nn.Linear(inner, config.dim, bias=config.bias)
        self.feed_norm = norm(config.dim, eps=1e-5)
        self.feed_in = nn.Linear(config.dim, config.hidden, bias=config.bias)
        self.feed_out = nn.Linear(config.hidden, config.dim, bias=config.bias)

    def remember(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """text [R, L, D] to the keys and values [R, heads, L, head_dim] that `attend` reads."""
        k, v = self._heads(self.cross_keys_values(text)).chunk(2, 1)
        return k, v

    def attend_to_self(
        self,
        x: Tensor,
        table: tuple[Tensor, Tensor] | None,
        cache: KVCache | None,
        layer: int,
        mask: Tensor | None,
    ) -> Tensor:
        qkv = self._heads(self.qkv(self.attention_norm(x)))  # [R, heads + 2 shared, N, head_dim]
        v = qkv[:, self.heads + self.shared :]
        qk = qkv[:, : self.heads + self.shared]
        q, k = (qk if table is None else rotate(qk, table)).split((self.heads, self.shared), 1)
        if cache is not None:
            k, v = cache.write(layer, k, v)
        y = self._look(q, k, v, mask, causal=self.causal and cache is None)
        return self._drop(self.attention_out(y.transpose(1, 2).flatten(2)))

    def _look(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """q [R, heads, N, head_dim], k and v [R, shared, M, head_dim] to [R, heads, N, head_dim]."""
        if self.shared == self.heads:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        if q.shape[2] == 1 and not causal:  # one position: the queries of a head are its rows, and nothing is copied
            grouped = q.view(len(q), self.shared, -1, q.shape[3])
            return F.scaled_dot_product_attention(grouped, k, v, attn_mask=mask).view_as(q)
        k, v = (x.repeat_interleave(self.heads // self.shared, 1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """To a text: x [R, N, D], keys and values of `remember`, mask [R, 1, 1, L] bool or None."""
        q = self._heads(self.cross_query(self.cross_norm(x)))
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self._drop(self.cross_out(y.transpose(1, 2).flatten(2)))

    def feed(self, x: Tensor) -> Tensor:
        return self._drop(self.feed_out(self.activation(self.feed_in(self.feed_norm(x)))))

    def _heads(self, x: Tensor) -> Tensor:
        """[R, N, n * head_dim] to [R, n, N, head_dim]."""
        head_dim = self.attention_out.in_features // self.heads
        return x.view(*x.shape[:2], -1, head_dim).transpose(1, 2)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


class Decoder(nn.Module):
    """Layers and a last norm."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.depth))
        self.norm = NORMS[config.norm](config.dim, eps=1e-5)
        if config.rope:
            cos, sin = rotary_table(config.context, config.head_dim)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)

    def forward(
        self, x: Tensor, cache: KVCache | None = None, memory: Memory | None = None, real: Tensor | None = None
    ) -> Tensor:
        """x [R, N, D] to [R, N, D], each position knowing itself and those before it, or all real ones where it is not causal.

        Args:
            cache: None: x is the whole sequence. Else x comes after what it holds, and is written into it; call
                `cache.advance` when all of x has been read, with the number of positions that are real in each row.
            memory: of `remember`, where the config says cross; with a cache, the cache's own.
            real: [R, N] bool, where it is not causal: positions that are not padding; None: all are.
        Raises:
            ShapeError: the cache is full.
        """
        assert not self.config.causal or real is None, "what comes before is real"
        table, mask = None, None if real is None else real[:, None, None]
        if cache is not None:
            cache.check_room(x.shape[1])
            mask, memory = cache.mask(x.shape[1]), cache.memory
        if self.config.rope:
            table = self._rotary(x.shape[1], cache)
        for n, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            x = x + layer.attend_to_self(x, table, cache, n, mask)
            if memory is not None:
                x = x + layer.attend(x, memory.keys[n], memory.values[n], memory.mask)
            x = x + layer.feed(x)
        normed: Tensor = self.norm(x)
        return normed

    def remember(self, text: Tensor, mask: Tensor | None = None) -> Memory:
        """A text [R, L, D], mask [R, L] bool (None: all real), as every layer will look at it."""
        pairs = [layer.remember(text) for layer in self.layers if isinstance(layer, DecoderLayer)]
        seen = None if mask is None or bool(mask.all()) else mask[:, None, None]
        return Memory(tuple(k for k, _ in pairs), tuple(v for _, v in pairs), seen)

    def cache(self, rows: int, capacity: int, memory: Memory | None = None) -> KVCache:
        """An empty cache for so many rows of this network."""
        c, weight = self.config, self.norm.weight
        return KVCache(c.depth, rows, c.shared, capacity, c.head_dim, weight.device, weight.dtype, memory)

    def _rotary(self, n: int, cache: KVCache | None) -> tuple[Tensor, Tensor]:
        """[n, head_dim / 2], or [R, 1, n, head_dim / 2] where rows stand at different positions."""
        cos, sin = self.get_buffer("cos"), self.get_buffer("sin")
        if cache is None:
            return cos[:n], sin[:n]
        if cache.level:
            begin = cache.lengths[0]
            return cos[begin : begin + n], sin[begin : begin + n]
        where = cache.positions(n).clamp(max=len(cos) - 1)  # a row that has ended may step beyond, and means nothing
        return cos[where][:, None], sin[where][:, None]
