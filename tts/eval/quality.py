"""Quality of sound: DNSMOS without a reference, PESQ and STOI against one. All at 16 kHz."""

from __future__ import annotations

import numpy as np

from tts.eval.packages import optional

RATE = 16_000  # Hz, of everything measured here
WORST = {"ovrl": 1.0, "p808": 1.0, "pesq": 1.0, "stoi": 0.0}  # what silence scores, so that empty outputs cannot flatter


def dnsmos(samples: np.ndarray) -> dict[str, float]:
    """DNSMOS of samples [N] float32: {"ovrl": overall by P.835, "p808": by P.808}, both 1 to 5.

    Source: Reddy et al. 2022 (arXiv:2110.01763), the models of the package speechmos.
    """
    if not np.any(samples):
        return {name: WORST[name] for name in ("ovrl", "p808")}
    scores = optional("speechmos.dnsmos").run(np.clip(samples, -1, 1), RATE)
    return {"ovrl": float(scores["ovrl_mos"]), "p808": float(scores["p808_mos"])}


def pesq_wb(reference: np.ndarray, degraded: np.ndarray) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1 to 4.64, over the length both have; 1 where no utterance is found."""
    pesq = optional("pesq")
    N = min(len(reference), len(degraded))
    if not np.any(reference[:N]) or not np.any(degraded[:N]):
        return WORST["pesq"]
    try:
        return float(pesq.pesq(RATE, reference[:N], degraded[:N], "wb"))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
        return WORST["pesq"]


def stoi(reference: np.ndarray, degraded: np.ndarray) -> float:
    """Short-time objective intelligibility (Taal et al. 2011), 0 to 1, over the length both have."""
    N = min(len(reference), len(degraded))
    if not np.any(reference[:N]) or not np.any(degraded[:N]):
        return WORST["stoi"]
    return float(optional("pystoi").stoi(reference[:N], degraded[:N], RATE))
