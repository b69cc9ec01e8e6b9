"""Durations without a network: MaskGCT's ratio, and the prompt's speaking rate over typical phone lengths.

prompt   3.0 s, 36 phones  ─►  12 phones a second  ─►  24 phones to say take 2.0 s            ratio
prompt   3.0 s where its phones usually last 2.5 s  ─►  a slow voice, 1.2  ─►  each phone 1.2 times its usual length
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from tts.errors import FitError
from tts.frames import Plan, Prompt, Tokens, frame_mask

SHORTEST = 0.1  # s that a plan lasts at any speed


@dataclass(frozen=True)
class RuleConfig:
    """seconds: the typical length of every symbol, in the order of the table; boundaries hold their typical silence.

    final: how much longer than usual the phones among the `final_phones` tokens before a pause last. slowest and fastest
    bound the rate that is read off a prompt, relative to typical; floor is the least that any sentence takes.
    """

    table: str = ""
    seconds: tuple[float, ...] = ()
    boundaries: tuple[int, ...] = ()  # ids that are silence
    pauses: tuple[int, ...] = ()  # ids of boundaries that end a phrase
    final: float = 1.3
    final_phones: int = 3
    slowest: float = 1.6
    fastest: float = 0.6
    floor: float = 0.35  # s


class Rule(ABC):
    """A Duration (tts/interfaces.py): typical lengths times a rate, which is all in which the rules differ."""

    def __init__(self, config: RuleConfig) -> None:
        self.config = config
        self.table = config.table
        self.typical = torch.tensor(config.seconds, dtype=torch.float64)
        self.silent = torch.zeros(len(config.seconds), dtype=torch.bool)
        self.silent[list(config.boundaries)] = True
        self.phrase_end = torch.zeros(len(config.seconds), dtype=torch.bool)
        self.phrase_end[list(config.pauses)] = True

    def expected(self, tokens: Tokens) -> Tensor:
        """[B, L] float64 seconds that each token typically lasts; 0 beyond a row's length. Raises FitError on another table."""
        if tokens.table != self.config.table:
            raise FitError(f"the duration rule knows table {self.config.table}, the tokens are of {tokens.table}")
        mask = frame_mask(tokens.lengths, tokens.ids.shape[1])
        seconds = self.typical[tokens.ids] * mask  # [B, L]
        # the phones just before the end of a phrase are drawn out
        ending = self.phrase_end[tokens.ids] & mask
        near = torch.zeros_like(ending)
        for step in range(1, self.config.final_phones + 1):
            near[:, :-step] |= ending[:, step:]
        return torch.where(near & ~self.silent[tokens.ids], seconds * self.config.final, seconds)

    @abstractmethod
    def rate(self, tokens: Tokens, prompt: Prompt | None) -> Tensor:
        """[B] float64: how much longer than typical this voice takes; 1 where the prompt does not say."""

    def plan(self, tokens: Tokens, prompt: Prompt | None) -> Plan:
        """Seconds for the whole and for each token. Raises FitError on another table."""
        seconds = self.expected(tokens) * self.rate(tokens, prompt)[:, None]
        return Plan(*scale(seconds, seconds.sum(1).clamp(min=self.config.floor)))

    def _bounded(self, rate: Tensor) -> Tensor:
        """Within `fastest` and `slowest`; 1 where the division by the phones of a prompt without any gave no number."""
        rate = torch.nan_to_num(rate, nan=1.0, posinf=1.0, neginf=1.0)
        return rate.clamp(self.config.fastest, self.config.slowest)


class PromptRate(Rule):
    """Typical lengths times the prompt's own rate: seconds it speaks over seconds its phones typically take."""

    def rate(self, tokens: Tokens, prompt: Prompt | None) -> Tensor:
        if prompt is None:
            return torch.ones(len(tokens.lengths), dtype=torch.float64)
        typical = self.expected(prompt.tokens)
        if prompt.token_frames is None:
            return self._bounded(prompt.seconds.double() / typical.sum(1))
        # only its phones count: the silences of a recording say nothing about how fast it speaks
        spoken = ~self.silent[prompt.tokens.ids] & frame_mask(prompt.tokens.lengths, prompt.tokens.ids.shape[1])
        frames = prompt.token_frames.double().sum(1).clamp(min=1)
        lasted = (prompt.token_frames.double() * spoken).sum(1) * prompt.seconds.double() / frames
        return self._bounded(lasted / (typical * spoken).sum(1))


class Ratio(Rule):
    """MaskGCT (Wang et al. 2024): prompt seconds x phones to say / phones of the prompt."""

    def rate(self, tokens: Tokens, prompt: Prompt | None) -> Tensor:
        typical = self.expected(tokens).sum(1)
        if prompt is None:
            return torch.ones_like(typical)
        said, asked = self._phones(prompt.tokens), self._phones(tokens)
        return self._bounded(prompt.seconds.double() * asked / said / typical)

    def _phones(self, tokens: Tokens) -> Tensor:
        mask = frame_mask(tokens.lengths, tokens.ids.shape[1])
        return (~self.silent[tokens.ids] & mask).sum(1).double()


def scale(token_seconds: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
    """Stretch [B, L] durations to the totals [B]; returns (totals, durations)."""
    share = token_seconds / token_seconds.sum(1, keepdim=True).clamp(min=1e-9)
    return seconds, share * seconds[:, None]


def paced(plan: Plan, speed: float) -> Plan:
    """A plan spoken `speed` times as fast; never shorter than SHORTEST."""
    return lasting(plan, (plan.seconds / speed).clamp(min=SHORTEST))


def lasting(plan: Plan, seconds: Tensor) -> Plan:
    """A plan stretched to exactly `seconds` [B]; each token keeps its share."""
    if plan.token_seconds is None:
        return Plan(seconds)
    return Plan(*scale(plan.token_seconds, seconds))
