"""Autoregressive decoding: one step after another, books late by their delays, each item to its own end.

    step        0  1  2  3  4  5                    delays (0, 1, 2), an item of 4 frames
    book 0      a  b  c  d  .  .
    book 1      .  a  b  c  d  .                    frame a is complete, and handed out, after step 2
    book 2      .  .  a  b  c  d

Nothing here knows a backend: a TokenScorer says what comes next (tts/decoding/scores.py), a Policy how to draw from that, a
TokenConstraint where the item is in its text. A code is drawn by the uniform of (seed of the item, its frame, its book), so
that it depends on no neighbour in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tts.decoding.constraints import Loops, Position, TokenConstraint, Unconstrained
from tts.decoding.guidance import stack_groups
from tts.decoding.scores import DepthScorer, Scores, TokenScorer
from tts.errors import SettingsError, ShapeError
from tts.interfaces import Noise
from tts.sampling.fused import samplers_for
from tts.sampling.philox import PhiloxNoise, Purpose
from tts.sampling.policy import Policy

BLOCK = 128  # steps whose uniforms are made at once: making one costs as much as making all


@dataclass(frozen=True)
class Task:
    """What is to be decoded, for B items.

    seeds: [B] int64. most: [B] int64, the frames at which an item is cut off; it can never run away.
    delays: K steps; that of book 0 is 0.
    before: [B, K, P] codes of the frames before the first one (of a prompt), P >= the largest delay; the late books of the last
        of them are said again while the first frames begin. None: no frame was before.
    constraint: where an item is in its text. Without one it ends where the model says so, or at `most`.
    text: a position to the rows [R, C] that the scorer reads beside the codes, for all guidance groups; None: reads none.
    loops: an item caught in one is pushed on to its next phone, or without a constraint ended. None: never.
    """

    seeds: Tensor
    most: Tensor
    policy: Policy
    delays: tuple[int, ...]
    before: Tensor | None = None
    constraint: TokenConstraint | None = None
    text: Callable[[Position], Tensor] | None = None
    loops: Loops | None = None
    noise: Noise = field(default_factory=PhiloxNoise)

    def __post_init__(self) -> None:
        B, K = len(self.seeds), len(self.delays)
        if K == 0 or self.delays[0] != 0 or min(self.delays) < 0:
            raise SettingsError(f"delays are steps >= 0 for each codebook, the first 0, got {self.delays}")
        if self.most.shape != (B,):
            raise ShapeError(f"most must be [{B}] as the seeds are, got {tuple(self.most.shape)}")
        if self.before is not None and (self.before.shape[:2] != (B, K) or self.before.shape[2] < max(self.delays)):
            raise ShapeError(
                f"the codes before must be [{B}, {K}, P] with P >= {max(self.delays)}, got {tuple(self.before.shape)}"
            )
        if self.text is not None and self.constraint is None:
            raise SettingsError("a text read by its position needs a constraint that says where it is")
        self.policy.check_books(K)


@torch.no_grad()
def decode(scorer: TokenScorer, scores: Scores, cache: Any, task: Task) -> Iterator[Tensor]:
    """Codes of frame 0, 1, … as soon as all books of it are known: [B, K] int64 each, V for items that have ended.

    scores: what the scorer says of step 0, after it has read all that goes before, with the text of `constraint.start()`.
    Rows are the items, then with guidance the items again without their condition; advancing is the conditional rows' word.
    Stops when the last item has. Raises CheckpointError where the scores allow no code.
    """
    B, K, V, late = len(task.seeds), len(task.delays), scorer.sizes[0], max(task.delays)
    device, loops = task.seeds.device, task.loops
    draw = _Sampler(task.policy, V, K, device)
    constraint = task.constraint if task.constraint is not None else Unconstrained(task.seeds)
    window = max(1, draw.window, loops.longest if loops is not None else 0)
    # The books are kept on the host: of so few numbers a call of torch costs more than all that it computes.
    room = window + late  # columns of `said` before step 0, which is column `room`; V: no frame
    said = np.full((B, K, room + max([0, *task.most.tolist()]) + late), V)
    delays, books = np.array(task.delays), np.arange(K)
    if task.before is not None:
        for k, delay in enumerate(task.delays):
            known = task.before[:, k, -(room + delay) :].cpu().numpy()
            said[:, k, room + delay - known.shape[1] : room + delay] = known
    position, looped = constraint.start(), torch.zeros(B, dtype=torch.bool, device=device)
    runs = loops.start(B, device) if loops is not None else None
    ends = task.most.masked_fill(position.done, 0).cpu().numpy()  # frames of each item; falls when it ends early
    uniforms = _uniforms(task, Purpose.CODES, task.delays)
    chances = _uniforms(task, Purpose.POINTER, task.delays[:1])
    last = int(ends.max()) if B else 0  # frames of the longest item
    for s in count():
        if s >= last + late or not last:
            return
        # 1. one code for each book
        column, frames = room + s, s - delays  # [K], the frame that each book is at
        history = torch.from_numpy(said[:, :, column - window : column])
        may_end = partial(constraint.may_end, position)
        codes = draw(scorer.depth, scores, next(uniforms), history, may_end).cpu().numpy()
        ends = np.where(codes[:, 0] == V, np.minimum(ends, s), ends)  # the end of speech is no frame
        codes = np.where(frames < ends[:, None], codes, V)  # [B, K]
        said[:, :, column] = codes = codes if s >= late else np.where(frames >= 0, codes, said[:, :, column])
        spoken = torch.from_numpy(codes).to(device)
        # 2. where the text is now
        if loops is not None and runs is not None:
            runs, looped = loops.follow(runs, spoken[:, 0], history[:, 0, -loops.longest :].to(device))
        odds = scores.aux["advance"][:B] if "advance" in scores.aux else None
        here, position = position, constraint.follow(position, odds, next(chances)[:, 0], looped)
        if runs is not None:
            runs = runs * (here.phone == position.phone)[:, None]  # a loop is one of the same phone
        ends = np.where(position.done.cpu().numpy(), np.minimum(ends, s + 1), ends)
        # 3. hand out what is complete
        last = int(ends.max())
        t = s - late
        if 0 <= t < last:
            yield torch.from_numpy(said[:, books, room + t + delays]).to(device)
        # 4. ask for the next step
        if s + 1 < last + late:
            text = task.text(position) if task.text is not None else None
            scores = scorer.step(stack_groups(spoken, task.policy.guidance), text, cache)


def gather(frames: Iterator[Tensor], B: int, K: int, V: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """All frames of `decode`: codes [B, K, T] int64, 0 after an item's end, and lengths [B]."""
    every = list(frames)
    codes = torch.stack(every, dim=-1) if every else torch.zeros(B, K, 0, dtype=torch.int64, device=device)
    return codes.masked_fill(codes == V, 0), (codes[:, 0] != V).sum(-1)


class _Sampler:
    """One code for each item and book [B, K]: all books at once, or one after another where there is a DepthScorer."""

    def __init__(self, policy: Policy, V: int, K: int, device: torch.device) -> None:
        self.policy, self.books, self.V = policy, [policy.book(k) for k in range(K)], V
        self.window = policy.repetition_window if policy.penalises else 0
        self.sample, self.guided = samplers_for(device)
        self.is_end = torch.arange(V + 1, device=device) == V

    def __call__(
        self,
        depth: DepthScorer | None,
        scores: Scores,
        uniforms: Tensor,
        history: Tensor,
        may_end: Callable[[], Tensor],
    ) -> Tensor:
        """uniforms [B, K]; history [B, K, W], on the host; may_end: tells which items may end, [B] bool."""
        scale, V = self.policy.guidance, self.V
        before = history[:, :, history.shape[2] - self.window :].to(uniforms.device) if self.window else None
        if depth is None:
            if scores.logits is None:
                raise ShapeError("a scorer without depth must give the logits of all books")
            logits = self.guided(scores.logits, scale)
            return self.sample(logits, uniforms, self.policy, before, self._no_end(logits, may_end))
        state = depth.begin(scores.hidden)
        said: list[Tensor] = []
        for k, policy in enumerate(self.books):
            # An item that ends has no frame, so any code will do for its later books.
            previous = stack_groups(said[-1].clamp(max=V - 1), scale) if said else None
            logits = self.guided(depth.book(k, previous, state), scale)[:, None]
            one, own = slice(k, k + 1), before[:, k : k + 1] if before is not None else None
            forbidden = self._no_end(logits, may_end if k == 0 else None)
            said.append(self.sample(logits, uniforms[:, one], policy, own, forbidden)[:, 0])
        return torch.stack(said, dim=1)

    def _no_end(self, logits: Tensor, may_end: Callable[[], Tensor] | None) -> Tensor | None:
        """Where logits [B, K, W] are the end of speech, of items that may not end: [B or 1, 1, V + 1] bool. None: nowhere."""
        if logits.shape[-1] == self.V:
            return None
        if may_end is None:
            return self.is_end[None, None]
        allowed = may_end()
        return None if allowed.cpu().numpy().all() else ~allowed[:, None, None] & self.is_end


def _uniforms(task: Task, purpose: Purpose, delays: tuple[int, ...]) -> Iterator[Tensor]:
    """For step 0, 1, …: [B, K], each the uniform of the frame that the book is at."""
    seeds, device = task.seeds[:, None, None], task.seeds.device
    books, late = torch.arange(len(delays), device=device)[:, None], torch.tensor(delays, device=device)[:, None]
    for first in count(0, BLOCK):
        steps = torch.arange(first, first + BLOCK, device=device)
        position = (steps - late).clamp(min=0)  # [K, BLOCK]; before frame 0 nothing is drawn
        yield from task.noise.uniform(seeds, purpose, 0, position, books).unbind(-1)
