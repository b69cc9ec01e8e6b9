"""What the system's own recognizer hears: phone errors and the place of each phone, as instruments of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tts.asr.align import phones_of, read, viterbi
from tts.audio import MelEncoder
from tts.errors import TextError
from tts.eval.quality import RATE
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
        asked = [PHONES.symbols[token] for token in self._tokens(text)]
        if not len(samples):
            return phone_errors(asked, [])
        heard = read(self._posteriors(samples)).tokens
        return phone_errors(asked, [PHONES.symbols[token] for token in heard])

    def align(self, samples: np.ndarray, text: str) -> list[tuple[str, float, float]]:
        """(phone, start, end) in seconds of every phone of the text in samples [N]; [] where they do not fit in."""
        targets = phones_of(self._tokens(text))
        found = viterbi(self._posteriors(samples), targets) if len(samples) else None
        if found is None:
            return []
        rate, seconds = float(self.encoder.emits.rate), len(samples) / RATE
        names = PHONES.recognizer_symbols
        # The last frame may be half empty: a phone ends with the sound.
        spans = zip(targets, found[0], strict=True)
        return [(names[target], start / rate, min(end / rate, seconds)) for target, (start, end) in spans]

    def _tokens(self, text: str) -> list[int]:
        """The text's ids; its pauses are silence and have none, nor has a text that cannot be pronounced."""
        try:
            return [token for token in self.front_end.encode(text, self.language) if isinstance(token, int)]
        except TextError:
            return []

    def _posteriors(self, samples: np.ndarray) -> Tensor:
        """[T, V] log-posteriors."""
        sound = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
        return self.recognizer.posteriors(self.encoder.encode(Wave.of(sound, RATE))).data[0].T
