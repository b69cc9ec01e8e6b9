"""Inline marks in a text: pronunciations `[word](/fəˈnɛtɪk/)` and pauses `[pause:0.5]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tts.errors import TextError

LONGEST_PAUSE = 30.0  # seconds

PRONUNCIATION = r"\[(?P<word>[^\[\]]*)\]\(/(?P<ipa>[^/()]*)/\)"
PAUSE = r"\[\s*pause\s*:(?P<seconds>[^\[\]]*)\]"
_MARK = re.compile(f"{PRONUNCIATION}|{PAUSE}", re.IGNORECASE)


@dataclass(frozen=True)
class Pause:
    """Silence of exactly this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Pronunciation:
    """A word that is said by its IPA, whatever its spelling."""

    word: str
    ipa: str


def segments(text: str) -> list[str | Pronunciation | Pause]:
    """A text cut at its marks, in order. Raises TextError for a pause out of bounds or a pronunciation without phones."""
    parts: list[str | Pronunciation | Pause] = []
    start = 0
    for match in _MARK.finditer(text):
        if text[start : match.start()].strip():
            parts.append(text[start : match.start()])
        parts.append(_pause(match["seconds"]) if match["seconds"] is not None else _pronunciation(match["word"], match["ipa"]))
        start = match.end()
    if text[start:].strip():
        parts.append(text[start:])
    return parts


def _pause(written: str) -> Pause:
    try:
        seconds = float(written.strip().removesuffix("s"))
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= LONGEST_PAUSE:
        raise TextError(
            f"a pause lasts more than 0 and at most {LONGEST_PAUSE:g} seconds, as in [pause:0.5]; got [pause:{written}]"
        )
    return Pause(seconds)


def _pronunciation(word: str, ipa: str) -> Pronunciation:
    if not any(character.isalpha() for character in ipa):
        raise TextError(f"a pronunciation is written in IPA between slashes, as in [word](/wˈɜːd/); got [{word}](/{ipa}/)")
    return Pronunciation(word, ipa.strip())
