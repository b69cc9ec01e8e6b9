"""Inline marks in a text: pronunciations `[word](/fəˈnɛtɪk/)` and pauses `[pause:0.5]`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pause:
    """Silence of exactly this many seconds."""

    seconds: float
