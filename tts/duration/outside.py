"""Durations by a function of yours: any model outside says how long a text takes, and phones share the time out as usual.

    def asked(phones, prompt_seconds, prompt_phones): ...      # seconds
    mynah = Synthesizer.from_pretrained("base-en")
    mynah = mynah.with_duration(CallableDuration(asked, mynah.parts.duration, mynah.parts.front_end.symbols.symbols))

Source: SimpleSpeech 2 (arXiv:2408.13893) asks a language model for the length; which model, and how, stays outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tts.duration.rules import lasting
from tts.duration.voice import rows
from tts.errors import FitError, SettingsError
from tts.frames import Plan, Prompt, Tokens
from tts.interfaces import Duration

# phones of the text, seconds of the prompt and its phones (None, () where there is none) to seconds
Asked = Callable[[tuple[str, ...], float | None, tuple[str, ...]], float]


class CallableDuration:
    """A Duration (tts/interfaces.py)."""

    def __init__(self, function: Asked, shares: Duration, symbols: Sequence[str]) -> None:
        """shares: the Duration whose plan is stretched to the function's seconds. symbols: of its table, by id."""
        if not callable(function):
            raise SettingsError(f"a duration function is called with phones and a prompt, got {type(function).__name__}")
        self.function, self.shares, self.symbols = function, shares, tuple(symbols)
        self.table = shares.table

    def plan(self, tokens: Tokens, prompt: Prompt | None) -> Plan:
        """Seconds for the whole and for each token.

        Raises FitError: tokens of another symbol table. SettingsError: the function gave no positive, finite number.
        """
        if tokens.table != self.table:
            raise FitError(f"the durations know table {self.table}, the tokens are of {tokens.table}")
        seconds = []
        for row, voice in rows(tokens, prompt):
            said = () if voice is None else self._write(voice.tokens.ids)
            given = self.function(self._write(row.ids), None if voice is None else float(voice.seconds), said)
            number = isinstance(given, int | float) and not isinstance(given, bool)
            if not number or not math.isfinite(given) or given <= 0:
                raise SettingsError(f"a duration function gives seconds, a finite number above 0, got {given!r}")
            seconds.append(float(given))
        return lasting(self.shares.plan(tokens, prompt), torch.tensor(seconds, dtype=torch.float64))

    def _write(self, ids: Tensor) -> tuple[str, ...]:
        return tuple(self.symbols[i] for i in ids[0].tolist())
