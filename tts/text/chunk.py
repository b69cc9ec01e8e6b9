"""A long text to sentences, and long sentences to shorter pieces, so that each can be spoken by itself.

The raw text is cut first and each piece is normalised afterwards, by the front end: the points of "Dr." and "3.5" are still
there to be recognised, and no piece of a sentence waits for another one.

    for sentence in chunk(text):
        ids = frontend.encode(sentence, language)
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from itertools import pairwise

from tts.errors import TextError
from tts.text.dates import MONTHS
from tts.text.lexicon import COUNTED, INNER, LAST, OPENERS, TITLES
from tts.text.markup import PAUSE, PRONUNCIATION


def _any(words: object) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))  # type: ignore[call-overload]


LONGEST = 220  # characters: fifteen seconds or so
_OPENS = rf"(?!\s*$|\s+[\"'“‘(]?(?:{_any(OPENERS)})\b)"
_MONTH = "|".join(rf"{name[:3]}(?:{name[3:]}|{'t' if name == 'September' else ''}\.?)" for name in MONTHS)
# What stays in one piece.
_WHOLE = re.compile(
    "|".join(
        (
            re.sub(r"\(\?P<\w+>", "(?:", PRONUNCIATION),
            re.sub(r"\(\?P<\w+>", "(?:", PAUSE),
            r"\b(?:https?://|www\.)\S*[\w/]|[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+",
            r"\b[\w-]{1,63}(?:\.[\w-]{1,63}){0,4}\.(?:com|org|net|edu|gov|io|uk)\b",
            rf"\b(?:{_MONTH}) \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?\b",
            rf"[-+$€£¥#~(]{{0,3}}\d(?:[.,:/–'-]?\d|[ )][-( ]?\d)*(?:\s?[ap]\.m(?:\.{_OPENS})?|[\s-]?[^\W\d_]+)?",
            rf"\b(?:{_any(TITLES)}|St|Dr)\.\s+\S+?(?=[\s.,;:!?]|$)",
            r"\b[A-Z][a-z]+ [IVX]+\b",
            rf"\b(?:{_any(COUNTED)}|[Nn]os?)\.(?=\s*#?\d)",
            rf"(?<![\w.])(?:{_any([*INNER, *map(str.capitalize, INNER), *LAST])})\.{_OPENS}",
            rf"(?<![\w.])(?:[A-Za-z]\.){{2,}}{_OPENS}",
            rf"(?<![\w.])[A-Z]\.(?=\s*[A-Z]){_OPENS}",
        )
    )
)
_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]»]*(?=\s|$)|[。！？।]+[」』”’]*|\n\s*\n")
_NEXT = re.compile(r"\s*(\S?)")
_INNER_ENDS = (re.compile(r"[;:—–](?=\s)|\s[—–-]+(?=\s)|—"), re.compile(r"[,)、，]"), re.compile(r"(?=\s)"))


def chunk(text: str, max_characters: int = LONGEST) -> list[str]:
    """Sentences of a text, each at most `max_characters` long unless one thing in it is longer (a number, a pronunciation).

    Never cut inside a number, an abbreviation, a date, an address or an inline mark; never empty or punctuation only; all
    words are kept, in order. Raises TextError when the text has no letter and no digit at all.
    """
    if not speaks(text):
        got = "an empty text" if not text.strip() else repr(text[:60])
        raise TextError(f"there is nothing to say in {got}; give words or numbers")
    pieces = []
    for sentence in _sentences(text):
        pieces += _shorten(" ".join(sentence.split()), max_characters)
    # What cannot be said alone goes with what was said before, or at the beginning with what comes next.
    chunks: list[str] = []
    for piece in pieces:
        if chunks and (not speaks(piece) or not speaks(chunks[-1])):
            chunks[-1] = f"{chunks[-1]} {piece}"
        else:
            chunks.append(piece)
    return chunks


def speaks(text: str) -> bool:
    """Whether there is a letter or a digit in it, beside pauses."""
    return any(character.isalnum() for character in re.sub(PAUSE, "", text, flags=re.IGNORECASE))


def _inside(text: str) -> bytearray:
    """For each position, whether a cut there would tear something apart; the last point of an abbreviation counts."""
    inside = bytearray(len(text) + 1)
    for match in _WHOLE.finditer(text):
        end = match.end() + (match[0].endswith(".") and match.end() < len(text))
        for i in range(match.start() + 1, end):
            inside[i] = 1
    return inside


def _sentences(text: str) -> list[str]:
    inside = _inside(text)
    sentences, start = [], 0
    for match in _END.finditer(text):
        following = _NEXT.match(text, match.end())[1]  # type: ignore[index]
        # "Stop!" he said. / an abbreviation nobody listed
        goes_on = following.islower() and "\n\n" not in match[0] and not match[0].isspace()
        if not inside[match.end()] and not inside[match.start() + 1] and not goes_on:
            sentences.append(text[start : match.end()])
            start = match.end()
    sentences.append(text[start:])
    return [sentence for sentence in sentences if sentence.strip()]


def _shorten(sentence: str, most: int) -> list[str]:
    """A sentence cut into about equal parts at its best inner boundaries: ; : — before commas before spaces."""
    inside = _inside(sentence)
    boundaries = [[m.end() for m in ends.finditer(sentence) if not inside[m.end()]] for ends in _INNER_ENDS]
    cuts = [0]
    while (left := len(sentence) - cuts[-1]) > most:
        start = cuts[-1]
        wished = start + left / -(-left // most)
        shortest = start + (wished - start) * 0.5
        good = (_between(ends, shortest, start + most) for ends in boundaries)
        best = next((ends for ends in good if ends), None)
        if best:
            cuts.append(min(best, key=lambda end: abs(end - wished)))
        else:  # one very long thing, or a script without spaces
            before = _between(boundaries[-1], start + 1, start + most)
            cuts.append(before[-1] if before else _after(sentence, inside, boundaries[-1], start + most, most))
    pieces = [sentence[a:b].strip() for a, b in pairwise([*cuts, len(sentence)])]
    return [piece for piece in pieces if piece]


def _after(sentence: str, inside: bytearray, spaces: list[int], least: int, most: int) -> int:
    """The first place from `least` on where nothing is torn apart; within a word only where that is longer than `most`."""
    free = next((i for i in range(least, len(sentence)) if not inside[i]), len(sentence))
    later = bisect_left(spaces, free)
    end = spaces[later] if later < len(spaces) else len(sentence)
    return end if end - sentence.rfind(" ", 0, free) - 1 <= most else free


def _between(ends: list[int], least: float, most: float) -> list[int]:
    """Those of an ordered list within bounds, both included; quickly, where a text is one long line."""
    return ends[bisect_left(ends, least) : bisect_right(ends, most)]
