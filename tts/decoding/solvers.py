"""Solvers of flows: from noise at t = 0 to data at t = 1, along a grid of times."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from tts.interfaces import VelocityField
from tts.sampling.reference import flow_step

# Empirically pruned steps, in units of 1/32 (Zheng et al. 2025, "Accelerating Flow-Matching-Based Text-to-Speech via
# Empirically Pruned Step Sampling", arXiv:2505.19931): early steps are kept, late ones thinned out.
PRUNED = {
    5: (0, 2, 4, 8, 16, 32),
    6: (0, 2, 4, 6, 8, 16, 32),
    7: (0, 2, 4, 6, 8, 16, 24, 32),
    10: (0, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32),
    12: (0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32),
    16: (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32),
}


def uniform_grid(steps: int) -> Tensor:
    """[steps + 1] float64 from 0 to 1."""
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def pruned_grid(steps: int) -> Tensor:
    """[steps + 1] float64 from 0 to 1: the EPSS table where there is one for this number of steps, else uniform."""
    return torch.tensor(PRUNED[steps], dtype=torch.float64) / 32 if steps in PRUNED else uniform_grid(steps)


def sway(times: Tensor, s: float) -> Tensor:
    """t + s * (cos(pi t / 2) - 1 + t): s < 0 takes small steps early, s > 0 late, 0 changes nothing.

    Monotone, with 0 and 1 fixed, for -1 <= s <= 2 / (pi - 2). Source: F5-TTS (arXiv:2410.06885), equation 7.
    """
    return times + s * (torch.cos(torch.pi / 2 * times) - 1 + times)


def euler(field: VelocityField, x: Tensor, times: Tensor) -> Tensor:
    """x(0) [B, ...] to x(1) in len(times) - 1 calls of the field, which is given t as [B]."""
    for t, end in pairwise(times):
        x = x + (end - t).item() * field(x, _rows(t, x))
    return x


def guided_euler(
    field: VelocityField,
    x: Tensor,
    times: Tensor,
    scale: float,
    advance: Callable[[Tensor, Tensor, float, float], Tensor] = flow_step,
) -> Tensor:
    """`euler`, the field saying velocities of both groups [2B, ...] where scale is not 1: they are mixed as x is carried on.

    advance: `flow_step` of tts/sampling/reference.py, or its kernel.
    """
    for t, end in pairwise(times):
        x = advance(x, field(x, _rows(t, x)), (end - t).item(), scale)
    return x


def midpoint(field: VelocityField, x: Tensor, times: Tensor) -> Tensor:
    """As `euler`, with two calls a step: the velocity half-way carries over the whole step, so the error is second order."""
    for t, end in pairwise(times):
        step = (end - t).item()
        half = x + step / 2 * field(x, _rows(t, x))
        x = x + step * field(half, _rows((t + end) / 2, x))
    return x


SOLVERS: dict[str, Callable[[VelocityField, Tensor, Tensor], Tensor]] = {"euler": euler, "midpoint": midpoint}


def visited_times(solver: Callable[[VelocityField, Tensor, Tensor], Tensor], times: Tensor) -> Tensor:
    """[S] float32: where a solver asks its field on this grid, in order; the same for every field."""
    visited: list[Tensor] = []

    def note(x: Tensor, t: Tensor) -> Tensor:
        visited.append(t)
        return x

    solver(note, torch.zeros(1), times)
    return torch.cat(visited)


def _rows(t: Tensor, x: Tensor) -> Tensor:
    return t.to(x.device, torch.float32).expand(len(x))
