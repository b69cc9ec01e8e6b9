"""Several small operations as one call: a function compiled by TorchScript.

    from Python   x ─► call ─► call ─► call ─► call ─► y       each finds its way from Python into torch, which takes longer
    scripted      x ─► ─ ─ ─ ─ one call ─ ─ ─ ─ ─► y           than what it computes, most of all where weights swept the caches

The operations are the same, and so are the numbers. Compiling takes about ten milliseconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch


@cache
def scripted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled when it is first asked for; as it is where TorchScript is switched off (`PYTORCH_JIT=0`)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # by torch.compile, which takes half a minute and a compiler
        return torch.jit.script(function)
