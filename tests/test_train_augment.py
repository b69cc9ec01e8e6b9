"""Augmentations do what they say, leave what they are given alone, and are pure functions of their generator."""

from __future__ import annotations

import math

import pytest
import torch

from tts.audio import MelRecipe, log_mel
from tts.train.augment import NOISES, add_noise, chance, lowpass, make_noise, mel_power, muffle, spec_augment, stretch, veil

BANDS, T = 20, 60


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def mel() -> torch.Tensor:
    return torch.randn(BANDS, T, generator=generator(1)) - 5


def test_labels_follow_the_tempo_of_their_frames() -> None:
    labels = torch.arange(5).repeat_interleave(20)
    sizes = set()
    for seed in range(20):
        picture, stretched = stretch(labels.float().expand(BANDS, 100), labels, 0.2, 0.1, generator(seed))
        sizes.add(len(stretched))
        assert picture.shape == (BANDS, len(stretched)) and 80 <= len(stretched) <= 120
        assert float((picture - stretched).abs().max()) < 1  # the border of two labels is a slope
        assert float(((picture - stretched).abs() > 0.01).float().mean()) < 0.2
    assert len(sizes) > 5


def test_another_throat_moves_the_bands_and_keeps_their_number() -> None:
    peaks = set()
    for seed in range(20):
        picture, _ = stretch(torch.eye(BANDS)[10][:, None].expand(BANDS, T), torch.zeros(T), 0.0, 0.2, generator(seed))
        assert picture.shape == (BANDS, T)
        peaks.add(int(picture[:, 0].argmax()))
    assert len(peaks) > 2 and min(peaks) >= 7 and max(peaks) <= 13


def test_without_stretching_nothing_changes(mel: torch.Tensor) -> None:
    same, labels = stretch(mel, torch.arange(T), 0.0, 0.0, generator())
    torch.testing.assert_close(same, mel)
    assert torch.equal(labels, torch.arange(T))


def test_a_muffled_voice_lacks_its_upper_bands(mel: torch.Tensor) -> None:
    for seed in range(10):
        lost = mel - muffle(mel, generator(seed))
        assert not lost[: BANDS // 2].any()
        assert 3 <= float(lost[-1].mean()) <= 7


def test_noise_fills_silence_and_takes_nothing_away(mel: torch.Tensor) -> None:
    for seed in range(10):
        assert bool((add_noise(mel, generator(seed)) >= mel).all())
    silent = torch.full((BANDS, T), -11.0)
    silent[:, :10] = 3.0
    assert float(add_noise(silent, generator())[:, 10:].mean()) > -11.0


def test_masks_are_runs_of_frames_and_bands_and_hold_the_mean(mel: torch.Tensor) -> None:
    for seed in range(20):
        out = spec_augment(mel, 2, 8.0, 2, 5, generator(seed))
        changed = out != mel
        frames, bands = changed.all(0), changed.all(1)
        assert int(frames.sum()) <= 2 * 7 and int(bands.sum()) <= 2 * 4
        assert torch.equal(changed, frames[None] | bands[:, None])
        torch.testing.assert_close(out[changed], mel.mean().expand(int(changed.sum())))


def test_a_clip_of_a_few_frames_survives_its_masks() -> None:
    for n in (1, 2, 5):
        short = torch.randn(BANDS, n, generator=generator())
        assert torch.equal(spec_augment(short, 2, 20.0, 0, 5, generator()), short)


def test_lowpass_keeps_what_lies_below_and_nothing_above() -> None:
    t = torch.arange(1600) / 16_000
    low, high = torch.sin(2 * math.pi * 500 * t), torch.sin(2 * math.pi * 6000 * t)
    torch.testing.assert_close(lowpass(low + high, 3000, 16_000), low, atol=1e-3, rtol=0)


RECIPE = MelRecipe()


@pytest.mark.parametrize("recipe", [RECIPE, MelRecipe(power=2)], ids=["magnitude", "power"])
@pytest.mark.parametrize("snr_db", [-5.0, 7.5, 20.0])
def test_noise_lies_as_far_below_as_it_was_told_to(snr_db: float, recipe: MelRecipe) -> None:
    clean = torch.randn(80, 50, generator=generator(1)) * 2 - 5
    voices = [torch.randn(80, n, generator=generator(n)) - 4 for n in (30, 70)]
    scale = 2 / recipe.power
    for kind in NOISES:
        noise = make_noise(kind, 50, recipe, generator(2), voices)
        assert noise.shape == clean.shape and bool(noise.isfinite().all())
        mixed = veil(clean, noise, snr_db, recipe)
        added = torch.log((scale * mixed.double()).exp() - (scale * clean.double()).exp()) / scale
        realised = 10 * torch.log10(mel_power(clean.double(), recipe) / mel_power(added.nan_to_num(-99).clamp(min=-99), recipe))
        assert float(realised) == pytest.approx(snr_db, abs=0.5), kind


def test_a_mel_is_veiled_as_its_sound_would_be() -> None:
    N, hertz = 32_000, torch.arange(1, 25)[:, None] * 140.0  # a buzz that falls as voices do
    buzz = (torch.sin(2 * math.pi * hertz * torch.arange(N) / 16_000) / hertz).sum(0)
    noise = torch.randn(N, generator=generator(3))
    for snr_db in (0.0, 15.0):
        scaled = noise * (buzz.square().mean() / noise.square().mean()).sqrt() * 10 ** (-snr_db / 20)
        heard, clean = (log_mel(x[None])[0] for x in (buzz + scaled, buzz))
        made = veil(clean, make_noise("white", 100, RECIPE, generator(4)), snr_db, RECIPE)
        assert float((made - heard).mean()) == pytest.approx(0, abs=math.log(10) / 20 * 2)  # 2 dB


def test_noises_have_their_colours_and_babble_its_speakers() -> None:
    tilt = {}
    for kind in ("white", "pink", "brown", "hum"):
        mel = make_noise(kind, 100, RECIPE, generator(5)).mean(1)
        tilt[kind] = float(mel[60:].mean() - mel[5:20].mean())
    assert tilt["white"] > tilt["pink"] + 1 > tilt["brown"] + 2 and tilt["hum"] < tilt["pink"]
    voices = [torch.full((80, 10), -3.0), torch.full((80, 200), -3.0)]
    torch.testing.assert_close(
        make_noise("babble", 40, RECIPE, generator(), voices), torch.full((80, 40), -3 + math.log(2) / 2)
    )


def test_the_same_generator_says_the_same_and_the_input_stays(mel: torch.Tensor) -> None:
    kept, labels = mel.clone(), torch.arange(T)
    acts = [
        lambda g: muffle(mel, g),
        *(lambda g, kind=kind: make_noise(kind, 9, RECIPE, g, [torch.randn(80, 20)]) for kind in NOISES[:4]),
        lambda g: add_noise(mel, g),
        lambda g: spec_augment(mel, 2, 20.0, 2, 5, g),
        lambda g: stretch(mel, labels, 0.2, 0.2, g)[0],
    ]
    for act in acts:
        assert torch.equal(act(generator(3)), act(generator(3)))
        assert not torch.equal(act(generator(3)), act(generator(5)))
    assert torch.equal(mel, kept)
    assert chance(generator(3)) == chance(generator(3)) < 1
