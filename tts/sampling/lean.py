"""The sampler of a CPU, for the few rows of a step: what tts/sampling/reference.py says, in a third of its time.

A step's scores are eight rows or one, so what costs is the number of calls more than what they compute. NumPy's cost a third of
torch's, and it finds and sorts the first k in a tenth of the time, of whole numbers: probabilities sort as their bits do. Only
they are sorted, and which code has the drawn one is looked up at the end. The sums are the same to the last bit, and so are the
codes: exponentials are left to torch, as no two libraries round them alike.
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
Sums = NDArray[np.float64]
Places = NDArray[np.int64]
SMALL = 1e-300  # a billionth of it is a denormal number


def sample_guided(
    logits: Tensor, uniforms: Tensor, policy: Policy, history: Tensor | None = None, forbidden: Tensor | None = None
) -> Tensor:
    """As tts/sampling/reference.py's: the same arguments, codes [B, K] int64, and errors."""
    x, u = _guided(logits, policy.guidance), uniforms.numpy()
    check_rows(x, u, policy)
    temperature = _each(policy.temperature)
    scores: Numbers = np.divide(x, temperature, order="C")  # of rows to be drawn
    if history is not None and policy.penalises:
        _penalise(scores, x, history.numpy(), _each(policy.repetition_penalty), temperature)
    if forbidden is not None:
        np.copyto(scores, np.float32(-np.inf), where=forbidden.numpy())
    if policy.temperature == 0:
        return _likeliest(scores)
    if not isinstance(policy.temperature, tuple) or 0 not in policy.temperature:
        return _draw(scores, u, policy)
    return torch.where(torch.tensor(policy.temperature) == 0, _likeliest(scores), _draw(scores, u, policy))


def _guided(logits: Tensor, scale: float) -> Numbers:
    x: Numbers = logits.detach().float().numpy()
    if scale == 1:
        return x
    B = len(x) // 2
    conditional, unconditional = x[:B], x[B:]
    if conditional.min(initial=0) == -np.inf:
        with np.errstate(invalid="ignore"):  # -inf - -inf
            mixed = unconditional + np.float32(scale) * (conditional - unconditional)
        np.copyto(mixed, conditional, where=conditional == -np.inf)
        return mixed
    mixed = conditional - unconditional
    mixed *= np.float32(scale)
    mixed += unconditional
    return mixed


def softmax(x: Tensor) -> Tensor:
    """That of torch over the last dimension, without denormal numbers of this thread.

    They are too small to move a sum or to be drawn, and a processor computes one in the time of a hundred others.
    """
    flushed = SMALL * 1e-9 == 0  # as somebody may have set it
    torch.set_flush_denormal(True)
    try:
        return x.softmax(-1)
    finally:
        torch.set_flush_denormal(flushed)


def _penalise(scores: Numbers, x: Numbers, history: Places, by: Numbers, temperature: Numbers) -> None:
    """Codes of x [B, K, V] that were said, as they are after the penalty and the temperature, into scores.

    One said twice is penalised once: both times the same number is written.
    """
    B, K, V = x.shape
    said = history + V * _rows(B * K).reshape(B, K, 1)  # [B, K, W], places among all scores
    is_code = history.view(np.uint64) < V  # what is below 0 is a very large one
    if by.ndim or temperature.ndim:
        by, temperature = (np.broadcast_to(each, said.shape)[is_code] for each in (by, temperature))
    said = said[is_code]
    before = x.take(said)
    scores.reshape(-1)[said] = np.minimum(before / by, before * by) / temperature


def _likeliest(x: Numbers) -> Tensor:
    codes = x.argmax(-1)  # of equal ones the first, and NaN before all
    check_possible(torch.from_numpy(np.isfinite(np.take_along_axis(x, codes[..., None], -1)[..., 0])))
    return torch.from_numpy(codes)


def _draw(x: Numbers, uniforms: Numbers, policy: Policy) -> Tensor:
    V, rows = x.shape[-1], _rows(uniforms.size)
    # 1. sort
    p: Numbers = softmax(torch.from_numpy(x.reshape(-1, V))).numpy()  # [R, V], a row for each item and book
    k = V if policy.top_k is None else min(V, max(policy.top_k) if isinstance(policy.top_k, tuple) else policy.top_k)
    bits = p.view(np.int32).copy()
    if k < V:
        bits.partition(V - k, axis=-1)
        bits = bits[:, V - k :]
    bits.sort(-1)
    falling = bits.view(np.float32)[:, ::-1].astype(np.float64)  # [R, k]
    # 2. filter: what is kept is a beginning, so its sum is the one before the first place that is not
    if isinstance(policy.top_k, tuple):
        falling.reshape(-1, len(policy.top_k), k)[:] *= np.arange(k) < np.asarray(policy.top_k)[:, None]
    sums: Sums = falling.cumsum(-1)
    mass = sums[:, -1]
    if policy.top_p is not None:
        out = sums - falling >= (policy.top_p * mass)[:, None]
        mass = sums[rows, out.argmax(-1) - 1]  # or the last, where the first that is out is none
    if policy.min_p is not None:
        out = falling < np.float32(policy.min_p) * falling[:, :1].astype(np.float32)
        mass = sums[rows, out.argmax(-1) - 1]
    if not sum(mass.tolist()) > 0:  # or NaN
        check_possible(torch.from_numpy(mass > 0).view(uniforms.shape))
    # 3. draw
    rank = (sums > (uniforms.ravel() * mass)[:, None]).argmax(-1)
    # 4. find: of equally likely codes that before which there are as many as before it in the order
    drawn = falling[rows, rank]
    codes = (p == drawn.astype(np.float32)[:, None]).ravel().nonzero()[0]
    if len(codes) > len(rows):
        codes = codes[codes.searchsorted(V * rows) + rank - (falling == drawn[:, None]).argmax(-1)]
    return torch.from_numpy((codes - V * rows).reshape(uniforms.shape))


@lru_cache
def _rows(R: int) -> Places:
    return np.arange(R)


@lru_cache
def _each(value: Each[float]) -> Numbers:
    """A number, or [K, 1] of the books; 0 as 1, which divides without a change."""
    each = np.asarray(value, np.float32)
    return np.where(each == 0, np.float32(1), each).reshape((-1, 1) if each.ndim else ())
