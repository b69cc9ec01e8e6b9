"""Classifier-free guidance: how far to go beyond what the condition alone would do."""

from __future__ import annotations

import torch
from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """u + scale * (c - u): scale 0 forgets the condition, 1 is unguided, more exaggerates it.

    F5-TTS and others write c + w * (c - u); their w is our scale - 1, so that F5's default w = 2 is scale = 3 here.
    Source: Ho & Salimans 2022 (arXiv:2207.12598), equation 6.
    """
    return unconditional + scale * (conditional - unconditional)


def stack_groups(x: Tensor, scale: float) -> Tensor:
    """[B, ...] to the rows of every guidance group, one group after another: [2B, ...], or [B, ...] when unguided."""
    return x if scale == 1 else torch.cat((x, x))


def merge_groups(y: Tensor, scale: float) -> Tensor:
    """The inverse of `stack_groups` for what a network answered: conditional rows first, then unconditional ones."""
    if scale == 1:
        return y
    conditional, unconditional = y.chunk(2)
    return guide(conditional, unconditional, scale)
