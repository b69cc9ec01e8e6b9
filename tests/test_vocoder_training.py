"""The vocoder's recipe: losses that are zero only where sounds are equal, pure batches, and a loss that falls."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tts.codecs.autoencoder import MelCodec, MelCodecConfig
from tts.codecs.rvq import RVQConfig
from tts.vocoders.hifigan import HifiGan, HifiGanConfig
from tts.vocoders.istft import VocosConfig

from tts.audio import MelRecipe, log_mel
from tts.errors import SettingsError
from tts.train.adversarial import AdversarialConfig
from tts.train.assemble import note_configs
from tts.train.losses import SpectralLoss, SpectralLossConfig, mel_triangles
from tts.train.state import Ema, save_checkpoint
from tts.train.vocoder import VocoderRecipe, VocoderTask, copied

LOSS = SpectralLossConfig(windows=(256, 64, 32), bands=(20, 8, 4))
MEL = MelRecipe(n_fft=256, win_length=256, hop=80, bands=20)
RECIPE = VocoderRecipe(
    model=VocosConfig(mel=MEL, dim=16, intermediate=32, layers=1, n_fft=320),
    loss=LOSS,
    exclude=("muffled",),
    batch_size=2,
    crop_frames=10,
    valid_crops=2,
)


class Recordings:
    """Two voices of sines and one corpus that must not be a target (it would be heard as NaN)."""

    def __init__(self) -> None:
        names = ("bright", "muffled", "bright", "bright")
        sizes = (2000, 3000, 1600, 100)
        self.items = [SimpleNamespace(corpus=name, samples=N) for name, N in zip(names, sizes, strict=True)]

    def audio(self, i: int) -> torch.Tensor:
        if self.items[i].corpus == "muffled":
            return torch.full((3000,), math.nan)
        return 0.3 * torch.sin(torch.arange(self.items[i].samples) * (0.1 + 0.05 * i))


class ValidRecordings(Recordings):
    def __init__(self) -> None:
        super().__init__()
        self.items = [item for item in self.items if item.corpus == "bright"]


def task() -> VocoderTask:
    return VocoderTask(RECIPE, Recordings(), ValidRecordings())  # type: ignore[arg-type]


def test_the_loss_of_equal_sounds_is_zero():
    x = torch.randn(2, 400)
    terms = SpectralLoss(LOSS)(x, x.clone())
    assert all(float(term) < 1e-6 for term in terms.values()), terms


@pytest.mark.parametrize("change", [lambda x: 0.5 * x, lambda x: x.roll(7, 1), lambda x: torch.zeros_like(x)])
def test_every_term_sees_a_change(change):
    torch.manual_seed(0)
    x = torch.randn(2, 400) * torch.linspace(0, 1, 400)
    terms = SpectralLoss(LOSS)(change(x), x)
    assert all(float(term) > 0.01 for term in terms.values()), terms


def test_half_the_level_costs_half_the_convergence_and_log_two():
    x = torch.randn(1, 4000)
    terms = SpectralLoss(LOSS)(0.5 * x, x)
    assert float(terms["convergence"]) == pytest.approx(0.5, abs=1e-4)
    assert float(terms["log_magnitude"]) == pytest.approx(math.log(2), abs=1e-3)
    assert float(terms["mel"]) == pytest.approx(math.log(2), abs=1e-3)


def test_silence_has_a_finite_gradient():
    x = torch.zeros(1, 400, requires_grad=True)
    SpectralLoss(LOSS)(x, torch.zeros(1, 400))["total"].backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_no_mel_band_is_empty_at_any_window():
    for window, bands in zip(SpectralLossConfig().windows, SpectralLossConfig().bands, strict=True):
        filters = mel_triangles(window // 2 + 1, bands, 16_000)
        torch.testing.assert_close(filters.sum(0), torch.ones(bands))


def test_modulation_hears_that_pulses_come_and_not_when():
    """Pulses at other moments are the same beat; the same spectrum without pulses, its phases at random, is another."""
    loss = SpectralLoss(SpectralLossConfig(modulation=1.0))
    pulses = torch.zeros(1, 8000)
    pulses[:, ::100] = 1.0  # 160 a second
    torch.manual_seed(0)
    spectrum = torch.fft.rfft(pulses)
    smeared = torch.fft.irfft(torch.polar(spectrum.abs(), 6.28 * torch.rand_like(spectrum.abs())))
    later, buzz = loss(pulses.roll(40, 1), pulses), loss(smeared, pulses)
    assert later["modulation"] < 0.1 * buzz["modulation"]
    assert later["mel"] > 0.3 * buzz["mel"], "which frame by frame is not told"
    assert loss(pulses, pulses)["modulation"] == 0
    assert "modulation" not in SpectralLoss(LOSS)(pulses, pulses)


def test_windows_and_bands_must_pair():
    with pytest.raises(ValueError, match="for each window"):
        SpectralLossConfig(windows=(64,), bands=(4, 5))


def test_a_batch_is_a_pure_function_of_its_step():
    first, again = task().batch(3), task().batch(3)
    assert first["samples"].shape == (2, 800) and first["mel"].shape == (2, 20, 10)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["samples"], task().batch(4)["samples"])


def test_excluded_corpora_and_short_clips_are_no_targets():
    batches = [task().batch(step)["samples"] for step in range(5)]
    assert all(torch.isfinite(samples).all() and samples.abs().max() <= 1 for samples in batches)


def test_nothing_left_to_train_on_is_said():
    recordings = Recordings()
    recordings.items = recordings.items[1:2]
    with pytest.raises(SettingsError, match="muffled"):
        VocoderTask(RECIPE, recordings, ValidRecordings())  # type: ignore[arg-type]


def test_training_lowers_the_loss():
    recipe = task()
    optimizer = torch.optim.AdamW(recipe.vocoder.parameters(), lr=5e-3)
    before = recipe.validate()
    for step in range(30):
        optimizer.zero_grad()
        recipe.loss(recipe.batch(step), step)["loss"].backward()
        optimizer.step()
    after = recipe.validate()
    assert after["loss"] < 0.8 * before["loss"], (before, after)
    assert after["mel_l1"] < 0.8 * before["mel_l1"], (before, after)


def test_some_crops_are_heard_as_the_codec_restores_them(tmp_path):
    model = MelCodecConfig(mel=MEL, dim=8, hidden=8, rvq=RVQConfig(dim=8, codebooks=2, size=4, code_dim=2))
    run = tmp_path / "codec"
    torch.manual_seed(0)
    codec = MelCodec(model).eval()
    note_configs(run, {"codec": codec})
    save_checkpoint(run, 0, 0.0, {"codec": codec}, Ema({"codec": codec}), {}, {})
    recipe = replace(RECIPE, codec=run, codec_share=1.0, lowpass_share=0.0)
    half = VocoderTask(replace(recipe, codec_share=0.5), Recordings(), ValidRecordings())  # type: ignore[arg-type]
    task = VocoderTask(recipe, Recordings(), ValidRecordings())  # type: ignore[arg-type]
    real = VocoderTask(replace(recipe, codec_share=0.0), Recordings(), ValidRecordings())  # type: ignore[arg-type]
    mixed = set()
    for step in range(6):
        truth, batch = real.batch(step), task.batch(step)
        torch.testing.assert_close(truth["mel"], log_mel(batch["samples"], MEL))
        copies = torch.stack([copied(codec, truth["mel"], n) for n in (1, 2)])  # [n, B, bands, T]
        assert torch.isclose(copies, batch["mel"], atol=1e-5).flatten(2).all(-1).any(0).all()
        mixed |= set((half.batch(step)["mel"] == truth["mel"]).flatten(1).all(1).tolist())
    assert mixed == {True, False}
    assert "codec" not in task.modules()


def test_margins_are_seen_and_not_heard():
    recipe = replace(RECIPE, margin_frames=2, adversarial=AdversarialConfig(weight=0.0))
    task = VocoderTask(recipe, Recordings(), ValidRecordings())  # type: ignore[arg-type]
    batch = task.batch(0)
    noisy = {**batch, "samples": batch["samples"].clone()}
    noisy["samples"][:, :160] = noisy["samples"][:, -160:] = 1.0
    assert torch.equal(task.loss(batch, 0)["loss"], task.loss(noisy, 0)["loss"])
    noisy["samples"][:, 160] = 1.0
    assert not torch.equal(task.loss(batch, 0)["loss"], task.loss(noisy, 0)["loss"])


def test_the_other_generator_learns_by_the_same_recipe():
    hifigan = HifiGanConfig(
        mel=MEL,
        channels=16,
        upsample_rates=(8, 10),
        upsample_kernels=(16, 20),
        resblock_kernels=(3,),
        resblock_dilations=((1,),),
    )
    task = VocoderTask(replace(RECIPE, generator="hifigan", hifigan=hifigan), Recordings(), ValidRecordings())  # type: ignore[arg-type]
    assert isinstance(task.vocoder, HifiGan)
    assert torch.isfinite(task.loss(task.batch(0), 0)["loss"])
    with pytest.raises(SettingsError, match="'vocos' or 'hifigan'"):
        replace(RECIPE, generator="wavenet")
    with pytest.raises(SettingsError, match="leave nothing"):
        replace(RECIPE, margin_frames=5)
