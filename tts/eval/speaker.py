"""Likeness of voices: the cosine between two speaker embeddings."""

from __future__ import annotations

from functools import cached_property
from importlib import metadata
from typing import Any, Protocol

import numpy as np

from tts.eval.packages import optional


class SpeakerEncoder(Protocol):
    """Speech to a vector that says whose voice it is."""

    @property
    def name(self) -> str:
        """What it is, with its version."""
        ...

    def embed(self, samples: np.ndarray, rate: int) -> np.ndarray | None:
        """samples [N] float32 to a vector [D]; None where nobody speaks."""
        ...


class Resemblyzer:
    """The GE2E speaker encoder of the package resemblyzer, on the CPU; long silences are cut out first, as it expects.

    Source: Wan et al. 2018 (arXiv:1710.10467).
    """

    @property
    def name(self) -> str:
        optional("resemblyzer")
        return f"Resemblyzer {metadata.version('Resemblyzer')}"

    @cached_property
    def _encoder(self) -> Any:
        return optional("resemblyzer").VoiceEncoder("cpu", verbose=False)

    def embed(self, samples: np.ndarray, rate: int) -> np.ndarray | None:
        """samples [N] float32 at 16 kHz to [256] float32 of length 1; None where voice activity detection finds no speech."""
        assert rate == 16_000, rate
        if not np.any(samples):
            return None
        speech = optional("resemblyzer").preprocess_wav(np.asarray(samples, np.float32))
        if not len(speech):
            return None
        vector: np.ndarray = self._encoder.embed_utterance(speech)
        return vector


def similarity(a: np.ndarray | None, b: np.ndarray | None) -> float:
    """Cosine of two embeddings [D]; 0 where one of them is None: a silent output is like nobody."""
    if a is None or b is None:
        return 0.0
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
