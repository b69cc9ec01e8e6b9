"""Autoregressive steps that wait for nothing: on a GPU one graph is captured and replayed, elsewhere they run one by one.

    scores ─► sample_step ─► embed_step ─► network ─► scores        all in the same memory, step after step
      ▲                                                 │           seeds, clock, ends, countdown: tensors of `Steps`
      └─────────────────────────────────────────────────┘           positions: a tensor, too

The host looks at the countdown now and then; steps too many change nothing. Uniforms are of (seed, frame, book), made where
they are used, and the clock is a tensor: a graph that is replayed draws other numbers each time. For heads that say all books
at once, and items that end by themselves or at their most; tts/decoding/autoregressive.py does all else, and defines it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tts.sampling import fused, steps
from tts.sampling.policy import Policy
from tts.sampling.steps import Steps

LOOK = 16  # steps between two looks at the countdown

Network = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def run(
    network: Network,
    scores: Tensor,
    where: Tensor,
    table: Tensor,
    state: Steps,
    policy: Policy,
    join: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """All codes [B, K, T], 0 after an item's end, and lengths [B].

    Args:
        network: reads the vectors of a step [R, D] at positions [R] int64, says the scores of the next [R, K, W]; looks at no
            number, for instance by `Stepper.at` (tts/nn/stepping.py). It must have room for LOOK + 1 steps too many.
        scores: of step 0 [R, K, W]. where: the position of the step after it, of each row [R]. Both are left as they are.
        table, join: see `embed_step` of tts/sampling/steps.py. state: begun, with as many delays as there are books.
    Raises CheckpointError: scores allowed no code.
    """
    kernels = fused.available(scores.device)
    sample, embed = (fused.sample_step, fused.embed_step) if kernels else (steps.sample_step, steps.embed_step)
    groups = 1 if policy.guidance == 1 else 2
    scores, where = scores.clone(), where.clone()

    def step() -> None:
        sample(scores, state, policy)
        scores.copy_(network(embed(table, state, groups, join), where))
        where.add_(1)

    advance = _captured(step) if kernels else step
    while bool((state.left > 0).any()):
        for _ in range(LOOK):
            advance()
    return state.codes()


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """The same as one graph. The first step is a real one, beside the graph: it compiles kernels and finds its workspaces."""
    held: list[torch.cuda.CUDAGraph] = []

    def advance() -> None:
        if held:
            held[0].replay()
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        held.append(graph)

    return advance
