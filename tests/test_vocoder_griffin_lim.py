"""Griffin-Lim: a baseline that copies what it hears."""

import math

import pytest
import torch
from tts.vocoders.griffin_lim import GriffinLim, GriffinLimConfig

from tts.audio import MelEncoder, MelRecipe, mel_filters
from tts.frames import Frames, Wave
from tts.interfaces import Vocoder
from tts.nn.phase import magnitudes


def test_it_is_a_vocoder():
    assert isinstance(GriffinLim(), Vocoder)


def test_a_sine_comes_back_at_its_pitch_and_level():
    sine = 0.3 * torch.sin(2 * math.pi * 440 * torch.arange(8000) / 16000)
    frames = MelEncoder().encode(Wave.of(sine, 16000))
    copy = GriffinLim(GriffinLimConfig(iterations=16)).decode(frames)
    assert copy.samples.shape == (1, 8000)
    spectrum = torch.fft.rfft(copy.samples[0, 1600:6400] * torch.hann_window(4800)).abs()
    assert abs(int(spectrum.argmax()) * 16000 / 4800 - 440) < 15  # a mel band is wider than that
    level_db = 20 * math.log10(float(copy.samples[0, 1600:6400].square().mean().sqrt()) / (0.3 / math.sqrt(2)))
    assert abs(level_db) < 2


@pytest.mark.parametrize("padding", ["same", "center"])
def test_each_row_is_itself_whatever_the_batch(padding):
    mel = MelRecipe(padding=padding)
    vocoder = GriffinLim(GriffinLimConfig(mel, iterations=2, mel_iterations=3))
    data, lengths = torch.randn(4, 80, 6) - 3, [6, 2, 1, 0]
    together = vocoder.decode(Frames(data, torch.tensor(lengths), mel.spec))
    for b, T in enumerate(lengths):
        alone = vocoder.decode(Frames(data[b : b + 1, :, :T], torch.tensor([T]), mel.spec)).samples[0]
        assert len(alone) == 320 * (T if padding == "same" else max(0, T - 1)) == int(together.lengths[b])
        assert torch.equal(together.samples[b, : len(alone)], alone)
        assert not together.samples[b, len(alone) :].any()


def test_samples_do_not_depend_on_frames_outside_the_context():
    vocoder = GriffinLim(GriffinLimConfig(iterations=2, mel_iterations=3))
    left, right = vocoder.context
    data, t = torch.randn(1, 80, 30) - 3, 14

    def frame_of(data: torch.Tensor) -> torch.Tensor:
        frames = Frames(data, torch.tensor([30]), vocoder.accepts)
        return vocoder.decode(frames).samples[0, t * 320 : (t + 1) * 320]

    outside, inside = data.clone(), data.clone()
    outside[..., : t - left] += 1
    outside[..., t + right + 1 :] += 1
    inside[..., t - left // 2] += 1  # further out the tails of the windows fall below float32
    assert torch.equal(frame_of(outside), frame_of(data))
    assert not torch.equal(frame_of(inside), frame_of(data))


def test_the_inverted_filterbank_gives_the_mel_back():
    torch.manual_seed(0)
    mel = MelEncoder().encode(Wave.of(torch.randn(3200) * 0.1, 16000)).data[0]
    magnitude = magnitudes(mel, MelRecipe())
    assert (magnitude >= 0).all()
    again = (magnitude @ mel_filters(MelRecipe())[1]).clamp(min=1e-5).log().T
    assert (again - mel).abs().mean() < 0.02


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="momentum"):
        GriffinLimConfig(momentum=1.0)
