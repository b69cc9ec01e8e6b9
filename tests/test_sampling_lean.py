"""The sampler of a CPU says what the plain definition says, code for code."""

import math
from dataclasses import replace

import pytest
import torch

from tts.errors import CheckpointError, SettingsError, ShapeError
from tts.sampling import lean, reference
from tts.sampling.policy import Policy

K, V = 3, 40
POLICIES = [
    Policy(),
    Policy(temperature=0.0),
    Policy(temperature=0.01),  # most probabilities are denormal, or zero
    Policy(top_k=1),
    Policy(top_k=7, repetition_penalty=1.7, repetition_window=4),
    Policy(top_k=99, top_p=0.8),
    Policy(top_p=1.0),
    Policy(min_p=0.1, temperature=2.0),
    Policy(temperature=(0.0, 1.0, 0.3), top_k=(2, 9, 99), repetition_penalty=(1.0, 3.0, 1.2), repetition_window=4),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_draws_the_codes_of_the_definition(policy, ties, scale):
    B, generator = 400, torch.Generator().manual_seed(5)
    logits = torch.randn(B if scale == 1 else 2 * B, K, V, generator=generator) * 3
    logits = logits.round() / 2 if ties else logits
    logits[:, 1:, V - 1] = -torch.inf
    before = logits.clone()
    uniforms = (torch.randint(0, 2**23, (B, K), generator=generator) + 0.5) / 2**23
    history = torch.randint(-1, V + 1, (B, K, 4), generator=generator)
    forbidden = torch.rand(B, 1, V, generator=generator) < 0.3
    policy = replace(policy, guidance=scale)
    said = [each.sample_guided(logits, uniforms, policy, history, forbidden) for each in (lean, reference)]
    assert torch.equal(*said)
    assert torch.equal(logits, before)
    turned = logits.transpose(1, 2).contiguous().transpose(1, 2)  # as a product of all heads leaves it
    assert torch.equal(lean.sample_guided(turned, uniforms, policy, history, forbidden), said[0])


@pytest.mark.parametrize("u", [2.0**-24, 1 - 2.0**-24])
def test_at_the_ends_of_the_unit_interval_only_what_is_possible_is_drawn(u):
    logits = torch.full((1, 1, 8), -torch.inf)
    logits[0, 0, [2, 5]] = torch.tensor([1.0, -200.0])
    for policy in (Policy(), Policy(top_k=3), Policy(min_p=0.0)):
        assert lean.sample_guided(logits, torch.tensor([[u]]), policy).item() == 2


@pytest.mark.parametrize("logits", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_that_allow_nothing_are_damaged_weights(logits, temperature):
    rows = torch.tensor([[[0.0, 1.0], logits]])
    with pytest.raises(CheckpointError, match="item 0, codebook 1"):
        lean.sample_guided(rows, torch.full((1, 2), 0.5), Policy(temperature=temperature))


@pytest.mark.parametrize("flushed", [False, True])
def test_denormal_numbers_are_treated_as_before(flushed):
    torch.set_flush_denormal(flushed)
    try:
        lean.sample_guided(torch.randn(1, 2, 5), torch.full((1, 2), 0.5), Policy())
        assert (torch.tensor([1e-20]) * 1e-20 == 0).item() is flushed
    finally:
        torch.set_flush_denormal(False)


def test_an_empty_batch_has_no_codes():
    assert lean.sample_guided(torch.zeros(0, 2, 5), torch.zeros(0, 2), Policy(top_k=2)).shape == (0, 2)


def test_what_does_not_fit_is_a_typed_error():
    with pytest.raises(ShapeError, match=r"logits must be \[B, K, V\]"):
        lean.sample_guided(torch.zeros(1, 5), torch.zeros(1, 2), Policy())
    with pytest.raises(SettingsError, match="top_k must be one value or 2"):
        lean.sample_guided(torch.zeros(1, 2, 5), torch.zeros(1, 2), Policy(top_k=(1, 2, 3)))
