"""The noise is Philox4x32-10, keyed as its contract says, and depends on nothing else."""

import pytest
import torch

from tts.sampling.philox import PhiloxNoise, Purpose, block, blocks, derive

ONES = 0xFFFF_FFFF
# The known answers that the authors of Philox publish with Random123.
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
noise = PhiloxNoise()


def frames(B: int, C: int, T: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.arange(B)[:, None, None] * 2**33 - 7, torch.arange(T), torch.arange(C)[:, None]


def unit(word: int) -> float:
    return ((word >> 9) + 0.5) / 2**23


@pytest.mark.parametrize(("counter", "key", "answer"), VECTORS)
def test_both_implementations_give_the_published_answers(counter, key, answer):
    assert block(counter, key) == answer
    words = blocks(tuple(torch.tensor([c]) for c in counter), tuple(torch.tensor([k]) for k in key))
    assert tuple(int(word) for word in words) == answer


def test_tensors_agree_with_the_integers_on_random_counters():
    generator = torch.Generator().manual_seed(0)
    c = torch.randint(0, 2**32, (4, 50), generator=generator)
    k = torch.randint(0, 2**32, (2, 50), generator=generator)
    words = torch.stack(blocks(tuple(c), tuple(k)))
    for i in range(50):
        assert tuple(words[:, i].tolist()) == block(tuple(c[:, i].tolist()), tuple(k[:, i].tolist()))


def test_each_word_of_key_and_counter_holds_what_the_contract_says():
    seed = 0x1234_5678_9ABC_DEF0
    w0, w1, _, _ = block((11, 22, 33, Purpose.FLOW), (0x9ABC_DEF0, 0x1234_5678))
    arguments = torch.tensor([seed]), Purpose.FLOW, 33, torch.tensor([11]), torch.tensor([22])
    u0, u1 = torch.tensor(unit(w0)), torch.tensor(unit(w1))
    assert noise.uniform(*arguments).item() == u0.item()
    assert noise.normal(*arguments).item() == pytest.approx(
        ((-2 * u0.log()).sqrt() * (2 * torch.pi * u1).cos()).item(), abs=1e-6
    )
    assert noise.gumbel(*arguments).item() == pytest.approx(-torch.log(-torch.log(u0)).item(), abs=1e-6)


def test_a_negative_seed_is_its_64_bits():
    w0, _, _, _ = block((0, 0, 0, 1), (ONES, ONES))
    assert noise.uniform(torch.tensor([-1]), 1, 0, torch.tensor([0]), torch.tensor([0])).item() == unit(w0)


def test_uniform_is_strictly_inside_zero_and_one_even_for_extreme_words():
    from tts.sampling.philox import _unit

    low, high = _unit(torch.tensor([0, ONES])).tolist()
    assert 0.0 < low == 2.0**-24
    assert high == 1.0 - 2.0**-24 < 1.0


def test_moments_are_those_of_the_laws():
    seeds, position, channel = frames(2, 40, 500)
    u = noise.uniform(seeds, Purpose.FLOW, 0, position, channel)
    z = noise.normal(seeds, Purpose.FLOW, 0, position, channel)
    g = noise.gumbel(seeds, Purpose.FLOW, 0, position, channel)
    assert u.mean().item() == pytest.approx(0.5, abs=0.01)
    assert u.var().item() == pytest.approx(1 / 12, abs=0.002)
    assert z.mean().item() == pytest.approx(0.0, abs=0.02)
    assert z.std().item() == pytest.approx(1.0, abs=0.02)
    assert g.mean().item() == pytest.approx(0.5772, abs=0.03)
    assert (z.dtype, z.shape) == (torch.float32, (2, 40, 500))


@pytest.mark.parametrize("draw", [noise.uniform, noise.normal, noise.gumbel])
def test_a_row_alone_equals_the_row_in_a_batch_bit_for_bit(draw):
    seeds, position, channel = frames(8, 5, 37)
    batch = draw(seeds, Purpose.FLOW, 3, position, channel)
    for b in (0, 7):
        assert torch.equal(draw(seeds[b : b + 1], Purpose.FLOW, 3, position, channel)[0], batch[b])
    flipped = draw(seeds.flip(0), Purpose.FLOW, 3, position, channel).flip(0)
    assert torch.equal(flipped, batch)


@pytest.mark.parametrize("draw", [noise.uniform, noise.normal, noise.gumbel])
def test_a_longer_sequence_begins_with_the_shorter_one(draw):
    seeds, _, channel = frames(2, 3, 0)
    long = draw(seeds, Purpose.FLOW, 0, torch.arange(41), channel)
    for T in (0, 1, 7, 40):
        assert torch.equal(draw(seeds, Purpose.FLOW, 0, torch.arange(T), channel), long[:, :, :T])


def test_seed_purpose_step_position_and_channel_each_change_the_draw():
    zero, one = torch.tensor([0]), torch.tensor([1])
    draws = [
        noise.uniform(zero, 1, 0, zero, zero),
        noise.uniform(one, 1, 0, zero, zero),
        noise.uniform(torch.tensor([2**32]), 1, 0, zero, zero),
        noise.uniform(zero, 2, 0, zero, zero),
        noise.uniform(zero, 1, 1, zero, zero),
        noise.uniform(zero, 1, 0, one, zero),
        noise.uniform(zero, 1, 0, zero, one),
    ]
    assert len({draw.item() for draw in draws}) == len(draws)


def test_derived_seeds_are_published_distinct_and_fit_in_63_bits():
    assert derive(0, 0) == 0x6169_C58D_6627_E8D5  # the first published answer, words 1 and 0, without the top bit
    assert derive(5) == 5
    seeds = {derive(seed, sentence, attempt) for seed in (0, 1, 2**40) for sentence in range(20) for attempt in range(5)}
    assert len(seeds) == 3 * 20 * 5
    assert all(0 <= seed < 2**63 for seed in seeds)
