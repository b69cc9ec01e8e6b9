"""The Vocos generator: exact lengths, padding that is not heard, an honest context, and the public model's arithmetic."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from tts.vocoders.istft import Vocos, VocosConfig

from tts.audio import MelRecipe, log_mel
from tts.errors import FitError
from tts.frames import Frames
from tts.interfaces import Vocoder
from tts.nn.stft import inverse_stft, overlap_add, stft

MEL = MelRecipe(sample_rate=800, n_fft=32, win_length=32, hop=8, bands=4, high=400.0)
TINY = {
    "same": VocosConfig(mel=MEL, dim=16, intermediate=24, layers=2, n_fft=32, padding="same"),
    "center": VocosConfig(mel=MEL, dim=16, intermediate=24, layers=2, n_fft=32, padding="center"),
}


def tiny(padding: str = "same", spread: float = 0.5) -> Vocos:
    """A small generator with weights large enough that every path is heard."""
    torch.manual_seed(0)
    model = Vocos(TINY[padding]).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=spread)
    return model


def frames(model: Vocos, data: torch.Tensor, lengths: list[int] | None = None) -> Frames:
    return Frames(data, torch.tensor(lengths if lengths is not None else [data.shape[-1]] * len(data)), model.accepts)


def test_it_is_a_vocoder():
    assert isinstance(tiny(), Vocoder)


@pytest.mark.parametrize("T", [0, 1, 2, 5, 50])
@pytest.mark.parametrize("padding", ["same", "center"])
def test_each_frame_is_exactly_a_hop(padding, T):
    model = tiny(padding)
    wave = model.decode(frames(model, torch.randn(2, 4, T)))
    expected = T * 8 if padding == "same" else max(0, T - 1) * 8
    assert wave.samples.shape == (2, expected)
    assert wave.lengths.tolist() == [expected] * 2
    assert wave.sample_rate == 800


@pytest.mark.parametrize("padding", ["same", "center"])
def test_a_padded_row_equals_the_row_alone(padding):
    model = tiny(padding)
    data, lengths = torch.randn(3, 4, 9), [9, 5, 1]
    together = model.decode(frames(model, data, lengths))
    for b, T in enumerate(lengths):
        alone = model.decode(frames(model, data[b : b + 1, :, :T])).samples[0]
        N = int(together.lengths[b])
        assert len(alone) == N
        torch.testing.assert_close(together.samples[b, :N], alone, atol=1e-6, rtol=0)
        assert not together.samples[b, N:].any()


@pytest.mark.parametrize("padding", ["same", "center"])
def test_samples_depend_on_the_frames_of_the_context_and_no_others(padding):
    model = tiny(padding)
    left, right = model.context
    t, T, hop = 30, 61, 8
    data = torch.randn(1, 4, T, dtype=torch.float64, requires_grad=True)
    samples = model.double()(data)[0, t * hop : (t + 1) * hop]
    (gradient,) = torch.autograd.grad((samples * torch.randn(hop, dtype=torch.float64)).sum(), data)
    reached = gradient[0].abs().sum(0).nonzero().flatten()
    assert (int(reached.min()), int(reached.max())) == (t - left, t + right)


def test_refinement_brings_the_sound_nearer_to_its_mel():
    torch.manual_seed(0)
    mel = log_mel(torch.randn(1, 160) * 0.1, MEL)
    model = tiny(spread=0.1)
    far = (log_mel(model.decode(frames(model, mel)).samples, MEL) - mel).abs().mean()
    refined = Vocos(replace(TINY["same"], refine=8)).eval()
    refined.load_state_dict(model.state_dict())
    near = (log_mel(refined.decode(frames(refined, mel)).samples, MEL) - mel).abs().mean()
    assert near < 0.5 * far


def test_a_refined_row_is_itself_whatever_the_batch():
    model = Vocos(replace(TINY["same"], refine=3)).eval()
    data = torch.randn(2, 4, 9)
    together = model.decode(frames(model, data, [9, 5]))
    alone = model.decode(frames(model, data[1:, :, :5]))
    assert together.lengths.tolist() == [72, 40]
    assert torch.allclose(together.samples[1, :40], alone.samples[0], atol=1e-5)
    assert not together.samples[1, 40:].any()


def test_another_mel_is_refused_in_words():
    model = tiny()
    other = MelRecipe(sample_rate=800, n_fft=32, win_length=32, hop=8, bands=4, high=300.0).spec
    with pytest.raises(FitError, match="0-300 Hz"):
        model.decode(Frames(torch.randn(1, 4, 3), torch.tensor([3]), other))


@pytest.mark.parametrize("wrong", [{"padding": "valid"}, {"n_fft": 8}, {"n_fft": 33}])
def test_an_impossible_grid_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        VocosConfig(**{"mel": MEL, "n_fft": 32, **wrong})


@pytest.mark.parametrize("padding", ["same", "center"])
def test_inverse_stft_undoes_stft(padding):
    x, window = torch.randn(2, 80), torch.hann_window(32)
    spectrum = stft(x, window, 8, padding, 64)
    assert spectrum.shape == (2, 10 if padding == "same" else 11, 33)
    torch.testing.assert_close(inverse_stft(spectrum, window, 8, padding), x, atol=1e-5, rtol=0)


def test_inverse_stft_agrees_with_torch_on_its_grid():
    torch.manual_seed(0)
    spectrum, window = torch.randn(2, 6, 17, dtype=torch.complex64), torch.hann_window(32)
    expected = torch.istft(spectrum.transpose(1, 2), 32, 8, 32, window, center=True)
    torch.testing.assert_close(inverse_stft(spectrum, window, 8, "center"), expected, atol=1e-5, rtol=0)


def test_overlap_add_adds_where_frames_overlap():
    rows = torch.tensor([[[1.0, 2, 3, 4], [10, 20, 30, 40]]])
    assert overlap_add(rows, 2).tolist() == [[1, 2, 13, 24, 30, 40]]


def test_the_golden_wave_is_unchanged():
    """Guards the arithmetic where the oracle below is not installed; the numbers agree with it."""
    model = Vocos(TINY["same"]).eval()
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.copy_(0.4 * torch.sin(torch.arange(parameter.numel()) * 0.7 + i).view_as(parameter))
        samples = model(torch.cos(torch.arange(12.0) * 1.3).view(1, 4, 3))[0]
    golden = torch.tensor(GOLDEN)
    torch.testing.assert_close(samples[::4], golden, atol=1e-5, rtol=0)


GOLDEN = [-0.081309, -0.01845, -0.068011, -0.146083, -0.030536, -0.142899]  # every fourth sample

# Our names to those of package vocos, longest first.
RENAMED = {
    "blocks.": "backbone.convnext.",
    ".conv.": ".dwconv.",
    ".expand.": ".pwconv1.",
    ".shrink.": ".pwconv2.",
    ".scale": ".gamma",
    "embed.": "backbone.embed.",
    "final_norm.": "backbone.final_layer_norm.",
    "out.": "head.out.",
}


def public_name(name: str) -> str:
    if name.startswith("norm."):
        return "backbone." + name
    for ours, theirs in RENAMED.items():
        name = name.replace(ours, theirs)
    return name


@pytest.mark.parity
@pytest.mark.parametrize("padding", ["same", "center"])
def test_the_public_implementation_says_the_same_with_the_same_weights(padding):
    pytest.importorskip("vocos", reason="the oracle: pip install vocos")
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone

    model, config = tiny(padding, spread=0.2), TINY[padding]
    oracle = nn.ModuleDict(
        {
            "backbone": VocosBackbone(4, config.dim, config.intermediate, config.layers),
            "head": ISTFTHead(config.dim, config.n_fft, MEL.hop, padding),
        }
    ).eval()
    weights = {public_name(name): value for name, value in model.state_dict().items()}
    missing = oracle.load_state_dict(weights, strict=False)
    assert missing.unexpected_keys == [] and missing.missing_keys == ["head.istft.window"]
    mel = torch.randn(2, 4, 20)
    with torch.no_grad():
        expected = oracle["head"](oracle["backbone"](mel))
        torch.testing.assert_close(model(mel), expected, atol=1e-5, rtol=0)
