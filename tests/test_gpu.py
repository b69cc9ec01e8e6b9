"""A GPU says what the CPU says: noise to the bit, a whole system to 1e-4, and a training step to rounding."""

import numpy as np
import pytest
import torch
from conftest import RATE, speech

from tts.sampling.philox import PhiloxNoise, Purpose

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def backends(folder):
    from tts.pipeline import Synthesizer

    return Synthesizer.from_pretrained(folder, device="cuda").parts.backends


def asked(backend, B: int, seed: int = 3):
    """One of two items, or both."""
    from tts.frames import Plan, Tokens, Utterance

    tokens = Tokens.of([[1, 40, 7], [1, 50]][:B], backend.table)
    seconds = torch.tensor([[0.3, 0.3, 0.4], [0.3, 0.3, 0.0]])[:B]
    return Utterance(tokens, torch.arange(B) + seed, plan=Plan(seconds.sum(1), seconds))


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
    backend = backends(tiny_folder)["flow"]
    together, alone = backend.generate(asked(backend, 2), None), backend.generate(asked(backend, 1), None)
    assert torch.allclose(together.data[0, :, : int(together.lengths[0])], alone.data[0], atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", ["ar", "masked", "flow"])
@pytest.mark.parametrize("path", ["fused", "graph"])
def test_every_path_says_what_the_plain_one_says(path, name, guidance, tiny_folder, monkeypatch):
    """Codes but for where two are as likely, of which one would change all that follow; mels to rounding. Graphs are replayed
    for other seeds, by other lengths of their bucket, and again for the first, so that nothing of one stays for the next."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # by it, another algorithm is another rounding
    backend = backends(tiny_folder)[name]
    said = {}
    for way in ("plain", path):
        monkeypatch.setenv("MYNAH_PATH", way)
        turns = [(2, 3), (1, 9), (2, 70), (1, 9), (2, 3)]
        said[way] = [backend.generate(asked(backend, B, seed), {"guidance": guidance}) for B, seed in turns]
    for ours, theirs in zip(said[path], said["plain"], strict=True):
        assert torch.equal(ours.lengths, theirs.lengths)
        if name == "flow":
            assert torch.allclose(ours.data, theirs.data, atol=1e-4)
        else:
            assert torch.equal(ours.data, theirs.data)
    assert torch.equal(said[path][0].data, said[path][4].data)
    assert not torch.equal(said[path][0].data, said[path][2].data)  # a graph that is replayed draws other numbers
    if name != "ar":
        assert len(backend.graphs.held) == (2 if path == "graph" else 0)


def test_a_stream_of_captured_steps_is_what_is_generated(tiny_folder):
    backend = backends(tiny_folder)["ar"]
    whole, frames = backend.generate(asked(backend, 2), None), list(backend.stream(asked(backend, 2), None))
    assert torch.equal(torch.cat([frame.data for frame in frames], 2), whole.data)
    assert torch.equal(sum(frame.lengths for frame in frames), whole.lengths)


@pytest.mark.parametrize("options", [{"head": "hierarchical"}, {"text": "prefix", "end": True}, {"text": "cross"}])
def test_both_heads_and_all_ways_to_read_a_text_are_captured(options, monkeypatch):
    from tts.backends.ar.config import ARConfig
    from tts.backends.ar.model import ARBackend

    torch.manual_seed(0)
    sizes = {"codebooks": 3, "size": 40, "dim": 32, "depth": 2, "heads": 2, "head_dim": 16, "text_dim": 16, "text_layers": 1}
    backend = ARBackend(ARConfig(**sizes, **options)).eval().cuda()
    said = []
    for path in ("plain", "graph"):
        monkeypatch.setenv("MYNAH_PATH", path)
        said.append(backend.generate(asked(backend, 2), {"temperature": 1.0}))
    assert torch.equal(said[0].lengths, said[1].lengths) and torch.equal(said[0].data, said[1].data)


def test_weights_that_move_leave_no_graph_behind(tiny_folder):
    backend = backends(tiny_folder)["flow"]
    want = backend.generate(asked(backend, 1), None).data
    backend.cpu()
    backend.cuda()
    assert torch.equal(backend.generate(asked(backend, 1), None).data, want)
