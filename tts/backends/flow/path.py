"""The straight path from noise to data, and what training draws along it.

t = 0  noise  ──────────── x_t = (1 - t) * noise + t * data ────────────  data  t = 1       velocity = data - noise

frames   known known known │ masked masked masked masked          half of the rows: the prompt first, as at inference
         known known │ masked masked masked masked masked │ known          the other half: a span anywhere
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tts.errors import SettingsError
from tts.frames import frame_mask


def point(noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """x_t on the path: noise, data [B, ...], t [B]. Source: Lipman et al. 2022 (arXiv:2210.02747), optimal transport path."""
    t = t.view(-1, *[1] * (data.dim() - 1))
    return (1 - t) * noise + t * data


def velocity(noise: Tensor, data: Tensor) -> Tensor:
    """dx/dt along the path, the same at every t."""
    return data - noise


@dataclass(frozen=True)
class FlowDraw:
    """Everything random of one training step, so that the loss is a pure function of its arguments.

    masked: [B, T] bool, the frames to predict; the others are the prompt. hide_phones: [B, T] bool, frames whose phones the
    network does not see. drop_prompt, drop_text: [B] bool, whole conditions left out, which guidance needs. prompt_mel: what
    is heard of the frames that are not masked, such as the target's under noise; its masked frames are never looked at.
    """

    noise: Tensor  # [B, width, T], standard normal
    t: Tensor  # [B] in [0, 1)
    masked: Tensor
    hide_phones: Tensor
    drop_prompt: Tensor
    drop_text: Tensor
    prompt_mel: Tensor | None = None  # [B, bands, T]; None: the target's own frames


@dataclass(frozen=True)
class FlowDrawConfig:
    """How training draws. Spans and drops as F5-TTS (arXiv:2410.06885), sections 3.1 and 4, plus prompts without phones."""

    shortest_span: float = 0.7  # share of the frames to predict, uniform up to
    longest_span: float = 1.0
    span_to_end: float = 0.5  # how often the span runs to the end
    drop_prompt: float = 0.25
    drop_all: float = 0.15  # the prompt and the text together
    hide_prompt_phones: float = 0.15
    # where a span runs to the end of one utterance, what comes before it is this long instead, uniform; None: by share
    prompt_seconds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.prompt_seconds is not None and not 0 <= self.prompt_seconds[0] <= self.prompt_seconds[1]:
            raise SettingsError(f"prompt_seconds must be two lengths, the shorter first, got {self.prompt_seconds}")


def draw(
    lengths: Tensor,
    width: int,
    config: FlowDrawConfig = FlowDrawConfig(),
    generator: torch.Generator | None = None,
    joins: Tensor | None = None,
    frame_rate: float = 50.0,
) -> FlowDraw:
    """What one training step needs for rows of these lengths [B] (CPU), T being the longest.

    joins: [B] int64, the first frame of the second utterance of a row that joins two, 0 for a row of one. A span that runs
    to the end of such a row begins there: one whole utterance is the prompt of another. frame_rate: in Hz, for
    `prompt_seconds`, which leave a second or 30 % of a row to predict, whichever is more.
    The times are stratified: row b's is uniform over the whole range, and together the rows cover it evenly.
    """
    B, T = len(lengths), int(lengths.max()) if len(lengths) else 0

    def chance(p: float) -> Tensor:
        return torch.rand(B, generator=generator) < p

    noise = torch.randn(B, width, T, generator=generator)
    strata = torch.randperm(B, generator=generator) / max(B, 1)
    t = (torch.rand(1, generator=generator) + strata) % 1
    share = config.shortest_span + (config.longest_span - config.shortest_span) * torch.rand(B, generator=generator)
    span = (share * lengths).round().long().clamp(min=1)
    start = (torch.rand(B, generator=generator) * (lengths - span + 1)).long()
    to_end = chance(config.span_to_end)
    start = torch.where(to_end, lengths - span, start)
    end = torch.where(to_end, lengths, start + span)
    if config.prompt_seconds is not None:
        low, high = (seconds * frame_rate for seconds in config.prompt_seconds)
        longest = (lengths - (0.3 * lengths).clamp(min=frame_rate)).clamp(0, high)  # [B], float
        shortest = longest.clamp(max=low)
        prompt = shortest + (longest - shortest) * torch.rand(B, generator=generator)
        start = torch.where(to_end, prompt.long(), start)
    if joins is not None:
        start = torch.where(to_end & (joins > 0), joins, start)
    position = torch.arange(T)[None]
    masked = (position >= start[:, None]) & (position < end[:, None])
    drop_all = chance(config.drop_all)
    hidden = chance(config.hide_prompt_phones)[:, None] & ~masked & frame_mask(lengths, T)
    return FlowDraw(noise, t, masked, hidden, chance(config.drop_prompt) | drop_all, drop_all)
