"""What a backend over codes may begin with: all weights of its sibling that mean the same.

    causal  ─► codes, text, voice as they are, trunk ─► transformer, shared keys and values repeated for each head  ─► masked
    masked  ─► codes, text, voice as they are, transformer ─► encoder, and with the means of its keys and values trunk ─► causal

A causal model soon learns to look both ways (Gong et al. 2024, arXiv:2410.17891), and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tts.backends.ar.model import ARBackend
from tts.backends.masked.model import MaskedBackend
from tts.errors import SettingsError
from tts.train.assemble import find_part


def find_lender(kind: str, source: str, borrower: Any) -> dict[str, Tensor]:
    """The weights of the backend `kind` of a system or run. Raises SettingsError: its codes, symbols or heads are others."""
    lender = find_part(f"backend.{kind}", kind, source)
    if (lender.emits, lender.table) != (borrower.emits, borrower.table):
        raise SettingsError(f"the backend of {source} has other codes or symbols, and nothing to lend")
    theirs, ours = ((c.dim, c.heads, c.head_dim) for c in (lender.config, borrower.config))
    if theirs != ours:
        raise SettingsError(
            f"the backend of {source} has dim, heads and head_dim {theirs}, and lends nothing to one that has {ours}"
        )
    weights: dict[str, Tensor] = lender.state_dict()
    return weights


@torch.no_grad()
def borrow_causal(backend: MaskedBackend, lent: Mapping[str, Tensor]) -> list[str]:
    """Fill a masked backend with an autoregressive one's weights; returns the names of those that are filled."""
    heads = backend.config.heads
    given = {name: weight for name, weight in lent.items() if ".trunk." not in name}
    for name, weight in lent.items():
        if ".trunk." in name:
            if name.endswith("qkv.weight"):
                weight = _heads(weight, heads, backend.config.head_dim, heads)
            given[name.replace(".trunk.", ".transformer.").replace("norm.", "norm.norm.")] = weight
    return _fill(backend.state_dict(), given)


@torch.no_grad()
def borrow_masked(backend: ARBackend, lent: Mapping[str, Tensor]) -> list[str]:
    """Fill an autoregressive backend with aligned text with a masked one's weights; returns the names of those filled."""
    config = backend.config
    shared = config.heads if config.kv_heads is None else config.kv_heads
    given = {name: weight for name, weight in lent.items() if ".transformer." not in name}
    for name, weight in lent.items():
        if ".transformer." in name:
            name = name.replace("norm.norm.", "norm.")
            given[name.replace(".transformer.", ".encoder.")] = weight
            if name.endswith("qkv.weight"):
                weight = _heads(weight, config.heads, config.head_dim, shared)
            given[name.replace(".transformer.", ".trunk.")] = weight
    into = lent.get("network.text_in.weight")
    if into is not None and "network.book.weight" in lent:  # told to frames after `text_in`, not before it
        given["network.text_in.bias"] = lent["network.text_in.bias"] + into @ lent["network.book.weight"][0]
        given["network.stay.weight"] = lent["network.stay.weight"] @ into.T
        given["network.left.weight"] = torch.cat((torch.zeros_like(into[:, :1]).T, lent["network.left.weight"] @ into.T))
    return _fill(backend.state_dict(), given)


def _heads(qkv: Tensor, heads: int, width: int, shared: int) -> Tensor:
    """Rows of queries of all heads, of keys and of values, the last two for `shared` heads: repeated, or means of groups."""
    n = (len(qkv) // width - heads) // 2
    q, k, v = qkv.unflatten(0, (-1, width)).split((heads, n, n))
    if shared >= n:
        k, v = (x.repeat_interleave(shared // n, 0) for x in (k, v))
    else:
        k, v = (x.unflatten(0, (shared, -1)).mean(1) for x in (k, v))
    return torch.cat((q, k, v)).flatten(0, 1)


def _fill(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    names = [name for name, weight in given.items() if name in own and own[name].shape == weight.shape]
    for name in names:
        own[name].copy_(given[name])
    return names
