"""Autoregressive steps that wait for nothing: on a GPU one graph is captured and replayed, elsewhere they run one by one.

    hidden ─► book 0 ─► book 1 ─► …  or  scores ─► all books      drawn where they are used, by (seed, frame, book)
       ▲                                             │            seeds, clock, ends, countdown: tensors of `Steps`
       └── network ◄── vectors of the codes + told ◄─┘            positions, and which row of the text is next: by the clock

A plan knows beforehand where each step will be in the text, so what steps are told is one table. The host looks at the
countdown now and then and hands out what is complete; steps too many change nothing. The clock is a tensor: a graph that is
replayed draws other numbers each time. tts/decoding/autoregressive.py does all else, and defines it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tts.decoding import autoregressive
from tts.decoding.autoregressive import Task
from tts.decoding.constraints import MonotonicPointer
from tts.decoding.graphs import capture
from tts.decoding.guidance import stack_groups
from tts.decoding.scores import DepthScorer, Scores, SteppingScorer, TokenScorer
from tts.sampling import fused, paths, steps
from tts.sampling.philox import PhiloxNoise
from tts.sampling.steps import Steps

LOOK = 16  # steps between two looks at the countdown


def decode(scorer: TokenScorer, scores: Scores, cache: Any, task: Task) -> Iterator[Tensor]:
    """As `decode` of tts/decoding/autoregressive.py: by captured steps where the path is "graph" and they can, else by it.

    They cannot where the model has a say in when the pointer moves, and where books come one after another and have delays,
    too. Frames are handed out as they are looked at, up to LOOK of them at once.
    """
    if paths.path_for(task.seeds.device) == "graph" and isinstance(scorer, SteppingScorer) and can(scorer, task):
        return run(scorer, scores, cache, task)
    return autoregressive.decode(scorer, scores, cache, task)


def can(scorer: TokenScorer, task: Task) -> bool:
    """Whether `run` says what the decoder says."""
    pointer = task.constraint
    known = pointer is None or (isinstance(pointer, MonotonicPointer) and pointer.fixed)
    return known and type(task.noise) is PhiloxNoise and (scorer.depth is None or max(task.delays) == 0)


@torch.no_grad()
def run(scorer: SteppingScorer, scores: Scores, cache: Any, task: Task) -> Iterator[Tensor]:
    """The frames of `decode` by captured steps; arguments as there, and as `can` says."""
    B, K, V, late, device = len(task.seeds), len(task.delays), scorer.sizes[0], max(task.delays), task.seeds.device
    policy, depth, loops, plan = task.policy, scorer.depth, task.loops, task.constraint
    kernels = paths.fused(device)
    sample, embed = (fused.sample_step, fused.embed_step) if kernels else (steps.sample_step, steps.embed_step)
    groups, books = 1 if policy.guidance == 1 else 2, [policy.book(k) for k in range(K)]
    # 1. what is known beforehand: how far a plan goes, that nothing ends before, and what each step is told
    ends, may_end, told, runs = task.most, None, None, None
    if isinstance(plan, MonotonicPointer):
        ends, may_end = torch.minimum(ends, plan.cap), torch.zeros(B, dtype=torch.bool, device=device)
        if task.text is not None and B:
            told = task.text(plan.ahead(int(ends.max()) + late + 1))  # [R, steps, C]
    elif loops is not None:
        runs = loops.start(B, device)
    # 2. what changes from step to step
    window = max(policy.repetition_window if policy.penalises else 0, loops.longest if loops is not None else 0)
    state = Steps.start(task.seeds, ends, task.delays, V, window, task.before)
    network = scorer.stepping(cache)
    said = scores.hidden if depth is not None else scores.logits
    assert said is not None
    said, where = said.clone(), network.where.clone()

    def one_by_one(depth: DepthScorer) -> None:
        frame, before = depth.begin(said), None
        for k, book in enumerate(books):
            sample(depth.book(k, before, frame)[:, None], state, book, may_end, book=k)
            before = stack_groups(state.current(k).clamp(max=V - 1), policy.guidance)

    def step() -> None:
        if depth is None:
            sample(said, state, policy, may_end)
        else:
            one_by_one(depth)
        x = embed(network.table, state, groups, network.join)
        if runs is not None and loops is not None:
            last = state.before(loops.longest + 1)
            now, looped = loops.follow(runs, last[:, -1], last[:, :-1])
            runs.copy_(now)
            state.stop(looped)
        if told is not None:
            x = x + told.index_select(1, state.clock[:1].clamp(max=told.shape[1] - 1))[:, 0]
        said.copy_(network.step(x, where))
        where.add_(1)

    # 3. look, hand out, go on; what kernels read of the policy lives as long as the graph that does
    _held = [fused.rules(policy, K, device)] if depth is None else [fused.rules(book, 1, device) for book in books]
    advance: Callable[[], None] | None = None
    out = 0
    while B:
        left, clock, last = torch.stack((state.left.max(), state.clock[0], state.ends.max())).tolist()
        state.check()
        complete = max(out, min(clock - late, last))
        yield from state.spoken(out, complete).unbind(-1)
        out = complete
        if not left:
            return
        advance = capture(step, device) if advance is None else advance
        for _ in range(LOOK):
            advance()
