"""How a masked cell is drawn: by the sampler's law, with the confidence of MaskGCT or of MAGNeT."""

import math

import pytest
import torch

from tts.decoding.masked import draw
from tts.errors import CheckpointError
from tts.sampling.policy import Policy
from tts.sampling.reference import sample_codes

FILTERS = [
    Policy(),
    Policy(top_k=3),
    Policy(top_p=0.7),
    Policy(min_p=0.3),
    Policy(min_p=0.2, temperature=2.0),
    Policy(top_k=4, min_p=0.3),
    Policy(temperature=0.5, top_k=2),
    Policy(temperature=0),
]


@pytest.mark.parametrize("policy", FILTERS)
def test_a_cell_is_drawn_by_the_law_of_the_sampler(policy):
    N, V = 20_000, 7
    logits = torch.randn(V, generator=torch.Generator().manual_seed(4)).softmax(-1).log().expand(N, V)
    uniforms = (torch.arange(N) + 0.5) / N  # a grid: every law is met to one draw in N
    temperature = torch.full((N,), float(policy.temperature))
    ours, confidence = draw(logits, uniforms, policy, temperature)
    theirs = sample_codes(logits[:, None], uniforms[:, None], policy)[:, 0]
    assert (torch.bincount(ours, minlength=V) - torch.bincount(theirs, minlength=V)).abs().max() <= 2
    among = (
        logits[0]
        if policy.top_k is None
        else logits[0].masked_fill(logits[0] < logits[0].topk(policy.top_k).values[-1], -torch.inf)
    )
    assert torch.allclose(confidence, among.softmax(-1)[ours], atol=1e-6)  # neither temperature nor top-p moves it


def test_at_min_p_one_only_the_likeliest_are_drawn_whatever_the_cells_beside():
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0], [0.0, 3.0, 1.0, 0.0]])
    for u, first in ((0.01, 1), (0.99, 2)):
        codes, _ = draw(logits, torch.tensor([u, u]), Policy(min_p=1.0), torch.ones(2))
        assert codes.tolist() == [first, 1]


def test_magnets_confidence_is_read_after_the_temperature():
    logits, half = torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([0.5])
    codes, confidence = draw(logits, torch.tensor([0.9]), Policy(top_p=0.1), half, tempered=True)
    assert codes.tolist() == [2] and torch.allclose(confidence, (logits / 0.5).softmax(-1)[:, 2])


def test_each_cell_may_have_a_temperature_of_its_own():
    logits = torch.tensor([[0.0, 1.0]]).expand(3, 2)
    codes, _ = draw(logits, torch.tensor([0.01, 0.01, 0.5]), Policy(), torch.tensor([0.0, 1.0, 100.0]))
    assert codes.tolist() == [1, 0, 1]


def test_a_uniform_next_to_one_draws_a_code_that_can_be():
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    codes, _ = draw(logits, torch.tensor([1 - 2**-24]), Policy(), torch.ones(1))
    assert codes.tolist() == [1]


@pytest.mark.parametrize("logits", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_that_allow_nothing_are_damaged_weights(logits, temperature):
    with pytest.raises(CheckpointError, match="damaged"):
        draw(torch.tensor([logits]), torch.tensor([0.5]), Policy(), torch.tensor([temperature]))
