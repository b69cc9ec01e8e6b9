"""Phone durations one after another: each is a class of frames, told by the phones around and all durations before.

    prompt            text
    ð  ə  k  æ  t     h  ə  l  oʊ         phones: convolutions see both sides
    3  2  4  6  3 ──► ?                   durations: a recurrent network sees those before, 0 to 99 frames
    3  2  4  6  3     3 ► ?

The prompt's own phones and durations are the beginning of the sequence, so its pace and rhythm go on.
Source: FlexSpeech (2025), autoregressive durations in classes of 0 to 99 frames, by cross-entropy; Mega-TTS 2, Jiang et al.
2023 (arXiv:2307.07218), durations of a prompt as the prefix. Changed: a GRU for their transformers, since data is scarce; the
mean of the classes instead of a draw, so that a plan has no seed and its sum no bias; the rate by the rule is told besides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tts.duration.rules import PromptRate, RuleConfig, scale
from tts.duration.voice import CUES, Convolutions, hear, rows
from tts.frames import Plan, Prompt, Tokens, frame_mask

CLASSES = 100  # 0 to 99 frames; longer ones count as 99


@dataclass(frozen=True)
class AutoregressiveDurationConfig:
    """rule: typical lengths, by which a prompt's rate is read."""

    vocabulary: int = 1
    table: str = ""
    rule: RuleConfig = field(default_factory=RuleConfig)
    dim: int = 96
    layers: int = 3  # convolutions over phones
    kernel: int = 5  # tokens
    dropout: float = 0.1
    frame_rate: float = 50.0  # frames a second of the alignment that it learns from
    closing: float = 0.1  # s of silence after the last phone; the network does not learn the margins of clips


class AutoregressiveDurations(nn.Module):
    """A Duration (tts/interfaces.py)."""

    def __init__(self, config: AutoregressiveDurationConfig) -> None:
        super().__init__()
        self.config = config
        self.table = config.table
        self.rule = PromptRate(config.rule)
        self.embedding = nn.Embedding(config.vocabulary, config.dim)
        self.side = nn.Embedding(2, config.dim)  # of the prompt, of the text
        self.cues = nn.Linear(CUES, config.dim)
        self.convolutions = Convolutions(config.dim, config.layers, config.kernel, config.dropout)
        self.recurrent = nn.GRU(config.dim + 1, config.dim, batch_first=True)
        self.out = nn.Linear(2 * config.dim, CLASSES)

    def features(self, tokens: Tokens, prompt: Prompt | None) -> dict[str, Tensor]:
        """What `encode` takes, by name, on the CPU; the prompt's margins are made those of a plan. Raises FitError."""
        heard = hear(self.rule, tokens, prompt, self.config.frame_rate)
        frames = heard["prompt_frames"]
        if frames.shape[1]:
            last = (heard["prompt_lengths"][:, None] - 1).clamp(min=0)
            ends = torch.zeros_like(frames).scatter(1, last, self.config.closing * self.config.frame_rate)
            silent = self.rule.silent[heard["prompt_ids"]]
            margin = torch.zeros_like(silent).scatter(1, last, True)
            margin[:, 0] = True
            frames = torch.where(silent & margin, ends, frames)
        return {"ids": tokens.ids, "lengths": tokens.lengths, **heard, "prompt_frames": frames}

    def encode(
        self, ids: Tensor, lengths: Tensor, prompt_ids: Tensor, prompt_lengths: Tensor, prompt_frames: Tensor, cues: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt and text as one sequence of S = P + L, each row's without a gap.

        Returns: phones in their surroundings [B, S, D], frames [B, S] (0 in the text), mask [B, S] of what is real.
        """
        joined, known = join(prompt_ids, prompt_lengths, ids, lengths)
        frames, _ = join(prompt_frames, prompt_lengths, torch.zeros_like(ids, dtype=prompt_frames.dtype), lengths)
        mask = frame_mask(prompt_lengths + lengths, joined.shape[1])
        x = self.embedding(joined) + self.side((~known).long()) + self.cues(cues)[:, None]
        return self.convolutions(x, mask), frames, mask

    def forward(self, phones: Tensor, frames: Tensor) -> Tensor:
        """phones [B, S, D] of `encode`, frames [B, S] that each lasts, to logits [B, S, CLASSES] from those before."""
        before = torch.cat([torch.zeros_like(frames[:, :1]), frames[:, :-1]], 1)
        y, _ = self.recurrent(torch.cat([phones, before.log1p()[..., None]], 2))
        return self.out(torch.cat([y, phones], 2))

    @torch.inference_mode()
    def plan(self, tokens: Tokens, prompt: Prompt | None) -> Plan:
        """Seconds for the whole and for each token. Row by row, so that a row never depends on its batch.

        Raises FitError: tokens of another symbol table.
        """
        config = self.config
        seconds = torch.zeros(tokens.ids.shape, dtype=torch.float64)
        for b, (row, voice) in enumerate(rows(tokens, prompt)):
            L = int(row.lengths)
            if L:
                silent = self.rule.silent[row.ids[0]]
                seconds[b, :L] = self._row(row, voice, silent) / config.frame_rate
        return Plan(*scale(seconds, seconds.sum(1).clamp(min=config.rule.floor)))

    def _row(self, row: Tokens, voice: Prompt | None, silent: Tensor) -> Tensor:
        """[L] float64 frames of one row, each the mean of its classes given the means before."""
        device = self.out.weight.device
        phones, frames, _ = self.encode(**{name: value.to(device) for name, value in self.features(row, voice).items()})
        L = len(silent)
        start = phones.shape[1] - L  # tokens of the prompt
        classes = torch.arange(CLASSES, device=device, dtype=torch.float64)
        # 1. prefill with the prompt
        before, state = phones.new_zeros(1, 1, 1), None
        if start:
            past = torch.cat([before, frames[:, : start - 1, None].log1p()], 1)
            _, state = self.recurrent(torch.cat([phones[:, :start], past], 2))
            before = frames[:, start - 1 : start, None]
        # 2. token by token
        lasts = torch.zeros(L, dtype=torch.float64)
        for i in range(L):
            phone = phones[:, start + i : start + i + 1]
            y, state = self.recurrent(torch.cat([phone, before.log1p()], 2), state)
            mean = (self.out(torch.cat([y, phone], 2))[0, 0].double().softmax(0) * classes).sum()
            if not silent[i]:
                mean = mean.clamp(min=1.0)  # no phone is too short to be heard
            elif i == 0:
                mean = mean * 0
            elif i == L - 1:
                mean = torch.full_like(mean, self.config.closing * self.config.frame_rate)
            lasts[i] = mean.cpu()
            before = mean.to(phones.dtype)[None, None, None]
        return lasts


def join(first: Tensor, first_lengths: Tensor, second: Tensor, second_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [B, P] and [B, L] laid end to end: [B, P + L] padded with 0, and where it is of the first [B, P + L] bool."""
    B, P = first.shape
    at = torch.arange(P + second.shape[1], device=second.device).expand(B, -1)
    of_first = at < first_lengths[:, None]
    of_second = ~of_first & (at < (first_lengths + second_lengths)[:, None])
    joined = second.new_zeros(at.shape)
    joined[of_first] = first[frame_mask(first_lengths, P)]
    joined[of_second] = second[frame_mask(second_lengths, second.shape[1])]
    return joined, of_first
