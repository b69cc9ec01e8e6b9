"""A text for backends over codes: the encoder of its tokens, and which token each frame belongs to.

    tokens   ð ə k æ t          frames   2 1 2 3 1
    token    0 0 1 2 2 3 3 3 4 5 5 …          how long already   0 1 0 0 1 0 1 2 0 0 1 …

Index L (here 5) stands for no token: beyond the last one, or where the phones of a prompt are not known.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tts.frames import Prompt
from tts.nn.conv import ConvNeXtV2Block, blank
from tts.nn.time_embedding import position_table


def lay(token_frames: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """Frames of each token [B, L] to the token of each frame and how many frames before it had the same, both [B, T] int64."""
    B, L = token_frames.shape
    t = torch.arange(T, device=token_frames.device).expand(B, T).contiguous()
    if L == 0:
        return torch.zeros_like(t), t
    ends = token_frames.cumsum(1)
    token = torch.searchsorted(ends, t, right=True)  # the first token that ends after t
    last = token.clamp(max=L - 1)
    start = torch.where(token < L, ends.gather(1, last) - token_frames.gather(1, last), ends[:, -1:])
    return token, t - start


def left_of(token_frames: Tensor, token: Tensor, stays: Tensor) -> Tensor:
    """Of frames that `lay` has laid, how many more their token lasts after each [B, T] int64; -1 where there is none."""
    L = token_frames.shape[1]
    if L == 0:
        return torch.full_like(token, -1)
    lasts = token_frames.gather(1, token.clamp(max=L - 1))
    return torch.where(token < L, lasts - 1 - stays, -1)


class TextEncoder(nn.Module):
    """Tokens to vectors that know their neighbours: an embedding and ConvNeXt V2 blocks.

    placed: positions are added, for a model that must find the way through the text by itself.
    """

    def __init__(self, vocabulary: int, dim: int, layers: int, hidden: int, placed: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, dim)
        self.blocks = nn.ModuleList(ConvNeXtV2Block(dim, hidden) for _ in range(layers))
        self.placed = placed

    def forward(self, ids: Tensor, known: Tensor) -> Tensor:
        """ids [B, L] int64, known [B, L] bool to [B, L, C]; a token that is not known is as if it were padding, and zero."""
        x = self.table(ids)
        if self.placed:
            x = x + position_table(x.shape[1], x.shape[2], x.device).to(x.dtype)
        x = blank(x, known)
        for block in self.blocks:
            x = blank(block(x, known), known)
        return x


def rescaled(token_frames: Tensor, T: int) -> Tensor:
    """Frames of each token [L] at one rate to those at another, whose sum is T: the ends are rounded, not the lengths."""
    ends = token_frames.cumsum(0)
    ends = (ends.double() * (T / max(1, int(ends[-1])))).round().long()
    return torch.diff(ends, prepend=ends.new_zeros(1))


def read_prompt(
    prompt: Prompt | None, b: int, codebooks: int, aligned: bool, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Row b of a prompt: its codes [K, P], its tokens [L] and the frames of each, at the rate of the codes [L].

    aligned: tokens matter only with their frames, elsewhere without. What is not known is empty.
    """
    none = torch.zeros(0, dtype=torch.int64, device=device)
    if prompt is None:
        return torch.zeros(codebooks, 0, dtype=torch.int64, device=device), none, none
    frames = prompt.frames["codes"]
    codes = frames.data[b, :, : int(frames.lengths[b])].to(device)
    L = int(prompt.tokens.lengths[b])
    ids = prompt.tokens.ids[b, :L].to(device)
    if not aligned:
        return codes, ids, none
    if prompt.token_frames is None or not L:
        return codes, none, none
    return codes, ids, rescaled(prompt.token_frames[b, :L].to(device), codes.shape[1])
