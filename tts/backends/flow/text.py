"""The text of a flow: ids laid out over frames, and the encoder that reads them.

Two layouts. "plain" (F5-TTS) writes the tokens of prompt and target at the first positions and fillers after them; the
network finds out by itself when each is spoken. "aligned" writes each token on every frame that it lasts:

    tokens      ð ə k æ t          frames   2 1 2 3 1
    plain       ð ə k æ t . . . .
    aligned     ð ð ə k k æ æ æ t

so that little data suffices to learn what a phone sounds like. Row 0 of the table is the filler; token i is row i + 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.backends.flow.config import FlowConfig
from tts.nn.conv import ConvNeXtV2Block, blank
from tts.nn.time_embedding import position_table

# No text here: after the end of a plain text, on prompt frames whose phones are unknown, in a dropped text.
FILLER = 0


@dataclass(frozen=True)
class TextLayout:
    """rows [B, T] int64 of the embedding table; for "aligned" also where in its token each frame lies.

    inside: [B, T] float, 0 at the start of the token to 1 at its end; log_frames: [B, T] float, log of the token's frames.
    Both are 0 on fillers. For "plain", None.
    """

    rows: Tensor
    inside: Tensor | None = None
    log_frames: Tensor | None = None

    def map(self, act: Callable[[Tensor], Tensor]) -> TextLayout:
        """The layout with `act` done to each of its tensors."""
        inside = None if self.inside is None else act(self.inside)
        return TextLayout(act(self.rows), inside, None if self.log_frames is None else act(self.log_frames))

    def without(self, where: Tensor) -> TextLayout:
        """The layout with fillers where `where` [B, T] is True."""
        return self.map(lambda x: x.masked_fill(where, 0))


def lay_aligned(ids: Tensor, frames: Tensor, T: int) -> TextLayout:
    """Repeat each token over its frames.

    Args:
        ids: [B, L] int64. frames: [B, L] int64, 0 where a token does not sound (or is padding).
        T: frames to cover; those after the last token get fillers, tokens beyond T are cut.
    """
    B, L = ids.shape
    if L == 0 or T == 0:
        zeros = torch.zeros(B, T, device=ids.device)
        return TextLayout(zeros.long(), zeros, zeros.clone())
    ends = frames.cumsum(1)  # [B, L]
    t = torch.arange(T, device=ids.device).expand(B, T).contiguous()
    index = torch.searchsorted(ends, t, right=True)  # the first token that ends after t: [B, T]
    sounds = index < L
    index = index.clamp(max=L - 1)
    length = frames.gather(1, index).clamp(min=1)
    start = ends.gather(1, index) - length
    rows = torch.where(sounds, ids.gather(1, index) + 1, FILLER)
    inside = torch.where(sounds, (t - start + 0.5) / length, 0.0)
    log_frames = torch.where(sounds, length.float().log(), 0.0)
    return TextLayout(rows, inside, log_frames)


def lay_plain(ids: Tensor, lengths: Tensor, T: int) -> TextLayout:
    """Tokens [B, L] with lengths [B] at the first positions, fillers up to T; tokens beyond T are cut."""
    rows = torch.where(torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None], ids + 1, FILLER)[:, :T]
    return TextLayout(F.pad(rows, (0, T - rows.shape[1]), value=FILLER))


class TextEncoder(nn.Module):
    """A layout to vectors, one a position.

    Source: F5-TTS (arXiv:2410.06885), section 3.2: an embedding, absolute positions, ConvNeXt V2 blocks. The aligned layout
    replaces the absolute positions by the place inside the token and its duration, and joins `patch` frames into a position.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocabulary + 1, config.text_dim)
        hidden = round(config.text_dim * config.text_mult)
        self.blocks = nn.ModuleList(ConvNeXtV2Block(config.text_dim, hidden) for _ in range(config.text_layers))
        if config.aligned:
            self.join = nn.Linear(config.patch * (config.text_dim + 2), config.text_dim)

    def forward(self, text: TextLayout, mask: Tensor, drop: Tensor | None = None) -> Tensor:
        """Vectors [B, N, C], zero at positions that are not real.

        Args:
            text: over frames [B, T], T = N * patch, when aligned; over positions [B, N] when plain.
            mask: [B, N] bool, True where a position is real. drop: [B] bool, True where no text is to be seen.

        A dropped text still has its fillers where they were, as in F5-TTS.
        """
        config = self.config
        keep = mask
        if config.mask_fillers and not config.aligned:
            keep = mask & (text.rows != FILLER)
        if drop is not None:
            text = text.without(drop[:, None].expand_as(text.rows))
        x = self.table(text.rows)  # [B, T, C]
        if config.aligned:
            assert text.inside is not None and text.log_frames is not None
            x = torch.cat((x, text.inside[..., None], text.log_frames[..., None]), -1)
            x = self.join(x.unflatten(1, (-1, config.patch)).flatten(2))  # [B, N, C]
        elif len(self.blocks):
            x = x + position_table(x.shape[1], config.text_dim, x.device)
        x = blank(x, keep)
        for block in self.blocks:
            x = blank(block(x, mask), keep)
        return x
