"""Small weights say nearly what large ones say, at any shape, and a system says which it has."""

import pytest
import torch
from conftest import RATE, speech
from torch import nn

from tts.errors import SettingsError
from tts.nn import quantize as module
from tts.nn.quantize import Eight, EightByEight, Four, Half, pack_four, pick_group, quantize, smaller, unpack_four


def error(layer: nn.Module, small: nn.Module, *shape: int) -> float:
    x = torch.randn(*shape, layer.in_features, generator=torch.Generator().manual_seed(1))
    want, got = layer(x), small(x)
    assert got.dtype == torch.float32 and got.shape == want.shape
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("bits", "kind", "most"), [(16, Half, 0.005), (8, Eight, 0.02), (4, Four, 0.15)])
@torch.no_grad()
def test_a_small_layer_is_nearly_the_large_one(bits, kind, most, bias):
    torch.manual_seed(0)
    layer = nn.Linear(256, 160, bias=bias)
    small = smaller(layer, bits)
    assert type(small) is kind
    for shape in ((), (1,), (2,), (3, 1), (2, 40)):
        assert 0 < error(layer, small, *shape) < most, shape
    assert (small.in_features, small.out_features) == (256, 160)


@torch.no_grad()
def test_a_large_matrix_or_one_of_odd_shape_multiplies_eight_bits_by_eight():
    torch.manual_seed(0)
    for layer in (nn.Linear(1024, 512), nn.Linear(211, 160)):
        assert type(smaller(layer, 8)) is EightByEight
        assert 0 < error(layer, smaller(layer, 8), 2) < 0.03
    assert type(smaller(nn.Linear(211, 160), 4)) is EightByEight


def test_a_layer_too_small_to_win_anything_stays_as_it_is():
    layer = nn.Linear(64, 64)
    assert smaller(layer, 8) is layer


@torch.no_grad()
def test_smaller_groups_serve_outliers_and_auto_finds_where_they_are_needed():
    even = torch.linspace(-1, 1, 32).repeat(64, 8)  # every group is as wide as the row
    spiky = even * 0.01
    spiky[:, ::64] = 1.0  # one of 64 inputs takes the whole scale
    assert pick_group(even) == 256
    assert pick_group(spiky) == 32
    assert pick_group(even, 64) == 64
    assert pick_group(torch.zeros(16, 96), 64) == 32  # the next smaller that divides the width
    lost = [float((unpack_four(*pack_four(spiky, group)) - spiky).norm()) for group in (256, 32)]
    assert lost[1] < 0.8 * lost[0]


def test_all_linear_layers_of_a_model_are_replaced_and_no_other():
    model = nn.Sequential(nn.Linear(256, 256), nn.LayerNorm(256), nn.ModuleList([nn.Linear(256, 256)]), nn.Linear(4, 4))
    assert quantize(model, 8) is model
    assert [type(m) for m in (model[0], model[1], model[2][0], model[3])] == [Eight, nn.LayerNorm, Eight, nn.Linear]


@pytest.mark.parametrize(("given", "says"), [({"bits": 3}, "bits must be 16, 8 or 4"), ({"group": 7}, "group must be one of")])
def test_what_does_not_exist_is_a_typed_error(given, says):
    with pytest.raises(SettingsError, match=says):
        quantize(nn.Linear(4, 4), **given)


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("name", ["ar", "flow", "masked"])
def test_a_whole_backend_can_be_small(bits, name, tiny_folder, monkeypatch):
    from tts.frames import Plan, Tokens, Utterance
    from tts.pipeline import Synthesizer

    monkeypatch.setattr(module, "LEAST", 0)
    model = Synthesizer.from_pretrained(tiny_folder).parts.backends[name]
    tokens = Tokens.of([[1, 40, 7]], model.table)
    asked = Utterance(tokens, torch.tensor([3]), plan=Plan(torch.tensor([1.0]), torch.tensor([[0.3, 0.3, 0.4]])))
    want = model.generate(asked, None)
    got = quantize(model, bits).generate(asked, None)
    assert got.data.shape == want.data.shape
    if name == "flow":  # random weights, of which all but one layer's are small now
        assert 0 < float((got.data - want.data).norm() / want.data.norm()) < 0.5


def test_a_system_has_the_precision_that_is_asked_for_and_says_so(tiny_folder, monkeypatch):
    from tts.pipeline import Synthesizer

    monkeypatch.setattr(module, "LEAST", 0)  # the tiny system's matrices are tiny
    plain = Synthesizer.from_pretrained(tiny_folder)
    assert not any(isinstance(m, module.Small) for name in ("ar", "flow") for m in plain.parts.backends[name].modules())
    small = Synthesizer.from_pretrained(tiny_folder, precision="int8")
    assert small.parts.bits["ar"] == 8 and small.parts.bits["flow"] in (16, 32)
    assert any(isinstance(m, module.Small) for m in small.parts.backends["ar"].modules())
    assert small.model.parts["backend.ar"] == f"{plain.model.parts['backend.ar']} in 8 bits"
    prompt = (speech(2.0), RATE)
    spoken = small.synthesize("One and two.", prompt, backend="ar", check=False)
    again = small.synthesize("One and two.", prompt, backend="ar", check=False)
    assert len(spoken.samples) and (spoken.samples == again.samples).all()
    half = Synthesizer.from_pretrained(tiny_folder, precision="bf16")
    assert set(half.parts.bits.values()) == {16}
    with pytest.raises(SettingsError, match="precision must be one of fp32, bf16, int8, int4, auto, got 'fp16'"):
        Synthesizer.from_pretrained(tiny_folder, precision="fp16")
