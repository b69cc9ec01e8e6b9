"""A GPU says what the CPU says: noise to the bit, a whole system to 1e-4, and a training step to rounding."""

import numpy as np
import pytest
import torch
from conftest import RATE, speech

from tts.sampling.philox import PhiloxNoise, Purpose

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_noise_is_the_same_on_both_devices():
    def draw(device):
        seeds = torch.arange(3, device=device)[:, None, None]
        channel = torch.arange(80, device=device)[None, :, None]
        return PhiloxNoise().uniform(seeds, Purpose.FLOW, 0, torch.arange(50, device=device), channel).cpu()

    assert torch.equal(draw("cpu"), draw("cuda"))


def test_a_system_says_the_same_on_both_devices(tiny, tiny_folder):
    from tts.pipeline import Synthesizer

    on_gpu = Synthesizer.from_pretrained(tiny_folder, device="cuda")
    prompt = (speech(2.0), RATE)
    for seed in (0, 1):
        a, b = (s.synthesize("One and two.", prompt, seed=seed, check=False).samples for s in (tiny, on_gpu))
        assert len(a) == len(b)
        assert np.abs(a - b).max() < 1e-4


def test_a_batch_on_the_gpu_agrees_with_its_rows(tiny_folder):
    from tts.frames import Plan, Tokens, Utterance
    from tts.pipeline import Synthesizer

    backend = Synthesizer.from_pretrained(tiny_folder, device="cuda").parts.backends["flow"]
    plan = Plan(torch.tensor([1.0, 0.6]), torch.tensor([[0.3, 0.3, 0.4], [0.3, 0.3, 0.0]]))
    tokens = Tokens.of([[1, 40, 7], [1, 50]], backend.table)
    together = backend.generate(Utterance(tokens, torch.tensor([3, 4]), plan=plan), None)
    alone = backend.generate(
        Utterance(
            Tokens.of([[1, 50]], backend.table),
            torch.tensor([4]),
            plan=Plan(torch.tensor([0.6]), torch.tensor([[0.3, 0.3]])),
        ),
        None,
    )
    assert torch.allclose(together.data[1, :, : int(together.lengths[1])], alone.data[0], atol=1e-4)
