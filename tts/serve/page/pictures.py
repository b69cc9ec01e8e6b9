"""A sound as a picture in HTML: its waveform above its mel, over one axis of seconds. The page's style gives the colours.

▁▂▅▇▆▃▁▁▂▅▇▅▂▁      waveform: lowest and highest sample of each column, an SVG path
░▒▓█▓▒░░▒▓█▓▒░      mel: a PNG whose ink is thicker where there is more energy, so that it fits light and dark pages
0 s      1 s        marks: stretches [seconds, seconds] that are laid over both, such as what an edit made anew
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch

from tts.audio import log_mel, resample
from tts.errors import MissingPackageError

COLUMNS = 900  # of a picture, at most: a longer sound shows the loudest of what falls into a column
RATE = 16_000  # Hz, of the mel
QUIET, LOUD = -6.0, 1.5  # logarithms of magnitudes that are drawn as nothing and as thick as can be
THIN, THICK = np.array([226, 168, 87]), np.array([143, 62, 8])  # the ink, red, green and blue
HEIGHT = 56  # of the waveform, in units of its drawing


def picture(samples: np.ndarray, sample_rate: int, marks: Sequence[tuple[float, float]] = ()) -> str:
    """The picture of samples [N] in [-1, 1] at `sample_rate` Hz. Raises MissingPackageError."""
    seconds = len(samples) / sample_rate
    if not seconds:
        return ""
    ticks = "".join(
        f'<span style="left:{100 * at / seconds:.2f}%">{at:g} s</span>' for at in _ticks(seconds) if at < 0.95 * seconds
    )
    over = "".join(
        f'<i style="left:{100 * start / seconds:.2f}%;width:{100 * (end - start) / seconds:.2f}%"></i>' for start, end in marks
    )
    return (
        f'<figure class="mynah-picture" role="img" aria-label="Waveform and mel spectrogram of {seconds:.1f} seconds of sound">'
        f'<svg viewBox="0 0 {COLUMNS} {HEIGHT}" preserveAspectRatio="none"><path d="{waveform(samples)}"/></svg>'
        f'<img alt="" src="data:image/png;base64,{base64.b64encode(mel_png(samples, sample_rate)).decode()}">'
        f'{over}<b></b><div class="mynah-axis">{ticks}</div></figure>'
    )


def waveform(samples: np.ndarray) -> str:
    """An SVG path around samples [N]: the highest of each column from left to right, and the lowest on the way back."""
    n = min(COLUMNS, len(samples))
    edges = np.linspace(0, len(samples), n + 1).astype(int)[:-1]
    high, low = np.maximum.reduceat(samples, edges), np.minimum.reduceat(samples, edges)
    scale = (HEIGHT / 2 - 1) / max(0.05, float(np.abs(samples).max()))
    x = (np.arange(n) + 0.5) * (COLUMNS / n)
    there = [f"{a:.0f} {HEIGHT / 2 - scale * b - 0.4:.1f}" for a, b in zip(x, high, strict=True)]
    back = [f"{a:.0f} {HEIGHT / 2 - scale * b + 0.4:.1f}" for a, b in zip(x[::-1], low[::-1], strict=True)]
    return f"M{'L'.join(there + back)}Z"


def mel_png(samples: np.ndarray, sample_rate: int) -> bytes:
    """The log-mel of samples [N] as a PNG, a column a frame, low bands below. Raises MissingPackageError."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError(f"pillow draws the pictures ({error}); pip install 'mynah-tts[app]'") from error
    sound = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    mel = log_mel(resample(sound, sample_rate, RATE)[None])[0].flip(0).numpy()  # [bands, T], high bands first
    edges = np.linspace(0, mel.shape[1], min(COLUMNS, mel.shape[1]) + 1).astype(int)[:-1]
    mel = np.maximum.reduceat(mel, edges, axis=1)
    ink = ((mel - QUIET) / (LOUD - QUIET)).clip(0, 1)[..., None]  # [bands, columns, 1]
    pixels = np.concatenate((THIN + (THICK - THIN) * ink, 255 * ink**1.4), axis=2)  # red, green, blue, opacity
    drawn = io.BytesIO()
    Image.fromarray(pixels.round().astype(np.uint8), "RGBA").save(drawn, "PNG")
    return drawn.getvalue()


def _ticks(seconds: float) -> list[float]:
    """Round numbers of seconds, about six of them."""
    step = next((step for step in (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300) if seconds / step <= 8), 600)
    return [round(number * step, 2) for number in range(int(seconds / step) + 1)]
