"""Mel to waveform without training: the filterbank is inverted, and phases are sought that agree with the magnitudes.

The baseline a trained vocoder must beat. One row at a time, so a row never depends on its batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tts.audio import MelRecipe
from tts.frames import Frames, Wave, check_fit
from tts.nn.phase import agree, magnitudes
from tts.nn.stft import reach

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
        config = self.config
        magnitude = magnitudes(mel, config.mel, config.mel_iterations)  # [T, F]
        start = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(PHASE_SEED)).to(mel.device)
        phase = torch.polar(torch.ones_like(magnitude), 2 * torch.pi * start)
        return agree(magnitude, phase, config.mel, config.iterations, config.momentum)
