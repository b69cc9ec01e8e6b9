"""The sampler of a CPU, for the few rows of a step: what tts/sampling/reference.py says, in a tenth of the time of torch's calls.

A step's scores are eight rows or one, so what costs is the number of calls more than what they compute. NumPy's cost a third of
torch's, and it sorts whole numbers in a tenth of the time: probabilities sort as their bits do. Only they are sorted; which code
was drawn is looked up at the end. The sums are the same to the last bit, and so are the codes: exponentials are left to torch, as
no two libraries round them alike.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tts.sampling.policy import Each, Policy
from tts.sampling.reference import check_possible, check_rows

Numbers = NDArray[np.float32]
Places = NDArray[np.int64]
# What is less likely than exp(-80) of the likeliest counts as that: too little to change any sum or to be drawn, and large
# enough to be no denormal, of which a processor computes one in the time of a hundred other numbers.
FLOOR = np.float32(80)


def sample_codes(
    logits: Tensor, uniforms: Tensor, policy: Policy, history: Tensor | None = None, forbidden: Tensor | None = None
) -> Tensor:
    """As tts/sampling/reference.py's: the same arguments, codes [B, K] int64, and errors."""
    x, u = logits.detach().float().numpy(), uniforms.numpy()
    check_rows(x, u, policy)
    temperature = _each(policy.temperature)
    scores: Numbers = x / temperature  # of rows to be drawn; fresh, so that what follows may write into it
    if history is not None and policy.penalises:
        _penalise(scores, x, history.numpy(), _each(policy.repetition_penalty), temperature)
    if forbidden is not None:
        np.copyto(scores, np.float32(-np.inf), where=forbidden.numpy())
    if policy.temperature == 0:
        return _likeliest(scores)
    if not isinstance(policy.temperature, tuple) or 0 not in policy.temperature:
        return _draw(scores, u, policy)
    return torch.where(torch.tensor(policy.temperature) == 0, _likeliest(scores), _draw(scores, u, policy))


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


def _penalise(scores: Numbers, x: Numbers, history: Places, by: Numbers, temperature: Numbers) -> None:
    """Codes of x [B, K, V] that were said, as they are after the penalty and the temperature, into scores.

    One said twice is penalised once: both times the same number is written.
    """
    V = x.shape[-1]
    said = history + _starts(x.shape)  # [B, K, W], places among all scores
    is_code = history.view(np.uint64) < V  # what is below 0 is a very large one
    if by.ndim or temperature.ndim:
        by, temperature = (np.broadcast_to(each, said.shape)[is_code] for each in (by, temperature))
    places = said[is_code]
    before = x.reshape(-1)[places]
    scores.reshape(-1)[places] = np.minimum(before / by, before * by) / temperature


def _likeliest(x: Numbers) -> Tensor:
    codes = x.argmax(-1)  # of equal ones the first, and NaN before all
    check_possible(torch.from_numpy(np.isfinite(np.take_along_axis(x, codes[..., None], -1)[..., 0])))
    return torch.from_numpy(codes)


def _draw(x: Numbers, uniforms: Numbers, policy: Policy) -> Tensor:
    """x may be written into."""
    V = x.shape[-1]
    # 1. sort
    np.maximum(x, x.max(-1, keepdims=True).min(initial=np.inf) - FLOOR, out=x)
    p: Numbers = torch.from_numpy(x).softmax(-1).numpy()
    k = V if policy.top_k is None else min(V, max(policy.top_k) if isinstance(policy.top_k, tuple) else policy.top_k)
    bits = p.view(np.int32).copy()
    if k < V:
        bits.partition(V - k, axis=-1)
        bits = bits[..., V - k :]
    bits.sort(-1)
    falling = bits.view(np.float32)[..., ::-1].astype(np.float64)  # [B, K, k]
    # 2. filter
    if isinstance(policy.top_k, tuple):
        falling *= np.arange(k) < np.asarray(policy.top_k)[:, None]
    sums = torch.from_numpy(falling).cumsum(-1).numpy()
    mass = sums[..., -1:]
    if policy.top_p is not None:
        mass = (sums * (sums - falling < policy.top_p * mass)).max(-1, keepdims=True)
    if policy.min_p is not None:
        least = np.float32(policy.min_p) * falling[..., :1].astype(np.float32)
        mass = (sums * (falling >= least)).max(-1, keepdims=True)
    if not mass.min(initial=1) > 0:
        check_possible(torch.from_numpy(mass[..., 0] > 0))
    # 3. draw
    rank = (sums > uniforms[..., None] * mass).argmax(-1)
    # 4. find: of equally likely codes that before which there are as many as before it in the order
    at = rank[..., None] + _starts(sums.shape)
    drawn, starts = falling.take(at), _starts(x.shape).ravel()
    found = (p == drawn.astype(np.float32)).ravel().nonzero()[0]
    if len(found) > len(starts):
        before = rank - (falling == drawn).argmax(-1)
        found = found[found.searchsorted(starts) + before.ravel()]
    return torch.from_numpy((found - starts).reshape(rank.shape))


@lru_cache
def _starts(shape: tuple[int, ...]) -> Places:
    """Where the rows of an array of this shape begin in it: [..., 1]."""
    return np.arange(0, int(np.prod(shape)), shape[-1]).reshape(*shape[:-1], 1)


@lru_cache
def _each(value: Each[float]) -> Numbers:
    """A number, or [K, 1] of the books; 0 as 1, which divides without a change."""
    each = np.asarray(value, np.float32)
    return np.where(each == 0, np.float32(1), each).reshape((-1, 1) if each.ndim else ())
