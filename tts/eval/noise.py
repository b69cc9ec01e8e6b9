"""A system whose prompts are veiled by noise: SIM against the clean ones and DNSMOS then say whether noise is copied."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from tts.eval.measures import read_clip
from tts.eval.quality import RATE
from tts.eval.run import Speaks


@dataclass(frozen=True)
class NoisyPrompts:
    """Speaks as another does, but hears each prompt at this signal-to-noise ratio; the same text and prompt, the same noise."""

    synthesizer: Speaks
    snr_db: float

    @property
    def identity(self) -> str:
        return f"{getattr(self.synthesizer, 'identity', None)}, prompts at {self.snr_db:g} dB SNR"

    def synthesize(self, text: str, prompt: Any, *, seed: int, **options: Any) -> Any:
        """As `Speaks.synthesize`; prompt: the path of a recording, or None, which stays without noise."""
        if prompt is not None:
            key = int.from_bytes(hashlib.sha256(f"{seed} {prompt} {text}".encode()).digest()[:8], "little")
            prompt = veiled(read_clip(prompt), self.snr_db, key), RATE
        return self.synthesizer.synthesize(text, prompt, seed=seed, **options)

    def trying(self, retries: int, rerank: bool) -> NoisyPrompts:
        return NoisyPrompts(self.synthesizer.trying(retries, rerank), self.snr_db)


def veiled(samples: np.ndarray, snr_db: float, seed: int) -> np.ndarray:
    """Samples [N] under white and pink noise of equal power, together `snr_db` below their mean power; nothing clips."""
    random = np.random.default_rng(seed)
    N = len(samples)
    fall = np.sqrt(np.maximum(np.arange(N // 2 + 1) / max(N, 1) * RATE, 20.0))  # pink below 20 Hz would be all rumble
    white, pink = random.standard_normal(N), np.fft.irfft(np.fft.rfft(random.standard_normal(N)) / fall, N)
    noise = white / np.sqrt(np.mean(white**2)) + pink / np.sqrt(np.mean(pink**2))
    noise *= np.sqrt(np.mean(samples**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    mixed = samples + noise
    return (mixed / max(1.0, float(np.abs(mixed).max()) / 0.99)).astype(np.float32)
