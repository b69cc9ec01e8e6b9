"""A causal transformer by one position of each row: what tts/nn/decoder.py computes, in as few calls as there can be.

At one position a layer of a small model computes less than the calls that ask for it cost: views, splits, look-ups of modules.
So what a step needs of each layer is collected once, and a step is nothing but its products, norms and attentions. The numbers
are those of `Decoder.forward`, bit for bit.

    where (3, 7), rows at different positions        k, v of row 0   p p p x . . . .      x: written by this step
                                                              row 1   p p p p p p p x
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tts.nn.decoder import Decoder, DecoderLayer
from tts.nn.kv_cache import KVCache


def step(decoder: Decoder, x: Tensor, cache: KVCache) -> Tensor:
    """x [R, D] of the position after those that each row holds to [R, D]; `cache.advance` is the caller's."""
    if cache.prepared is None:
        cache.prepared = Stepper(decoder, cache)
    stepped: Tensor = cache.prepared(x, cache)
    return stepped


class Stepper:
    """What steps of a decoder with one cache need; it holds the cache's memory, not the cache."""

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self.norm, self.rope, self.context = decoder.norm.forward, decoder.config.rope, decoder.config.context
        self.head_dim, self.heads, self.shared = decoder.config.head_dim, decoder.config.heads, decoder.config.shared
        keys, values = cache.k.unbind(0), cache.v.unbind(0)
        memory = cache.memory
        self.layers = []
        for n, layer in enumerate(decoder.layers):
            assert isinstance(layer, DecoderLayer)
            attention = (layer.attention_norm.forward, layer.qkv.forward, layer.attention_out.forward)
            feed = (layer.feed_norm.forward, layer.feed_in.forward, layer.activation, layer.feed_out.forward)
            cross = None if memory is None else (layer, memory.keys[n], memory.values[n], memory.mask)
            self.layers.append((*attention, keys[n], values[n], cross, *feed))
        self.rows = torch.arange(len(cache.lengths), device=cache.k.device)[:, None]
        self.each = torch.arange(self.shared, device=cache.k.device)
        if self.rope:
            cos, sin = decoder.get_buffer("cos"), decoder.get_buffer("sin")  # [context, head_dim / 2]
            self.cos = torch.stack((cos, cos), -1).flatten(1).to(cache.k.dtype)  # of both channels of a pair
            self.sin = torch.stack((-sin, sin), -1).flatten(1).to(cache.k.dtype)

    def __call__(self, x: Tensor, cache: KVCache) -> Tensor:
        cache.check_room(1)
        if cache.level:
            n = cache.lengths[0]
            return self._step(x, n, n, None)
        where = torch.tensor(cache.lengths, device=x.device)
        return self._step(x, where, max(cache.lengths), cache.mask(1))

    def at(self, x: Tensor, where: Tensor, most: int) -> Tensor:
        """The same where the positions [R] int64 stand in a tensor, and no number is looked at: fit for a captured graph.

        most: positions that are looked at, of which those after a row's own are masked.
        """
        beyond = torch.arange(most, device=x.device) > where[:, None]
        # numbers to be added: of truths, every layer would make them anew
        mask = torch.zeros(beyond.shape, dtype=x.dtype, device=x.device).masked_fill_(beyond, -torch.inf)
        return self._step(x, where, most - 1, mask[:, None, None])

    def _step(self, x: Tensor, where: int | Tensor, last: int, mask: Tensor | None) -> Tensor:
        """where: the position of all rows, or of each [R]. last: that of the row that stands farthest."""
        R, heads, shared, head_dim = len(x), self.heads, self.shared, self.head_dim
        if self.rope:
            at = where if isinstance(where, int) else where.clamp(max=self.context - 1)
            cos, sin = self.cos[at], self.sin[at]  # [head_dim] or [R, head_dim]
            if not isinstance(where, int):
                cos, sin = cos[:, None], sin[:, None]
        place = None if isinstance(where, int) else (self.rows, self.each, where[:, None])
        for norm, qkv, out, keys, values, cross, feed_norm, feed_in, activation, feed_out in self.layers:
            # 1. attention: what has been said, with this position
            y = qkv(norm(x)).view(R, -1, head_dim)  # [R, heads + 2 shared, head_dim]
            qk, v = y[:, : heads + shared], y[:, heads + shared :]
            if self.rope:  # (a, b) to (a cos - b sin, b cos + a sin)
                qk = qk * cos + qk.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) * sin
            if place is None:
                keys.select(2, last).copy_(qk[:, heads:])
                values.select(2, last).copy_(v)
            else:
                keys.index_put_(place, qk[:, heads:])
                values.index_put_(place, v)
            # the queries that share keys are their rows, and nothing is copied
            q = qk[:, :heads].reshape(R, shared, -1, head_dim)
            k, v = keys.narrow(2, 0, last + 1), values.narrow(2, 0, last + 1)
            x = x + out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(R, -1))
            # 2. to a text
            if cross is not None:
                layer, theirs, said, seen = cross
                x = x + layer.attend(x[:, None], theirs, said, seen)[:, 0]
            # 3. feed-forward
            x = x + feed_out(activation(feed_in(feed_norm(x))))
        normed: Tensor = self.norm(x)
        return normed
