"""Phone errors and alignments are those of what the recognizer says was heard."""

from typing import Any

import numpy as np
import pytest
import torch

from tts.audio import MelEncoder
from tts.errors import TextError
from tts.eval.phones import PhoneEars
from tts.frames import Frames, FrameSpec
from tts.text.tokens import PHONES

SYMBOLS = PHONES.recognizer_symbols


class Spells:
    """A front end whose texts are phones with spaces between; "|" is a pause."""

    table = PHONES.identity
    languages = ("en-us",)

    def encode(self, text: str, language: str) -> list[Any]:
        return [0.5 if phone == "|" else PHONES.id(phone) for phone in text.split()]


class Hears:
    """Hears these phones, two frames each with a blank between, then blanks, in any sound."""

    accepts = MelEncoder().emits
    emits = FrameSpec("posteriors", len(SYMBOLS), accepts.rate)
    symbols = SYMBOLS

    def __init__(self, phones: str) -> None:
        self.labels = [label for phone in phones.split() for label in (SYMBOLS.index(phone),) * 2 + (0,)]

    def posteriors(self, frames: Frames) -> Frames:
        T = frames.data.shape[2]
        labels = torch.tensor((self.labels + [0] * T)[:T])
        scores = torch.full((1, len(SYMBOLS), T), -20.0)
        scores[0, labels, torch.arange(T)] = 0.0
        return Frames(scores, frames.lengths, self.emits)


SECOND = np.zeros(16_000, np.float32)


def test_phone_errors_are_counted_against_the_text() -> None:
    pytest.importorskip("jiwer")
    assert PhoneEars(Hears("k æ t"), Spells()).errors(SECOND, "k ˈæ t .") == (0, 3)
    assert PhoneEars(Hears("k æ p s"), Spells()).errors(SECOND, "k ˈæ | t .") == (2, 3)
    assert PhoneEars(Hears("k"), Spells()).errors(SECOND[:0], "k ˈæ t") == (3, 3)


def test_phones_lie_where_they_are_heard() -> None:
    ears = PhoneEars(Hears("k æ t"), Spells())
    assert ears.align(SECOND, "k ˈæ t") == [("k", 0.0, 0.04), ("æ", 0.06, 0.1), ("t", 0.12, 0.16)]


def test_a_text_that_was_refused_has_no_phones() -> None:
    pytest.importorskip("jiwer")

    class Refuses(Spells):
        def encode(self, text: str, language: str) -> list[Any]:
            raise TextError("nothing can be pronounced")

    ears = PhoneEars(Hears("k"), Refuses())
    assert ears.errors(SECOND[:0], "😀") == (0, 0) and ears.align(SECOND[:0], "😀") == ears.align(SECOND, "😀") == []


def test_text_that_does_not_fit_is_not_aligned() -> None:
    ears = PhoneEars(Hears("k æ t"), Spells())
    assert ears.align(SECOND[:640], "k æ t") == ears.align(SECOND[:0], "k æ t") == []
    spans = ears.align(SECOND[:1000], "k æ t")  # 62.5 ms: four frames, the last one short
    assert spans[-1][2] <= 1000 / 16_000
