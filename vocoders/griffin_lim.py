"""Mel to waveform without training: the filterbank is inverted, and phases are sought that agree with the magnitudes.

The baseline a trained vocoder must beat. One row at a time, so a row never depends on its batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tts.audio import MelRecipe, mel_filters
from tts.frames import Frames, Wave, check_fit
from tts.nn.stft import inverse_stft, reach, stft

PHASE_SEED = 1984  # the start is arbitrary but always the same


@dataclass(frozen=True)
class GriffinLimConfig:
    """More iterations cost time in proportion and help less and less; momentum 0 is the algorithm of 1984."""

    mel: MelRecipe = field(default_factory=MelRecipe)
    iterations: int = 32
    momentum: float = 0.99
    mel_iterations: int = 100  # of the filterbank's inversion, much cheaper ones

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or self.iterations < 0 or self.mel_iterations < 0:
            raise ValueError(f"iterations must not be negative and momentum must be in [0, 1), got {self}")


class GriffinLim:
    """A Vocoder. Source: Perraudin, Balazs & Søndergaard 2013, "A fast Griffin-Lim algorithm", algorithm 2."""

    def __init__(self, config: GriffinLimConfig = GriffinLimConfig()) -> None:
        self.config = config
        mel = config.mel
        self.accepts, self.sample_rate = mel.spec, mel.sample_rate
        # An iteration carries a phase to every frame whose window overlaps its own.
        neighbours = -(-mel.win_length // mel.hop) - 1
        left, right = reach(mel.win_length, mel.hop, mel.padding)
        self.context = (config.iterations * neighbours + left, config.iterations * neighbours + right)

    def decode(self, frames: Frames) -> Wave:
        """Frames of `accepts` to a wave of exactly lengths * hop samples a row (a "center" mel: (lengths - 1) * hop).

        Raises FitError for frames of another spec.
        """
        check_fit("these frames", frames.spec, "the vocoder", self.accepts)
        recipe = self.config.mel
        intervals = frames.lengths if recipe.padding == "same" else (frames.lengths - 1).clamp(min=0)
        lengths = intervals * recipe.hop
        longest = max(lengths.tolist(), default=0)
        samples = frames.data.new_zeros(len(frames.data), longest, dtype=torch.float32)
        with torch.no_grad():
            for b, T in enumerate(frames.lengths.tolist()):
                if lengths[b] > 0:
                    samples[b, : int(lengths[b])] = self._row(frames.data[b, :, :T].float())
        return Wave(samples.clamp(-1, 1), lengths, self.sample_rate)

    def _row(self, mel: Tensor) -> Tensor:
        """Log-mel [bands, T] to samples [N]."""
        recipe, momentum = self.config.mel, self.config.momentum
        window = mel_filters(recipe)[0].to(mel.device)
        magnitude = self.magnitude(mel)[None]  # [1, T, F]
        start = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(PHASE_SEED)).to(mel.device)
        spectrum = torch.polar(magnitude, 2 * torch.pi * start)
        before = torch.zeros_like(spectrum)
        for _ in range(self.config.iterations):
            samples = inverse_stft(spectrum, window, recipe.hop, recipe.padding)
            consistent = stft(samples, window, recipe.hop, recipe.padding, recipe.n_fft)
            ahead = consistent + momentum * (consistent - before)
            spectrum = magnitude * ahead / ahead.abs().clamp(min=1e-8)
            before = consistent
        return inverse_stft(spectrum, window, recipe.hop, recipe.padding)[0]

    def magnitude(self, mel: Tensor) -> Tensor:
        """Log-mel [bands, T] to magnitudes [T, F] >= 0 whose mel is as near as multiplicative updates bring it.

        Source: Lee & Seung 2001, "Algorithms for non-negative matrix factorization", equation 4, with the filters fixed.
        """
        recipe = self.config.mel
        filters = mel_filters(recipe)[1].to(mel.device)  # [F, bands]
        target = mel.exp().T  # [T, bands]
        wanted = target @ filters.T  # [T, F]
        gram = filters @ filters.T
        guess = wanted / gram.sum(1).clamp(min=1e-8)
        for _ in range(self.config.mel_iterations):
            guess = guess * wanted / (guess @ gram).clamp(min=1e-12)
        return guess if recipe.power == 1 else guess ** (1 / recipe.power)
