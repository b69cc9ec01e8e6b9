"""The shared layers, each beside a slow and obvious reference."""

import cmath
import math

import torch
import torch.nn.functional as F

from tts.nn.attention import SelfAttention
from tts.nn.conv import ConvNeXtV2Block, ConvPositionEmbedding
from tts.nn.norm import GlobalResponseNorm, modulated_norm
from tts.nn.rope import rotary_table, rotate
from tts.nn.time_embedding import TimeEmbedding, position_table


def test_rotary_pairs_are_complex_numbers_turned_by_their_position() -> None:
    x = torch.randn(5, 6)
    turned = rotate(x, rotary_table(5, 6))
    for n in range(5):
        for j in range(3):
            z = complex(x[n, 2 * j], x[n, 2 * j + 1]) * cmath.exp(1j * n * 10_000 ** (-2 * j / 6))
            assert abs(complex(turned[n, 2 * j], turned[n, 2 * j + 1]) - z) < 1e-5


def test_attention_is_what_its_formula_says_and_only_leading_heads_are_rotated() -> None:
    layer = SelfAttention(dim=6, heads=3, head_dim=4, rope_heads=1).eval()
    x, table = torch.randn(1, 5, 6), rotary_table(5, 4)
    q, k, v = (f(x)[0].view(5, 3, 4) for f in (layer.query, layer.key, layer.value))
    heads = []
    for h in range(3):
        qh, kh = (rotate(y[:, h], table) if h < 1 else y[:, h] for y in (q, k))
        heads.append(torch.softmax(qh @ kh.T / math.sqrt(4), -1) @ v[:, h])
    assert torch.allclose(layer(x, table)[0], layer.out(torch.cat(heads, -1)), atol=1e-5)


def test_positions_that_are_not_real_are_not_attended() -> None:
    layer = SelfAttention(6, 2, 4, qk_norm=True).eval()
    x, table = torch.randn(1, 5, 6), rotary_table(5, 4)
    mask = torch.tensor([[True, True, True, False, False]])
    other = x.clone()
    other[:, 3:] = 7
    assert torch.allclose(layer(x, table, mask)[:, :3], layer(other, table, mask)[:, :3], atol=1e-6)
    short = layer(x[:, :3], tuple(t[:3] for t in table))  # type: ignore[arg-type]
    assert torch.allclose(layer(x, table, mask)[:, :3], short, atol=1e-5)


def test_global_response_norm_measures_each_channel_over_time() -> None:
    layer = GlobalResponseNorm(3)
    torch.nn.init.normal_(layer.gamma)
    torch.nn.init.normal_(layer.beta)
    x = torch.randn(2, 4, 3)
    y = layer(x)
    for b in range(2):
        energy = [math.sqrt(sum(float(x[b, t, c]) ** 2 for t in range(4))) for c in range(3)]
        for c in range(3):
            share = energy[c] / (sum(energy) / 3 + 1e-6)
            expected = layer.gamma[0, 0, c] * x[b, :, c] * share + layer.beta[0, 0, c] + x[b, :, c]
            assert torch.allclose(y[b, :, c], expected, atol=1e-5)


def test_convnext_block_hears_three_frames_to_each_side_but_for_its_norm() -> None:
    block = ConvNeXtV2Block(8, 8)  # gamma and beta are zero: nothing else looks along time
    x = torch.randn(1, 12, 8)
    other = x.clone()
    other[:, 8] += 1
    same = (block(x) - block(other)).abs().amax((0, 2)) < 1e-7
    assert same.tolist() == [True] * 5 + [False] * 7


def test_convolutional_layers_of_a_padded_row_equal_those_of_the_row_alone() -> None:
    x = torch.randn(1, 9, 16)
    mask = torch.arange(9)[None] < 6
    convnext = ConvNeXtV2Block(16, 32)
    torch.nn.init.normal_(convnext.grn.gamma)
    clean = x * mask[..., None]
    assert torch.allclose(convnext(clean, mask)[:, :6], convnext(x[:, :6]), atol=1e-5)
    position = ConvPositionEmbedding(16)
    assert torch.allclose(position(x, mask)[:, :6], position(x[:, :6]), atol=1e-5)
    assert not position(x, mask)[:, 6:].any()


def test_convolutional_positions_are_two_grouped_convolutions_with_mish() -> None:
    layer = ConvPositionEmbedding(32)
    x = torch.randn(1, 7, 32)
    y = x.transpose(1, 2)
    for conv in (layer.first, layer.second):
        bias = conv.bias
        assert bias is not None
        y = F.pad(y, (15, 15))
        out = torch.zeros(1, 32, 7)
        for c in range(32):
            g = c // 2  # 16 groups of two channels
            for t in range(7):
                out[0, c, t] = (conv.weight[c] * y[0, 2 * g : 2 * g + 2, t : t + 31]).sum() + bias[c]
        y = out * torch.tanh(F.softplus(out))
    assert torch.allclose(layer(x), y.transpose(1, 2), atol=1e-5)


def test_modulated_norm_scales_around_one() -> None:
    x = torch.randn(2, 3, 4)
    zero = torch.zeros(2, 1, 4)
    assert torch.allclose(modulated_norm(x, zero, zero), F.layer_norm(x, (4,), eps=1e-6))
    assert torch.allclose(modulated_norm(x, zero + 2, zero - 1), torch.full_like(x, 2.0))


def test_time_waves_are_sines_first_and_position_waves_cosines_first() -> None:
    embedding = TimeEmbedding(8, waves=4)
    embedding.mlp = torch.nn.Identity()  # type: ignore[assignment]
    t = 0.3
    expected = [math.sin(300), math.sin(300e-4), math.cos(300), math.cos(300e-4)]
    assert torch.allclose(embedding(torch.tensor([t]))[0], torch.tensor(expected), atol=1e-3)
    table = position_table(3, 4)
    expected = [math.cos(2), math.cos(0.02), math.sin(2), math.sin(0.02)]
    assert torch.allclose(table[2], torch.tensor(expected), atol=1e-6)
