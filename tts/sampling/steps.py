"""A step of autoregressive decoding whose whole state is in tensors: what a captured graph can replay, in plain torch.

    clock 4, delays (0, 1, 2)          a step's codes stand in one column of `said`
    book 0      a  b  c  d [e]         column `room + clock`
    book 1      ·  a  b  c [d]         · is what was before the first frame: the prompt's codes, or V
    book 2      ·  ·  a  b [c]

The same steps as tts/decoding/autoregressive.py takes, but for what a constraint does: a loop looks at `left` when it
likes to, and a step too many changes nothing. Codes are drawn by tts/sampling/reference.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tts.errors import CheckpointError, ShapeError
from tts.interfaces import Noise
from tts.sampling.philox import PhiloxNoise, Purpose
from tts.sampling.policy import Policy
from tts.sampling.reference import guided, sample_codes


@dataclass(frozen=True)
class Steps:
    """Changed in place by every step.

    V: codes of a book; scores have V of them, or V + 1 where the last one, which only book 0 can say, is the end of speech.
    said: [B, K, S] int64, V where a book has no frame. room: the column of step 0. delays: [K]; late: the largest.
    seeds: [B]. ends: [B], frames of each item. left: [B], the steps that it still needs. trouble: [B] int32, 1 where scores
        allowed no code. clock: [2], the step that comes next, twice: see tts/sampling/kernels/codes.py.
    """

    V: int
    said: Tensor
    room: int
    delays: Tensor
    late: int
    seeds: Tensor
    ends: Tensor
    left: Tensor
    trouble: Tensor
    clock: Tensor

    @classmethod
    def start(
        cls, seeds: Tensor, most: Tensor, delays: tuple[int, ...], V: int, window: int = 0, before: Tensor | None = None
    ) -> Steps:
        """seeds, most (frames at which an item is cut off): [B] int64. window: codes that a repetition penalty looks back on.

        before: [B, K, P] codes of the frames before the first, P >= the largest delay; None: no frame was before.
        """
        B, K, late, device = len(seeds), len(delays), max(delays), seeds.device
        if min(delays) < 0 or delays[0] != 0 or most.shape != (B,):
            raise ShapeError(f"delays begin with 0 and are none below, most is [{B}]; got {delays}, {tuple(most.shape)}")
        if before is not None and (before.shape[:2] != (B, K) or before.shape[2] < late):
            raise ShapeError(f"the codes before must be [{B}, {K}, P] with P >= {late}, got {tuple(before.shape)}")
        room = window + late
        said = torch.full((B, K, room + max([0, *most.tolist()]) + late + 1), V, device=device)
        if before is not None:
            for k, delay in enumerate(delays):
                n = min(room + delay, before.shape[2])
                said[:, k, room + delay - n : room + delay] = before[:, k, before.shape[2] - n :]
        clock = torch.zeros(2, dtype=torch.int64, device=device)
        trouble = torch.zeros(B, dtype=torch.int32, device=device)
        at = torch.tensor(delays, device=device)
        return cls(V, said, room, at, late, seeds, most.clone(), torch.where(most > 0, most + late, 0), trouble, clock)

    def column(self, step: int) -> int:
        """Where it is written. One that all items have ended before writes into the last column, which nothing reads."""
        return min(self.room + step, self.said.shape[2] - 1)

    def spoken(self, first: int, last: int) -> Tensor:
        """Frames first … last - 1, which must be complete, without their delays: [B, K, last - first], V past an end."""
        at = self.room + self.delays[:, None] + torch.arange(first, last, device=self.said.device)
        return self.said.gather(2, at.expand(len(self.said), -1, -1))

    def current(self, book: int) -> Tensor:
        """[B] what a book has just been given, where `sample_step` was the last thing that was done; looks at no number."""
        column = (self.room + self.clock[:1]).clamp(max=self.said.shape[2] - 1)
        return self.said[:, book].index_select(1, column)[:, 0]

    def before(self, n: int) -> Tensor:
        """[B, n] the last codes of book 0 after a whole step, n <= room + 1; looks at no number."""
        column = (self.room + self.clock[:1] - 1).clamp(max=self.said.shape[2] - 1)
        return self.said[:, 0].index_select(1, column + torch.arange(1 - n, 1, device=column.device))

    def stop(self, items: Tensor) -> None:
        """End items [B] bool with the frame that a whole step has just said; looks at no number."""
        self.ends.copy_(torch.minimum(self.ends, torch.where(items, self.clock[0], self.ends)))
        self.left.copy_((self.ends + self.late - self.clock[0]).clamp(min=0))

    def codes(self) -> tuple[Tensor, Tensor]:
        """What has been said, without its delays: codes [B, K, T] int64, 0 after an item's end, and lengths [B]. Looks."""
        self.check()
        T = int(self.ends.max()) if len(self.ends) else 0
        codes = self.spoken(0, T)
        inside = torch.arange(T, device=self.said.device) < self.ends[:, None]
        return codes.masked_fill(~inside[:, None], 0), self.ends.clone()

    def check(self) -> None:
        """Raise CheckpointError where scores allowed no code. Looks."""
        if bool(self.trouble.any()):
            raise CheckpointError(
                f"no code can be drawn for item {int(self.trouble.argmax())}: its scores hold NaN or infinity, or allow "
                "nothing; the weights are damaged, or a constraint forbids every code"
            )


def sample_step(
    logits: Tensor,
    steps: Steps,
    policy: Policy,
    may_end: Tensor | None = None,
    uniforms: Tensor | None = None,
    book: int | None = None,
    noise: Noise = PhiloxNoise(),
) -> None:
    """Draw the step's codes and write them into `said`; `close_step` makes it a whole step.

    logits: [G * B, K, W] float, W = V or V + 1; where guided G = 2, conditional rows first. may_end: [B] bool, None: all may.
    uniforms: [B, K] in (0, 1), None: of (seed, frame, book) by `noise`.
    book: draw that one alone, by a policy of one book from logits [G * B, 1, W]; those of a step are drawn in order.
    """
    some = slice(None) if book is None else slice(book, book + 1)
    s, books = int(steps.clock[0]), torch.arange(len(steps.delays), device=logits.device)[some]
    frames = s - steps.delays[some]
    if uniforms is None:
        uniforms = noise.uniform(steps.seeds[:, None], Purpose.CODES, 0, frames.clamp(min=0), books)
    forbidden = None
    if logits.shape[-1] > steps.V and may_end is not None:
        forbidden = ~may_end[:, None, None] & (torch.arange(steps.V + 1, device=logits.device) == steps.V)
    column = steps.column(s)
    history = steps.said[:, some, column - policy.repetition_window : column] if policy.penalises else None
    codes = sample_codes(guided(logits, policy.guidance), uniforms, policy, history, forbidden)
    steps.said[:, some, column] = codes.where(frames >= 0, steps.said[:, some, column])
    steps.clock[1] = s + 1


def close_step(steps: Steps) -> Tensor:
    """End items that said so, count down, blank what lies past an end: the step's codes [B, K]. The clock goes on."""
    s = int(steps.clock[1]) - 1
    column = steps.said[:, :, steps.column(s)]
    frames = s - steps.delays
    steps.ends.copy_(torch.minimum(steps.ends, torch.where(column[:, 0] == steps.V, s, steps.ends)))
    steps.left.copy_((steps.ends + steps.late - s - 1).clamp(min=0))
    column.copy_(column.where(frames < steps.ends[:, None], steps.V))
    steps.clock[0] = s + 1
    return column


def embed_step(table: Tensor, steps: Steps, groups: int = 1, join: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """`close_step`, and the vectors of its codes for all guidance groups [G * B, D]: what the next step reads.

    table: [K * (V + 1), D], the books' tables one after another. join: where they are of low rank, from rows [G * B, K * rank].
    """
    K = len(steps.delays)
    rows = table[close_step(steps) + torch.arange(K, device=table.device) * (steps.V + 1)].repeat(groups, 1, 1)
    return rows.float().sum(-2).to(table.dtype) if join is None else join(rows.flatten(-2))
