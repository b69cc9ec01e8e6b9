"""Pictures of alignments: a clip's mel with each phone on its frames, and below what the recognizer thought of every phone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from tts.eval.packages import optional
from tts.files import write_whole
from tts.text.tokens import PHONES, SymbolTable

HEARD = 0.1  # a phone has a line of its own in the heat where it is asked for, or where its posterior reaches this


def plot_alignment(
    path: str | Path,
    mel: Tensor,
    log_probs: Tensor,
    tokens: Sequence[int],
    frames: Sequence[int],
    rate: float = 50.0,
    title: str = "",
    table: SymbolTable = PHONES,
) -> None:
    """Write a PNG of one clip.

    Args:
        mel: [bands, T] at `rate` Hz. log_probs: [T, V] log-posteriors, blank first. tokens: ids of `table`.
        frames: of each token; their sum is T, or there are none of either.
    Raises:
        MissingPackageError: matplotlib is not installed. OutputError: the file cannot be written.
    """
    bands, T = mel.shape
    assert sum(frames) == (T if tokens else 0) and len(log_probs) == T, (sum(frames), mel.shape, log_probs.shape)
    # 1. which phones have a line: those asked for, and those heard instead
    posteriors = log_probs.exp()
    asked = [table.to_recognizer[token] for token in tokens]
    lines = sorted({label for label in asked if label > 0} | set((posteriors.amax(0) >= HEARD).nonzero()[:, 0].tolist()) - {0})
    # 2. mel above, heat below
    figure = optional("matplotlib.figure").Figure(figsize=(max(6, T / rate * 2.5), 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.imshow(mel.float().numpy(), origin="lower", aspect="auto", extent=(0, T / rate, 0, bands))
    above.set(ylabel="mel band")
    heat = posteriors[:, lines].T.float().numpy()
    below.imshow(heat, origin="lower", aspect="auto", extent=(0, T / rate, -0.5, len(lines) - 0.5), vmin=0, vmax=1)
    below.set(ylabel="posterior", xlabel="seconds")
    below.set_yticks(range(len(lines)), [table.recognizer_symbols[label] for label in lines], fontsize=7)
    # 3. the alignment over both
    at = 0
    for token, label, length in zip(tokens, asked, frames, strict=True):
        start, end = at / rate, (at + length) / rate
        at += length
        above.axvline(start, color="white", linewidth=0.4, alpha=0.7)
        if length:
            above.text((start + end) / 2, 0.94 * bands, table.symbols[token], color="white", fontsize=8, ha="center")
        if label > 0:
            below.plot([start, end], [lines.index(label)] * 2, color="red", linewidth=1.5)
    figure.suptitle(title.replace("$", r"\$"), fontsize=9, wrap=True)  # between two dollars is no formula
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    write_whole(Path(path), drawn.getvalue())
