"""The network of a masked backend: cells of which some are masked, a text and a prompt in, what every cell may be out.

frame            0    1    2   │  3    4    5    6        frames before the line are the prompt's
book 0           a    b    c   │  d    e    f    g        books before the one that is asked for: all known
book 1           h    i    j   │  ?    k    ?    ?        the one that is asked for: some known
book 2           l    m    n   │  ?    ?    ?    ?        later ones: nothing known, but in the prompt
text           phone of the frame, how long it has lasted and will                          (aligned)
voice                          │  of the prompt's codes, the same at every frame
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.backends.masked.config import MaskedConfig
from tts.backends.masked.transformer import Transformer
from tts.nn.codes import CodeEmbedding, Voice
from tts.nn.conv import blank
from tts.nn.kv_cache import Memory
from tts.nn.text import TextEncoder, lay
from tts.nn.time_embedding import position_table


@dataclass(frozen=True)
class Text:
    """Encoded tokens. vectors: [B, L, C], zero where not known; known: [B, L] bool."""

    vectors: Tensor
    known: Tensor

    def row(self, b: int) -> Text:
        return Text(self.vectors[b : b + 1], self.known[b : b + 1])

    def twice(self, known: bool = False) -> Text:
        """Every row, then every row again, as if its tokens were not known unless they are to be."""
        return Text(torch.cat((self.vectors, self.vectors * known)), torch.cat((self.known, self.known & known)))


@dataclass(frozen=True)
class Given:
    """What R rows are told at every step, beside the cells. N = P + T frames: the prompt's, then the target's.

    prompt: [R, K, P] codes, V where none. real: [R, N] bool; frames that are not are padding.
    text: [R, N, C], what each frame is told of its token (aligned), or None.
    voice: [R, N, D], or None. prefix: a text to be read before the frames, vectors [R, L, D]. memory: one to attend to.
    """

    prompt: Tensor
    real: Tensor
    text: Tensor | None = None
    voice: Tensor | None = None
    prefix: Text | None = None
    memory: Memory | None = None


class Head(nn.Module):
    """Logits of one book."""

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        K, V, D, rank = config.codebooks, config.size, config.dim, config.code_dim
        self.split = None if rank is None else nn.Parameter(torch.randn(K, D, rank) * D**-0.5)
        width = D if rank is None else rank
        self.table = nn.Parameter(torch.randn(K, width, V) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(K, V))

    def forward(self, hidden: Tensor, book: int) -> Tensor:
        """hidden [..., D] to logits [..., V] float32."""
        x = hidden if self.split is None else hidden @ self.split[book].to(hidden.dtype)
        logits = x @ self.table[book].to(x.dtype)
        return logits.float() + self.bias[book].float()


class MaskedNetwork(nn.Module):
    """A MaskPredictor (tts/decoding/scores.py), and the same for the rows of training, whose books differ."""

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.config = config
        self.sizes = config.spec.sizes
        aligned = config.text == "aligned"
        self.codes = CodeEmbedding(config.codebooks, config.size, config.dim, config.code_dim)
        text = (config.vocabulary, config.text_dim, config.text_layers, round(config.text_dim * config.text_mult))
        self.text = TextEncoder(*text, placed=not aligned and config.text_layers > 0) if config.vocabulary else None
        if config.text_network:
            wide = (nn.Linear(config.text_dim, 4 * config.dim), nn.SiLU(), nn.Linear(4 * config.dim, config.dim))
            self.text_in: nn.Module = nn.Sequential(*wide)
        else:
            self.text_in = nn.Linear(config.text_dim, config.dim)
        self.book = nn.Embedding(config.codebooks, config.text_dim) if aligned else None
        told = aligned and config.stays > 0
        self.stay = nn.Embedding(config.stays, config.text_dim) if told else None
        self.left = nn.Embedding(config.stays, config.text_dim) if told else None
        rank = config.dim if config.code_dim is None else config.code_dim * config.codebooks
        self.voice = Voice(rank, config.dim) if config.voice else None
        self.transformer = Transformer(config)
        self.head = Head(config)
        if config.positions == "sinusoidal":
            self.register_buffer("places", position_table(config.context, config.dim, last=True), persistent=False)

    # ------------------------------------------------------------------------------------------------ what is given

    def read(self, ids: Tensor, known: Tensor) -> Text:
        """Tokens [B, L], or vectors [B, L, C] made elsewhere; known [B, L] bool: False for padding and what is unseen."""
        return Text(ids if self.text is None else self.text(ids, known), known) if known.shape[1] else self._no_text(ids)

    def place_text(self, text: Text, token_frames: Tensor, N: int) -> Tensor:
        """What N frames are told of their tokens, that last token_frames [B, L] one after another: [B, N, C], zero for none."""
        token, stays = lay(token_frames, N)
        L = token_frames.shape[1]
        vectors, known = F.pad(text.vectors, (0, 0, 0, 1)), F.pad(text.known, (0, 1))
        rows = torch.arange(len(token), device=token.device)[:, None]
        known = known[rows, token]
        told = vectors[rows, token]
        if self.stay is not None and self.left is not None and L:
            left = token_frames.gather(1, token.clamp(max=L - 1)) - 1 - stays
            told = told + self.stay(stays.clamp(max=self.config.stays - 1))
            told = told + self.left(left.clamp(min=0, max=self.config.stays - 1))
        return blank(told, known)

    def lead(self, text: Text) -> Text:
        """A text as the prefix that `Given` takes."""
        return Text(blank(self.text_in(text.vectors), text.known), text.known)

    def remember(self, text: Text) -> Memory:
        """A text as the memory that `Given` takes; a row without any attends to zeros."""
        vectors, known = self.lead(text).vectors, text.known
        return self.transformer.remember(vectors, known | ~known.any(1, keepdim=True))

    def hear(self, codes: Tensor, known: Tensor) -> Tensor | None:
        """The voice of codes [B, K, N] where known [B, N], as all other frames are told it: [B, N, D]. None: no such layer."""
        if self.voice is None:
            return None
        rows = self.codes.rows(codes.transpose(1, 2))  # [B, N, K, rank]
        voice = self.voice(rows.sum(-2) if self.config.code_dim is None else rows.flatten(-2), known)
        return blank(voice[:, None].expand(-1, known.shape[1], -1), ~known)

    # -------------------------------------------------------------------------------------------------- the scores

    def forward(self, codes: Tensor, book: Tensor, t: Tensor, given: Given) -> Tensor:
        """codes [R, K, T], book [R] int64, t [R] to what the heads read, [R, T, D]; see `hidden`."""
        whole = bool(given.real.all()) and (given.prefix is None or bool(given.prefix.known.all()))
        return self.look(codes, book, t, given, whole, self.config.reach is not None and bool((book > 0).any()))

    def look(self, codes: Tensor, book: Tensor, t: Tensor, given: Given, whole: bool, near: bool) -> Tensor:
        """`forward` where it is known whether all positions are real, and whether a row looks only near: asks for no number."""
        T = codes.shape[2]
        real = given.real
        x = self.codes(torch.cat((given.prompt, codes), 2).transpose(1, 2))  # [R, N, D]
        if given.text is not None:
            assert self.book is not None
            x = x + self.text_in(given.text + self.book(book)[:, None])
        if given.voice is not None:
            x = x + given.voice
        if given.prefix is not None:
            x = torch.cat((given.prefix.vectors.to(x.dtype), x), 1)  # [R, L + N, D]
            real = torch.cat((given.prefix.known, real), 1)
        where = torch.arange(x.shape[1], device=x.device)[None] if whole else (real.cumsum(1) - 1).clamp(min=0)
        if self.config.positions == "sinusoidal":
            x = x + self.get_buffer("places")[where].to(x.dtype)
        mask = None if whole else real[:, None, None]
        if near:
            assert self.config.reach is not None
            seen = (where[:, :, None] - where[:, None]).abs() <= self.config.reach  # [R or 1, N, N]
            seen = seen[:, None] | (book == 0)[:, None, None, None]
            mask = seen if mask is None else seen & mask
            if not whole:  # padding that sees nothing would be NaN
                mask = mask | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        hidden = self.transformer(x, t, None if whole else where, mask, given.memory)
        return hidden[:, hidden.shape[1] - T :]

    def hidden(self, codes: Tensor, book: int, t: Tensor, given: Given) -> Tensor:
        """As a MaskPredictor."""
        return self(codes, torch.full((len(codes),), book, device=codes.device), t, given)

    def logits(self, hidden: Tensor, book: int) -> Tensor:
        """As a MaskPredictor."""
        logits: Tensor = self.head(hidden, book)
        return logits

    # -------------------------------------------------------------------------------------------------- the start

    @torch.no_grad()
    def adopt(self, vectors: Sequence[Tensor]) -> None:
        """Begin with what the codec knows of its codes: vectors [V, C] of each book become their tables, in and out."""
        self.codes.adopt(vectors)
        if self.config.code_dim is not None:
            table = self.codes.table.weight.unflatten(0, (self.config.codebooks, -1))[:, :-1]
            self.head.table.copy_(table.transpose(1, 2) * table.shape[2] ** -0.5)

    def _no_text(self, ids: Tensor) -> Text:
        """Of no tokens at all."""
        B, device = len(ids), ids.device
        return Text(torch.zeros(B, 0, self.config.text_dim, device=device), torch.zeros(B, 0, dtype=torch.bool, device=device))
