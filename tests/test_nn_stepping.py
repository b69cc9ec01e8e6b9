"""A transformer by one position says what it says by many: to the last bit, or where positions are tensors to rounding."""

import pytest
import torch

from tts.errors import ShapeError
from tts.nn import stepping
from tts.nn.decoder import Decoder, DecoderConfig
from tts.nn.stepping import Stepper, step

KINDS = {
    "rope": {},
    "shared keys": {"kv_heads": 1},
    "no rope, biases": {"rope": False, "bias": True, "activation": "relu"},
    "a text": {"cross": True, "norm": "rms"},
}


def make(kind: str, dtype: torch.dtype = torch.float32) -> tuple[Decoder, torch.Tensor | None]:
    torch.manual_seed(0)
    decoder = (
        Decoder(DecoderConfig(dim=16, depth=2, heads=4, head_dim=4, hidden=24, context=20, **KINDS[kind])).to(dtype).eval()
    )
    return decoder, torch.randn(3, 5, 16, dtype=dtype) if kind == "a text" else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(4, 4, 4), (0, 7, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_step_is_the_whole_network_at_one_position(kind, lengths, dtype):
    decoder, text = make(kind, dtype)
    before, steps = torch.randn(3, 7, 16, dtype=dtype), torch.randn(3, 3, 16, dtype=dtype)
    caches = []
    for _ in range(3):
        cache = decoder.cache(3, 12, None if text is None else decoder.remember(text))
        decoder(before, cache)
        cache.advance(lengths)
        caches.append(cache)
    whole, stepped, told = caches
    stepper = Stepper(decoder, told)
    for n, x in enumerate(steps.unbind(1)):
        want = decoder(x[:, None], whole)[:, 0]
        assert torch.equal(step(decoder, x, stepped), want)
        where = torch.tensor(lengths) + n
        assert torch.allclose(stepper.at(x, where, 12), want, atol=1e-5 if dtype == torch.float32 else 0.1)
        whole.advance(1)
        stepped.advance(1)
    assert torch.equal(whole.k, stepped.k) and torch.equal(whole.v, stepped.v)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(4, 4, 4), (0, 7, 3)])
@torch.no_grad()
def test_what_is_compiled_is_what_is_written(kind, lengths, monkeypatch):
    decoder, text = make(kind)
    before, x = torch.randn(3, 7, 16), torch.randn(3, 16)
    said = []
    for compiled in (True, False):
        monkeypatch.setattr(stepping, "scripted", stepping.scripted if compiled else lambda function: function)
        cache = decoder.cache(3, 12, None if text is None else decoder.remember(text))
        decoder(before, cache)
        cache.advance(lengths)
        stepper = Stepper(decoder, cache)
        assert isinstance(stepper.attend, torch.jit.ScriptFunction) == compiled
        said.append((stepper(x, cache), stepper.at(x, torch.tensor(lengths), 12), cache.kv))
    assert all(torch.equal(a, b) for a, b in zip(*said, strict=True))


@torch.no_grad()
def test_a_full_cache_is_a_typed_error():
    decoder, _ = make("rope")
    cache = decoder.cache(1, 1)
    step(decoder, torch.zeros(1, 16), cache)
    cache.advance(1)
    with pytest.raises(ShapeError, match="1 positions; 1 are taken"):
        step(decoder, torch.zeros(1, 16), cache)
