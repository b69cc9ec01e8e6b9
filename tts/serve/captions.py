"""When sentences and words are said, as files: JSON with every word, SRT with lines that can be read in time.

Passages come as the dictionaries of a journal (tts/serve/book.py), one by one, and go out one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import IO, Any

WIDTH, LINES = 42, 2  # of a subtitle, as broadcasters ask for
LONGEST, SHORTEST = 7.0, 1.0  # seconds that one is shown; the shortest only where the next one leaves the time
SILENCE = 1.0  # a longer one between two words begins another subtitle
ENDS = (".", "!", "?", "…", ",", ";", ":", "—")


@dataclass(frozen=True)
class Cue:
    """One subtitle: its lines, and when it is shown, in seconds."""

    text: str
    start: float
    end: float


def write_json(file: IO[str], head: dict[str, Any], passages: Iterable[dict[str, Any]]) -> None:
    """An object: what `head` says, and "sentences", one a line, each with its words and what the recognizer thought of it."""
    file.write(json.dumps(head, ensure_ascii=False, sort_keys=True, default=str)[:-1] + ', "sentences": [')
    for number, passage in enumerate(passages):
        told = {name: passage[name] for name in ("text", "start", "end", "aligned")}
        lines = passage["sentences"]
        told["passed"] = None if any(line["passed"] is None for line in lines) else all(line["passed"] for line in lines)
        told["missed"] = [phone for line in lines for phone in line["missed"]]
        told["repeated"] = [phone for line in lines for phone in line["repeated"]]
        told["words"] = [{"word": word, "start": start, "end": end} for word, start, end in passage["words"]]
        file.write(("," if number else "") + "\n" + json.dumps(told, ensure_ascii=False))
    file.write("\n]}\n")


def write_srt(file: IO[str], passages: Iterable[dict[str, Any]]) -> None:
    """Numbered subtitles of at most LINES lines."""
    for number, cue in enumerate(_lasting(cue for passage in passages for cue in cues(passage["words"])), start=1):
        file.write(f"{number}\n{_clock(cue.start)} --> {_clock(cue.end)}\n{cue.text}\n\n")


def cues(words: Iterable[tuple[str, float, float]]) -> Iterator[Cue]:
    """Subtitles of the words (text, start, end) of one sentence, cut after a mark where there is one in their second half."""
    held: list[tuple[str, float, float]] = []
    for word in words:
        while held and not _fits([*held, word]):
            apart = word[1] - held[-1][2] > SILENCE
            marks = [i + 1 for i, (text, _, _) in enumerate(held) if text.endswith(ENDS) and i + 1 >= len(held) / 2]
            cut = marks[-1] if marks and not apart else len(held)
            yield _cue(held[:cut])
            held = held[cut:]
        held.append(word)
    if held:
        yield _cue(held)


def _fits(words: list[tuple[str, float, float]]) -> bool:
    lines = wrap(" ".join(text for text, _, _ in words), WIDTH)
    silent = words[-1][1] - words[-2][2] > SILENCE
    return len(lines) <= LINES and words[-1][2] - words[0][1] <= LONGEST and not silent


def _cue(words: list[tuple[str, float, float]]) -> Cue:
    text = " ".join(text for text, _, _ in words)
    lines = wrap(text, WIDTH)
    if len(lines) == LINES:  # about equally long ones
        lines = next(more for width in range(len(text) // LINES, WIDTH + 1) if len(more := wrap(text, width)) <= LINES)
    return Cue("\n".join(lines), words[0][1], words[-1][2])


def _lasting(given: Iterable[Cue]) -> Iterator[Cue]:
    """Each shown for SHORTEST at least, but not into the next one."""
    before: Cue | None = None
    for cue in given:
        if before is not None:
            yield Cue(before.text, before.start, max(before.end, min(before.start + SHORTEST, cue.start)))
        before = cue
    if before is not None:
        yield Cue(before.text, before.start, max(before.end, before.start + SHORTEST))


def _clock(seconds: float) -> str:
    """00:01:02,345"""
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"
