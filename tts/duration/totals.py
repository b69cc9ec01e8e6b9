"""How long a whole sentence takes, regressed by a network that reads the text and the prompt; phones share the time.

    text ───► encoder ─► attention pooling ─┐
    prompt ─► phones, frames, rate, pauses ─┴─► how much longer than the rule says ─► seconds
    text ───► phone durations ────────────────────────────────────────────────────────► each phone's share of them

The rule (tts/duration/rules.py) already knows typical lengths and the prompt's rate; what is left to learn is a factor near 1.
Source: SimpleSpeech 2, Yang et al. 2024 (arXiv:2408.13893): a sentence's length by text encoder, attention and a linear layer.
Changed: the prompt is read, since voices differ in pace; the regression is of the logarithm; and phones share the time out
(tts/duration/phones.py), for backends that ask when each is said.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.duration.phones import PhoneDurationConfig, PhoneDurations
from tts.duration.rules import PromptRate, RuleConfig, lasting
from tts.duration.voice import CUES, Convolutions, Pool, Voice, hear, rows
from tts.frames import Plan, Prompt, Tokens, frame_mask


@dataclass(frozen=True)
class TotalConfig:
    """What all predictors of totals have: the rule that they correct, the prompt's reader, and the phones' shares."""

    vocabulary: int = 1
    table: str = ""
    rule: RuleConfig = field(default_factory=RuleConfig)
    dim: int = 64
    layers: int = 3
    kernel: int = 5  # symbols
    dropout: float = 0.1
    phones_dim: int = 32  # of the network of shares
    phones_layers: int = 3
    frame_rate: float = 50.0  # frames a second of the alignment that it learns from
    closing: float = 0.1  # s of silence after the last phone


class TotalDurations(nn.Module, ABC):
    """A Duration (tts/interfaces.py); what the text is to the network is all in which its kinds differ."""

    def __init__(self, config: TotalConfig, text_dim: int) -> None:
        """text_dim: width of what `encode` gives."""
        super().__init__()
        self.config = config
        self.table = config.table
        self.rule = PromptRate(config.rule)
        common = {name: getattr(config, name) for name in ("vocabulary", "table", "rule", "frame_rate", "closing")}
        shares = PhoneDurationConfig(dim=config.phones_dim, layers=config.phones_layers, kernel=config.kernel, **common)
        self.shares = PhoneDurations(shares)
        self.voice = Voice(config.vocabulary, config.dim, 1, config.kernel, config.dropout)
        self.pool = Pool(text_dim)
        self.hidden = nn.Linear(text_dim + config.dim + CUES + 1, config.dim)
        self.out = nn.Linear(config.dim, 1)
        nn.init.zeros_(self.out.weight)  # it begins as the rule
        nn.init.zeros_(self.out.bias)

    @abstractmethod
    def read(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """The text as symbols of the encoder: [B, N] int64 and lengths [B]."""

    @abstractmethod
    def encode(self, symbols: Tensor, mask: Tensor) -> Tensor:
        """Symbols [B, N] with their mask to vectors [B, N, C]."""

    def features(self, tokens: Tokens, prompt: Prompt | None) -> dict[str, Tensor]:
        """What `forward` takes, by name, on the CPU. Raises FitError: tokens of another symbol table."""
        symbols, lengths = self.read(tokens)
        said = self.rule.plan(tokens, prompt).seconds.log().float()
        return {"symbols": symbols, "lengths": lengths, "said": said, **hear(self.rule, tokens, prompt, self.config.frame_rate)}

    def condition(
        self,
        symbols: Tensor,
        lengths: Tensor,
        said: Tensor,
        prompt_ids: Tensor,
        prompt_lengths: Tensor,
        prompt_frames: Tensor,
        cues: Tensor,
    ) -> Tensor:
        """symbols [B, N], their lengths [B], said [B]: log seconds by the rule; the rest is of `hear`. What is known [B, D]."""
        mask = frame_mask(lengths, symbols.shape[1])
        text = self.pool(self.encode(symbols, mask), mask)  # [B, C]
        voice = self.voice(prompt_ids, prompt_lengths, prompt_frames, cues)
        return F.gelu(self.hidden(torch.cat([text, voice, said[:, None]], 1)))

    def correct(self, condition: Tensor) -> Tensor:
        """Log of how many times as long as the rule says, [B]."""
        return self.out(condition)[:, 0]

    def forward(self, said: Tensor, **told: Tensor) -> Tensor:
        """Log seconds [B]; the arguments are those of `condition`."""
        return said + self.correct(self.condition(said=said, **told))

    @torch.inference_mode()
    def plan(self, tokens: Tokens, prompt: Prompt | None) -> Plan:
        """Seconds for the whole and for each token. Row by row, so that a row never depends on its batch.

        Raises FitError: tokens of another symbol table.
        """
        device = self.out.weight.device
        seconds = torch.zeros(len(tokens.lengths), dtype=torch.float64)
        for b, (row, voice) in enumerate(rows(tokens, prompt)):
            features = {name: value.to(device) for name, value in self.features(row, voice).items()}
            seconds[b] = self(**features)[0].double().exp()
        return lasting(self.shares.plan(tokens, prompt), seconds.clamp(min=self.config.rule.floor))


class SentenceDurations(TotalDurations):
    """A sentence's length by its phones: an embedding and convolutions."""

    def __init__(self, config: TotalConfig) -> None:
        super().__init__(config, config.dim)
        self.embedding = nn.Embedding(config.vocabulary, config.dim)
        self.convolutions = Convolutions(config.dim, config.layers, config.kernel, config.dropout)

    def read(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        return tokens.ids, tokens.lengths

    def encode(self, symbols: Tensor, mask: Tensor) -> Tensor:
        return self.convolutions(self.embedding(symbols), mask)  # [B, L, D]
