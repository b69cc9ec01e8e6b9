"""A step in tensors is the decoder's step, and its sampler keeps the stated law."""

import math

import pytest
import torch
from torch import Tensor

from tts.decoding.autoregressive import Task, decode, gather
from tts.decoding.guidance import stack_groups
from tts.decoding.scores import Scores
from tts.errors import CheckpointError, ShapeError
from tts.sampling.philox import PhiloxNoise, Purpose
from tts.sampling.policy import Policy
from tts.sampling.reference import flow_step, sample_codes
from tts.sampling.steps import Steps, close_step, embed_step, sample_step


class Toy:
    """A scorer whose next scores depend, in a random way, on all codes that it has read. The cache is a list of one tensor."""

    depth = None

    def __init__(self, K: int, V: int) -> None:
        self.sizes = (V,) * K
        self.table = torch.randn(97, K, V + 1, generator=torch.Generator().manual_seed(0)).mul(2)
        self.table[:, 1:, V] = -torch.inf  # only book 0 ends

    def step(self, codes: Tensor, text: Tensor | None, cache: list[Tensor]) -> Scores:
        cache[0] = (31 * cache[0] + codes.sum(1) + 1) % 97
        return Scores(torch.zeros(len(codes), 1), self.table[cache[0]])


@pytest.mark.parametrize("delays", [(0, 1, 2), (0, 0, 0), (0, 2, 0)])
@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_loop_of_steps_says_what_the_decoder_says(delays, prompt, guidance):
    B, K, V = 5, 3, 6
    policy = Policy(guidance=guidance, repetition_penalty=1.7, repetition_window=4, temperature=(1.0, 0.0, 0.7), top_k=5)
    seeds, most = torch.arange(B) * 7 - 3, torch.tensor([9, 4, 0, 12, 1])
    before = torch.randint(0, V, (B, K, 3), generator=torch.Generator().manual_seed(1)) if prompt else None
    toy = Toy(K, V)
    start = stack_groups(torch.arange(B), guidance)
    first = toy.table[start]
    want = gather(decode(toy, Scores(start[:, None], first), [start], Task(seeds, most, policy, delays, before)), B, K, V)
    state, logits, cache = Steps.start(seeds, most, delays, V, policy.repetition_window, before), first, [start]
    for _ in range(max(delays) + 14):  # two more than are needed
        sample_step(logits, state, policy)
        logits = toy.step(stack_groups(close_step(state), guidance), None, cache).logits
    assert not state.left.any()
    codes, lengths = state.codes()
    assert torch.equal(lengths, want[1])
    assert torch.equal(codes, want[0])
    assert len(set(lengths.tolist())) > 2


def test_the_countdown_reaches_zero_when_the_last_book_of_an_item_is_said():
    state = Steps.start(torch.arange(2), torch.tensor([2, 0]), (0, 1), 4)
    seen = [state.left.tolist()]
    for _ in range(4):
        sample_step(torch.zeros(2, 2, 4), state, Policy())
        close_step(state)
        seen.append(state.left.tolist())
    assert seen == [[3, 0], [2, 0], [1, 0], [0, 0], [0, 0]]


def test_the_vectors_of_a_step_are_the_sums_of_its_rows_for_every_group():
    state = Steps.start(torch.arange(1), torch.tensor([1]), (0, 1), 3)
    table = torch.arange(8.0)[:, None] * torch.tensor([1.0, 10.0])  # row r of book k is 4 k + r
    sample_step(torch.tensor([[[0.0, 0.0, 99.0], [99.0, 0.0, 0.0]]]), state, Policy(temperature=0.0))
    assert embed_step(table, state, 2).tolist() == [[9.0, 90.0]] * 2  # code 2 of book 0, and none yet of book 1: 2 + 7
    rows = embed_step(table, state, 1, lambda x: x)
    assert rows.shape == (1, 4)


def test_scores_that_allow_nothing_are_a_typed_error():
    state = Steps.start(torch.arange(1), torch.tensor([1]), (0,), 3)
    with pytest.raises(CheckpointError, match="item 0, codebook 0"):
        sample_step(torch.full((1, 1, 3), -torch.inf), state, Policy())
    state.trouble[0] = 1
    with pytest.raises(CheckpointError, match="item 0"):
        state.codes()


def test_a_prompt_shorter_than_a_delay_is_a_typed_error():
    with pytest.raises(ShapeError, match="P >= 2"):
        Steps.start(torch.arange(1), torch.tensor([1]), (0, 2), 3, before=torch.zeros(1, 2, 1, dtype=torch.int64))
    with pytest.raises(ShapeError, match="delays begin with 0"):
        Steps.start(torch.arange(1), torch.tensor([1]), (1, 0), 3)


def test_a_hundred_thousand_draws_of_philox_follow_the_law_of_the_scores():
    """Chi-square over the codes that a policy keeps, with the noise that decoding draws with."""
    N, V = 120_000, 12
    x = torch.randn(V, generator=torch.Generator().manual_seed(3))
    uniforms = PhiloxNoise().uniform(torch.arange(N)[:, None], Purpose.CODES, 0, torch.tensor([5]), torch.tensor([2]))
    said = sample_codes(x.expand(N, 1, V), uniforms, Policy(temperature=0.8, top_k=9))[:, 0]
    p = (x.double() / 0.8).softmax(0)
    p = p.where(p >= p.topk(9).values[-1], 0)
    counts = torch.bincount(said, minlength=V).double()
    assert counts[p == 0].sum() == 0
    expected = N * (p / p.sum())[p > 0]
    assert abs(float(((counts[p > 0] - expected) ** 2 / expected).sum()) - 8) / math.sqrt(16) < 4


def test_a_step_of_the_midpoint_solver_is_two_flow_steps():
    from tts.decoding.solvers import midpoint

    def field(x: Tensor, t: Tensor) -> Tensor:
        return t[:, None] - x

    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    half = flow_step(x, field(x, torch.zeros(2)), 0.5)
    assert torch.allclose(flow_step(x, field(half, torch.full((2,), 0.5)), 1.0), midpoint(field, x, torch.tensor([0.0, 1.0])))
    both = torch.cat((field(x, torch.zeros(2)), torch.ones(2, 3)))
    assert torch.allclose(flow_step(x, both, 0.1, 3.0), x + 0.1 * (1 + 3 * (both[:2] - 1)))
