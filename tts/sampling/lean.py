"""The sampler of a CPU, for the few rows of a step: what tts/sampling/reference.py says, in a third of its time.

A step's scores are eight rows or one, so what costs is the number of calls more than what they compute. NumPy's cost a third of
torch's, and its partition finds the first k in half the time of torch.topk. The sums are the same to the last bit, and so are
the codes: only the exponentials are left to torch, as no two libraries round them alike.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tts.sampling.policy import Policy
from tts.sampling.reference import INDEX, check_possible, check_rows

Numbers = NDArray[np.float32]
# What is less likely than exp(-80) of the likeliest counts as that: too little to change any sum or to be drawn, and large
# enough to be no denormal, of which a processor computes one in the time of a hundred other numbers.
FLOOR = np.float32(80)


def sample_codes(
    logits: Tensor, uniforms: Tensor, policy: Policy, history: Tensor | None = None, forbidden: Tensor | None = None
) -> Tensor:
    """As tts/sampling/reference.py's: the same arguments, codes [B, K] int64, and errors."""
    check_rows(logits, uniforms, policy)
    x: Numbers = logits.detach().float().numpy()
    if forbidden is not None:
        x = x.copy()
        np.copyto(x, np.float32(-np.inf), where=forbidden.numpy())
    if history is not None and policy.penalises:
        x = _penalise(x, history.numpy(), policy)
    temperature = policy.temperature
    if not isinstance(temperature, tuple):
        return _likeliest(x) if temperature == 0 else _draw(x / np.float32(temperature), uniforms, policy)
    each = np.asarray(temperature, np.float32)
    by: Numbers = np.where(each == 0, np.float32(1), each).astype(np.float32)
    drawn = _draw(x / by[:, None], uniforms, policy)
    return torch.where(torch.from_numpy(each) == 0, _likeliest(x), drawn) if 0 in temperature else drawn


def guided(logits: Tensor, scale: float) -> Tensor:
    """As tts/sampling/reference.py's."""
    if scale == 1:
        return logits
    x: Numbers = logits.detach().float().numpy()
    B = len(x) // 2
    conditional, unconditional = x[:B], x[B:]
    with np.errstate(invalid="ignore"):  # -inf - -inf, put right at the end
        mixed = conditional - unconditional
        mixed *= np.float32(scale)
        mixed += unconditional
    np.copyto(mixed, conditional, where=conditional == -np.inf)
    return torch.from_numpy(mixed)


def _penalise(x: Numbers, history: NDArray[np.int64], policy: Policy) -> Numbers:
    """A code said twice is penalised once: both times the same number is written."""
    V = x.shape[-1]
    by = np.asarray(policy.repetition_penalty, np.float32).reshape(-1, 1)  # [K or 1, 1]
    b, k, w = ((history >= 0) & (history < V)).nonzero()
    said = (b, k, history[b, k, w])
    scores, by = x[said], by[k if len(by) > 1 else 0, 0]
    x = x.copy()
    x[said] = np.minimum(scores / by, scores * by)
    return x


def _likeliest(x: Numbers) -> Tensor:
    codes = x.argmax(-1)  # of equal ones the first, and NaN before all
    check_possible(torch.from_numpy(np.isfinite(np.take_along_axis(x, codes[..., None], -1)[..., 0])))
    return torch.from_numpy(codes)


def _draw(x: Numbers, uniforms: Tensor, policy: Policy) -> Tensor:
    V = x.shape[-1]
    # 1. sort: probabilities that carry their index, counted down, in the bits that float32 does not have
    x = np.maximum(x, x.max(-1, keepdims=True) - FLOOR)
    p = torch.from_numpy(x).softmax(-1).numpy()
    keys = p.astype(np.float64).view(np.int64)
    keys += np.arange(V - 1, -1, -1)
    k = V if policy.top_k is None else min(V, max(policy.top_k) if isinstance(policy.top_k, tuple) else policy.top_k)
    if k < V:
        keys.partition(V - k, axis=-1)
        keys = keys[..., V - k :].copy()
    keys.sort(-1)
    keys = keys[..., ::-1]
    p = keys.view(np.float64).astype(np.float32)  # [B, K, k], falling
    # 2. filter
    if isinstance(policy.top_k, tuple):
        p = p * (np.arange(k) < np.asarray(policy.top_k)[:, None])
    sums = p.cumsum(-1, dtype=np.float64)
    mass = sums[..., -1:]
    if policy.top_p is not None:
        mass = (sums * (sums - p < policy.top_p * mass)).max(-1, keepdims=True)
    if policy.min_p is not None:
        mass = (sums * (p >= np.float32(policy.min_p) * p[..., :1])).max(-1, keepdims=True)
    possible = mass[..., 0] > 0
    if not possible.all():
        check_possible(torch.from_numpy(possible))
    # 3. draw
    rank = (sums <= uniforms.numpy()[..., None] * mass).sum(-1)
    chosen = keys.reshape(-1, k)[np.arange(rank.size), rank.ravel()]
    return torch.from_numpy(V - 1 - (chosen & INDEX)).view(uniforms.shape)
