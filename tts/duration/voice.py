"""What a prompt tells of a voice's rhythm: how fast it speaks, how much it is silent, and how long it holds which phone.

prompt ─► phones, frames ─► embedding, convolutions, attention pooling ─► [D]
       └► rate, silence, length ────────────────────────────────────────► [CUES]
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.duration.rules import PromptRate
from tts.frames import Prompt, Tokens, frame_mask

CUES = 4  # a prompt with phones is known, log rate, share of silence between its phones, log typical seconds of its phones


def rows(tokens: Tokens, prompt: Prompt | None) -> Iterator[tuple[Tokens, Prompt | None]]:
    """Each row with its prompt, cut to its own length, so that what is made of it never depends on its batch."""
    for b, L in enumerate(tokens.lengths.tolist()):
        row = Tokens(tokens.ids[b : b + 1, :L], tokens.lengths[b : b + 1], tokens.table)
        if prompt is None:
            yield row, None
            continue
        known = int(prompt.tokens.lengths[b])
        said = Tokens(prompt.tokens.ids[b : b + 1, :known], prompt.tokens.lengths[b : b + 1], prompt.tokens.table)
        frames = None if prompt.token_frames is None else prompt.token_frames[b : b + 1, :known]
        yield row, Prompt({}, said, prompt.seconds[b : b + 1], frames)


def hear(rule: PromptRate, tokens: Tokens, prompt: Prompt | None, frame_rate: float) -> dict[str, Tensor]:
    """What is known of the voice that shall say `tokens` [B, L], on the CPU.

    Returns:
        prompt_ids [B, P], prompt_lengths [B], prompt_frames [B, P] float: the phones and how long each lasts; frames are spread
        by typical lengths where the prompt does not say. cues [B, CUES] float32.
    Raises:
        FitError: the tokens are of another symbol table than the rule's.
    """
    B = len(tokens.lengths)
    if prompt is None:
        nothing = Tokens(torch.zeros(B, 0, dtype=torch.int64), torch.zeros(B, dtype=torch.int64), tokens.table)
        prompt = Prompt({}, nothing, torch.zeros(B))
    said, typical = prompt.tokens, rule.expected(prompt.tokens)
    mask = frame_mask(said.lengths, said.ids.shape[1])
    spoken = ~rule.silent[said.ids] & mask
    frames = prompt.token_frames
    if frames is None:
        share = typical / typical.sum(1, keepdim=True).clamp(min=1e-9)
        frames = share * prompt.seconds.double()[:, None] * frame_rate
    lasts = frames.double() * mask
    # what is silent before the first phone and after the last is the recording's, not the voice's
    inner = (spoken.cumsum(1) > 0) & (spoken.flip(1).cumsum(1).flip(1) > 0)
    silence = (lasts * (inner & ~spoken)).sum(1) / (lasts * inner).sum(1).clamp(min=1e-9)
    heard = (typical * spoken).sum(1)
    known = (heard > 0).double()
    rate = rule.rate(tokens, prompt).log()
    cues = torch.stack([known, rate * known, silence * known, heard.clamp(min=0.1).log() * known], 1)
    return {"prompt_ids": said.ids, "prompt_lengths": said.lengths, "prompt_frames": lasts.float(), "cues": cues.float()}


class Convolutions(nn.Module):
    """Residual convolutions over a sequence, as in tts/duration/phones.py."""

    def __init__(self, dim: int, layers: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(dim, dim, kernel, padding=kernel // 2) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [B, L, D], mask [B, L] to [B, L, D], zero where the mask is False."""
        if not x.shape[1]:  # a prompt without phones; torch refuses to convolve nothing
            return x
        for convolution, norm in zip(self.layers, self.norms, strict=True):
            y = convolution((x * mask[..., None]).transpose(1, 2)).transpose(1, 2)
            x = x + self.dropout(norm(F.gelu(y)))
        return x * mask[..., None]


class Pool(nn.Module):
    """Attention pooling: one learned query over a sequence."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, L, D] to [B, D]; zeros for a row of length 0."""
        if not x.shape[1]:
            return x.new_zeros(x.shape[0], x.shape[2])
        weight = self.score(x)[..., 0].masked_fill(~mask, -1e4).softmax(1) * mask  # [B, L]
        return (weight[..., None] * x).sum(1)


class Voice(nn.Module):
    """What `hear` gives to one vector [B, D + CUES]."""

    def __init__(self, vocabulary: int, dim: int, layers: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.lasts = nn.Linear(1, dim)
        self.convolutions = Convolutions(dim, layers, kernel, dropout)
        self.pool = Pool(dim)

    def forward(self, prompt_ids: Tensor, prompt_lengths: Tensor, prompt_frames: Tensor, cues: Tensor) -> Tensor:
        mask = frame_mask(prompt_lengths, prompt_ids.shape[1])
        x = self.embedding(prompt_ids) + self.lasts(prompt_frames.log1p()[..., None])  # [B, P, D]
        return torch.cat([self.pool(self.convolutions(x, mask), mask), cues], 1)
