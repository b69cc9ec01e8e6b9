"""Parallel decoding of masked codes: book after book, all masked frames at once, in as many passes as a schedule says.

    book 0    x x x x x x     ─►    x 7 x x 3 x     ─►    5 7 2 8 3 1        x is masked
    book 1    x x x x x x           x x x x x x           x x x x x x        and comes next

Nothing here knows a backend: a MaskPredictor says what the cells may be (tts/decoding/scores.py), a Policy how to draw from
that, a CommitPolicy which of what is drawn is kept. What is known before (a prompt, the first seconds from another model, the
surroundings of an edit) or committed is never opened again. Every draw is that of (seed of the item, book, pass, frame), so it
depends on no neighbour in the batch. Source: MaskGIT (arXiv:2202.04200); by books, MaskGCT (arXiv:2409.00750) and MAGNeT
(arXiv:2401.04577).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tts.decoding.commit import ByConfidence, Candidates, CommitPolicy
from tts.decoding.guidance import guide
from tts.decoding.schedules import Passes, counts, guidances, temperatures
from tts.decoding.scores import MaskPredictor
from tts.errors import CheckpointError, SettingsError, ShapeError
from tts.interfaces import Noise
from tts.sampling import fused, paths
from tts.sampling.lean import softmax
from tts.sampling.philox import PhiloxNoise, Purpose
from tts.sampling.policy import Policy

CACHED = 512  # cells that a CPU draws at once: their tables stay in its cache, and need no fresh pages of memory
WHOLE = 2**30  # the weight of the likeliest code, where they are whole numbers

DAMAGED = "no code can be drawn for a masked cell: its scores hold NaN or infinity, or allow nothing; the weights are damaged"


@dataclass(frozen=True)
class Rescoring:
    """Confidence is weight * p of another model + (1 - weight) * p of this one (MAGNeT).

    log_probs: of (book, codes [B, K, T] int64 with what was drawn in place and V where later books are masked, this model's
        log-probabilities [B, T]) to the other model's log-probabilities [B, T] of the same codes of that book.
    """

    log_probs: Callable[[int, Tensor, Tensor], Tensor]
    weight: float

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise SettingsError(f"the weight of rescoring must be in 0..1, got {self.weight!r}")


@dataclass(frozen=True)
class MaskedTask:
    """What is to be decoded, for B items.

    seeds: [B] int64. codes: [B, K, T] int64, V where masked, else known. lengths: [B] frames, at least 1 each.
    policy: guidance, temperature, top-k, …; a masked model has no past, so no repetition penalty.
    rescale: how much of the guided states' spread is set back to that of the conditional ones (0.75 in MaskGCT), per item.
    tempered: confidence is the probability under the temperature that is drawn with (MAGNeT) rather than under 1 (MaskGCT).
    watch: told of every pass: what was drawn, and which cells [B, T] are kept of it.
    """

    seeds: Tensor
    codes: Tensor
    lengths: Tensor
    policy: Policy
    passes: Passes
    commit: CommitPolicy = field(default_factory=ByConfidence)
    rescale: float = 0.0
    tempered: bool = False
    rescoring: Rescoring | None = None
    watch: Callable[[Candidates, Tensor], None] | None = None
    noise: Noise = field(default_factory=PhiloxNoise)

    def __post_init__(self) -> None:
        if self.codes.dim() != 3 or self.seeds.shape != self.codes.shape[:1] or self.lengths.shape != self.codes.shape[:1]:
            shapes = tuple(self.codes.shape), tuple(self.seeds.shape), tuple(self.lengths.shape)
            raise ShapeError(f"codes must be [B, K, T], seeds and lengths [B], got {shapes}")
        B, K, T = self.codes.shape
        if B and not 1 <= int(self.lengths.min()) <= int(self.lengths.max()) <= T:
            raise SettingsError(f"each item must have 1..{T} frames, got lengths {self.lengths.tolist()}")
        if len(self.passes.steps) != K:
            raise SettingsError(f"steps must be {K}, one for each codebook; got {self.passes.steps}")
        if self.policy.penalises:
            raise SettingsError("a masked model says all frames at once; a repetition_penalty needs codes before")
        if not 0 <= self.rescale <= 1:
            raise SettingsError(f"rescale must be in 0..1, got {self.rescale!r}")
        self.policy.check_books(K)

    @property
    def guided(self) -> bool:
        """Whether the predictor is asked for the items without their condition, too."""
        return self.policy.guidance != 1 or self.passes.last_guidance not in (None, 1)


@dataclass(frozen=True)
class Decoded:
    """codes: [B, K, T] int64, 0 past an item's end. passes: [B] int64, how often the network was needed for each item."""

    codes: Tensor
    passes: Tensor


@torch.no_grad()
def decode_masked(predictor: MaskPredictor, given: Any, task: MaskedTask) -> Decoded:
    """Fill what is masked. given: what the predictor reads beside the codes, for all rows (see MaskPredictor).

    Raises:
        SettingsError: an item has fewer units to fill than steps, unless `fewer` is set.
        CheckpointError: the logits allow no code.
    """
    B, K, T = task.codes.shape
    device = task.codes.device
    inside = torch.arange(T, device=device) < task.lengths[:, None]
    codes, passes = task.codes.clone(), torch.zeros(B, dtype=torch.int64, device=device)
    if len(predictor.sizes) != K:
        raise ShapeError(f"the model has {len(predictor.sizes)} codebooks, the codes have {K}")
    sizes = torch.tensor(predictor.sizes, device=device)[:, None]
    if bool((((codes < 0) | (codes > sizes)) & inside[:, None]).any()):
        raise ShapeError(f"codes must lie in 0..V, V for masked cells, with V = {predictor.sizes}")
    for k, V in enumerate(predictor.sizes):
        masked = (codes[:, k] == V) & inside
        if _kernels_can(task):
            passes += _fill(predictor, given, task, codes, masked, k)
            continue
        plan = _plan(task, k, task.commit.units(masked).sum(1).tolist(), device)
        step, S = torch.zeros_like(passes), plan.stay.shape[1]
        chances, ranks = (_Chances(task, purpose, k, S) for purpose in (Purpose.MASKED, Purpose.COMMIT))
        policy = task.policy.book(k)
        for _ in range(S):
            # 1. each item's next pass that the schedule lets commit anything
            waiting = task.commit.units(masked).sum(1)
            busy = waiting > 0
            if not bool(busy.any()):
                break
            step = plan.next(step, waiting)
            # 2. ask, guide, draw
            hidden = _hidden(predictor, codes, k, given, plan, step, task)
            b, t = masked.nonzero(as_tuple=True)
            logits = predictor.logits(hidden[b, t], k)  # [M, V]
            drawn, sure = draw(logits, chances.at(step)[b, t], policy, plan.of(plan.temperature, step)[b], task.tempered)
            # 3. keep the best of it
            said = codes[:, k].index_put((b, t), drawn)
            confidence = torch.ones(masked.shape, device=device).index_put((b, t), sure)
            confidence = _rescored(task.rescoring, k, codes, said, confidence, masked)
            left = plan.of(plan.left, step)
            candidates = Candidates(k, step, left, masked, said, confidence, task.seeds, task.noise, partial(ranks.at, step))
            kept = task.commit.commit(candidates, plan.of(plan.stay, step)) & masked
            if task.watch is not None:
                task.watch(candidates, kept)
            codes[:, k] = said.where(kept, codes[:, k])
            masked, step, passes = masked & ~kept, step + 1, passes + busy
    return Decoded(codes.masked_fill(~inside[:, None], 0), passes)


def _kernels_can(task: MaskedTask) -> bool:
    """Whether `fused.mask_step` does all that this task wants done after the network."""
    plain = task.rescoring is None and task.watch is None and type(task.noise) is PhiloxNoise
    return plain and type(task.commit) is ByConfidence and paths.fused(task.codes.device)


def _fill(predictor: MaskPredictor, given: Any, task: MaskedTask, codes: Tensor, masked: Tensor, k: int) -> Tensor:
    """Book k by kernels, `codes` and `masked` in place; says how many passes each item took [B].

    By confidence a pass leaves exactly as many cells as its schedule says, so that the host knows all passes before the first.
    """
    assert isinstance(task.commit, ByConfidence)
    waiting = masked.sum(1).cpu()  # the one thing that is waited for
    plan, passes = _plan(task, k, waiting.tolist(), waiting.device), torch.zeros_like(waiting)
    step, taken = torch.zeros_like(waiting), []
    while bool((waiting > 0).any()):
        step = plan.next(step, waiting)
        taken.append(step)
        passes, waiting, step = passes + (waiting > 0), torch.minimum(waiting, plan.of(plan.stay, step)), step + 1
    if not taken:
        return passes.to(codes.device)
    steps, device = torch.stack(taken, 1), codes.device  # [B, passes]
    plan = _Plan(*(x.gather(1, steps).to(device) for x in (plan.stay, plan.left, plan.temperature, plan.guidance)))
    steps, damaged, policy = steps.to(device), [], task.policy.book(k)
    for n in range(steps.shape[1]):
        hidden = _hidden(predictor, codes, k, given, plan, torch.full_like(task.seeds, n), task)
        _, _, trouble = fused.mask_step(
            *(predictor.logits(hidden, k), codes[:, k], masked, plan.stay[:, n], task.seeds, k, steps[:, n]),
            policy,
            left=plan.left[:, n],
            temperature=plan.temperature[:, n],
            noise=task.commit.noise,
            tempered=task.tempered,
        )
        damaged.append(trouble)
    if bool(torch.stack(damaged).any()):
        raise CheckpointError(DAMAGED)
    return passes.to(device)


@dataclass(frozen=True)
class _Plan:
    """Of each item and pass [B, S]: units that stay masked, the part of the passes that is left, temperature, guidance."""

    stay: Tensor
    left: Tensor
    temperature: Tensor
    guidance: Tensor

    def next(self, step: Tensor, waiting: Tensor) -> Tensor:
        """The first pass from `step` on that leaves fewer units masked than are `waiting` [B]; any, where none is."""
        later = torch.arange(self.stay.shape[1], device=step.device) >= step[:, None]
        return (later & (self.stay < waiting[:, None])).int().argmax(1)

    @staticmethod
    def of(table: Tensor, step: Tensor) -> Tensor:
        return table.gather(1, step[:, None])[:, 0]


@dataclass(frozen=True)
class _Chances:
    """The uniforms of a book in all its S passes: made at once when first asked for, as making one costs a third of that."""

    task: MaskedTask
    purpose: Purpose
    book: int
    S: int

    def at(self, step: Tensor) -> Tensor:
        """[B, T] of the pass that each item is at [B]."""
        return self._all[torch.arange(len(step), device=step.device), step]

    @cached_property
    def _all(self) -> Tensor:
        seeds, T = self.task.seeds[:, None, None], self.task.codes.shape[2]
        frames, passes = (torch.arange(n, device=seeds.device) for n in (T, self.S))
        return self.task.noise.uniform(seeds, self.purpose, self.book, frames, passes[:, None])  # [B, S, T]


def _plan(task: MaskedTask, k: int, units: list[int], device: torch.device) -> _Plan:
    """units: [B] that book k has masked. An item's numbers are its own, whatever the others' lengths."""
    passes, first = task.passes, task.policy.guidance
    last = passes.last_guidance if passes.last_guidance is not None else first
    temperature = task.policy.book(k).temperature
    assert not isinstance(temperature, tuple)
    rows: list[list[tuple[float, ...]]] = [[], [], [], []]
    for n in units:
        S = passes.of(k, n) if n else 0
        rows[0].append(counts(n, S, passes.schedule) if n else ())
        rows[1].append(tuple(1 - i / S for i in range(S)))
        rows[2].append(temperatures(S, temperature, passes.anneal) if n else ())
        rows[3].append(guidances(S, first, last, passes.schedule) if n else ())
    width = max([1, *map(len, rows[0])])

    def table(of: list[tuple[float, ...]], dtype: torch.dtype) -> Tensor:
        return torch.tensor([(*row, *(0,) * (width - len(row))) for row in of], dtype=dtype, device=device).view(-1, width)

    return _Plan(table(rows[0], torch.int64), *(table(of, torch.float32) for of in rows[1:]))


def _hidden(predictor: MaskPredictor, codes: Tensor, k: int, given: Any, plan: _Plan, step: Tensor, task: MaskedTask) -> Tensor:
    """Guided states [B, T, D]. The head is affine in every model here, so guiding before it also guides the logits."""
    left = plan.of(plan.left, step)
    if not task.guided:
        return predictor.hidden(codes, k, left, given)
    conditional, unconditional = predictor.hidden(torch.cat((codes, codes)), k, torch.cat((left, left)), given).chunk(2)
    guided = guide(conditional, unconditional, plan.of(plan.guidance, step)[:, None, None].to(conditional.dtype))
    if not task.rescale:
        return guided
    # Over an item's own frames, one item at a time: the sums of a batch would depend on its padding.
    own = zip(conditional, guided, task.lengths.tolist(), strict=True)
    ratio = torch.stack([_spread(c[:n]) / _spread(g[:n]) for c, g, n in own])
    return guided * (task.rescale * ratio + 1 - task.rescale)[:, None, None]


def _spread(x: Tensor) -> Tensor:
    """The standard deviation but for a factor that is the same for all x of one size; a third of the time of Tensor.std."""
    return torch.linalg.vector_norm(x - x.mean())


def draw(
    logits: Tensor, uniforms: Tensor, policy: Policy, temperature: Tensor, tempered: bool = False
) -> tuple[Tensor, Tensor]:
    """One code for each of M cells, and its probability, which is its confidence.

    logits ─► first k ─► / temperature ─► softmax ─► first of mass p, or those >= min_p of the first ─► draw

    Codes keep their own order, as sorting a thousand cells costs more than all the rest: with what is kept summing to mass, the
    code is the first at which the sum exceeds u * mass. So one uniform gives another code than in tts/sampling/reference.py, by
    the same law, except that all codes as likely as the last one kept are kept.

    Args:
        logits: [M, V] float32. uniforms: [M] in (0, 1). temperature: [M], 0 for the likeliest code.
        tempered: the confidence is read after the temperature, before the other filters; else before it, among the first k.
    Returns: codes [M] int64 and confidence [M] float32.
    """
    if logits.device.type == "cpu" and len(logits) > CACHED:
        cells = zip(logits.split(CACHED), uniforms.split(CACHED), temperature.split(CACHED), strict=True)
        parts = [draw(x, u, policy, t, tempered) for x, u, t in cells]
        return torch.cat([codes for codes, _ in parts]), torch.cat([confidence for _, confidence in parts])
    x = logits.float()
    if isinstance(policy.top_k, int) and policy.top_k < x.shape[-1]:
        x = x.masked_fill(x < _kth(x, policy.top_k), -torch.inf)
    likeliest = temperature == 0  # put right at the end
    temperature = temperature.masked_fill(likeliest, 1.0)
    plain = bool((temperature == 1).all())
    sure = softmax(x / temperature[:, None] if tempered and not plain else x)
    if policy.min_p:
        codes = _among_few(x, temperature, policy.min_p, uniforms)
    else:
        kept = sure if plain or tempered else softmax(x / temperature[:, None])
        if policy.top_p is not None and policy.top_p < 1:
            falling = _falling(kept)
            sums = falling.cumsum(-1)
            least = falling.masked_fill(sums - falling >= policy.top_p * sums[:, -1:], torch.inf).amin(-1, keepdim=True)
            kept = kept * (kept >= least)
        codes = _among_many(kept, uniforms)
    if bool(likeliest.any()):
        codes = torch.where(likeliest, _likeliest(x), codes)
    return codes, sure.gather(1, codes[:, None])[:, 0]


def _among_many(kept: Tensor, uniforms: Tensor) -> Tensor:
    """Codes [M] by what is kept [M, V]: first a row of V^0.5 codes, then one of them, which spares most of the sums."""
    V, row = kept.shape[-1], math.isqrt(kept.shape[-1])
    rows = (kept if V % row == 0 else torch.nn.functional.pad(kept, (0, -V % row))).view(len(kept), -1, row)
    sums = rows.sum(-1).cumsum(-1)
    mass = sums[:, -1]
    if not bool((mass > 0).all()):
        raise CheckpointError(DAMAGED)
    i = _first_above(sums, uniforms * mass)
    rest = uniforms * mass - torch.nn.functional.pad(sums, (1, 0)).gather(1, i)[:, 0]
    within = rows.gather(1, i[..., None].expand(-1, -1, row))[:, 0].cumsum(-1)
    return (i * row + _first_above(within, rest.clamp(min=0)))[:, 0]


def _among_few(x: Tensor, temperature: Tensor, min_p: float, uniforms: Tensor) -> Tensor:
    """Codes [M] by scores [M, V], of those at least min_p times as likely as the likeliest, which are looked for first.

    Their weights stand in one line, as whole numbers: those add up without rounding, so that no cell moves another's draw.
    """
    M, V = x.shape
    top = x.amax(-1)
    if not bool(top.isfinite().all()):
        raise CheckpointError(DAMAGED)
    places = _places(x, (top + temperature * math.log(min_p))[:, None])
    cells = places // V
    weights = ((x.take(places) - top[cells]).div_(temperature[cells]).exp_().mul_(WHOLE)).long()
    sums = torch.nn.functional.pad(weights.cumsum(0), (1, 0))
    until = sums[torch.searchsorted(places, torch.arange(0, M * V + 1, V, device=x.device))]  # [M + 1]
    drawn = until[:-1] + (uniforms.double() * until.diff()).long()
    return places[torch.searchsorted(sums, drawn, right=True) - 1] % V


def _kth(x: Tensor, k: int) -> Tensor:
    """The k-th largest of each row [M, 1]. NumPy's partition takes a tenth of the time of torch.topk."""
    if x.device.type != "cpu":
        return x.topk(k, sorted=False).values.amin(-1, keepdim=True)
    V = x.shape[-1]
    return torch.from_numpy(np.partition(x.numpy(), V - k, axis=-1)[:, V - k : V - k + 1])


def _places(x: Tensor, least: Tensor) -> Tensor:
    """Where x [M, V], all rows in one line, is at least as much as least [M, 1]. NumPy takes a third of torch's time."""
    if x.device.type != "cpu":
        return (x >= least).flatten().nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(x.numpy() >= least.numpy()))


def _falling(x: Tensor) -> Tensor:
    """Rows sorted, the largest first; in a CPU's memory a thirtieth of the time of torch.sort."""
    if x.device.type != "cpu":
        return x.sort(-1, descending=True).values
    return torch.from_numpy(np.sort(-x.numpy(), axis=-1)).neg_()


def _likeliest(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy().argmax(-1)) if x.device.type == "cpu" else x.argmax(-1)


def _first_above(sums: Tensor, x: Tensor) -> Tensor:
    """The first place [M, 1] at which rising sums [M, n] exceed x [M] >= 0, which rounding must not lift to the last of them.

    There the sum has just risen, so nothing of probability 0 is found.
    """
    last = sums[:, -1]
    return torch.searchsorted(sums, torch.minimum(x, torch.nextafter(last, torch.zeros_like(last)))[:, None], right=True)


def _rescored(rescoring: Rescoring | None, k: int, codes: Tensor, said: Tensor, confidence: Tensor, masked: Tensor) -> Tensor:
    if rescoring is None:
        return confidence
    proposed = codes.clone()
    proposed[:, k] = said
    other = rescoring.log_probs(k, proposed, confidence.log()).float().exp()
    return (rescoring.weight * other + (1 - rescoring.weight) * confidence).where(masked, 1.0)
