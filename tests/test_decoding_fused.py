"""What is left to kernels after a network is what the decoders do without them: here by plain definitions of the same calls.

The kernels themselves are compared with these in tests/test_sampling_fused.py.
"""

import pytest
import torch
from test_decoding_masked import Oracle, all_masked, task

from tts.decoding import masked as module
from tts.decoding.commit import ByConfidence, BySpan, Candidates
from tts.decoding.masked import decode_masked, draw
from tts.decoding.solvers import euler, guided_euler, pruned_grid, sway
from tts.errors import CheckpointError
from tts.sampling.philox import PhiloxNoise, Purpose
from tts.sampling.policy import Policy

V, K = 5, 2


def mask_step(logits, codes, masked, stay, seeds, book, step, policy, *, left, temperature, noise, tempered):
    """As `mask_step` of tts/sampling/fused.py, by `draw` and `ByConfidence`."""
    trouble = torch.zeros(len(codes), dtype=torch.int32)
    uniforms = PhiloxNoise().uniform(seeds[:, None], Purpose.MASKED, book, torch.arange(codes.shape[1]), step[:, None])
    b, t = masked.nonzero(as_tuple=True)
    try:
        drawn, sure = draw(logits[b, t], uniforms[b, t], policy, temperature[b], tempered)
    except CheckpointError:
        return codes, temperature, trouble + 1
    said = codes.index_put((b, t), drawn)
    confidence = torch.ones(masked.shape).index_put((b, t), sure)
    candidates = Candidates(book, step, left, masked, said, confidence, seeds, PhiloxNoise())
    kept = ByConfidence(noise).commit(candidates, stay) & masked
    codes.copy_(said.where(kept | ~masked, V))
    masked &= ~kept
    return said, confidence, trouble


@pytest.fixture
def kernels(monkeypatch):
    """Their plain definitions in their place; counts the passes."""
    passes = []

    def counting(*args, **options):
        passes.append(1)
        return mask_step(*args, **options)

    def on() -> list[int]:
        monkeypatch.setattr(module.paths, "fused", lambda device: True)
        monkeypatch.setattr(module.fused, "mask_step", counting)
        return passes

    return on


def unequal(**options):
    """Three items of 9, 4 and 1 frames, some cells of which are known."""
    codes, lengths = all_masked(3, K, 9, V), torch.tensor([9, 4, 1])
    codes[0, 0, 2:5], codes[1, :, 0], codes[2] = 3, 1, 2
    policy = options.pop("policy", Policy(temperature=(0.8, 1.2), min_p=0.05))
    return task(codes, options.pop("steps", (4, 3)), policy, lengths, fewer=True, **options)


def given(guided: bool, lengths=(9, 4, 1)) -> torch.Tensor:
    rows = torch.tensor([[1, n] for n in lengths])
    return torch.cat((rows, rows * torch.tensor([0, 1]))) if guided else rows


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("schedule", ["cosine", "magnet"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_passes_that_the_host_knows_beforehand_are_those_of_the_decoder(noise, schedule, guidance, kernels):
    options = {"commit": ByConfidence(noise), "schedule": schedule, "anneal": "maskgct", "rescale": 0.5}
    options["policy"] = Policy(guidance=guidance, temperature=(0.8, 1.2), top_k=4)
    asked, model = unequal(**options), Oracle(K, V)
    want = decode_masked(model, given(guidance != 1), asked)
    passes = kernels()
    got = decode_masked(model, given(guidance != 1), asked)
    assert torch.equal(got.codes, want.codes)
    assert torch.equal(got.passes, want.passes)
    assert len(passes) == 7 and want.passes.tolist() == [7, 6, 0]


def test_where_nothing_is_masked_no_pass_is_taken(kernels):
    passes = kernels()
    codes = torch.ones(2, K, 3, dtype=torch.int64)
    assert decode_masked(Oracle(K, V), given(False, (3, 3)), task(codes, (2, 2))).passes.tolist() == [0, 0]
    assert not passes


def test_what_kernels_cannot_stays_with_the_decoder(kernels):
    passes = kernels()
    decode_masked(Oracle(K, V), given(False), unequal(commit=BySpan(2)))
    decode_masked(Oracle(K, V), given(False), unequal(watch=lambda candidates, kept: None))
    assert not passes


def test_scores_that_allow_nothing_are_damaged_weights(kernels):
    kernels()
    model = Oracle(K, V)
    model.head = model.head * torch.nan
    with pytest.raises(CheckpointError, match="damaged"):
        decode_masked(model, given(False), unequal())


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_guidance_in_the_solvers_step_is_guidance_before_it(scale):
    def both(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        conditional = (x * t[:, None]).sin() - x
        return conditional if scale == 1 else torch.cat((conditional, x.cos()))

    def mixed(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        v = both(x, t)
        return v if scale == 1 else v[2:] + scale * (v[:2] - v[2:])

    x, grid = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), sway(pruned_grid(7), -1.0)
    assert torch.allclose(guided_euler(both, x, grid, scale), euler(mixed, x, grid), atol=1e-6)
