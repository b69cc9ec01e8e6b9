"""Augmentations do what they say, leave what they are given alone, and are pure functions of their generator."""

from __future__ import annotations

import math

import pytest
import torch

from tts.train.augment import add_noise, chance, lowpass, muffle, spec_augment, stretch

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


def test_the_same_generator_says_the_same_and_the_input_stays(mel: torch.Tensor) -> None:
    kept, labels = mel.clone(), torch.arange(T)
    acts = [
        lambda g: muffle(mel, g),
        lambda g: add_noise(mel, g),
        lambda g: spec_augment(mel, 2, 20.0, 2, 5, g),
        lambda g: stretch(mel, labels, 0.2, 0.2, g)[0],
    ]
    for act in acts:
        assert torch.equal(act(generator(3)), act(generator(3)))
        assert not torch.equal(act(generator(3)), act(generator(5)))
    assert torch.equal(mel, kept)
    assert chance(generator(3)) == chance(generator(3)) < 1
