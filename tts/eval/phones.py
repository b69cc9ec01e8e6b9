"""What the system's own recognizer hears: phone errors and the place of each phone, as instruments of an evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tts.asr.align import phones_of, read, viterbi
from tts.asr.check import check, edits
from tts.audio import MelEncoder
from tts.errors import TextError
from tts.eval.quality import RATE
from tts.eval.runs import free_of_runs, runs
from tts.eval.wer import phone_errors
from tts.frames import Wave
from tts.interfaces import Encoder, FrontEnd, Recognizer
from tts.text.tokens import PHONES


@dataclass(frozen=True)
class PhoneEars:
    """A recognizer with the mel it reads and the front end that says what was asked; clips are 16 kHz."""

    recognizer: Recognizer
    front_end: FrontEnd
    encoder: Encoder = field(default_factory=MelEncoder)
    language: str = "en-us"

    def errors(self, samples: np.ndarray, text: str) -> tuple[int, int]:
        """(phone errors, phones of the text) of samples [N], read freely; nothing is heard in an empty clip."""
        asked = [PHONES.symbols[token] for token in self.tokens(text)]
        if not len(samples):
            return phone_errors(asked, [])
        heard = read(self._posteriors(samples)).tokens
        return phone_errors(asked, [PHONES.symbols[token] for token in heard])

    def align(self, samples: np.ndarray, text: str) -> list[tuple[str, float, float]]:
        """(phone, start, end) in seconds of every phone of the text in samples [N]; [] where they do not fit in."""
        targets = phones_of(self.tokens(text))
        found = viterbi(self._posteriors(samples), targets) if len(samples) else None
        if found is None:
            return []
        rate, seconds = float(self.encoder.emits.rate), len(samples) / RATE
        names = PHONES.recognizer_symbols
        # The last frame may be half empty: a phone ends with the sound.
        spans = zip(targets, found[0], strict=True)
        return [(names[target], start / rate, min(end / rate, seconds)) for target, (start, end) in spans]

    def between(self, samples: np.ndarray, asked: Sequence[int], first: int, last: int) -> list[int]:
        """The phones heard where phones first to last - 1 of all `asked` lie in samples [N]; [] where those do not fit in.

        Phones are indices of the recognizer; one that is heard lies where its middle is, give or take a frame.
        """
        log_probs = self._posteriors(samples)
        found = viterbi(log_probs, asked) if len(samples) else None
        if found is None or first >= last:
            return []
        start, end = found[0][first][0] - 1, found[0][last - 1][1] + 1
        heard = read(log_probs)
        ends = itertools.accumulate(heard.frames)
        places = [(token, end - frames / 2) for token, frames, end in zip(heard.tokens, heard.frames, ends, strict=True)]
        return phones_of([token for token, middle in places if start <= middle <= end])

    def said(self, samples: np.ndarray, text: str) -> dict[str, Any]:
        """What was heard in samples [N], and what of the text was not.

        Returns:
            heard_phones, missed, repeated (phones, as the self-check finds them), wrong ([asked, heard] pairs), missing_run and
            repeated_run (see `runs`), free: 1.0 where neither is long.
        """
        names = PHONES.recognizer_symbols
        tokens = self.tokens(text)
        asked = phones_of(tokens)
        if not len(samples):
            lost = [names[phone] for phone in asked]
            nothing = {"heard_phones": [], "missed": lost, "repeated": [], "wrong": []}
            return nothing | {"missing_run": len(asked), "repeated_run": 0, "free": 0.0}
        log_probs = self._posteriors(samples)
        heard = phones_of(read(log_probs).tokens)
        found = check(log_probs, tokens)
        wrong = [
            [names[asked[step.asked]], names[heard[step.heard]]]
            for step in edits(asked, heard)
            if step.asked is not None and step.heard is not None and not step.same
        ]
        missing, repeated = runs(log_probs, asked)
        return {
            "heard_phones": [names[phone] for phone in heard],
            "missed": list(found.missed),
            "repeated": list(found.repeated),
            "wrong": wrong,
            "missing_run": missing,
            "repeated_run": repeated,
            "free": float(free_of_runs(missing, repeated, len(asked))),
        }

    def tokens(self, text: str) -> list[int]:
        """The text's ids; its pauses are silence and have none, nor has a text that cannot be pronounced."""
        try:
            return [token for token in self.front_end.encode(text, self.language) if isinstance(token, int)]
        except TextError:
            return []

    def _posteriors(self, samples: np.ndarray) -> Tensor:
        """[T, V] log-posteriors."""
        sound = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
        return self.recognizer.posteriors(self.encoder.encode(Wave.of(sound, RATE))).data[0].T
