"""Codes are drawn by the law that the policy states, from one uniform number each."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.errors import CheckpointError, SettingsError, ShapeError
from tts.sampling.policy import Policy
from tts.sampling.reference import sample_codes


def slowly(logits: list[float], u: float, policy: Policy, history: tuple[int, ...] = ()) -> int:
    """One row in plain Python: the law of the policy, rule by rule."""
    x = torch.tensor(logits, dtype=torch.float32)
    for code in set(history):
        x[code] = x[code] / policy.repetition_penalty if x[code] > 0 else x[code] * policy.repetition_penalty
    if policy.temperature == 0:
        return max(range(len(x)), key=lambda v: (x[v].item(), -v))
    p = (x / policy.temperature).softmax(0).tolist()
    order = sorted(range(len(p)), key=lambda v: (-p[v], v))[: policy.top_k]
    if policy.top_p is not None:
        mass = sum(p[v] for v in order)
        order = [v for i, v in enumerate(order) if sum(p[w] for w in order[:i]) < policy.top_p * mass]
    if policy.min_p is not None:
        order = [v for v in order if p[v] >= torch.tensor(policy.min_p) * p[order[0]]]
    mass, reached = sum(p[v] for v in order), 0.0
    for v in order:
        reached += p[v]
        if reached > u * mass:
            return v
    return order[-1]


tails = st.one_of(
    st.just({}),
    st.builds(lambda p: {"top_p": p}, st.sampled_from([0.1, 0.33, 0.8, 1.0])),
    st.builds(lambda p: {"min_p": p}, st.sampled_from([0.0, 0.07, 0.5, 1.0])),
)
policies = st.builds(
    lambda t, k, r, tail: Policy(temperature=t, top_k=k, repetition_penalty=r, **tail),
    st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    st.sampled_from([None, 1, 2, 5, 99]),
    st.sampled_from([1.0, 1.7]),
    tails,
)
rows = st.lists(st.sampled_from([-3.0, -1.0, -0.0, 0.0, 0.5, 0.5, 1.25, 2.0]), min_size=9, max_size=9)  # many are equal


@settings(deadline=None, max_examples=120)
@given(st.lists(rows, min_size=2, max_size=2), st.integers(0, 2**23 - 1), policies, st.lists(st.integers(0, 8), max_size=3))
def test_it_agrees_with_the_rules_written_out_ties_included(two, u, policy, said):
    u = (u + 0.5) / 2**23  # as Philox gives it
    history = torch.tensor([[[*said, 9, -1], [*said, 9, -1]]])
    got = sample_codes(torch.tensor([two]), torch.full((1, 2), u), policy, history)
    want = [slowly(row, u, policy, tuple(said)) for row in two]
    assert got.tolist() == [want]


def chi_square(drawn: torch.Tensor, p: torch.Tensor) -> float:
    """Pearson's statistic over its degrees of freedom, in standard deviations from the mean."""
    possible = p > 0
    counts = torch.bincount(drawn.flatten(), minlength=len(p)).double()
    assert counts[~possible].sum() == 0
    expected = (p * drawn.numel())[possible]
    freedom = int(possible.sum()) - 1
    return ((((counts[possible] - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)).item()


@pytest.mark.parametrize(
    "policy",
    [Policy(), Policy(temperature=0.7), Policy(top_k=6), Policy(top_p=0.8), Policy(min_p=0.2), Policy(top_k=9, top_p=0.7)],
)
def test_the_codes_follow_the_stated_law(policy):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16, generator=generator)
    p, order = (x.double() / policy.temperature).softmax(0).sort(descending=True)
    p[policy.top_k or 16 :] = 0
    p = p / p.sum()
    if policy.top_p is not None:
        p = p * (p.cumsum(0) - p < policy.top_p)
    if policy.min_p is not None:
        p = p * (p >= policy.min_p * p[0])
    law = torch.zeros(16, dtype=torch.float64).scatter(0, order, p / p.sum())
    N = 120_000
    drawn = sample_codes(x.expand(N, 1, 16), torch.rand(N, 1, generator=generator), policy)
    assert abs(chi_square(drawn, law)) < 4


def test_a_row_depends_on_no_other_row():
    generator = torch.Generator().manual_seed(2)
    x, u = torch.randn(5, 3, 20, generator=generator), torch.rand(5, 3, generator=generator)
    history = torch.randint(0, 21, (5, 3, 4), generator=generator)
    policy = Policy(top_k=7, top_p=0.9, repetition_penalty=1.3)
    together = sample_codes(x, u, policy, history)
    for b in range(5):
        assert torch.equal(together[b : b + 1], sample_codes(x[b : b + 1], u[b : b + 1], policy, history[b : b + 1]))
        for k in range(3):
            one = (slice(b, b + 1), slice(k, k + 1))
            assert together[one].item() == sample_codes(x[one], u[one], policy.book(k), history[one]).item()


def test_options_of_each_codebook_are_those_of_its_own_policy():
    generator = torch.Generator().manual_seed(3)
    x, u = torch.randn(40, 3, 20, generator=generator), torch.rand(40, 3, generator=generator)
    history = torch.randint(0, 20, (40, 3, 4), generator=generator)
    policy = Policy(temperature=(0.0, 1.0, 0.5), top_k=(9, 2, 4), repetition_penalty=(1.0, 2.0, 3.0), min_p=0.05)
    together = sample_codes(x, u, policy, history)
    for k in range(3):
        book = slice(k, k + 1)
        assert torch.equal(together[:, book], sample_codes(x[:, book], u[:, book], policy.book(k), history[:, book]))
    with pytest.raises(SettingsError, match=r"must be one value or 2.*got 3"):
        sample_codes(x[:, :2], u[:, :2], policy)


def test_what_is_forbidden_is_never_drawn_and_nothing_else_is():
    forbidden = torch.tensor([True, True, False, True])
    for policy in (Policy(), Policy(temperature=0.0), Policy(top_k=1)):
        x = torch.tensor([9.0, 8.0, -5.0, 7.0]).expand(30, 1, 4)
        drawn = sample_codes(x, torch.rand(30, 1, generator=torch.Generator().manual_seed(0)), policy, forbidden=forbidden)
        assert drawn.unique().tolist() == [2]


@pytest.mark.parametrize("bad", [[-math.inf] * 3, [0.0, math.nan, 1.0], [0.0, -math.nan, 1.0], [0.0, math.inf, 1.0]])
@pytest.mark.parametrize("temperature", [0.0, 1.0, (1.0, 0.0), (0.0, 1.0)])
def test_scores_that_allow_no_code_are_a_typed_error_that_names_the_row(bad, temperature):
    x = torch.zeros(3, 2, 3)
    x[2, 1] = torch.tensor(bad)
    with pytest.raises(CheckpointError, match="item 2, codebook 1"):
        sample_codes(x, torch.full((3, 2), 0.5), Policy(temperature=temperature, top_k=1))


def test_wrong_shapes_are_typed_errors():
    with pytest.raises(ShapeError, match="uniforms"):
        sample_codes(torch.zeros(2, 3, 4), torch.full((3, 2), 0.5), Policy())


def test_the_extremes_of_the_uniform_stay_inside_what_is_kept():
    x = torch.tensor([0.0, 3.0, 0.0, -math.inf]).expand(2, 1, 4)
    u = torch.tensor([[2.0**-24], [1 - 2.0**-24]])
    assert sample_codes(x, u, Policy()).flatten().tolist() == [1, 2]
    assert sample_codes(x, u, Policy(top_k=2)).flatten().tolist() == [1, 0]
    assert sample_codes(torch.zeros(1, 1, 1000), u[1:], Policy()).item() == 999


def test_no_items_are_no_codes():
    assert sample_codes(torch.zeros(0, 2, 4), torch.zeros(0, 2), Policy(top_k=2)).shape == (0, 2)
