"""When each word of a text was said: written words to phones, phones to the tokens that were aligned.

written   Dr.        paid   $3.50
phones    d ɑ k t ɚ  p eɪ d  θ ɹ iː d ɑ l ɚ z …         each word read by itself
tokens    d ɑ k t ɚ  p eɪ d  θ ɹ iː d ɑ l ɚ z …         the sentence, as it was said; a shortest edit path joins the two
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tts.asr.check import edits
from tts.errors import TextError
from tts.text.markup import PAUSE, PRONUNCIATION, Pause
from tts.text.tokens import PHONES, SymbolTable

_WORD = re.compile(rf"(?:{PRONUNCIATION}|\S)+")


@dataclass(frozen=True)
class Word:
    """A word as it is written, with the marks at it, and when it is said, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Said:
    """A token that was said, and when, in seconds."""

    token: int
    start: float
    end: float


def written_words(text: str) -> list[str]:
    """Words of a sentence, pronunciations still marked; a dash that stands alone goes with the word before it."""
    words: list[str] = []
    for match in _WORD.finditer(re.sub(PAUSE, " ", text, flags=re.IGNORECASE)):
        if words and not (_speaks(match[0]) and _speaks(words[-1])):
            words[-1] += f" {match[0]}"
        else:
            words.append(match[0])
    return words


def shown(text: str) -> str:
    """A text without its marks, as one reads it."""
    plain = re.sub(PAUSE, " ", text, flags=re.IGNORECASE)
    return " ".join(re.sub(PRONUNCIATION, lambda match: match["word"], plain).split())


def word_times(
    text: str, said: Sequence[Said], encode: Callable[[str], Sequence[int | Pause]], table: SymbolTable = PHONES
) -> list[Word]:
    """Every written word with its time, in order; no two overlap.

    A word that has no sound of its own ("of the" may be one) shares its neighbour's, by their letters.

    Args:
        said: tokens of the whole text, in order of time, boundaries among them. encode: the front end that made them.
    """
    words = written_words(text)
    if not words:
        return []
    asked: list[int] = []
    owners: list[int] = []  # which word each asked phone is of
    for number, word in enumerate(words):
        phones = [_plain(token, table) for token in _read(word, encode) if not table.is_boundary(token)]
        asked += phones
        owners += [number] * len(phones)
    spoken = [here for here in said if not table.is_boundary(here.token)]
    path = edits(asked, [_plain(here.token, table) for here in spoken])
    owner: list[int | None] = [None] * len(spoken)
    for step in path:
        if step.heard is not None and step.asked is not None:
            owner[step.heard] = owners[step.asked]
    spans: dict[int, tuple[float, float]] = {}
    for number, here in zip(_filled(owner, said, table), spoken, strict=True):
        start, _ = spans.get(number, (here.start, 0.0))
        spans[number] = (start, here.end)
    if not spans:
        return shared_times(text, said[0].start, said[-1].end) if said else []
    return _shared(words, spans)


def shared_times(text: str, start: float, end: float) -> list[Word]:
    """Words that share the seconds from start to end by their letters, where nobody knows better."""
    words = written_words(text)
    return _shared(words, {0: (start, end)}) if words else []


def _read(word: str, encode: Callable[[str], Sequence[int | Pause]]) -> list[int]:
    try:
        return [token for token in encode(word) if not isinstance(token, Pause)]
    except TextError:  # nothing in it can be said
        return []


def _plain(token: int, table: SymbolTable) -> int:
    """A phone without its stress; a phone that the recognizer does not know stays itself."""
    known = table.to_recognizer[token]
    return known if known > 0 else -token


def _filled(owner: Sequence[int | None], said: Sequence[Said], table: SymbolTable) -> list[int]:
    """A phone nobody asked for goes with its neighbours between two boundaries, or else with the word before."""
    runs: list[int] = []
    run = 0
    for here in said:
        if table.is_boundary(here.token):
            run += 1
        else:
            runs.append(run)
    filled = list(owner)
    for i in range(1, len(filled)):
        if filled[i] is None and runs[i] == runs[i - 1]:
            filled[i] = filled[i - 1]
    for i in range(len(filled) - 2, -1, -1):
        if filled[i] is None and runs[i] == runs[i + 1]:
            filled[i] = filled[i + 1]
    last = next((number for number in filled if number is not None), 0)
    whole: list[int] = []
    for number in filled:
        last = number if number is not None else last
        whole.append(last)
    return whole


def _shared(words: Sequence[str], spans: dict[int, tuple[float, float]]) -> list[Word]:
    """Words without a span take part in that of the last word before them which has one, or else of the first."""
    first = min(spans)
    groups: list[list[int]] = []
    for number in range(len(words)):
        if number in spans and number != first:
            groups.append([number])
        elif groups:
            groups[-1].append(number)
        else:
            groups.append([number])
    timed: list[Word] = []
    for group in groups:
        start, end = spans[next(number for number in group if number in spans)]
        letters = [max(1, len(shown(words[number]))) for number in group]
        done = 0
        for number, n in zip(group, letters, strict=True):
            a, b = (start + (end - start) * k / sum(letters) for k in (done, done + n))
            timed.append(Word(shown(words[number]), a, b))
            done += n
    return timed


def _speaks(text: str) -> bool:
    return any(character.isalnum() for character in text)
