"""Decoding on toys: the law of a Markov chain, delays, ends, and items that know nothing of their neighbours."""

import gc
import itertools
import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tts.decoding.autoregressive import Task, decode, gather
from tts.decoding.constraints import Loops, MonotonicPointer
from tts.decoding.scores import Scores
from tts.errors import CheckpointError, SettingsError, ShapeError
from tts.sampling.philox import PhiloxNoise, Purpose
from tts.sampling.policy import Policy


class Chain:
    """Book k's next code depends on the code before in book k, by log-probabilities [K, V + 1, W], and on nothing else."""

    depth = None

    def __init__(self, tables: Tensor):
        self.tables = tables
        self.sizes = (tables.shape[1] - 1,) * len(tables)

    def step(self, codes: Tensor, text: Tensor | None, cache: None) -> Scores:
        R, K = codes.shape
        return Scores(torch.zeros(R, 1), self.tables[torch.arange(K), codes])

    def first(self, R: int) -> Scores:
        return self.step(torch.full((R, len(self.tables)), self.sizes[0]), None, None)


class Oracle:
    """What comes next depends, in a random way, on everything it has read: codes, texts and what was there at first.

    The cache holds a number for each row, and what the row has read.
    """

    depth = None
    STATES = 499

    def __init__(self, K: int, V: int, end: bool = False, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.sizes, W = (V,) * K, V + end
        self.logits = 2 * torch.randn(self.STATES, K, W, generator=generator)
        if end:
            self.logits[:, 1:, V] = -math.inf
        self.odds = 2 * torch.randn(self.STATES, generator=generator)
        self.weights = torch.randint(1, self.STATES, (K,), generator=generator)

    def first(self, rows: Tensor) -> tuple[Scores, dict]:
        cache = {"state": rows % self.STATES, "codes": [], "texts": []}
        return self._scores(cache), cache

    def step(self, codes: Tensor, text: Tensor | None, cache: dict) -> Scores:
        said = (codes * self.weights).sum(1) + (7 * text[:, 0] if text is not None else 0)
        cache["state"] = (31 * cache["state"] + said + 1) % self.STATES
        cache["codes"].append(codes)
        cache["texts"].append(text)
        return self._scores(cache)

    def _scores(self, cache: dict) -> Scores:
        return Scores(torch.zeros(len(cache["state"]), 1), self.logits[cache["state"]], {"advance": self.odds[cache["state"]]})


class Books:
    """A DepthScorer whose book 1 depends on book 0 of the same frame: tables [W] and [V, V]."""

    def __init__(self, first: Tensor, second: Tensor):
        self.first, self.second = first, second

    def begin(self, hidden: Tensor) -> dict:
        return {"rows": len(hidden), "asked": 0}

    def book(self, k: int, previous: Tensor | None, state: dict) -> Tensor:
        assert (k, previous is None) == (state["asked"], k == 0)
        state["asked"] += 1
        return self.first.expand(state["rows"], -1) if k == 0 else self.second[previous]


class Deep(Chain):
    """Says nothing itself; its books do."""

    def __init__(self, books: Books):
        self.depth, self.sizes = books, (len(books.second),) * 2

    def step(self, codes: Tensor, text: Tensor | None, cache: None) -> Scores:
        return Scores(torch.zeros(len(codes), 1), None)

    def first(self, R: int) -> Scores:
        return Scores(torch.zeros(R, 1), None)


def far_from(counts: Tensor, law: Tensor) -> float:
    """Pearson's statistic in standard deviations from its mean; infinite where the impossible happened."""
    if counts[law == 0].sum() > 0:
        return math.inf
    expected = (law * counts.sum())[law > 0]
    statistic, freedom = ((counts[law > 0] - expected) ** 2 / expected).sum().item(), len(expected) - 1
    return abs(statistic - freedom) / math.sqrt(2 * freedom)


def log_table(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def task(B: int, most: int, delays: tuple[int, ...], policy: Policy = Policy(), **options) -> Task:
    return Task(torch.arange(B) + 1000, torch.full((B,), most), policy, delays, **options)


@pytest.mark.parametrize("delays", [(0, 0), (0, 1), (0, 3)])
def test_codes_follow_the_law_of_two_chains_whatever_the_delays(delays):
    B, V = 6000, 3
    tables = log_table(2, V + 1, V, seed=1)
    chain = Chain(tables)
    codes, lengths = gather(decode(chain, chain.first(B), None, task(B, 2, delays)), B, 2, V)
    assert lengths.unique().tolist() == [2]
    p = tables.exp().double()
    law = torch.einsum("a,ac,b,bd->abcd", p[0, V], p[0, :V], p[1, V], p[1, :V]).flatten()  # (book 0, book 1) of frame 0, then 1
    word = ((codes[:, 0, 0] * V + codes[:, 1, 0]) * V + codes[:, 0, 1]) * V + codes[:, 1, 1]
    assert far_from(torch.bincount(word, minlength=V**4).double(), law) < 4


def test_ends_follow_the_law_of_the_chain_cut_off_at_the_cap():
    B, V, most = 6000, 2, 4
    table = log_table(1, V + 1, V + 1, seed=2)
    chain = Chain(table)
    _, lengths = gather(decode(chain, chain.first(B), None, task(B, most, (0,))), B, 1, V)
    p, alive, law = table[0].exp().double(), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), []
    for _ in range(most):
        after = alive @ p
        law.append(after[V].item())
        alive = torch.cat((after[:V], torch.zeros(1, dtype=torch.float64)))
    law.append(1 - sum(law))
    assert far_from(torch.bincount(lengths, minlength=most + 1).double(), torch.tensor(law, dtype=torch.float64)) < 4


@pytest.mark.parametrize("end", [False, True])
def test_books_of_a_frame_follow_the_law_of_their_depth_scorer(end):
    B, V = 6000, 3
    first, second = log_table(V + end, seed=3), log_table(V, V, seed=4)
    deep = Deep(Books(first, second))
    codes, lengths = gather(decode(deep, deep.first(B), None, task(B, 1, (0, 0))), B, 2, V)
    p = first.exp().double()
    law = torch.cat(((p[:V, None] * second.exp().double()).flatten(), p[V:]))
    word = torch.where(lengths == 1, codes[:, 0, :].sum(-1) * V + codes[:, 1, :].sum(-1), V * V)
    assert far_from(torch.bincount(word, minlength=len(law)).double(), law) < 4


@pytest.mark.parametrize("deep", [False, True])
def test_guidance_draws_from_the_guided_law_and_keeps_the_impossible_impossible(deep):
    B, V, scale = 6000, 4, 2.5
    c, u = log_table(V, seed=5), log_table(V, seed=6)
    c[2] = u[2] = -math.inf
    law = (u + scale * (c - u)).nan_to_num(nan=-math.inf).double().softmax(0)
    rows = torch.cat((c.expand(B, V), u.expand(B, V)))

    class Fixed:
        sizes = (V,)
        depth = None

        def begin(self, hidden: Tensor) -> None:
            return None

        def book(self, k: int, previous: Tensor | None, state: None) -> Tensor:
            return rows

    scorer = Fixed()
    if deep:
        scorer.depth = scorer  # type: ignore[assignment]
    codes, _ = gather(
        decode(scorer, Scores(torch.zeros(2 * B, 1), rows[:, None]), None, task(B, 1, (0,), Policy(guidance=scale))), B, 1, V
    )
    assert far_from(torch.bincount(codes.flatten(), minlength=V).double(), law) < 4


@st.composite
def problems(draw):
    B, K, V = draw(st.integers(1, 8)), draw(st.integers(1, 3)), draw(st.integers(2, 5))
    end, constrained = draw(st.booleans()), draw(st.booleans())
    bound = st.tuples(st.integers(0, 3), st.integers(0, 4)).map(sorted)
    return {
        "oracle": Oracle(K, V, end, draw(st.integers(0, 99))),
        "delays": (0, *draw(st.lists(st.integers(0, 4), min_size=K - 1, max_size=K - 1))),
        "most": draw(st.lists(st.integers(0, 9), min_size=B, max_size=B)),
        "bounds": draw(st.lists(st.lists(bound, min_size=1, max_size=4), min_size=B, max_size=B)) if constrained else None,
        "before": draw(st.booleans()),
        "policy": Policy(
            guidance=draw(st.sampled_from([1.0, 2.0])),
            repetition_penalty=draw(st.sampled_from([1.0, 1.5])),
            repetition_window=draw(st.integers(1, 5)),
            temperature=draw(st.sampled_from([0.0, 1.0])),
            top_k=draw(st.sampled_from([None, 2])),
        ),
        "loops": draw(st.sampled_from([None, Loops(2, 1, 2)])),
    }


def solve(problem: dict, items: list[int]) -> tuple[Tensor, Tensor, dict, Task]:
    """The codes and lengths of some items of a problem decoded together; padding is as long as they need."""
    oracle, policy, ids = problem["oracle"], problem["policy"], torch.tensor(items)
    B, K, V = len(items), len(problem["delays"]), oracle.sizes[0]
    pointer = text = before = None
    if problem["bounds"] is not None:
        rows = [problem["bounds"][i] for i in items]
        padded = torch.tensor([row + [[0, 0]] * (max(map(len, rows)) - len(row)) for row in rows])
        pointer = MonotonicPointer(padded[..., 0], padded[..., 1], torch.tensor([len(row) for row in rows]))

        def text(position):
            here = (10 * position.phone + position.stayed)[..., None]
            return here if policy.guidance == 1 else torch.cat((here, torch.zeros_like(here)))

    if problem["before"]:
        before = torch.randint(V, (8, K, 6), generator=torch.Generator().manual_seed(1))[ids]
    made = Task(
        ids * 77 + 5, torch.tensor([problem["most"][i] for i in items]), policy, problem["delays"], before, pointer, text,
        problem["loops"],
    )  # fmt: skip
    scores, cache = oracle.first(ids + 3 if policy.guidance == 1 else torch.cat((ids + 3, ids + 200)))
    codes, lengths = gather(decode(oracle, scores, cache, made), B, K, V)
    return codes, lengths, cache, made


@settings(deadline=None, max_examples=50)
@given(problems())
def test_a_batch_of_unequal_items_equals_single_runs_code_for_code(problem):
    B = len(problem["most"])
    codes, lengths, cache, made = solve(problem, list(range(B)))
    late = max(problem["delays"])
    # It never runs away: neither in frames nor in questions to the model.
    assert (lengths <= made.most).all()
    assert len(cache["codes"]) <= max(problem["most"]) + late
    for b in range(B):
        alone, length, _, _ = solve(problem, [b])
        assert length.tolist() == [lengths[b].item()]
        assert torch.equal(alone[0], codes[b, :, : lengths[b]])
        assert (codes[b, :, lengths[b] :] == 0).all()
    # The model reads what was said, each book late by its delay; before the first frame what ends the prompt.
    for s, row in enumerate(cache["codes"]):
        for b, k in itertools.product(range(B), range(len(problem["delays"]))):
            t, V = s - problem["delays"][k], problem["oracle"].sizes[0]
            if t < 0:
                expected = made.before[b, k, 6 + t] if made.before is not None else V
            else:
                expected = codes[b, k, t] if t < lengths[b] else V
            assert row[b, k] == expected
    # The text is read phone by phone.
    if problem["bounds"] is not None:
        for b, text in enumerate(torch.stack(cache["texts"], -1)[:B, 0] if cache["texts"] else []):
            every = [i for i, (_, most) in enumerate(problem["bounds"][b]) if most > 0]
            visited = list(dict.fromkeys([*every[:1], *(text // 10).tolist()]))
            assert not every or visited == every[: len(visited)]


@pytest.mark.parametrize("delays", [(0,), (0, 1, 3), (0, 4)])
def test_a_frame_leaves_as_soon_as_its_delay_is_filled(delays):
    oracle = Oracle(len(delays), 4)
    scores, cache = oracle.first(torch.tensor([1, 2]))
    for t, frame in enumerate(decode(oracle, scores, cache, task(2, 5, delays))):
        assert frame.shape == (2, len(delays))
        assert len(cache["codes"]) == t + max(delays)


@pytest.mark.parametrize("delays", [(0, 0), (0, 2)])
def test_a_code_is_drawn_by_the_uniform_of_its_seed_its_frame_and_its_book(delays):
    V, T, seeds = 8, 40, torch.tensor([3, 2**40 + 1])
    even = Chain(torch.zeros(2, V + 1, V))
    codes, _ = gather(decode(even, even.first(2), None, Task(seeds, torch.tensor([T, T]), Policy(), delays)), 2, 2, V)
    u = PhiloxNoise().uniform(seeds[:, None, None], Purpose.CODES, 0, torch.arange(T), torch.arange(2)[:, None])
    assert torch.equal(codes, (u * V).long())


def test_a_longer_cap_begins_with_the_codes_of_a_shorter_one():
    oracle = Oracle(2, 5)
    runs = [gather(decode(oracle, *oracle.first(torch.tensor([4])), task(1, most, (0, 1))), 1, 2, 5)[0] for most in (40, 70)]
    assert torch.equal(runs[0], runs[1][:, :, :40])


def test_the_end_of_speech_waits_for_the_last_phone_and_comes_at_its_most():
    V = 2
    eager = Chain(torch.tensor([[[0.0, 0.0, 50.0]]]).expand(1, V + 1, V + 1))  # would end at once
    pointer = MonotonicPointer(torch.tensor([[2, 1, 2]]), torch.tensor([[3, 2, 9]]), torch.tensor([3]))
    _, lengths = gather(decode(eager, eager.first(1), None, task(1, 99, (0,), constraint=pointer)), 1, 1, V)
    assert lengths.tolist() == [3 + 2 + 2]  # no odds are given: the first phones last their most, the last its least
    mute = Chain(torch.zeros(1, V + 1, V))
    _, lengths = gather(decode(mute, mute.first(1), None, task(1, 99, (0,), constraint=pointer)), 1, 1, V)
    assert lengths.tolist() == [3 + 2 + 9]


def test_a_loop_goes_on_to_the_next_phone_and_without_phones_it_ends():
    hum = Chain(torch.tensor([[[9.0, 0.0, 0.0]]]).expand(1, 4, 3))
    greedy, loops = Policy(temperature=0.0), Loops(longest=2, repeats=3, frames=5)
    frames = decode(hum, hum.first(1), None, task(1, 99, (0,), greedy, loops=loops))
    assert gather(frames, 1, 1, 3)[1].tolist() == [6]
    pointer = MonotonicPointer(torch.tensor([[1, 1, 8]]), torch.full((1, 3), 50), torch.tensor([3]))
    made = task(1, 999, (0,), greedy, constraint=pointer, loops=loops)
    # Six codes, then five more repeats of the same phone, and the last one for its least.
    assert gather(decode(hum, hum.first(1), None, made), 1, 1, 3)[1].tolist() == [6 + 5 + 8]
    planned = MonotonicPointer.planned(torch.tensor([[20, 20]]), torch.tensor([2]))
    made = task(1, 999, (0,), greedy, constraint=planned, loops=loops)
    assert gather(decode(hum, hum.first(1), None, made), 1, 1, 3)[1].tolist() == [40]


def test_a_repetition_penalty_breaks_a_hum():
    hum = Chain(torch.tensor([[[3.0, 2.0, 1.0]]]).expand(1, 4, 3))
    policy = Policy(temperature=0.0, repetition_penalty=5.0, repetition_window=2)
    codes, _ = gather(decode(hum, hum.first(1), None, task(1, 6, (0,), policy)), 1, 1, 3)
    assert codes[0, 0].tolist() == [0, 1, 2, 0, 1, 2]


def test_closing_early_frees_the_cache():
    class Cache(dict):
        pass

    oracle = Oracle(2, 3)
    scores, cache = oracle.first(torch.tensor([1]))
    cache = Cache(cache)
    frames = decode(oracle, scores, cache, task(1, 50, (0, 1)))
    next(frames)
    alive = weakref.ref(cache)
    del cache
    frames.close()
    gc.collect()
    assert alive() is None


def test_nothing_is_decoded_for_no_items_and_no_frames():
    oracle = Oracle(2, 3)
    assert list(decode(oracle, *oracle.first(torch.zeros(0, dtype=torch.int64)), task(0, 3, (0, 1)))) == []
    codes, lengths = gather(decode(oracle, *oracle.first(torch.tensor([1])), task(1, 0, (0, 1))), 1, 2, 3)
    assert (codes.shape, lengths.tolist()) == ((1, 2, 0), [0])


def test_scores_that_allow_nothing_are_a_typed_error():
    broken = Chain(torch.full((1, 3, 2), math.nan))
    with pytest.raises(CheckpointError, match="item 0, codebook 0"):
        next(decode(broken, broken.first(1), None, task(1, 3, (0,))))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"delays": (1, 0)}, SettingsError, "the first 0"),
        ({"delays": ()}, SettingsError, "each codebook"),
        ({"delays": (0, -1)}, SettingsError, "steps >= 0"),
        ({"most": torch.tensor([1, 2])}, ShapeError, r"\[1\]"),
        ({"before": torch.zeros(1, 2, 2, dtype=torch.int64)}, ShapeError, "P >= 3"),
        ({"text": lambda position: position.phone}, SettingsError, "constraint"),
        ({"policy": Policy(top_k=(1, 2, 3))}, SettingsError, "one value or 2"),
    ],
)
def test_a_task_that_cannot_be_is_refused(options, error, says):
    usual = {"seeds": torch.tensor([1]), "most": torch.tensor([3]), "policy": Policy(), "delays": (0, 3)}
    with pytest.raises(error, match=says):
        Task(**{**usual, **options})
