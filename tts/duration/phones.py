"""Learned durations: a small convolutional network says how long each phone lasts among its neighbours, at a voice's rate.

    tokens ─► embedding ─┐
    rate of the prompt ──┴─► residual convolutions ─► log1p(frames) of each token ─┬─ total: rule ─► scaled to the rule's total
                                                                                   └─ total: sum ──► as they are

The same word is longer before a pause than inside a phrase, and a fast voice swallows other phones than it shortens: what a
table of typical lengths cannot know. How long they last altogether is either left to the rule (tts/duration/rules.py), since
the mean of logarithms, which such a network learns, lies below the logarithm of the mean; or is their sum, and then the network
learns the mean itself (tts/train/duration.py).
Source: FastSpeech, Ren et al. 2019 (arXiv:1905.09263), section 3.3. Changed: the rate of the prompt is an input, read off it by
the rule, since zero-shot voices differ in nothing as much.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.duration.rules import PromptRate, RuleConfig, scale
from tts.frames import Plan, Prompt, Tokens, frame_mask


@dataclass(frozen=True)
class PhoneDurationConfig:
    """rule: typical lengths, by which a prompt's rate is read. total: what times the whole, the rule or the phones' sum."""

    vocabulary: int = 1
    table: str = ""
    rule: RuleConfig = field(default_factory=RuleConfig)
    dim: int = 128
    layers: int = 4
    kernel: int = 5  # tokens
    dropout: float = 0.1
    frame_rate: float = 50.0  # frames a second of the alignment that it learns from
    closing: float = 0.1  # s of silence after the last phone; the network does not learn the margins of clips
    total: Literal["rule", "sum"] = "rule"


class PhoneDurations(nn.Module):
    """A Duration (tts/interfaces.py)."""

    def __init__(self, config: PhoneDurationConfig) -> None:
        super().__init__()
        self.config = config
        self.table = config.table
        self.rule = PromptRate(config.rule)
        self.embedding = nn.Embedding(config.vocabulary, config.dim)
        self.rate = nn.Linear(1, config.dim)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.dim, config.dim, config.kernel, padding=config.kernel // 2) for _ in range(config.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.dim) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.dim, 1)

    def features(self, tokens: Tokens, prompt: Prompt | None) -> dict[str, Tensor]:
        """What `forward` takes, by name, on the CPU. Raises FitError: tokens of another symbol table."""
        log_rate = self.rule.rate(tokens, prompt).log().float()
        return {"ids": tokens.ids, "lengths": tokens.lengths, "log_rate": log_rate}

    def forward(self, ids: Tensor, lengths: Tensor, log_rate: Tensor) -> Tensor:
        """ids [B, L], lengths [B], log_rate [B] (0 is typical, above is slow) to log1p(frames) [B, L]."""
        mask = frame_mask(lengths, ids.shape[1])[..., None]  # [B, L, 1]
        x = self.embedding(ids) + self.rate(log_rate[:, None])[:, None]  # [B, L, D]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            y = convolution((x * mask).transpose(1, 2)).transpose(1, 2)
            x = x + self.dropout(norm(F.gelu(y)))
        return self.out(x)[..., 0]

    @torch.inference_mode()
    def plan(self, tokens: Tokens, prompt: Prompt | None) -> Plan:
        """Seconds for the whole and for each token. Row by row, so that a row never depends on its batch.

        Raises FitError: tokens of another symbol table.
        """
        config = self.config
        typical = self.rule.expected(tokens)
        rate = self.rule.rate(tokens, prompt)
        seconds = torch.zeros_like(typical)
        device = self.out.weight.device
        for b, L in enumerate(tokens.lengths.tolist()):
            row = tokens.ids[b : b + 1, :L].to(device)
            said = self(row, torch.tensor([L], device=device), rate[b : b + 1].float().log().to(device))[0]
            lasts = said.double().cpu().expm1().clamp(min=0) / config.frame_rate  # [L]
            silent = self.rule.silent[tokens.ids[b, :L]]
            spoken = torch.where(silent, 0.0, lasts.clamp(min=1 / config.frame_rate))  # no phone is too short to be heard
            if config.total == "rule":
                spoken = spoken * (typical[b, :L] * ~silent).sum() * rate[b] / spoken.sum().clamp(min=1e-9)
            pauses = torch.where(silent, lasts, 0.0)
            if L and silent[0]:
                pauses[0] = 0.0
            if L > 1 and silent[-1]:
                pauses[-1] = config.closing
            seconds[b, :L] = spoken + pauses
        return Plan(*scale(seconds, seconds.sum(1).clamp(min=config.rule.floor)))
