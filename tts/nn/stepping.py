"""A causal transformer by one position of each row: what tts/nn/decoder.py computes, in as few calls as there can be.

At one position a layer of a small model computes less than the calls that ask for it cost: views, splits, look-ups of modules.
So what a step needs of each layer is collected once, and a step is nothing but its products, norms and attentions, of which an
attention with all that is around it is one call (tts/nn/scripted.py). The numbers are those of `Decoder.forward`, bit for bit.

    where (3, 7), rows at different positions        k, v of row 0   p p p x . . . .      x: written by this step
                                                              row 1   p p p p p p p x
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tts.nn.decoder import Decoder, DecoderLayer
from tts.nn.kv_cache import KVCache
from tts.nn.scripted import scripted


def step(decoder: Decoder, x: Tensor, cache: KVCache) -> Tensor:
    """x [R, D] of the position after those that each row holds to [R, D]; `cache.advance` is the caller's."""
    if cache.prepared is None:
        cache.prepared = Stepper(decoder, cache)
    stepped: Tensor = cache.prepared(x, cache)
    return stepped


def attend(
    y: Tensor, kv: Tensor, heads: int, last: int, rows: Tensor, where: Tensor | None, turn: Tensor | None, mask: Tensor | None
) -> Tensor:
    """What the queries of one position find in all that has been said, [R, heads * head_dim].

    Args:
        y: [R, (heads + 2 shared) * head_dim], queries, keys, values. kv: [R, 2, shared, M, head_dim], where keys, values go.
        last: the position of the row that stands farthest. rows: [R] int64, 0, 1, …
        where: the position of each row, [R] int64; None: they all stand at `last`.
        turn: cosines and sines of rotary positions, [2, head_dim] or [2, R, 1, head_dim].
        mask: [R, 1, 1, last + 1], True where a position is seen, or what is added to its score.
    """
    R, shared = kv.shape[0], kv.shape[2]
    each = y.view(R, heads + 2 * shared, -1)
    if turn is not None:  # (a, b) to (a cos - b sin, b cos + a sin)
        qk = each[:, : heads + shared]
        qk = qk * turn[0] + qk.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) * turn[1]
        each = torch.cat((qk, each[:, heads + shared :]), 1)
    new = each[:, heads:].view(R, 2, shared, -1)
    if where is None:
        kv[:, :, :, last] = new
    else:
        kv[rows, :, :, where] = new
    q = each[:, :heads].view(R, shared, heads // shared, -1)  # queries that share keys are their rows, and nothing is copied
    seen = kv[:, :, :, : last + 1]
    return F.scaled_dot_product_attention(q, seen[:, 0], seen[:, 1], attn_mask=mask).reshape(R, -1)


def look(y: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """What queries y [R, heads * head_dim] find in a text, keys and values [R, heads, L, head_dim]."""
    q = y.view(y.shape[0], keys.shape[1], 1, -1)
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).reshape(y.shape[0], -1)


class Stepper:
    """What steps of a decoder with one cache need; it holds the cache's memory, not the cache."""

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self.norm, self.rope, self.context = decoder.norm.forward, decoder.config.rope, decoder.config.context
        self.heads = decoder.config.heads
        memory = cache.memory
        self.layers = []
        for n, (layer, kv) in enumerate(zip(decoder.layers, cache.kv.unbind(0), strict=True)):
            assert isinstance(layer, DecoderLayer)
            cross = None
            if memory is not None:
                products = (layer.cross_norm.forward, layer.cross_query.forward, layer.cross_out.forward)
                cross = (*products, memory.keys[n], memory.values[n], memory.mask)
            attention = (layer.attention_norm.forward, layer.qkv.forward, kv, layer.attention_out.forward)
            feed = (layer.feed_norm.forward, layer.feed_in.forward, layer.activation, layer.feed_out.forward)
            self.layers.append((*attention, cross, *feed))
        device = cache.kv.device
        self.rows = torch.arange(len(cache.lengths), device=device)
        on_cpu = device.type == "cpu"  # on a GPU a step is captured, and its calls cost nothing
        self.attend: Callable[..., Tensor] = scripted(attend) if on_cpu else attend
        self.look: Callable[..., Tensor] = scripted(look) if on_cpu else look
        if self.rope:
            cos, sin = decoder.get_buffer("cos"), decoder.get_buffer("sin")  # [context, head_dim / 2]
            both = torch.stack((torch.stack((cos, cos), -1), torch.stack((-sin, sin), -1)))  # of both channels of a pair
            self.turns = both.flatten(2).to(cache.kv.dtype)  # [2, context, head_dim]

    def __call__(self, x: Tensor, cache: KVCache) -> Tensor:
        cache.check_room(1)
        if cache.level:
            turn = self.turns[:, cache.lengths[0]] if self.rope else None
            return self._step(x, cache.lengths[0], None, turn, None)
        where = torch.tensor(cache.lengths, device=x.device)
        return self._step(x, max(cache.lengths), where, self._turn(where), cache.mask(1))

    def at(self, x: Tensor, where: Tensor, most: int) -> Tensor:
        """The same where the positions [R] int64 stand in a tensor, and no number is looked at: fit for a captured graph.

        most: positions that are looked at, of which those after a row's own are masked.
        """
        beyond = torch.arange(most, device=x.device) > where[:, None]
        # numbers to be added: of truths, every layer would make them anew
        mask = torch.zeros(beyond.shape, dtype=x.dtype, device=x.device).masked_fill_(beyond, -torch.inf)
        return self._step(x, most - 1, where, self._turn(where), mask[:, None, None])

    def _turn(self, where: Tensor) -> Tensor | None:
        """Cosines and sines of positions [R], [2, R, 1, head_dim]; a row that has ended may step beyond, and means nothing."""
        return self.turns[:, where.clamp(max=self.context - 1), None] if self.rope else None

    def _step(self, x: Tensor, last: int, where: Tensor | None, turn: Tensor | None, mask: Tensor | None) -> Tensor:
        """Arguments as `attend` has them."""
        for norm, qkv, kv, out, cross, feed_norm, feed_in, activation, feed_out in self.layers:
            # 1. attention: what has been said, with this position
            x = x + out(self.attend(qkv(norm(x)), kv, self.heads, last, self.rows, where, turn, mask))
            # 2. to a text
            if cross is not None:
                cross_norm, query, cross_out, keys, values, seen = cross
                x = x + cross_out(self.look(query(cross_norm(x)), keys, values, seen))
            # 3. feed-forward
            x = x + feed_out(activation(feed_in(feed_norm(x))))
        normed: Tensor = self.norm(x)
        return normed
