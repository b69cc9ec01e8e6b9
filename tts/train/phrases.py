"""Clips cut at their pauses to phrases of a word or a few, so that short texts are learned from people, too (`mynah cut`).

clip      · · the zeal of cyril exposed him · · · · · to the penalties · · · ·
phrases     · the zeal of cyril exposed him · ·   · · to the penalties · ·         a silence is shared, up to MARGIN each
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from tts.errors import SettingsError
from tts.text.tokens import PHONES, SymbolTable
from tts.train.data import UNALIGNED, Corpus, CorpusWriter, save_alignment

PAUSE_SECONDS = 0.2  # a silence that is cut at: what the aligner writes a comma for
MARGIN_SECONDS = 0.1  # of silence that a phrase keeps at either end
LONGEST_SECONDS = 2.5
FEWEST_PHONES = 2


@dataclass(frozen=True)
class Phrase:
    """Frames start to end of a clip, and what is said there: tokens and the frames of each, which sum to end - start."""

    start: int
    end: int
    tokens: list[int]
    frames: list[int]


def phrases(tokens: Sequence[int], frames: Sequence[int], rate: float, table: SymbolTable = PHONES) -> Iterator[Phrase]:
    """The phrases of an aligned clip that are at most LONGEST_SECONDS; a clip without a pause inside has none.

    Each begins with a space and ends with the mark of the pause, or a full stop where the aligner had put a comma.
    """
    cuts = [
        n
        for n, (token, lasts) in enumerate(zip(tokens, frames, strict=True))
        if table.is_boundary(token) and (lasts >= PAUSE_SECONDS * rate or n in (0, len(tokens) - 1))
    ]
    if len(cuts) < 3:
        return
    begins = [sum(frames[:n]) for n in range(len(tokens) + 1)]
    margin = round(MARGIN_SECONDS * rate)
    space, comma, stop = table.id(" "), table.id(","), table.id(".")
    for left, right in itertools.pairwise(cuts):
        inner = [table.to_recognizer[token] > 0 for token in tokens[left + 1 : right]]
        before, after = min(margin, frames[left]), min(margin, frames[right])
        start, end = begins[left + 1] - before, begins[right] + after
        if sum(inner) < FEWEST_PHONES or end - start > LONGEST_SECONDS * rate:
            continue
        mark = stop if tokens[right] in (space, comma) else tokens[right]
        said = [space, *tokens[left + 1 : right], mark]
        yield Phrase(start, end, said, [before, *frames[left + 1 : right], after])


def cut(folder: str | PathLike[str], out: str | PathLike[str], min_score: float = -1.5, table: SymbolTable = PHONES) -> int:
    """Write the phrases of an aligned corpus to the folder `out`, aligned as they were; returns their number.

    Their corpus is that of the clip and "-phrases", so that `merge` can weigh them by themselves; speakers stay.

    Args:
        min_score: clips whose alignment scores less are left out.
    Raises:
        SettingsError: the corpus has other symbols, no alignment, or no pause to cut at.
    """
    corpus = Corpus(Path(folder), audio=False)
    if corpus.tables["table"] != table.identity or corpus.alignment is None:
        raise SettingsError(f"{folder} has other symbols, or is not aligned yet; `mynah align` it first")
    recipe = corpus.tables["mel_recipe"]
    rate = recipe["sample_rate"] / recipe["hop"]
    rows: list[tuple[list[int], list[int], float]] = []
    with CorpusWriter(Path(out), corpus.tables) as writer:
        for i, item in enumerate(corpus.items):
            score = corpus.score(i)
            if not item.tokens or score == UNALIGNED or score < min_score:
                continue
            mel = corpus.mel(i)
            for n, phrase in enumerate(phrases(corpus.tokens(i).tolist(), corpus.token_frames(i).tolist(), rate, table)):
                length = phrase.end - phrase.start
                piece = replace(
                    item,
                    id=f"{item.id}~{n}",
                    corpus=f"{item.corpus}-phrases",
                    text="",
                    seconds=length / rate,
                    frames=length,
                    samples=0,
                    tokens=tuple(phrase.tokens),
                )
                writer.add(piece, mel[:, phrase.start : phrase.end].contiguous())
                rows.append((phrase.tokens, phrase.frames, score))
        if not rows:
            raise SettingsError(f"{folder} has no clip with a pause of {PAUSE_SECONDS:g} s to cut at")
    save_alignment(Path(out), [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    return len(rows)
