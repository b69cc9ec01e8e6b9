"""A text of any length to pieces that are spoken one by one, and the silence after each: by punctuation, paragraph and scene.

CHAPTER ONE              ─►   Piece(CHAPTER ONE, 0.8)
                              Piece(It was late., 0.25)   Piece(She sat in her chair., 0.6)
It was late. She sat
in her chair.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tts.errors import TextError
from tts.text.chunk import chunk, speaks
from tts.text.markup import PAUSE, PRONUNCIATION

# Seconds of silence after a piece, beside what it ends with itself.
NOTHING, CLAUSE, SENTENCE, ELLIPSIS, PARAGRAPH, HEADING, SCENE = 0.02, 0.12, 0.25, 0.4, 0.6, 0.8, 1.2
LONGEST = 400  # characters of a piece, come what may
PAGE = 120  # characters; texts with longer lines are not broken to fit a page, so each line is a paragraph
MOST = 20_000_000  # bytes of a text file, more than any book

_BREAKS = re.compile(r"\r\n|[\r\x0b\x1c-\x1e\x85\u2028]")
_PAGES = re.compile(r"[\f\u2029]")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_HEADING, _BULLET = re.compile(r"^\s*#{1,6}\s+"), re.compile(r"^\s*[-*•‣◦]\s+(?=\w|[\"'“‘(\[])")
_ENDS = set(".!?…,;:—-。！？")
_CLOSERS = "\"'”’)]»* _"
_PAUSED = re.compile(rf"(?P<first>^\s*{re.sub('<', '<a_', PAUSE)})|(?P<last>{re.sub('<', '<b_', PAUSE)}\W*$)", re.IGNORECASE)


@dataclass(frozen=True)
class Piece:
    """A sentence, or a part of a long one, with its marks; gap: seconds of silence after it."""

    text: str
    gap: float


DOCUMENTS = {
    b"%PDF": "a PDF",
    b"PK\3\4": "a zipped document, like .docx, .odt and .epub",
    b"{\\rtf": "an RTF",
    b"\xd0\xcf\x11\xe0": "a .doc",
}


def decode(data: bytes, name: str = "the text") -> str:
    """What a file holds: UTF-8, or UTF-16 with its mark in front. Raises TextError: it is neither, or too long."""
    if len(data) > MOST:
        raise TextError(f"{name} holds {len(data) / 1e6:.1f} MB; at most {MOST / 1e6:g} MB are read, so cut it in parts")
    if kind := next((kind for magic, kind in DOCUMENTS.items() if data.startswith(magic)), ""):
        raise TextError(f"{name} is {kind}, not text; save it as plain text in UTF-8")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in data:
        raise TextError(f"{name} holds zero bytes, so it is not text; save it as plain text in UTF-8")
    else:
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise TextError(
            f"{name} is not {encoding[:6].rstrip('-').upper()} text (at byte {error.start}); save it as plain text in UTF-8, "
            "for instance by iconv -f latin1 -t utf-8"
        ) from error
    controls = len(_CONTROLS.findall(text))
    if controls > max(10, len(text) // 100):
        raise TextError(f"{name} holds {controls} control characters, so it is not text; save it as plain text in UTF-8")
    return text


def split(text: str) -> list[Piece]:
    """Pieces in order, none of them without a word. Raises TextError when there is none at all."""
    found: list[Piece] = []
    waiting = ""  # pauses before the first word
    for paragraph, is_heading in paragraphs(text):
        if not speaks(paragraph):
            pauses = " ".join(match[0] for match in re.finditer(PAUSE, paragraph, re.IGNORECASE))
            if found:
                found[-1] = Piece(f"{found[-1].text} {pauses}".rstrip(), found[-1].gap if pauses else SCENE)
            else:
                waiting = f"{waiting} {pauses}".strip()
            continue
        sentences = [part for sentence in chunk(f"{waiting} {paragraph}".strip()) for part in _bounded(sentence)]
        waiting = ""
        found += [Piece(sentence, _gap(sentence)) for sentence in sentences[:-1]]
        found.append(Piece(sentences[-1], HEADING if is_heading else PARAGRAPH))
    if not found:
        chunk(text)  # says why
        raise TextError(f"there is nothing to say in {text[:60]!r}; give words or numbers")
    met = [*(_meets(here, following) for here, following in pairwise(found)), False]
    return [Piece(here.text, here.gap if meets else 0.0) for here, meets in zip(found, met, strict=True)]


def paragraphs(text: str) -> Iterator[tuple[str, bool]]:
    """Paragraphs, each on one line, and whether it is a heading. Those without a word (a row of stars) are among them."""
    text = _CONTROLS.sub(" ", _PAGES.sub("\n\n", _BREAKS.sub("\n", text)))
    lines = text.split("\n")
    unbroken = 10 * sum(len(line) for line in lines if len(line) > PAGE) > len(text)
    held: list[str] = []
    for before, line in pairwise(["", *lines, ""]):
        begins = unbroken or bool(_HEADING.match(line) or _BULLET.match(line) or _HEADING.match(before))
        begins = begins or (line[:1].isspace() and not before[:1].isspace())  # indented
        if held and (begins or not line.strip()):
            yield _joined(held)
            held = []
        if line.strip():
            held.append(line)
    if held:
        yield _joined(held)


def _joined(lines: list[str]) -> tuple[str, bool]:
    marked, listed = _HEADING.match(lines[0]), _BULLET.match(lines[0])
    first = lines[0][marked.end() :] if marked else lines[0][listed.end() :] if listed else lines[0]
    whole = " ".join(" ".join([first, *lines[1:]]).split())
    if len(lines) > 1:
        whole = re.sub(r"(?<=[^\W\d_])- (?=[^\W\d_])", "-", whole)  # a word broken at its hyphen
    unfinished = len(lines) == 1 and len(whole) <= 80 and whole.rstrip(_CLOSERS)[-1:] not in _ENDS
    return whole, bool(marked) or (unfinished and not listed)


def _bounded(sentence: str) -> list[str]:
    """What `chunk` leaves whole since it is one thing, such as a thousand digits: cut, so that no piece is endless."""
    if len(sentence) <= LONGEST:
        return [sentence]
    parts, spoken = [""], False
    for match in re.finditer(rf"(?:{PRONUNCIATION}|{PAUSE}|\S{{1,{LONGEST // 4}}})\s*", sentence, re.IGNORECASE):
        if len(match[0]) > LONGEST:
            raise TextError(f"a pronunciation has at most {LONGEST} signs; got {match[0][:40]!r} …")
        if spoken and len(parts[-1]) + len(match[0]) > LONGEST // 4:
            parts.append("")
            spoken = False
        parts[-1] += match[0]
        spoken = spoken or speaks(match[0])
    if len(parts) > 1 and not spoken:
        parts[-2:] = ["".join(parts[-2:])]
    return [part.strip() for part in parts]


def _gap(sentence: str) -> float:
    """After a piece that does not end its paragraph."""
    end = re.sub(rf"{PAUSE}\W*$", "", sentence, flags=re.IGNORECASE).rstrip(_CLOSERS)
    if end.endswith(("…", "...", ". . .")):
        return ELLIPSIS
    if end[-1:] in set(".!?。！？।"):
        return SENTENCE
    return CLAUSE if end[-1:] in set(",;:—–-)、，") else NOTHING


def _meets(here: Piece, following: Piece) -> bool:
    """Whether two pieces have a gap between them: no pause that was asked for stands there."""
    ends = any(match["last"] is not None for match in _PAUSED.finditer(here.text))
    begins = _PAUSED.match(following.text)
    return not ends and not (begins and begins["first"] is not None)
