"""Pictures of single items: the mel of what was said, the recording's beneath it, and where each phone lies."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tts.eval.packages import optional
from tts.eval.quality import RATE
from tts.files import write_whole


def worst(items: Sequence[Mapping[str, Any]], count: int, key: str = "utterance_wer") -> list[Mapping[str, Any]]:
    """The `count` items with the highest `key`, the first ones among equals; items without the key are left out."""
    having = [item for item in items if item.get(key) is not None]
    return sorted(having, key=lambda item: -item[key])[:count]


def plot_item(
    path: str | Path,
    sounds: Mapping[str, np.ndarray],
    title: str = "",
    spans: Sequence[tuple[str, float, float]] = (),
) -> None:
    """Write what `draw_item` draws. Raises MissingPackageError without matplotlib, OutputError where it cannot be written."""
    write_whole(Path(path), draw_item(sounds, title, spans))


def draw_item(
    sounds: Mapping[str, np.ndarray], title: str = "", spans: Sequence[tuple[str, float, float]] = (), dpi: int = 110
) -> bytes:
    """A PNG: the log-mel of each sound [N] at 16 kHz under its name, and `spans` (phone, start, end) over the first."""
    import torch

    from tts.audio import log_mel

    figure = optional("matplotlib.figure").Figure(figsize=(10, 0.6 + 2.4 * len(sounds)), layout="constrained")
    axes = figure.subplots(len(sounds), 1, squeeze=False)[:, 0]
    for index, (name, samples) in enumerate(sounds.items()):
        seconds = len(samples) / RATE
        mel = log_mel(torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None])[0].numpy()  # [bands, T]
        axes[index].imshow(mel, origin="lower", aspect="auto", extent=(0, seconds, 0, len(mel)), vmin=-10, vmax=3)
        axes[index].set(ylabel=f"{name}\nmel band", xlabel="seconds" if index == len(sounds) - 1 else None)
        for phone, start, end in spans if index == 0 else ():
            axes[index].axvline(start, color="white", linewidth=0.4, alpha=0.7)
            axes[index].text((start + end) / 2, len(mel) * 0.94, phone, color="white", fontsize=7, ha="center")
    figure.suptitle(title, fontsize=9, wrap=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    return drawn.getvalue()
