"""The causal transformer and its cache: a position at a time says what all at once says."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tts.errors import SettingsError, ShapeError
from tts.nn.decoder import Decoder, DecoderConfig
from tts.nn.kv_cache import KVCache

ROPE = DecoderConfig(dim=16, depth=2, heads=2, head_dim=8, hidden=24, context=12, norm="rms", activation="silu", bias=True)
SHARED = replace(ROPE, heads=4, kv_heads=2)  # keys and values for two queries each
CROSS = replace(ROPE, rope=False, cross=True, norm="layer", activation="gelu", bias=False)


def made(config: DecoderConfig) -> tuple[Decoder, Tensor]:
    torch.manual_seed(0)
    return Decoder(config).eval(), torch.randn(2, 7, 16)


@pytest.mark.parametrize("config", [ROPE, CROSS, SHARED, replace(SHARED, kv_heads=1)])
@pytest.mark.parametrize("pieces", [[1] * 7, [4, 1, 2], [7]])
@torch.no_grad()
def test_pieces_with_a_cache_equal_the_whole(config: DecoderConfig, pieces: list[int]) -> None:
    decoder, x = made(config)
    memory = decoder.remember(torch.randn(2, 3, 16), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()) if config.cross else None
    whole = decoder(x, memory=memory)
    cache = decoder.cache(2, 7, memory)
    out = []
    for piece in x.split(pieces, 1):
        out.append(decoder(piece, cache))
        cache.advance(piece.shape[1])
    assert torch.allclose(torch.cat(out, 1), whole, atol=1e-5)


@pytest.mark.parametrize("config", [ROPE, replace(CROSS, cross=False), SHARED, replace(SHARED, kv_heads=1)])
@torch.no_grad()
def test_rows_of_unequal_lengths_are_what_each_is_alone(config: DecoderConfig) -> None:
    decoder, x = made(config)
    lengths = [2, 4]
    cache = decoder.cache(2, 7)
    first = decoder(x[:, :4], cache)  # row 0 has two positions, and two of padding
    cache.advance(lengths)
    steps = []
    for n in range(3):
        step = torch.stack([x[row, lengths[row] + n] for row in (0, 1)])[:, None]
        steps.append(decoder(step, cache))
        cache.advance(1)
    for row, length in enumerate(lengths):
        alone = decoder(x[row : row + 1, : length + 3])[0]
        assert torch.allclose(first[row, :length], alone[:length], atol=1e-5)
        assert torch.allclose(torch.cat(steps, 1)[row], alone[length:], atol=1e-5)


@torch.no_grad()
def test_shared_keys_and_values_are_those_of_every_query_of_theirs() -> None:
    few, x = made(SHARED)
    many = Decoder(replace(SHARED, kv_heads=None)).eval()
    state = few.state_dict()
    for name in [name for name in state if "qkv" in name]:
        q, k, v = state[name].split((32, 16, 16))
        state[name] = torch.cat([q, *(part.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1) for part in (k, v))])
    many.load_state_dict(state)
    assert torch.allclose(few(x), many(x), atol=1e-5)
    assert few.cache(2, 7).k.shape == (2, 2, 2, 7, 8)


@torch.no_grad()
def test_the_future_is_not_known() -> None:
    decoder, x = made(ROPE)
    later = x.clone()
    later[:, 4:] += 1
    assert torch.equal(decoder(x)[:, :4], decoder(later)[:, :4])


@torch.no_grad()
def test_a_cache_never_moves_and_can_be_used_again() -> None:
    decoder, x = made(ROPE)
    cache = decoder.cache(2, 7)
    place = cache.k.data_ptr()
    decoder(x, cache)
    cache.advance(7)
    with pytest.raises(ShapeError, match="the cache has 7 positions; 7 are taken, 1 more do not fit"):
        decoder(x[:, :1], cache)
    cache.clear()
    assert torch.allclose(decoder(x, cache), decoder(x), atol=1e-5)
    assert cache.k.data_ptr() == place and cache.k.shape == (2, 2, 2, 7, 8)


def test_attention_reads_what_is_held_in_its_place_and_nothing_beyond() -> None:
    cache, k = KVCache(2, 1, 2, 7, 8), torch.randn(1, 2, 3, 8)
    for held in (3, 6):
        for seen, memory in zip(cache.write(1, k, k), (cache.k, cache.v), strict=True):
            assert seen.shape == (1, 2, held, 8) and seen.data_ptr() == memory[1].data_ptr()
        cache.advance(3)


def test_a_row_alone_needs_no_mask() -> None:
    cache = KVCache(1, 2, 1, 4, 2)
    assert cache.mask(1) is None
    cache.advance([1, 2])
    assert cache.mask(1).tolist() == [[[[True, True, False]]], [[[True, True, True]]]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "wrong", [{"norm": "batch"}, {"activation": "gelo"}, {"head_dim": 3}, {"depth": 0}, {"heads": 3, "kv_heads": 2}]
)
def test_impossible_sizes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        replace(ROPE, **wrong)  # type: ignore[arg-type]
