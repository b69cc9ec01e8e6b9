"""Commit policies: as many as the schedule says, by the score they say, and nothing that was not asked for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tts.decoding.commit import (
    AtRandom,
    ByConfidence,
    BySpan,
    Candidates,
    CommitFilter,
    FilterConfig,
    Learned,
    in_blocks,
)
from tts.errors import SettingsError
from tts.sampling.philox import PhiloxNoise

POLICIES = [ByConfidence(), ByConfidence(noise=1.0), BySpan(3), BySpan(2, "product"), AtRandom()]


def candidates(masked: Tensor, confidence: Tensor, left: float = 1.0, seed: int = 0) -> Candidates:
    B, _ = masked.shape
    seeds, step = torch.arange(B) + 100 * seed, torch.zeros(B, dtype=torch.int64)
    confidence = confidence.where(masked, 1.0)
    return Candidates(0, step, torch.full((B,), left), masked, masked.long(), confidence, seeds, PhiloxNoise())


def drawn(B: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(B, T, generator=generator) < 0.7, torch.rand(B, T, generator=generator)


def kept(policy, masked: list[int], confidence: list[float], stay: int) -> list[int]:
    now = candidates(torch.tensor([masked]).bool(), torch.tensor([confidence]))
    return policy.commit(now, torch.tensor([stay]))[0].int().tolist()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 10), st.integers(0, 9), st.integers(0, 99), st.sampled_from(POLICIES))
def test_as_many_units_stay_masked_as_were_asked_for(B, T, stay, seed, policy):
    masked, confidence = drawn(B, T, seed)
    waiting = policy.units(masked).sum(1)
    keep = policy.commit(candidates(masked, confidence), torch.full((B,), stay))
    assert not (keep & ~masked).any()
    assert torch.equal(policy.units(masked & ~keep).sum(1), waiting.clamp(max=stay))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.integers(0, 99), st.sampled_from(POLICIES))
def test_a_longer_neighbour_changes_nothing(T, longer, stay, seed, policy):
    masked, confidence = drawn(2, T + longer, seed)
    masked[0, T:] = False
    both = policy.commit(candidates(masked, confidence), torch.tensor([stay, stay]))
    alone = policy.commit(candidates(masked[:1, :T], confidence[:1, :T]), torch.tensor([stay]))
    assert torch.equal(both[0, :T], alone[0])


def test_the_surest_are_kept_and_what_was_known_does_not_count():
    assert kept(ByConfidence(), [1, 1, 0, 1, 1], [0.9, 0.2, 0.0, 0.6, 0.4], 2) == [1, 0, 0, 1, 0]
    assert kept(ByConfidence(), [1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5], 1) == [0, 1, 1, 1]  # of equal ones the first stays masked


def test_noise_on_confidence_dies_away():
    masked, confidence = torch.ones(50, 8, dtype=torch.bool), torch.linspace(0.1, 0.8, 8).expand(50, 8)
    calm, stay = ByConfidence().commit(candidates(masked, confidence), torch.full((50,), 4)), torch.full((50,), 4)
    early = ByConfidence(noise=1.0).commit(candidates(masked, confidence), stay)
    late = ByConfidence(noise=1.0).commit(candidates(masked, confidence, left=0.0), stay)
    assert not torch.equal(early, calm) and torch.equal(late, calm)
    assert (early & calm).sum() > (early & ~calm).sum()  # the surer ones still have the better chance


def test_spans_are_kept_whole_by_their_surest_cell_or_by_all_of_them():
    confidence = [0.9, 0.1, 0.1, 0.5, 0.5, 0.5, 0.2]
    assert kept(BySpan(3, "max"), [1] * 7, confidence, 2) == [1, 1, 1, 0, 0, 0, 0]
    assert kept(BySpan(3, "product"), [1] * 7, confidence, 2) == [0, 0, 0, 0, 0, 0, 1]  # .009, .125 and .2
    assert kept(BySpan(3, "product"), [1] * 6, confidence[:6], 1) == [0, 0, 0, 1, 1, 1]


def test_known_cells_make_no_span_surer():
    assert kept(BySpan(3, "max"), [0, 1, 1, 1, 1, 1], [1.0, 0.1, 0.1, 0.3, 0.1, 0.1], 1) == [0, 0, 0, 1, 1, 1]
    assert kept(BySpan(2), [0, 0, 1, 1], [1.0, 1.0, 0.1, 0.1], 0) == [0, 0, 1, 1]


def test_chance_is_the_items_own_and_fair():
    masked = torch.ones(3000, 4, dtype=torch.bool)
    keep = AtRandom().commit(candidates(masked, masked.float()), torch.full((3000,), 3))
    assert (keep.float().mean(0) - 0.25).abs().max() < 0.03


def sure_above(limit: float):
    return lambda confidence: (confidence - limit) * 1000


def test_a_filter_keeps_more_than_the_schedule_never_less():
    confidence = [0.9, 0.8, 0.7, 0.6, 0.5]
    assert kept(Learned(sure_above(0.65), block=2), [1] * 5, confidence, 4) == [1, 1, 1, 0, 0]
    assert kept(Learned(sure_above(2.0), block=2), [1] * 5, confidence, 4) == [1, 0, 0, 0, 0]
    assert kept(Learned(sure_above(-1.0), block=2, threshold=1.0), [1] * 5, confidence, 4) == [1, 0, 0, 0, 0]
    assert kept(Learned(sure_above(0.0), block=4), [0, 1, 0, 1, 0], confidence, 2) == [0, 1, 0, 1, 0]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 99), st.floats(0, 1))
def test_with_any_filter_at_least_the_schedules_cells_are_kept(T, stay, seed, threshold):
    masked, confidence = drawn(2, T, seed)
    torch.manual_seed(seed)
    policy = Learned(CommitFilter(FilterConfig(block=4, hidden=8)), block=4, threshold=threshold)
    now, stay = candidates(masked, confidence), torch.full((2,), stay)
    with torch.no_grad():
        keep = policy.commit(now, stay)
    assert not (ByConfidence().commit(now, stay) & ~keep).any() and not (keep & ~masked).any()


def test_blocks_lie_on_one_grid_and_are_filled_up():
    x = torch.arange(5.0)[None]
    assert in_blocks(x, 2, 9.0).tolist() == [[[0, 1], [2, 3], [4, 9]]]
    assert in_blocks(x[:, :0], 2, 9.0).shape == (1, 0, 2)


def test_the_filter_learns_a_toy():
    """Which of four cells is the surest is no function of one cell alone."""
    torch.manual_seed(0)
    confidence = torch.rand(256, 4)
    right = (confidence == confidence.amax(1, keepdim=True)).float()
    model = CommitFilter(FilterConfig(block=4, hidden=32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(400):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(confidence), right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 and ((model(confidence) > 0) == right.bool()).float().mean() > 0.97


@pytest.mark.parametrize(
    "policy",
    [
        lambda: ByConfidence(noise=-1.0),
        lambda: BySpan(0),
        lambda: BySpan(3, "mean"),
        lambda: Learned(sure_above(0.0), threshold=1.5),
        lambda: Learned(sure_above(0.0), block=0),
    ],
)
def test_impossible_policies_are_refused(policy):
    with pytest.raises(SettingsError):
        policy()
