"""The network of an autoregressive backend: the codes so far, a text and a voice in, the scores of the next step out.

step         0      1      2    │  3      4      5       steps before the line are the prompt's
codes in     none   c0     c1   │  c2     c3     c4      what the step before said, delayed (patterns.py)
text         phone of the frame whose book 0 is said     (aligned)
voice                           │  of the prompt's codes, the same at every step
encoder      what a transformer makes of all of these phones and of the prompt's codes, where there is one   (aligned)
asked for    c0     c1     c2   │  c3     c4     c5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.backends.ar.config import ARConfig
from tts.backends.ar.heads import DelayHead, DepthHead
from tts.decoding.scores import DepthScorer, Scores, Stepping
from tts.nn.codes import CodeEmbedding, Voice
from tts.nn.conv import blank
from tts.nn.decoder import Decoder
from tts.nn.kv_cache import KVCache, Memory
from tts.nn.stepping import Stepper, step
from tts.nn.text import TextEncoder
from tts.nn.time_embedding import position_table


@dataclass(frozen=True)
class Text:
    """Encoded tokens. vectors: [B, L + 1, D], known: [B, L + 1] bool; the last row is "no token", where vectors are zero."""

    vectors: Tensor
    known: Tensor

    def row(self, b: int) -> Text:
        return Text(self.vectors[b : b + 1], self.known[b : b + 1])


class ARNetwork(nn.Module):
    """A SteppingScorer (tts/decoding/scores.py), and the same over whole rows for training and prompts."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.config = config
        self.sizes = config.spec.sizes
        self.codes = CodeEmbedding(config.codebooks, config.size, config.dim, config.code_dim)
        hidden, placed = round(config.text_dim * config.text_mult), config.text != "aligned"
        sizes = (config.vocabulary, config.text_dim, config.text_layers, hidden)
        self.text = TextEncoder(*sizes, placed) if config.text_layers else None
        self.text_in = nn.Linear(config.text_dim, config.dim)
        aligned = config.text == "aligned"
        self.stay = nn.Embedding(config.stays, config.dim) if aligned else None
        self.left = nn.Embedding(1 + config.left, config.dim) if aligned and config.left else None  # row 0: not known
        self.advance = nn.Linear(config.dim, 1) if aligned else None
        rank = config.dim if config.code_dim is None else config.code_dim * config.codebooks
        self.voice = Voice(rank, config.dim) if config.voice else None
        self.encoder = Decoder(config.encoder) if config.encoder_layers else None
        self.encoded = nn.Linear(config.dim, config.dim) if config.encoder_layers else None
        self.trunk = Decoder(config.trunk)
        self.head = DepthHead(config) if config.head == "hierarchical" else DelayHead(config)
        if config.positions == "sinusoidal":
            self.register_buffer("places", position_table(config.context, config.dim, last=True), persistent=False)

    @property
    def depth(self) -> DepthScorer | None:
        return self.head if isinstance(self.head, DepthHead) else None

    # ------------------------------------------------------------------------------------------------ what is given

    def read(self, ids: Tensor, known: Tensor) -> Text:
        """Tokens [B, L] to what steps are told of them; known [B, L] bool: False for padding and for what is not to be seen."""
        assert self.text is not None, "a model without text layers is given its text as content"
        return self.read_vectors(self.text(ids, known), known)

    def read_vectors(self, vectors: Tensor, known: Tensor) -> Text:
        """The same from vectors [B, L, text_dim] made elsewhere, for instance by T5."""
        vectors = blank(self.text_in(vectors), known)
        return Text(F.pad(vectors, (0, 0, 0, 1)), F.pad(known, (0, 1)))

    def place_text(self, text: Text, token: Tensor, stays: Tensor, left: Tensor | None = None) -> Tensor:
        """What frames are told of their phone: [B, N, D].

        token [B, N] in [0, L]; stays [B, N] frames it has lasted; left [B, N] frames it will last on, -1 or None: not known.
        """
        assert self.stay is not None
        rows = torch.arange(len(token), device=token.device)[:, None]
        when = self.stay(stays.clamp(max=self.config.stays - 1))
        if self.left is not None:
            left = torch.full_like(token, -1) if left is None else left
            when = when + self.left(1 + left.clamp(max=self.config.left - 1))
        return text.vectors[rows, token] + blank(when, text.known[rows, token])

    def hear(self, codes: Tensor, known: Tensor) -> Tensor:
        """The voice of codes [B, K, T] where known [B, T]: [B, D], zero where nothing is known, or without such a layer."""
        if self.voice is None:
            return torch.zeros(len(codes), self.config.dim, device=codes.device)
        rows = self.codes.rows(codes.transpose(1, 2))  # [B, T, K, rank]
        voice: Tensor = self.voice(rows.sum(-2) if self.config.code_dim is None else rows.flatten(-2), known)
        return voice

    def encode(self, codes: Tensor, told: Tensor, real: Tensor) -> Tensor:
        """What else frames are told, by the encoder, which sees all of them: [B, N, D].

        codes: [B, K, N] of the prompt, V where there is none; told: [B, N, D], `place_text` and voice; real: [B, N] bool.
        """
        assert self.encoder is not None and self.encoded is not None, "a model without an encoder"
        x = self._placed(self.codes(codes.transpose(1, 2)) + told, None)
        return blank(self.encoded(self.encoder(x, real=None if bool(real.all()) else real)), real)

    # ---------------------------------------------------------------------------------------------------- whole rows

    def forward(
        self,
        codes: Tensor,
        told: Tensor | None,
        text: Text | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [B, S, D] of whole rows.

        Args:
            codes: [B, K, S] what is read at each step: that of the step before, first of all none (V everywhere).
            told: [B, S, D] or None, what each step is told beside (`place_text`, voice).
            text: for a text as a prefix, or to attend to. cache: to be filled, empty so far; for a text to attend to, one
                made by `start`. lengths: [B] steps that are real, with a cache.
        """
        x = self.codes(codes.transpose(1, 2))  # [B, S, D]
        x = x if told is None else x + told
        begin = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if self.config.text == "prefix" and text is not None:
            begin = text.known.sum(1)
        S = x.shape[1]
        where = begin[:, None] + torch.arange(S, device=x.device)  # of each step among all positions
        if int(begin.max()) if len(begin) else 0:
            assert text is not None
            whole = F.pad(text.vectors, (0, 0, 0, S - 1))  # L + 1 + S - 1 positions
            x = whole.scatter(1, where[..., None].expand_as(x), x.to(whole.dtype))
        x = self._placed(x, None)
        memory = self._memory(text) if cache is None else None
        hidden = self.trunk(x, cache, memory)
        if cache is not None:
            assert lengths is not None
            cache.advance((begin + lengths).tolist())
        if hidden.shape[1] == S:
            return hidden
        return hidden.gather(1, where[..., None].expand(-1, -1, hidden.shape[2]))

    # ------------------------------------------------------------------------------------------------- step by step

    def start(
        self, codes: Tensor, lengths: Tensor, told: Tensor | None, text: Text | None, capacity: int
    ) -> tuple[Scores, KVCache]:
        """Read the steps of prompts; say what comes next.

        Args:
            codes, told, text: as in `forward`, of R rows. lengths: [R] steps of each, at least 1.
            capacity: positions to make room for in all, prefix and prompt included.
        """
        cache = self.trunk.cache(len(codes), capacity, self._memory(text))
        hidden = self(codes, told, text, cache, lengths)
        last = hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
        return self.score(last), cache

    def step(self, codes: Tensor, text: Tensor | None, cache: KVCache) -> Scores:
        """One step of R rows; text [R, D]: what the step that is asked for is told (`place_text`, voice)."""
        x = self.codes(codes)
        x = self._placed((x if text is None else x + text)[:, None], cache)[:, 0]
        hidden = step(self.trunk, x, cache)
        cache.advance(1)
        return self.score(hidden)

    def stepping(self, cache: KVCache) -> Stepping:
        """As a SteppingScorer: `step` without its codes' vectors, and without the log-odds of moving on."""
        stepper, room = Stepper(self.trunk, cache), cache.capacity
        places = self.get_buffer("places") if self.config.positions == "sinusoidal" else None

        def next_step(x: Tensor, where: Tensor) -> Tensor:
            where = where.clamp(max=room - 1)
            if places is not None:
                x = x + places[where.clamp(max=len(places) - 1)]
            hidden = stepper.at(x, where, room)
            return hidden if isinstance(self.head, DepthHead) else self.head(hidden).float()

        where = torch.tensor(cache.lengths, device=cache.k.device)
        return Stepping(next_step, where, self.codes.table.weight, self.codes.join)

    def score(self, hidden: Tensor) -> Scores:
        """Hidden states [R, D] to scores."""
        aux = {} if self.advance is None else {"advance": self.advance(hidden)[:, 0].float()}
        logits = None if isinstance(self.head, DepthHead) else self.head(hidden).float()
        return Scores(hidden, logits, aux)

    def _memory(self, text: Text | None) -> Memory | None:
        """A text to attend to; a row without any attends to zeros."""
        if self.config.text != "cross" or text is None:
            return None
        known = text.known[:, :-1]
        return self.trunk.remember(text.vectors[:, :-1], known | ~known.any(1, keepdim=True))

    def _placed(self, x: Tensor, cache: KVCache | None) -> Tensor:
        if self.config.positions != "sinusoidal":
            return x
        places = self.get_buffer("places")
        if cache is None:
            return x + places[: x.shape[1]]
        return x + places[cache.positions(x.shape[1]).clamp(max=len(places) - 1)]

    # -------------------------------------------------------------------------------------------------- the start

    @torch.no_grad()
    def adopt(self, vectors: Sequence[Tensor]) -> None:
        """Begin with what the codec knows of its codes: vectors [V, C] of each book become their tables, in and out."""
        self.codes.adopt(vectors)
        if self.config.code_dim is not None:
            table = self.codes.table.weight.unflatten(0, (self.config.codebooks, -1))[:, :-1]  # [K, V, rank]
            self.head.adopt(table)
