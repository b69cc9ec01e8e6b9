"""Codes from scores in plain torch: the definition that every other sampler is compared with.

    logits ─► penalty ─► / temperature ─► softmax ─► sort ─► first k ─► first of mass p ─► those >= min_p of the first ─► draw

Codes are sorted by probability, the lower index first among equals, so every filter keeps a beginning of that order. The draw
inverts the cumulative probability of what is kept at one uniform number a row: with what is kept summing to M, it is the first
code at which the sum exceeds u * M. No other randomness, so one uniform gives one code on every device.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from tts.errors import CheckpointError, ShapeError
from tts.sampling.policy import Each, Policy

INDEX = (1 << 28) - 1  # low bits of a float64 that are zero when it was a float32


def sample_codes(
    logits: Tensor, uniforms: Tensor, policy: Policy, history: Tensor | None = None, forbidden: Tensor | None = None
) -> Tensor:
    """One code for each item and codebook, by all of the policy but its guidance, which mixes logits before they come here.

    Args:
        logits: [B, K, V] float; -inf for a code that cannot be.
        uniforms: [B, K] in (0, 1), for instance of Philox.
        history: [B, K, W] int64, the codes before, for the repetition penalty; anything outside [0, V) is no code.
        forbidden: bool that broadcasts to [B, K, V], True for codes that must not be drawn.
    Returns: [B, K] int64.
    Raises:
        CheckpointError: a row has NaN or +inf, or allows no code.
        SettingsError: the policy is for another number of codebooks.
    """
    check_rows(logits, uniforms, policy)
    x = logits.float()
    if forbidden is not None:
        x = x.masked_fill(forbidden, -torch.inf)
    if history is not None and policy.penalises:
        x = _penalise(x, history, policy.repetition_penalty)
    if isinstance(policy.temperature, tuple):
        temperature = _column(policy.temperature, x)
        drawn = _draw(x / temperature.masked_fill(temperature == 0, 1.0), uniforms, policy)
        return torch.where(temperature[:, 0] == 0, _likeliest(x), drawn)
    return _likeliest(x) if policy.temperature == 0 else _draw(x / policy.temperature, uniforms, policy)


def sample_guided(
    logits: Tensor, uniforms: Tensor, policy: Policy, history: Tensor | None = None, forbidden: Tensor | None = None
) -> Tensor:
    """`sample_codes` by all of the policy: of logits [2B, K, V] that it guides, or where its guidance is 1 [B, K, V]."""
    return sample_codes(guided(logits, policy.guidance), uniforms, policy, history, forbidden)


def guided(logits: Tensor, scale: float) -> Tensor:
    """Scores [2B, ...] of conditional and then unconditional rows to [B, ...], in float32; at scale 1 there is one group.

    u + scale * (c - u), see tts/decoding/guidance.py; what the condition rules out stays so: -inf - -inf would be NaN.
    """
    if scale == 1:
        return logits
    conditional, unconditional = logits.float().chunk(2)
    mixed = unconditional + scale * (conditional - unconditional)
    return mixed.masked_fill(conditional == -torch.inf, -torch.inf)


def flow_step(x: Tensor, velocity: Tensor, step: float, scale: float = 1.0) -> Tensor:
    """x [B, ...] carried on by a time: x + step * velocity, in float32, narrowed to x's type at the end.

    velocity: [B, ...], or where scale is not 1 [2B, ...], guided as scores are. The Euler solver takes one a step; the midpoint
    solver one half as long, and one from the same x with the velocity that it finds there.
    """
    v = velocity.float()
    if scale != 1:
        conditional, unconditional = v.chunk(2)
        v = unconditional + scale * (conditional - unconditional)
    return (x.float() + step * v).to(x.dtype)


def check_rows(logits: Tensor | NDArray[Any], uniforms: Tensor | NDArray[Any], policy: Policy) -> None:
    """Raise ShapeError or SettingsError where they are not as `sample_codes` says."""
    if len(logits.shape) != 3 or uniforms.shape != logits.shape[:2]:
        raise ShapeError(f"logits must be [B, K, V] and uniforms [B, K], got {tuple(logits.shape)}, {tuple(uniforms.shape)}")
    policy.check_books(logits.shape[1])


def check_possible(possible: Tensor) -> None:
    """Raise CheckpointError where possible [B, K] is False."""
    if not possible.all():
        b, k = (~possible).nonzero()[0].tolist()
        raise CheckpointError(
            f"no code can be drawn for item {b}, codebook {k}: its scores hold NaN or infinity, or allow nothing; "
            "the weights are damaged, or a constraint forbids every code"
        )


def _penalise(x: Tensor, history: Tensor, penalty: Each[float]) -> Tensor:
    """Either way a code becomes less likely: x / penalty is the smaller one where x > 0, x * penalty where x < 0."""
    is_code = (history >= 0) & (history < x.shape[-1])
    history = history.where(is_code, 0)
    by = _column(penalty, x) if isinstance(penalty, tuple) else penalty
    said = x.gather(-1, history)
    said = torch.minimum(said / by, said * by).masked_fill(~is_code, torch.inf)  # inf: leaves code 0 as it is
    return x.scatter_reduce(-1, history, said, "amin")


def _likeliest(x: Tensor) -> Tensor:
    best, codes = x.max(dim=-1)  # of equal ones the first
    check_possible(best.isfinite())
    return codes


def _draw(x: Tensor, uniforms: Tensor, policy: Policy) -> Tensor:
    V = x.shape[-1]
    # 1. sort. torch.topk leaves equal ones in any order, so each probability, as float64, carries its index (counted down) in
    # the bits that float32 does not have: keys of which no two are equal, and that sort as the probabilities do. This costs a
    # fifth of a stable sort; float() rounds the index away again.
    keys = x.softmax(-1).double().view(torch.int64) + torch.arange(V - 1, -1, -1, device=x.device)
    keys = keys.topk(V if policy.top_k is None else min(V, max(_each(policy.top_k))), dim=-1).values
    p = keys.view(torch.float64).float()  # [B, K, k], falling
    # 2. filter
    if isinstance(policy.top_k, tuple):
        p = p * (torch.arange(p.shape[-1], device=p.device) < _column(policy.top_k, x))
    sums = p.cumsum(-1, dtype=torch.float64)
    mass = sums[..., -1:]
    if policy.top_p is not None:
        mass = (sums * (sums - p < policy.top_p * mass)).amax(-1, keepdim=True)
    if policy.min_p is not None:
        mass = (sums * (p >= policy.min_p * p[..., :1])).amax(-1, keepdim=True)
    check_possible(mass[..., 0] > 0)
    # 3. draw. u <= 1 - 2**-24, so the product is below the mass in float64, and the rank among what is kept
    rank = torch.searchsorted(sums, uniforms[..., None] * mass, right=True)
    return V - 1 - (keys.gather(-1, rank) & INDEX)[..., 0]


def _each(value: Each[int]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _column(value: tuple[float, ...], x: Tensor) -> Tensor:
    """One number for each codebook: [K, 1] on x's device."""
    return torch.tensor(value, device=x.device)[:, None]
