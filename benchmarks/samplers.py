"""Drawing codes on one thread of a CPU: what a step costs outside the network, beside a chain of torch's operators."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from harness import Goal, Pace, Row, call, interleave, threads
from torch import Tensor

from tts.decoding.autoregressive import Task, decode
from tts.decoding.masked import MaskedTask, decode_masked
from tts.decoding.schedules import Passes
from tts.decoding.scores import Scores
from tts.sampling.fused import sampler_for
from tts.sampling.policy import Policy

POLICY = Policy(guidance=3.0, repetition_penalty=1.1, repetition_window=16, temperature=0.9, top_k=250, top_p=0.95)
EAGER = "eager torch"


def sampler(pace: Pace = Pace(), K: int = 8, V: int = 1024, policy: Policy = POLICY) -> list[Row]:
    """A step of K books: guidance, repetition penalty, temperature, top-k, top-p, a draw; then delays, end of speech, books."""
    with threads(1), torch.inference_mode():
        scores = _scores(K, V)
        eager, said = Eager(policy, V), torch.randint(0, V, (1, K, policy.repetition_window))
        sample = sampler_for("cpu")
        uniforms = torch.rand(1, K)
        alone = {
            "ours": call(lambda: sample(scores, uniforms, policy, said)),
            EAGER: call(lambda: eager.draw(scores, said)),
        }
        whole = {"ours": looped(scores, K, V, policy), EAGER: call(eager.stepping(scores, K))}
        shape = f"K = {K}, V = {V}, guided, penalty, top-k {policy.top_k}, top-p {policy.top_p:g}"
        return [
            Row(f"draw alone, {shape}", "µs", interleave(alone, pace, 1e6)),
            Row(
                "with uniforms by seed, delays, end of speech, books kept",
                "µs",
                interleave(whole, pace, 1e6),
                Goal(120.0),
            ),
        ]


def masked(pace: Pace = Pace(), T: int = 1000, V: int = 1024) -> list[Row]:
    """What follows the network in a pass over T masked cells: filter, draw, confidence with noise, choice of what is kept."""
    with threads(1), torch.inference_mode():
        logits, rows = torch.randn(T, V) * 3, []
        filters = {
            "no filter": Policy(),
            "temperature 0.5, min-p 0.05": Policy(temperature=0.5, min_p=0.05),  # base-en's
            "top-k 64": Policy(top_k=64),
        }
        for filtered, policy in filters.items():
            runs = {"ours": call(_pass(logits, policy)), EAGER: call(partial(eager_pass, logits, policy))}
            rows.append(Row(f"pass over T = {T} cells, V = {V}, {filtered}", "ms", interleave(runs, pace, 1e3), Goal(3.0)))
        return rows


# --------------------------------------------------------------------------------------------------------- ours


@dataclass(frozen=True)
class Told:
    """A network that costs nothing: a TokenScorer and a MaskPredictor that always say the same."""

    said: Tensor
    sizes: tuple[int, ...]
    depth: None = field(default=None)

    def step(self, codes: Tensor, text: Tensor | None, cache: Any) -> Scores:
        return Scores(codes, self.said)

    def hidden(self, codes: Tensor, book: int, left: Tensor, given: Any) -> Tensor:
        return self.said.new_zeros(1, codes.shape[2], 1)

    def logits(self, hidden: Tensor, book: int) -> Tensor:
        return self.said[: len(hidden)]


def looped(scores: Tensor, K: int, V: int, policy: Policy) -> Callable[[int], float]:
    """The decoder's loop itself, for so many steps."""
    network, delays = Told(scores, (V,) * K), tuple(range(K))

    def run(n: int) -> float:
        task = Task(torch.tensor([1]), torch.tensor([n]), policy, delays)
        started = time.perf_counter()
        for _ in decode(network, Scores(scores, scores), None, task):
            pass
        return (time.perf_counter() - started) / (n + K - 1)

    return run


def _pass(logits: Tensor, policy: Policy) -> Callable[[], Any]:
    T, V = logits.shape
    network, given = Told(logits, (V,)), torch.full((1, 1, T), V)
    task = MaskedTask(torch.tensor([1]), given, torch.tensor([T]), policy, Passes((1,)))
    return lambda: decode_masked(network, None, task)


def _scores(K: int, V: int) -> Tensor:
    """Of two guidance groups and K books, with an end of speech that only book 0 can say, and hardly does: [2, K, V + 1]."""
    scores = torch.randn(2, K, V + 1) * 3
    scores[:, 1:, V], scores[:, 0, V] = -math.inf, -100.0
    return scores


# -------------------------------------------------------------------------------------------------------- eager


@dataclass(frozen=True)
class Eager:
    """The same by torch's operators one after another, as most decoders have it."""

    policy: Policy
    V: int

    def draw(self, logits: Tensor, history: Tensor) -> Tensor:
        """logits [2, K, W], history [1, K, window] to codes [1, K]."""
        p = self.policy
        conditional, unconditional = logits.chunk(2)
        x = unconditional + p.guidance * (conditional - unconditional)
        x = x.masked_fill(conditional.isinf(), -math.inf)
        said = x.gather(-1, history)
        x = x.scatter(-1, history, torch.where(said < 0, said * p.repetition_penalty, said / p.repetition_penalty))
        x = x / p.temperature
        assert isinstance(p.top_k, int) and p.top_p is not None
        x = x.masked_fill(x < x.topk(min(p.top_k, self.V)).values[..., -1:], -math.inf)
        falling, order = x.sort(descending=True)
        chance = falling.softmax(-1)
        falling = falling.masked_fill(chance.cumsum(-1) - chance > p.top_p, -math.inf)
        x = x.scatter(-1, order, falling)
        return torch.multinomial(x.softmax(-1).flatten(0, 1), 1).view(1, -1)

    def stepping(self, logits: Tensor, K: int, room: int = 4096) -> Callable[[], None]:
        """A step again and again: draw, hold back books that have not begun, blank items that have ended, write it down."""
        window, delays = self.policy.repetition_window, torch.arange(K)
        codes = torch.randint(0, self.V, (1, K, room))
        ended, step = torch.zeros(1, dtype=torch.bool), window

        def one() -> None:
            nonlocal ended, step
            step = step + 1 if step + 1 < room else window
            drawn = self.draw(logits, codes[:, :, step - window : step])
            drawn = torch.where(delays > step - window, self.V - 1, drawn)
            ended = ended | (drawn[:, 0] == self.V)
            codes[:, :, step] = torch.where(ended[:, None], self.V - 1, drawn)
            if bool(ended.all()):
                ended = torch.zeros_like(ended)

        return one


def eager_pass(logits: Tensor, policy: Policy, keep: float = 0.5) -> Tensor:
    """As MaskGCT's own code: Gumbel noise for every code of every cell, then for every cell."""
    assert not isinstance(policy.temperature, tuple)
    x = logits / policy.temperature
    if isinstance(policy.top_k, int):
        values, order = x.topk(policy.top_k)
        x = torch.full_like(x, -math.inf).scatter(-1, order, values)
    if policy.min_p is not None:
        p = x.softmax(-1)
        x = x.masked_fill(p < policy.min_p * p.amax(-1, keepdim=True), -math.inf)
    codes = (x - torch.rand_like(x).log().neg().log()).argmax(-1)
    confidence = x.softmax(-1).gather(-1, codes[:, None])[:, 0]
    score = confidence - torch.rand_like(confidence).log().neg().log()
    again = score.topk(round(len(score) * keep), largest=False).indices
    return codes.scatter(0, again, logits.shape[-1])
