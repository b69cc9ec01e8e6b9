"""A masked network whose passes are captured: every length of a bucket is that bucket's, what is beyond it masked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tts.backends.masked.network import Given, MaskedNetwork, Text
from tts.decoding.graphs import Graphs, fill_up
from tts.nn.kv_cache import Memory


@dataclass(frozen=True)
class Graphed:
    """A MaskPredictor; what it is given is filled up by `fill`. graphs: of `network.look`. prompt: [R, K, P] codes."""

    network: MaskedNetwork
    graphs: Graphs
    prompt: Tensor

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.network.sizes

    def hidden(self, codes: Tensor, book: int, t: Tensor, given: Given) -> Tensor:
        """The prompt's frames are read as cells, too, so that a bucket is one of both lengths together."""
        P, T = self.prompt.shape[2], codes.shape[2]
        cells = fill_up(torch.cat((self.prompt, codes), 2), 2, self.sizes[book])
        near = self.network.config.reach is not None and book > 0
        books = torch.full((len(codes),), book, device=codes.device)
        return self.graphs(cells, books, t, given, False, near)[:, P : P + T]

    def logits(self, hidden: Tensor, book: int) -> Tensor:
        return self.network.logits(hidden, book)


def fill(given: Given) -> Given:
    """The same, without its prompt, up to the ends of the buckets of its frames and of its text."""
    text, voice = (None if x is None else fill_up(x, 1) for x in (given.text, given.voice))
    prefix, memory = given.prefix, given.memory
    if prefix is not None:
        prefix = Text(fill_up(prefix.vectors, 1), fill_up(prefix.known, 1))
    if memory is not None:
        keys, values = (tuple(fill_up(x, 2) for x in each) for each in (memory.keys, memory.values))
        R, L, device = len(given.real), memory.keys[0].shape[2], given.real.device
        seen = memory.mask if memory.mask is not None else torch.ones(R, 1, 1, L, dtype=torch.bool, device=device)
        memory = Memory(keys, values, fill_up(seen, 3))
    return replace(
        given, prompt=given.prompt[:, :, :0], real=fill_up(given.real, 1), text=text, voice=voice, prefix=prefix, memory=memory
    )
