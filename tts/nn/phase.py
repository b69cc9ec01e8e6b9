"""Phases by consistency: magnitudes that a mel implies, and the phases with which overlapping windows agree."""

from __future__ import annotations

import torch
from torch import Tensor

from tts.audio import MelRecipe, mel_filters
from tts.nn.stft import inverse_stft, stft


def magnitudes(mel: Tensor, recipe: MelRecipe, iterations: int = 100) -> Tensor:
    """Log-mel [bands, T] to magnitudes [T, F] >= 0 whose mel is as near as multiplicative updates bring it.

    Source: Lee & Seung 2001, "Algorithms for non-negative matrix factorization", equation 4, with the filters fixed.
    """
    filters = mel_filters(recipe)[1].to(mel.device)  # [F, bands]
    target = mel.exp().T  # [T, bands]
    wanted = target @ filters.T  # [T, F]
    gram = filters @ filters.T
    guess = wanted / gram.sum(1).clamp(min=1e-8)
    for _ in range(iterations):
        guess = guess * wanted / (guess @ gram).clamp(min=1e-12)
    return guess if recipe.power == 1 else guess ** (1 / recipe.power)


def agree(magnitude: Tensor, phase: Tensor, recipe: MelRecipe, iterations: int, momentum: float = 0.99) -> Tensor:
    """Samples whose spectrum has these magnitudes as nearly as iterations bring it, from a first guess of the phases.

    Args:
        magnitude: [T, F]. phase: [T, F] complex, of any length. iterations: 0 takes the phases as they are.
    Returns:
        samples [N]. Source: Perraudin, Balazs & Søndergaard 2013, "A fast Griffin-Lim algorithm", algorithm 2.
    """
    window = mel_filters(recipe)[0].to(magnitude.device)
    spectrum = _with_phase_of(phase, magnitude)[None]  # [1, T, F]
    before = torch.zeros_like(spectrum)
    for step in range(iterations):
        samples = inverse_stft(spectrum, window, recipe.hop, recipe.padding)
        consistent = stft(samples, window, recipe.hop, recipe.padding, recipe.n_fft)
        ahead = consistent + (momentum * (consistent - before) if step else 0)
        spectrum, before = _with_phase_of(ahead, magnitude), consistent
    return inverse_stft(spectrum, window, recipe.hop, recipe.padding)[0]


def _with_phase_of(spectrum: Tensor, magnitude: Tensor) -> Tensor:
    return magnitude * spectrum / spectrum.abs().clamp(min=1e-8)
