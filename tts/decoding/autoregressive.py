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
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tts.decoding.constraints import Loops, MonotonicPointer, Position, TokenConstraint
from tts.decoding.guidance import stack_groups
from tts.decoding.scores import DepthScorer, Scores, TokenScorer
from tts.errors import SettingsError, ShapeError
from tts.interfaces import Noise
from tts.sampling.fused import sampler_for
from tts.sampling.philox import PhiloxNoise, Purpose
from tts.sampling.policy import Policy

Codes = NDArray[np.int64]  # on the host
BLOCK = 128  # steps whose uniforms are made at once: making one costs as much as making all


@dataclass(frozen=True)
class Task:
    """What is to be decoded, for B items.

    seeds: [B] int64. most: [B] int64, the frames at which an item is cut off; it can never run away.
    delays: K steps; that of book 0 is 0.
    before: [B, K, P] codes of the frames before the first one (of a prompt), P >= the largest delay; the late books of the last
        of them are said again while the first frames begin. None: no frame was before.
    constraint: where an item is in its text. Without one it ends where the model says so, or at `most`.
    text: positions [B] or [B, N] to the rows [R, C] or [R, N, C] that the scorer reads beside the codes, for all guidance
        groups; None: reads none.
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
    device = task.seeds.device
    draw, text = _Sampler(task.policy, V, K, device), _Texts(task)
    # The books are kept on the host: of so few numbers a call of torch costs more than all that it computes.
    ends = text.most.cpu().numpy().copy()  # frames of each item; falls when it ends early
    first, last = _extent(ends)
    window = max(1, draw.window, text.window)
    room = window + late  # columns of `said` before step 0, which is column `room`; V: no frame
    said = np.full((B, K, room + last + late), V)
    delays = np.array(task.delays)
    if task.before is not None:
        for k, delay in enumerate(task.delays):
            known = task.before[:, k, -(room + delay) :].cpu().numpy()
            said[:, k, room + delay - known.shape[1] : room + delay] = known
    rows = said.reshape(B, K * said.shape[2])
    whole = room + delays + np.arange(K) * said.shape[2]  # where frame 0 stands in a row
    uniforms = _uniforms(task, Purpose.CODES, task.delays)
    for s in count():
        if s >= last + late or not last:
            return
        # 1. one code for each book
        column, frames = room + s, s - delays  # [K], the frame that each book is at
        history = said[:, :, column - window : column]
        drawn = draw(scorer.depth, scores, next(uniforms), history, text.may_end)  # [B, K]
        codes = drawn.cpu().numpy()
        if V in codes[:, 0].tolist():
            np.minimum(ends, s, out=ends, where=codes[:, 0] == V)  # the end of speech is no frame
            first, last = _extent(ends)
        if s >= first:
            codes = np.where(frames < ends[:, None], codes, V)
        if s < late:
            codes = np.where(frames >= 0, codes, said[:, :, column])
        said[:, :, column] = codes
        spoken = drawn if late <= s < first else torch.from_numpy(codes).to(device)
        # 2. where the text is now
        done = text.follow(codes, history, scores)
        if done is not None and done.any():
            np.minimum(ends, s + 1, out=ends, where=done)
            first, last = _extent(ends)
        # 3. hand out what is complete
        t = s - late
        if 0 <= t < last:
            yield torch.from_numpy(rows.take(whole + t, axis=1)).to(device)
        # 4. ask for the next step
        if s + 1 < last + late:
            scores = scorer.step(stack_groups(spoken, task.policy.guidance), text.told(s + 1), cache)


def gather(frames: Iterator[Tensor], B: int, K: int, V: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """All frames of `decode`: codes [B, K, T] int64, 0 after an item's end, and lengths [B]."""
    every = list(frames)
    codes = torch.stack(every, dim=-1) if every else torch.zeros(B, K, 0, dtype=torch.int64, device=device)
    return codes.masked_fill(codes == V, 0), (codes[:, 0] != V).sum(-1)


class _Texts:
    """Where each item is in its text.

    A plan says so beforehand, as nobody has a say in it, and where there is no text only a loop ends an item. Else the
    constraint is asked after each frame.

    most: [B] frames at which an item is cut off. window: codes of book 0 that are looked back on.
    """

    def __init__(self, task: Task):
        pointer, B, device = task.constraint, len(task.seeds), task.seeds.device
        plan = pointer if isinstance(pointer, MonotonicPointer) and pointer.fixed else None
        self.task, self.asked, self.most = task, pointer if plan is None else None, task.most
        self.loops = task.loops if plan is None else None
        self.window = self.loops.longest if self.loops is not None else 0
        self.runs = self.loops.start(B, device) if self.loops is not None else None
        self.nobody, self.ahead = torch.zeros(B, dtype=torch.bool, device=device), None
        self.chances = _uniforms(task, Purpose.POINTER, task.delays[:1])
        if plan is not None:
            self.most = torch.minimum(task.most, plan.cap)
            if task.text is not None and B:
                self.ahead = task.text(plan.ahead(int(self.most.max()) + max(task.delays))).unbind(1)
        if self.asked is not None:
            self.position = self.asked.start()
            self.most = task.most.masked_fill(self.position.done, 0)

    def may_end(self) -> Tensor | None:
        """[B] bool: items that may end before the frame that is said next; None: all."""
        if self.asked is not None:
            return self.asked.may_end(self.position)
        return None if self.task.constraint is None else self.nobody

    def follow(self, codes: Codes, before: Codes, scores: Scores) -> NDArray[np.bool_] | None:
        """After codes [B, K] and those before them [B, K, W]: the items that end with them; None: none does."""
        looped = self.nobody
        if self.runs is not None and self.loops is not None:
            said = (codes[:, 0], before[:, 0, before.shape[2] - self.window :])
            self.runs, looped = self.loops.follow(self.runs, *(torch.from_numpy(x).to(looped.device) for x in said))
        if self.asked is None:
            return looped.cpu().numpy() if self.loops is not None else None
        odds = scores.aux["advance"][: len(codes)] if "advance" in scores.aux else None
        here, self.position = self.position, self.asked.follow(self.position, odds, next(self.chances)[:, 0], looped)
        if self.runs is not None:
            self.runs = self.runs * (here.phone == self.position.phone)[:, None]  # a loop is one of the same phone
        return self.position.done.cpu().numpy()

    def told(self, step: int) -> Tensor | None:
        """What the scorer reads beside the codes, of the step that comes next."""
        if self.task.text is None:
            return None
        return self.ahead[step] if self.ahead is not None else self.task.text(self.position)


class _Sampler:
    """One code for each item and book [B, K]: all books at once, or one after another where there is a DepthScorer."""

    def __init__(self, policy: Policy, V: int, K: int, device: torch.device) -> None:
        self.policy, self.books, self.V = policy, [policy.book(k) for k in range(K)], V
        self.window = policy.repetition_window if policy.penalises else 0
        self.sample = sampler_for(device)
        self.is_end = (torch.arange(V + 1, device=device) == V)[None, None]

    def __call__(
        self,
        depth: DepthScorer | None,
        scores: Scores,
        uniforms: Tensor,
        history: Codes,
        may_end: Callable[[], Tensor | None],
    ) -> Tensor:
        """uniforms [B, K]; history [B, K, W]; may_end: tells which items may end, [B] bool or None: all."""
        before = None
        if self.window:
            before = torch.from_numpy(history[:, :, history.shape[2] - self.window :]).to(uniforms.device)
        if depth is None:
            if scores.logits is None:
                raise ShapeError("a scorer without depth must give the logits of all books")
            return self.sample(scores.logits, uniforms, self.policy, before, self._no_end(scores.logits, may_end))
        state = depth.begin(scores.hidden)
        said: list[Tensor] = []
        for k, policy in enumerate(self.books):
            # An item that ends has no frame, so any code will do for its later books.
            previous = stack_groups(said[-1].clamp(max=self.V - 1), self.policy.guidance) if said else None
            logits = depth.book(k, previous, state)[:, None]
            one, own = slice(k, k + 1), before[:, k : k + 1] if before is not None else None
            forbidden = self._no_end(logits, may_end if k == 0 else None)
            said.append(self.sample(logits, uniforms[:, one], policy, own, forbidden)[:, 0])
        return torch.stack(said, dim=1)

    def _no_end(self, logits: Tensor, may_end: Callable[[], Tensor | None] | None) -> Tensor | None:
        """Where logits [..., W] are the end of speech, of items that may not end: [B or 1, 1, V + 1] bool. None: nowhere."""
        if logits.shape[-1] == self.V:
            return None
        if may_end is None:
            return self.is_end
        allowed = may_end()
        return None if allowed is None or allowed.cpu().numpy().all() else ~allowed[:, None, None] & self.is_end


def _extent(ends: Codes) -> tuple[int, int]:
    """Frames of the shortest item and of the longest; 0 where there are no items."""
    return (int(ends.min()), int(ends.max())) if len(ends) else (0, 0)


def _uniforms(task: Task, purpose: Purpose, delays: tuple[int, ...]) -> Iterator[Tensor]:
    """For step 0, 1, …: [B, K], each the uniform of the frame that the book is at."""
    seeds, device = task.seeds[:, None, None], task.seeds.device
    books, late = torch.arange(len(delays), device=device)[:, None], torch.tensor(delays, device=device)[:, None]
    for first in count(0, BLOCK):
        steps = torch.arange(first, first + BLOCK, device=device)
        position = (steps - late).clamp(min=0)  # [K, BLOCK]; before frame 0 nothing is drawn
        yield from task.noise.uniform(seeds, purpose, 0, position, books).unbind(-1)
