"""Parallel decoding on toys: independent cells of a known law, a model that hears everything, and one that knows the truth."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tts.decoding.commit import AtRandom, ByConfidence, BySpan, Learned
from tts.decoding.masked import MaskedTask, Rescoring, decode_masked
from tts.decoding.schedules import Passes, counts
from tts.errors import SettingsError, ShapeError
from tts.sampling.policy import Policy

LAST = 10_000  # more frames than any toy has


class Independent:
    """Each cell follows its own law [K, T, V], whatever is known."""

    def __init__(self, law: Tensor):
        self.law, self.sizes = law.log(), (law.shape[-1],) * len(law)

    def hidden(self, codes: Tensor, book: int, t: Tensor, given: None) -> Tensor:
        return self.law[book].expand(len(codes), -1, -1)

    def logits(self, hidden: Tensor, book: int) -> Tensor:
        return hidden


class Oracle:
    """What a cell may be depends, in a random way, on all that the row reads: codes inside its length, book, time, condition.

    given: [R, 2], the condition of each row, and its length.
    """

    STATES = 499

    def __init__(self, K: int, V: int, D: int = 6, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.sizes = (V,) * K
        self.states = torch.randn(self.STATES, D, generator=generator)
        self.head = 2 * torch.randn(K, D, V, generator=generator)
        self.times: list[Tensor] = []

    def hidden(self, codes: Tensor, book: int, t: Tensor, given: Tensor) -> Tensor:
        _, K, T = codes.shape
        self.times.append(t)
        frames = torch.arange(T)
        inside = frames < given[:, 1:]
        read = (codes * (1 + torch.arange(K)[:, None] * 7 + frames * 3) * inside[:, None]).sum((1, 2))
        state = read + 31 * given[:, 0] + 101 * book + (t * 97).round().long()
        return self.states[(state[:, None] + 13 * frames) % self.STATES]

    def logits(self, hidden: Tensor, book: int) -> Tensor:
        return hidden @ self.head[book]


class Teller:
    """Knows the truth [T], but tells a cell only once one of the `reach` cells before it is right: else it guesses wrong."""

    def __init__(self, truth: Tensor, V: int, reach: int):
        self.truth, self.sizes, self.reach = truth, (V,), reach

    def hidden(self, codes: Tensor, book: int, t: Tensor, given: None) -> Tensor:
        right = torch.nn.functional.pad(codes[:, 0] == self.truth, (self.reach, -1), value=True)
        near = right.unfold(1, self.reach, 1).any(-1)
        told = torch.where(near, self.truth, (self.truth + 1) % self.sizes[0])
        return torch.nn.functional.one_hot(told, self.sizes[0]).float() * torch.where(near, 6.0, 1.0)[..., None]

    def logits(self, hidden: Tensor, book: int) -> Tensor:
        return hidden


def far_from(counts: Tensor, law: Tensor) -> float:
    """Pearson's statistic in standard deviations from its mean; infinite where the impossible happened."""
    if counts[law == 0].sum() > 0:
        return math.inf
    expected = (law * counts.sum())[law > 0]
    statistic, freedom = ((counts[law > 0] - expected) ** 2 / expected).sum().item(), len(expected) - 1
    return abs(statistic - freedom) / math.sqrt(2 * freedom)


def random_law(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def task(
    codes: Tensor, steps: tuple[int, ...], policy: Policy = Policy(), lengths: Tensor | None = None, **options
) -> MaskedTask:
    """All of MaskedTask's own options; those of Passes are taken out of them."""
    B, _, T = codes.shape
    passes = {name: options.pop(name) for name in ("schedule", "anneal", "last_guidance", "fewer") if name in options}
    lengths = lengths if lengths is not None else torch.full((B,), T)
    return MaskedTask(torch.arange(B) + 1000, codes, lengths, policy, Passes(steps, **passes), **options)


def all_masked(B: int, K: int, T: int, V: int) -> Tensor:
    return torch.full((B, K, T), V)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "magnet"])
@pytest.mark.parametrize("steps", [(1, 3), (2, 1), (3, 2)])
def test_independent_cells_keep_their_law_whatever_the_schedule(schedule, steps):
    B, V = 4000, 3
    law = random_law(2, 3, V, seed=1)
    codes = decode_masked(
        Independent(law), None, task(all_masked(B, 2, 3, V), steps, schedule=schedule, commit=AtRandom())
    ).codes
    for k, t in product(range(2), range(3)):
        assert far_from(torch.bincount(codes[:, k, t], minlength=V), law[k, t]) < 5
    pairs = codes[:, 0, 0] * V + codes[:, 0, 2]  # and know nothing of one another
    assert far_from(torch.bincount(pairs, minlength=V * V), torch.outer(law[0, 0], law[0, 2]).flatten()) < 5


@pytest.mark.parametrize("commit", [ByConfidence(noise=1.0), BySpan(2), Learned(lambda x: x - 0.5, block=2)])
def test_one_pass_keeps_the_law_whatever_is_committed_first(commit):
    law = random_law(1, 3, 3, seed=2)
    codes = decode_masked(Independent(law), None, task(all_masked(4000, 1, 3, 3), (1,), commit=commit)).codes
    assert far_from(torch.bincount(codes[:, 0, 1], minlength=3), law[0, 1]) < 5


def test_two_cells_by_confidence_follow_the_law_that_can_be_counted_out():
    """The cell whose draw is the likelier stays, the other is drawn again: a sharper law than the cells' own."""
    law = random_law(1, 2, 3, seed=3)
    exact = torch.zeros(3, 3)
    for a, b in product(range(3), range(3)):
        chance = law[0, 0, a] * law[0, 1, b]
        if law[0, 0, a] > law[0, 1, b]:
            exact[a] += chance * law[0, 1]
        else:
            exact[:, b] += chance * law[0, 0]
    codes = decode_masked(Independent(law), None, task(all_masked(8000, 1, 2, 3), (2,))).codes
    assert far_from(torch.bincount(codes[:, 0, 0] * 3 + codes[:, 0, 1], minlength=9), exact.flatten()) < 5


LEARNED = Learned(lambda x: 20 * (x - 0.6), block=4)
COMMITS = [ByConfidence(), ByConfidence(noise=1.0), BySpan(2), AtRandom(), LEARNED, replace(LEARNED, least=BySpan(2))]


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.integers(3, 9), min_size=1, max_size=8),
    st.sampled_from(COMMITS),
    st.sampled_from(["none", "maskgct", "magnet"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_a_batch_of_unequal_items_equals_single_runs_code_for_code(lengths, commit, anneal, guided, seed):
    K, V, T = 2, 5, max(lengths)
    generator = torch.Generator().manual_seed(seed)
    known = torch.randint(0, V, (len(lengths), K, T), generator=generator)
    codes = known.where(torch.rand(known.shape, generator=generator) < 0.3, V)
    rows = torch.stack((torch.arange(len(lengths)) + seed, torch.tensor(lengths)), 1)
    policy = Policy(guidance=3.0 if guided else 1.0, top_k=4)
    options = {"anneal": anneal, "commit": commit, "fewer": True, "rescale": 0.75 if guided else 0.0}
    options |= {"last_guidance": 1.5} if guided else {}
    model = Oracle(K, V, seed=seed)

    def run(which: slice) -> MaskedTask:
        longest = max(lengths[which])
        one = task(codes[which, :, :longest], (4, 2), policy, rows[which, 1], **options)
        return MaskedTask(**{**vars(one), "seeds": rows[which, 0] + 50})

    def given_for(which: slice) -> Tensor:
        without = rows[which] * torch.tensor([0, 1])
        return torch.cat((rows[which], without)) if guided else rows[which]

    every = slice(0, len(lengths))
    together = decode_masked(model, given_for(every), run(every))
    for b, length in enumerate(lengths):
        alone = decode_masked(model, given_for(slice(b, b + 1)), run(slice(b, b + 1)))
        assert torch.equal(together.codes[b, :, :length], alone.codes[0])
        assert not together.codes[b, :, length:].any()
        assert together.passes[b] == alone.passes[0]


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(COMMITS), st.integers(0, 99), st.integers(1, 5))
def test_committed_cells_never_reopen_and_the_prompt_is_untouched(commit, seed, steps):
    B, K, T, V = 2, 2, 8, 4
    generator = torch.Generator().manual_seed(seed)
    known = torch.randint(0, V, (B, K, T), generator=generator)
    codes = known.where(torch.rand(known.shape, generator=generator) < 0.4, V)
    lengths = torch.tensor([T, 6])
    before, now = codes.clone(), codes.clone()

    def watch(candidates, kept):
        assert not (kept & ~candidates.masked).any()  # what is kept was masked until now
        assert torch.equal(candidates.masked, (now[:, candidates.book] == V) & (torch.arange(T) < lengths[:, None]))
        assert bool((candidates.codes[~candidates.masked] == now[:, candidates.book][~candidates.masked]).all())
        now[:, candidates.book] = candidates.codes.where(kept, now[:, candidates.book])

    rows = torch.tensor([[1, T], [2, 6]])
    done = decode_masked(Oracle(K, V), rows, task(codes, (steps, 1), lengths=lengths, commit=commit, fewer=True, watch=watch))
    inside = (torch.arange(T) < lengths[:, None])[:, None].expand(B, K, T)
    assert torch.equal(done.codes[inside], now[inside]) and bool((done.codes[inside] < V).all())
    assert torch.equal(done.codes[inside & (before < V)], before[inside & (before < V)])
    assert torch.equal(codes, before)  # nor is the caller's tensor


def test_as_many_stay_masked_after_each_pass_as_the_schedule_says():
    left = []
    watch = lambda candidates, kept: left.append(int((candidates.masked & ~kept).sum()))  # noqa: E731
    model = Oracle(1, 4)
    decode_masked(model, torch.tensor([[1, LAST]]), task(all_masked(1, 1, 100, 4), (10,), watch=watch))
    assert tuple(left) == counts(100, 10) == (98, 95, 89, 80, 70, 58, 45, 30, 15, 0)
    assert torch.allclose(torch.cat(model.times), 1 - torch.arange(10) / 10)  # the time that the network is told


def test_a_schedule_counts_spans_where_spans_are_committed():
    left = []
    watch = lambda candidates, kept: left.append(int((candidates.masked & ~kept).sum()))  # noqa: E731
    decode_masked(Oracle(1, 4), torch.tensor([[1, LAST]]), task(all_masked(1, 1, 30, 4), (5,), commit=BySpan(3), watch=watch))
    assert tuple(left) == tuple(3 * n for n in counts(10, 5))


def test_passes_that_commit_nothing_are_not_taken():
    """counts(100, 25) begins 99, 99: the network would be asked in vain, and the codes are the same."""
    done = decode_masked(Oracle(1, 4), torch.tensor([[1, LAST]]), task(all_masked(1, 1, 100, 4), (25,)))
    assert done.passes.tolist() == [24]


def test_books_come_one_after_another_and_known_ones_are_skipped():
    codes = all_masked(1, 3, 6, 4)
    codes[:, 0] = torch.tensor([0, 1, 2, 3, 0, 1])  # as another backend said them (Pheme)
    seen = []
    decode_masked(
        Oracle(3, 4),
        torch.tensor([[1, LAST]]),
        task(codes, (6, 2, 1), watch=lambda candidates, kept: seen.append(candidates.book)),
    )
    assert seen == [1, 1, 2]


def test_nothing_masked_needs_no_pass():
    codes = torch.zeros(2, 1, 3, dtype=torch.int64)
    done = decode_masked(Oracle(1, 4), None, task(codes, (3,)))
    assert torch.equal(done.codes, codes) and done.passes.tolist() == [0, 0]


def test_short_items_take_a_pass_a_frame_or_are_refused():
    codes = all_masked(2, 1, 8, 4)
    codes[1, :, 2:] = 0
    rows = torch.tensor([[1, 8], [2, 8]])
    assert decode_masked(Oracle(1, 4), rows, task(codes, (6,), fewer=True)).passes.tolist() == [6, 2]
    with pytest.raises(SettingsError, match="6 steps for 2"):
        decode_masked(Oracle(1, 4), rows, task(codes, (6,)))


class Watching(Oracle):
    """Keeps the states that the head was given."""

    def logits(self, hidden: Tensor, book: int) -> Tensor:
        self.heads = [*getattr(self, "heads", []), hidden]
        return super().logits(hidden, book)


def test_guidance_mixes_states_before_the_head_and_sets_back_their_spread_as_maskgct_does():
    rows, codes = torch.tensor([[3, LAST], [0, LAST]]), all_masked(1, 1, 6, 4)
    w, phi = 2.5, 0.75  # MaskGCT's e_c + w (e_c - e_u) is our scale 1 + w
    model = Watching(1, 4)
    conditional, unconditional = Oracle(1, 4).hidden(codes.expand(2, -1, -1), 0, torch.ones(2), rows)
    decode_masked(model, rows, task(codes, (1,), Policy(guidance=1 + w), rescale=phi))
    g = conditional + w * (conditional - unconditional)
    expected = phi * (g * conditional.std() / g.std()) + (1 - phi) * g
    assert torch.allclose(model.heads[0], expected, atol=1e-5)


def test_spread_is_that_of_the_items_own_frames():
    rows, codes = torch.tensor([[3, 5], [0, 5]]), all_masked(1, 1, 6, 4)
    model = Watching(1, 4)
    conditional, unconditional = Oracle(1, 4).hidden(codes.expand(2, -1, -1), 0, torch.ones(2), rows)[:, :5]
    decode_masked(model, rows, task(codes, (1,), Policy(guidance=2.0), torch.tensor([5]), rescale=1.0))
    g = 2 * conditional - unconditional
    assert torch.allclose(model.heads[0], g * conditional.std() / g.std(), atol=1e-5)


def test_guidance_falls_as_cells_are_committed():
    rows, codes = torch.tensor([[3, LAST], [0, LAST]]), all_masked(1, 1, 4, 4)
    falling, kept = Watching(1, 4), Watching(1, 4)
    decode_masked(
        falling, rows, task(codes, (2,), Policy(guidance=1.0), schedule="linear", last_guidance=5.0, commit=AtRandom())
    )
    decode_masked(kept, rows, task(codes, (2,), Policy(guidance=3.0), schedule="linear", commit=AtRandom()))
    unguided = Oracle(1, 4).hidden(codes, 0, torch.ones(1), rows[:1])[0]
    assert torch.allclose(falling.heads[0], unguided, atol=1e-5)  # scale 1 at first
    assert not torch.allclose(kept.heads[0], unguided, atol=1e-2)


def test_rescoring_asks_another_model_which_to_keep():
    law = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2]])[None]
    firsts = []

    def run(rescoring: Rescoring | None) -> list[bool]:
        firsts.clear()
        options = {"rescoring": rescoring, "watch": lambda candidates, kept: firsts.append(kept[0].tolist())}
        decode_masked(Independent(law), None, task(all_masked(1, 1, 3, 2), (3,), Policy(temperature=0), **options))
        return firsts[0]

    def other(book: int, codes: Tensor, log_probs: Tensor) -> Tensor:
        assert torch.allclose(log_probs[0].exp(), torch.tensor([0.9, 0.6, 0.8])[: codes.shape[2]]) or len(firsts)
        assert codes.tolist() == [[[0, 0, 0]]]  # the drawn codes are in place
        return torch.tensor([[0.1, 0.95, 0.2]]).log()

    assert run(None) == run(Rescoring(other, 0.0)) == [True, False, False]
    assert run(Rescoring(other, 1.0)) == [False, True, False]
    assert run(Rescoring(other, 0.1)) == [True, False, False]  # .82 against .635


def test_a_filter_of_threshold_one_is_the_baseline_bit_for_bit():
    rows, codes = torch.tensor([[1, 12], [2, 9]]), all_masked(2, 2, 12, 5)
    lengths = torch.tensor([12, 9])
    for least in (ByConfidence(noise=1.0), BySpan(3)):
        options = {"anneal": "maskgct", "fewer": True}
        plain = decode_masked(Oracle(2, 5), rows, task(codes, (6, 2), lengths=lengths, commit=least, **options))
        never = Learned(lambda x: torch.full_like(x, 99.0), block=4, threshold=1.0, least=least)
        same = decode_masked(Oracle(2, 5), rows, task(codes, (6, 2), lengths=lengths, commit=never, **options))
        assert torch.equal(plain.codes, same.codes) and torch.equal(plain.passes, same.passes)


@pytest.mark.parametrize("reach", [1, 4])
def test_an_oracle_filter_gives_the_baselines_codes_in_fewer_passes(reach):
    """Greedily: the baseline takes a pass a frame, the filter one for all the frames that can be told at once."""
    V, T = 6, 16
    truth = torch.randint(0, V, (T,), generator=torch.Generator().manual_seed(1))
    model, codes, greedy = Teller(truth, V, reach), all_masked(1, 1, T, V), Policy(temperature=0)
    plain = decode_masked(model, None, task(codes, (T,), greedy, schedule="linear"))
    assert torch.equal(plain.codes[0, 0], truth) and plain.passes.tolist() == [T]
    oracle = Learned(lambda confidence: (confidence - 0.9) * 1e6, block=4)  # this model is sure only where it is right
    fast = decode_masked(model, None, task(codes, (T,), greedy, schedule="linear", commit=oracle))
    assert torch.equal(fast.codes, plain.codes) and fast.passes.tolist() == [T // reach]


def test_a_filter_jumps_to_where_the_schedule_would_be():
    """The first pass commits half of the frames by the filter: the next is the schedule's first with less than half masked."""
    once = iter([True])
    learned = Learned(lambda x: torch.tensor([[1.0, -1.0] * 4]) * 99 if next(once, False) else x * 0 - 99, block=8)
    model = Oracle(1, 4)
    decode_masked(model, torch.tensor([[1, LAST]]), task(all_masked(1, 1, 8, 4), (8,), schedule="linear", commit=learned))
    assert torch.cat(model.times)[0] == 1 and torch.cat(model.times)[1] in (0.5, 0.375)
    assert len(model.times) < 8


BAD = [
    (lambda codes: task(codes, (0,)), "at least 1"),
    (lambda codes: task(codes, (4, 4)), "one for each codebook"),
    (lambda codes: task(codes, (2,), lengths=torch.tensor([0])), "lengths"),
    (lambda codes: task(codes, (2,), lengths=torch.tensor([4])), "lengths"),
    (lambda codes: task(codes, (2,), Policy(repetition_penalty=1.2)), "repetition_penalty"),
    (lambda codes: task(codes, (2,), Policy(temperature=(1.0, 1.0))), "temperature"),
    (lambda codes: task(codes, (2,), rescale=2.0), "rescale"),
    (lambda codes: Rescoring(lambda k, c, p: p, 1.5), "weight"),
]


@pytest.mark.parametrize(("make", "says"), BAD)
def test_impossible_tasks_are_refused(make, says):
    with pytest.raises(SettingsError, match=says):
        make(all_masked(1, 1, 3, 4))


def test_tensors_of_the_wrong_shape_are_refused():
    with pytest.raises(ShapeError, match="codes must be"):
        task(all_masked(1, 1, 3, 4), (1,), lengths=torch.tensor([3, 3]))
    with pytest.raises(ShapeError, match="2 codebooks"):
        decode_masked(Oracle(2, 4), None, task(all_masked(1, 1, 3, 4), (1,)))
    with pytest.raises(ShapeError, match="codes must lie"):
        decode_masked(Oracle(1, 4), None, task(all_masked(1, 1, 3, 5), (1,)))
