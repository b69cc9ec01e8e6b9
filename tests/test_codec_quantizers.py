"""Quantizers on a grid: FSQ, grouped FSQ and scalars round, count and add up as their papers say."""

import itertools
import math

import pytest
import torch
from tts.codecs.quantizers import (
    FSQ,
    FSQConfig,
    GroupedFSQ,
    GroupedFSQConfig,
    ScalarConfig,
    ScalarQuantizer,
    draw_codebooks,
)
from tts.codecs.rvq import ResidualVQ, RVQConfig

from tts.errors import SettingsError

MAKERS = {
    "fsq": FSQ,
    "odd and even fsq": lambda: FSQ(FSQConfig((4, 3, 2))),
    "gfsq": GroupedFSQ,
    "scalar": ScalarQuantizer,
    "rvq": lambda: ResidualVQ(RVQConfig(dim=8, codebooks=3, size=16, code_dim=4, warmup=3)),
    "averaged rvq": lambda: ResidualVQ(RVQConfig(dim=8, codebooks=3, size=16, codes="ema", warmup=3)),
}
GRIDS = list(MAKERS)[:4]


def make(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return MAKERS[name]().eval()


def noise(q, B: int = 2, T: int = 5) -> torch.Tensor:
    return torch.randn(B, q.dim, T, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MAKERS)
def test_decoding_k_books_is_the_sum_of_the_first_k_contributions(name):
    q = make(name)
    z = noise(q)
    codes = q.encode(z)
    assert codes.shape == (2, len(q.sizes), 5)
    total = torch.zeros(2, 5, q.dim)
    for k in range(len(q.sizes)):
        assert q.vectors(k).shape == (q.sizes[k], q.dim)
        total = total + q.vectors(k)[codes[:, k]]
        torch.testing.assert_close(q.embed(codes[:, : k + 1]), total.transpose(1, 2))
        torch.testing.assert_close(q(z, n_codebooks=torch.full((2,), k + 1)).vectors, total.transpose(1, 2))
        if k == 0:
            torch.testing.assert_close(q(z).first, total.transpose(1, 2))


@pytest.mark.parametrize("name", MAKERS)
def test_training_and_encoding_choose_the_same_codes(name):
    q = make(name)
    z = noise(q)
    assert torch.equal(q(z).codes, q.encode(z))
    torch.testing.assert_close(q(z).vectors, q.embed(q.encode(z)))


@pytest.mark.parametrize("name", MAKERS)
def test_each_row_reads_as_many_codebooks_as_it_is_told(name):
    q = make(name)
    z = noise(q)
    K = len(q.sizes)
    both = q(z, n_codebooks=torch.tensor([1, K])).vectors
    torch.testing.assert_close(both[:1], q.embed(q.encode(z)[:1, :1]))
    torch.testing.assert_close(both[1:], q.embed(q.encode(z)[1:]))


@pytest.mark.parametrize("name", MAKERS)
def test_a_code_depends_on_its_own_frame_only(name):
    q = make(name)
    z = noise(q, B=3, T=7)
    codes = q.encode(z)
    for b, t in itertools.product(range(3), range(7)):
        assert torch.equal(q.encode(z[b : b + 1, :, t : t + 1])[0, :, 0], codes[b, :, t])


@pytest.mark.parametrize("name", MAKERS)
def test_no_frames_give_no_codes(name):
    q = make(name)
    assert q.encode(torch.zeros(1, q.dim, 0)).shape == (1, len(q.sizes), 0)


@pytest.mark.parametrize("name", GRIDS)
def test_gradients_go_through_the_rounding_as_if_it_were_not_there(name):
    q = make(name)
    z = (noise(q) / 4).requires_grad_()
    q(z).vectors.sum().backward()
    torch.testing.assert_close(z.grad, 1 - torch.tanh(z.detach()) ** 2)


def test_the_recognition_gradient_reaches_the_first_group_only():
    q = make("gfsq")
    z = noise(q).requires_grad_()
    q(z).first.sum().backward()
    assert (z.grad[:, :4] != 0).all()
    assert (z.grad[:, 4:] == 0).all()


@pytest.mark.parametrize(("name", "V"), [("gfsq", 1000), ("odd and even fsq", 24), ("scalar", 19)])
def test_codes_and_values_are_a_bijection(name, V):
    q = make(name)
    assert q.sizes[0] == V
    codes = torch.arange(V).expand(1, len(q.sizes), V)
    values = q.embed(codes)  # [1, C, V]
    assert torch.equal(q.encode(torch.atanh(values * 0.9999)), codes)
    assert len(torch.unique(values[0].T, dim=0)) == V


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (2, 3), (7,)])
def test_every_code_is_reached_by_uniform_input(levels):
    q = FSQ(FSQConfig(levels))
    bounded = torch.rand(1, len(levels), 100_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert len(q.encode(torch.atanh(bounded)).unique()) == math.prod(levels)


def test_the_grid_agrees_with_the_definition_of_fsq():
    """Bound by tanh, round to L levels, read the digits in a mixed radix, the first least (Mentzer et al. 2023, section 3)."""
    levels = (8, 5, 5, 5)
    q = FSQ(FSQConfig(levels))
    z = noise(q, B=1, T=50) * 2
    for t in range(50):
        code, radix = 0, 1
        for d, L in enumerate(levels):
            code += round((math.tanh(float(z[0, d, t])) + 1) / 2 * (L - 1)) * radix
            radix *= L
        assert int(q.encode(z)[0, 0, t]) == code


def test_a_scalar_is_off_by_at_most_an_eighteenth():
    q = ScalarQuantizer(ScalarConfig(steps=9, dim=1))
    z = torch.linspace(-4, 4, 10_001)[None, None]
    values = q.embed(q.encode(z))
    assert q.sizes == (19,)
    assert float((values - torch.tanh(z)).abs().max()) <= 1 / 18 + 1e-6
    torch.testing.assert_close(values, torch.round(9 * torch.tanh(z)) / 9)
    assert len(values.unique()) == 19


def test_bitrates_are_those_of_the_papers():
    """At 50 codes a second 32 scalars of 19 values are 6.8 kbit/s (SQ-Codec); at 21.5 Hz 8 x 1000 are 1.7 (Fish 1.4)."""

    def bits(q) -> float:
        return sum(math.log2(V) for V in q.sizes)

    assert 50 * bits(ScalarQuantizer()) == pytest.approx(6797, abs=1)
    assert 21.53 * bits(GroupedFSQ()) == pytest.approx(1717, abs=2)


def test_dropout_draws_every_number_of_codebooks_and_keeps_the_other_rows_whole():
    torch.manual_seed(0)
    drawn = draw_codebooks(4000, 4, 0.5, torch.device("cpu"))
    assert set(drawn.tolist()) == {1, 2, 3, 4}
    assert float((drawn == 4).float().mean()) == pytest.approx(0.5 + 0.5 / 4, abs=0.03)
    q = make("gfsq").train()
    assert isinstance(q.config, GroupedFSQConfig)
    z = noise(q, B=64, T=1)
    silent = (q(z).vectors[:, -4:] == 0).all(1)  # rows without the last group
    assert 10 < int(silent.sum()) < 50


@pytest.mark.parametrize("levels", [(), (1, 5)])
def test_a_grid_of_nothing_is_refused(levels):
    with pytest.raises(SettingsError, match="levels of at least 2"):
        FSQ(FSQConfig(levels))
