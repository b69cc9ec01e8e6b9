"""The HiFi-GAN generator: exact lengths and context, padding that is not heard, and the weights of other implementations."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tts.vocoders.hifigan import HifiGan, HifiGanConfig, load_original_state, load_transformers_state

from tts.audio import MelRecipe
from tts.checkpoint import fill
from tts.errors import CheckpointError, FitError, SettingsError
from tts.frames import Frames
from tts.interfaces import Vocoder
from tts.nn.weight_norm import fold_weight_norm

MEL = MelRecipe(sample_rate=1200, n_fft=32, win_length=32, hop=12, bands=4, high=600.0)
TINY = {
    1: HifiGanConfig(
        mel=MEL,
        channels=32,
        upsample_rates=(2, 3, 2),
        upsample_kernels=(4, 9, 2),
        resblock=1,
        resblock_kernels=(3, 5),
        resblock_dilations=((1, 3), (1, 2)),
    ),
    2: HifiGanConfig(
        mel=MEL,
        channels=32,
        upsample_rates=(4, 3),
        upsample_kernels=(8, 3),
        resblock=2,
        resblock_kernels=(3, 7),
        resblock_dilations=((1, 2), (1, 4, 2)),
    ),
}
TYPES = pytest.mark.parametrize("kind", [1, 2])


def tiny(kind: int = 1) -> HifiGan:
    """A small generator whose every tensor, buffers too, is heard."""
    torch.manual_seed(0)
    return heard(HifiGan(TINY[kind]).eval())


def heard(model: nn.Module) -> nn.Module:
    """The model with random weights that neither silence nor saturate it, and random buffers."""
    for layer in model.modules():
        if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d)):
            inputs = layer.in_channels * layer.kernel_size[0] / layer.stride[0]
            nn.init.normal_(layer.weight, std=inputs**-0.5)
            nn.init.normal_(layer.bias, std=0.1)
    nn.init.normal_(model.mean)
    nn.init.uniform_(model.scale, 0.5, 2.0)
    return model


def frames(model: HifiGan, data: Tensor, lengths: list[int] | None = None) -> Frames:
    return Frames(data, torch.tensor(lengths if lengths is not None else [data.shape[-1]] * len(data)), model.accepts)


def test_it_is_a_vocoder():
    assert isinstance(tiny(), Vocoder)


@TYPES
@pytest.mark.parametrize("T", [0, 1, 2, 7])
def test_each_frame_is_exactly_a_hop(kind, T):
    model = tiny(kind)
    wave = model.decode(frames(model, torch.randn(2, 4, T)))
    assert wave.samples.shape == (2, T * 12)
    assert wave.lengths.tolist() == [T * 12] * 2
    assert wave.sample_rate == 1200


@TYPES
def test_a_padded_row_equals_the_row_alone(kind):
    model = tiny(kind)
    data, lengths = torch.randn(3, 4, 9), [9, 5, 1]
    together = model.decode(frames(model, data, lengths))
    for b, T in enumerate(lengths):
        alone = model.decode(frames(model, data[b : b + 1, :, :T])).samples[0]
        torch.testing.assert_close(together.samples[b, : T * 12], alone, atol=1e-6, rtol=0)
        assert not together.samples[b, T * 12 :].any()


@pytest.mark.parametrize("config", [TINY[1], TINY[2], HifiGanConfig(channels=16)])
def test_samples_depend_on_the_frames_of_the_context_and_no_others(config):
    model = heard(HifiGan(config)).double()
    left, right = model.context
    t, T, hop = 27, 55, model.hop
    data = torch.randn(1, config.mel.bands, T, dtype=torch.float64, requires_grad=True)
    samples = model(data)[0, t * hop : (t + 1) * hop]
    (gradient,) = torch.autograd.grad((samples * torch.randn(hop, dtype=torch.float64)).sum(), data)
    reached = gradient[0].abs().sum(0).nonzero().flatten()
    assert (int(reached.min()), int(reached.max())) == (t - left, t + right)


def test_the_default_is_as_large_as_vocos():
    from tts.vocoders.istft import Vocos

    def size(model: nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())

    model = HifiGan()
    assert abs(size(model) / size(Vocos()) - 1) < 0.15
    assert (model.hop, model.sample_rate, model.accepts) == (320, 16_000, MelRecipe().spec)


def test_another_mel_is_refused_in_words():
    model = tiny()
    with pytest.raises(FitError, match="0-500 Hz"):
        model.decode(Frames(torch.randn(1, 4, 3), torch.tensor([3]), replace(MEL, high=500.0).spec))
    foreign = HifiGan(replace(TINY[1], flavour="log10"))
    with pytest.raises(FitError, match="log10"):
        foreign.decode(Frames(torch.randn(1, 4, 3), torch.tensor([3]), MEL.spec))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"upsample_rates": (2, 3, 3)}, "multiply to the mel's hop, 12"),
        ({"upsample_kernels": (4, 9)}, "one for each"),
        ({"upsample_kernels": (4, 8, 2)}, "even number more, got 8"),
        ({"upsample_kernels": (4, 1, 2)}, "even number more, got 1"),
        ({"resblock": 3}, "1 or 2, got 3"),
        ({"resblock_dilations": ((1, 3),)}, "a tuple for each"),
        ({"resblock_kernels": (3, 4)}, "odd"),
        ({"channels": 4}, "halved 3 times"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message):
    with pytest.raises(SettingsError, match=message):
        replace(TINY[1], **wrong)


@TYPES
def test_weight_norm_comes_and_goes_without_being_heard(kind):
    model, mel = tiny(kind), torch.randn(2, 4, 6)
    plain, names = model(mel), list(model.state_dict())
    model.add_weight_norm()
    assert sum(p.numel() for p in model.parameters()) > sum(p.numel() for p in tiny(kind).parameters())
    torch.testing.assert_close(model(mel), plain, atol=1e-5, rtol=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("original0"):
                parameter.mul_(1.1)
    trained = model(mel)
    assert not torch.allclose(trained, plain, atol=1e-2)
    fill(fresh := HifiGan(TINY[kind]), fold_weight_norm(model.state_dict()), "the folded state")
    torch.testing.assert_close(fresh(mel), trained, atol=1e-5, rtol=0)
    model.remove_weight_norm()
    assert sorted(model.state_dict()) == sorted(names)
    torch.testing.assert_close(model(mel), trained, atol=1e-5, rtol=0)


@TYPES
def test_gradients_reach_every_weight_in_training(kind):
    model = HifiGan(TINY[kind])
    model.add_weight_norm()
    model(torch.randn(2, 4, 9), torch.tensor([9, 5])).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_half_of_a_weight_norm_is_refused():
    with pytest.raises(CheckpointError, match="conv_pre"):
        fold_weight_norm({"conv_pre.weight_g": torch.ones(2, 1, 1)})


# The original's format: flat names, and every convolution with weight norm.


def original_state(config: HifiGanConfig) -> dict[str, Tensor]:
    """Random weights as the original repository saves them."""
    torch.manual_seed(1)
    state: dict[str, Tensor] = {}

    def convolution(name: str, a: int, b: int, kernel: int, bias: int) -> None:
        state[f"{name}.weight_v"] = torch.randn(a, b, kernel)
        state[f"{name}.weight_g"] = torch.rand(a, 1, 1) + 0.5
        state[f"{name}.bias"] = torch.randn(bias) * 0.1

    stages, blocks = len(config.upsample_rates), len(config.resblock_kernels)
    convolution("conv_pre", config.channels, config.mel.bands, 7, config.channels)
    for i in range(stages):
        wide, narrow = config.channels // 2**i, config.channels // 2 ** (i + 1)
        convolution(f"ups.{i}", wide, narrow, config.upsample_kernels[i], narrow)
        for j in range(blocks):
            for m in range(len(config.resblock_dilations[j])):
                for convs in ("convs1", "convs2") if config.resblock == 1 else ("convs",):
                    name = f"resblocks.{i * blocks + j}.{convs}.{m}"
                    convolution(name, narrow, narrow, config.resblock_kernels[j], narrow)
    convolution("conv_post", 1, config.channels // 2**stages, 7, 1)
    return state


def original_output(state: dict[str, Tensor], config: HifiGanConfig, x: Tensor) -> Tensor:
    """The paper's generator step by step, straight from such a state."""

    def weights(name: str) -> tuple[Tensor, Tensor]:
        v = state[f"{name}.weight_v"]
        return torch._weight_norm(v, state[f"{name}.weight_g"], 0), state[f"{name}.bias"]

    def convolution(x: Tensor, name: str, dilation: int = 1) -> Tensor:
        weight, bias = weights(name)
        return F.conv1d(x, weight, bias, padding=(weight.shape[-1] - 1) * dilation // 2, dilation=dilation)

    x = convolution(x, "conv_pre")
    blocks = len(config.resblock_kernels)
    for i, (rate, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernels, strict=True)):
        x = F.conv_transpose1d(F.leaky_relu(x, 0.1), *weights(f"ups.{i}"), stride=rate, padding=(kernel - rate) // 2)
        outputs = []
        for j, dilations in enumerate(config.resblock_dilations):
            name, y = f"resblocks.{i * blocks + j}", x
            for m, dilation in enumerate(dilations):
                if config.resblock == 1:
                    z = convolution(F.leaky_relu(y, 0.1), f"{name}.convs1.{m}", dilation)
                    y = convolution(F.leaky_relu(z, 0.1), f"{name}.convs2.{m}") + y
                else:
                    y = convolution(F.leaky_relu(y, 0.1), f"{name}.convs.{m}", dilation) + y
            outputs.append(y)
        x = torch.stack(outputs).mean(0)
    return torch.tanh(convolution(F.leaky_relu(x, 0.01), "conv_post"))[:, 0]


@TYPES
@pytest.mark.parametrize("spelling", ["weight_g", "parametrizations", "folded"])
def test_the_originals_weights_say_the_same(kind, spelling):
    config = TINY[kind]
    state = original_state(config)
    mel = torch.randn(2, 4, 10)
    expected = original_output(state, config, mel)
    if spelling == "parametrizations":
        names = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
        for old, new in names.items():
            state = {key.replace(old, new): value for key, value in state.items()}
    elif spelling == "folded":
        state = fold_weight_norm(state)
    before = dict(state)
    fill(model := HifiGan(config), load_original_state(state), "the original's state")
    assert 0.05 < expected.std() < 0.8
    torch.testing.assert_close(model(mel), expected, atol=1e-5, rtol=0)
    assert all(state[key] is before[key] for key in before) and len(state) == len(before)


def test_a_state_of_something_else_is_refused():
    with pytest.raises(CheckpointError, match="no HiFi-GAN generator"):
        load_original_state({"layer.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"'mpd\.weight' is no tensor"):
        load_original_state(original_state(TINY[1]) | {"mpd.weight": torch.zeros(1)})


@pytest.mark.parity
@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize("normalize_before", [False, True])
def test_transformers_says_the_same_with_the_same_weights(weight_norm, normalize_before):
    transformers = pytest.importorskip("transformers", reason="the oracle: pip install transformers")
    config = replace(TINY[1], upsample_kernels=(4, 5, 2), leaky_slope=0.2)
    oracle = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=4,
            sampling_rate=1200,
            upsample_initial_channel=32,
            upsample_rates=list(config.upsample_rates),
            upsample_kernel_sizes=list(config.upsample_kernels),
            resblock_kernel_sizes=list(config.resblock_kernels),
            resblock_dilation_sizes=[list(dilations) for dilations in config.resblock_dilations],
            leaky_relu_slope=0.2,
            normalize_before=normalize_before,
        )
    ).eval()
    torch.manual_seed(2)
    heard(oracle)
    if weight_norm:
        oracle.apply_weight_norm()
    fill(model := HifiGan(config), load_transformers_state(oracle.state_dict(), normalize_before), "transformers' state")
    mel = torch.randn(2, 4, 10)
    with torch.no_grad():
        expected = oracle(mel.transpose(1, 2))
        assert 0.05 < expected.std() < 0.8
        torch.testing.assert_close(model(mel), expected, atol=1e-5, rtol=0)
