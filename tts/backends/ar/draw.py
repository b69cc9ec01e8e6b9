"""Everything random of a training step of an autoregressive backend."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ARDraw:
    """So that the loss is a pure function of its arguments; all about rows of T frames.

    prompt: [B] int64, how many leading frames are the prompt. drop_text: [B] bool, no text at all, as guidance needs.
    hide_phones: [B] bool, the prompt's phones are not known. masked: [B, T] bool, frames whose codes the model does not see.
    hide_plan: [B] bool, no frame knows how long its phone will last on; None: all do.
    """

    prompt: Tensor
    drop_text: Tensor
    hide_phones: Tensor
    masked: Tensor
    hide_plan: Tensor | None = None


@dataclass(frozen=True)
class ARDrawConfig:
    """How training draws."""

    longest_prompt: float = 0.6  # share of the row, uniform from 0
    join_prompt: float = 0.7  # how often the first of two joined utterances is the prompt
    drop_prompt: float = 0.1
    drop_all: float = 0.1  # the prompt and the text together
    hide_prompt_phones: float = 0.15
    mask: float = 0.15  # share of the frames, MEAP (arXiv:2502.07490), section 3
    mask_varies: bool = False  # from row to row, uniform from none to twice that, or to all
    hide_plan: float = 0.2  # so that the model can lead, too


def draw(
    lengths: Tensor,
    config: ARDrawConfig = ARDrawConfig(),
    generator: torch.Generator | None = None,
    joins: Tensor | None = None,
) -> ARDraw:
    """What one training step needs for rows of these lengths [B] in frames (CPU), T being the longest.

    joins: [B] int64, the first frame of the second utterance of a row that joins two, 0 for a row of one.
    """
    B, T = len(lengths), int(lengths.max()) if len(lengths) else 0

    def chance(p: float, *shape: int) -> Tensor:
        return torch.rand(B, *shape, generator=generator) < p

    share = config.longest_prompt * torch.rand(B, generator=generator)
    prompt = (share * lengths).long()
    whole = chance(config.join_prompt)
    if joins is not None:
        prompt = torch.where(whole & (joins > 0), joins, prompt)
    drop_all = chance(config.drop_all)
    prompt = prompt.masked_fill(chance(config.drop_prompt) | drop_all, 0)
    hide_phones = chance(config.hide_prompt_phones)
    lots = torch.rand(B, T, generator=generator)
    hide_plan = chance(config.hide_plan)
    share = torch.full((B, 1), config.mask)
    if config.mask_varies:
        share = 2 * share * torch.rand(B, 1, generator=generator)
    return ARDraw(prompt, drop_all, hide_phones, lots < share, hide_plan)
