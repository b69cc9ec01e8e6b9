"""Augmentations do what they say, within the lengths, and are pure functions of their generator."""

from __future__ import annotations

import torch

from tts.train.augment import add_noise, low_pass, random_low_pass, spec_augment

RATE = 16_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_masks_are_runs_of_frames_and_bands_within_the_length() -> None:
    mel, lengths = torch.randn(4, 20, 200, generator=generator(1)), torch.tensor([200, 100, 3, 0])
    out = spec_augment(mel, lengths, generator(), time_share=0.1, band_width=5)
    changed = out != mel
    assert bool(changed[0].any()) and bool(changed[1].any())
    assert not changed[1, :, 100:].any() and not changed[3].any()
    whole_frames, whole_bands = changed[0].all(0), changed[0].all(1)
    assert int(whole_frames.sum()) <= 2 * 21 and int(whole_bands.sum()) <= 10
    assert torch.equal(changed[0], whole_frames[None] | whole_bands[:, None])
    torch.testing.assert_close(out[0][changed[0]], mel[0].mean().expand(int(changed[0].sum())))


def test_noise_has_the_ratio_asked_for() -> None:
    tone = torch.sin(torch.arange(RATE) * 0.1)[None].repeat(8, 1)
    noise = add_noise(tone, generator(), (20.0, 20.0)) - tone
    ratio = 10 * torch.log10(tone.square().mean(1) / noise.square().mean(1))
    torch.testing.assert_close(ratio, torch.full((8,), 20.0), atol=1e-2, rtol=0)
    assert not add_noise(torch.zeros(1, 99), generator()).any()


def test_low_pass_keeps_what_is_below_and_removes_what_is_above() -> None:
    seconds = torch.arange(RATE, dtype=torch.float64) / RATE
    low, high = torch.sin(2 * torch.pi * 1_000 * seconds), torch.sin(2 * torch.pi * 6_000 * seconds)
    out = low_pass((low + high)[None].repeat(2, 1), torch.tensor([4_000.0, 8_000.0]), RATE)
    torch.testing.assert_close(out[0], low, atol=1e-4, rtol=0)
    torch.testing.assert_close(out[1], low + high, atol=1e-4, rtol=0)


def test_low_pass_touches_about_the_share_of_the_rows() -> None:
    noise = torch.randn(200, 512, generator=generator(1))
    changed = (random_low_pass(noise, generator(), RATE, share=0.3) != noise).any(1)
    assert 0.2 < float(changed.float().mean()) < 0.4
    assert torch.equal(random_low_pass(noise, generator(), RATE, share=0.0), noise)


def test_the_same_generator_says_the_same_and_the_input_stays() -> None:
    samples, mel = torch.randn(2, 999, generator=generator(1)), torch.randn(2, 20, 50, generator=generator(2))
    kept, kept_mel, lengths = samples.clone(), mel.clone(), torch.tensor([50, 40])
    assert torch.equal(add_noise(samples, generator(3)), add_noise(samples, generator(3)))
    assert torch.equal(random_low_pass(samples, generator(3), RATE), random_low_pass(samples, generator(3), RATE))
    assert torch.equal(spec_augment(mel, lengths, generator(3)), spec_augment(mel, lengths, generator(3)))
    assert not torch.equal(add_noise(samples, generator(3)), add_noise(samples, generator(4)))
    assert torch.equal(samples, kept) and torch.equal(mel, kept_mel)
