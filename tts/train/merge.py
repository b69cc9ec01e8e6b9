"""One corpus of several, each corpus of speech with the weight that a training shall give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from tts.errors import SettingsError, nearest
from tts.train.data import UNALIGNED, Corpus, CorpusWriter, save_alignment


def merge(folders: Sequence[str | PathLike[str]], out: str | PathLike[str], weights: Mapping[str, float]) -> int:
    """Write the items of prepared corpora, mels and tokens without audio, to the folder `out`; returns their number.

    An item that an earlier folder already holds (by its id) is left out. Alignments come along, where there are any; items of
    a folder without one are still to be aligned.

    Args:
        weights: expected repeats in an epoch by the name of a corpus ("kathleen"), or of a corpus and "*" for the copies
            of its clips at another speed ("kathleen*"); the others keep the weights that they have.
    Raises:
        SettingsError: the folders have other symbols or mels than the first, or a weight names no corpus.
    """
    corpora = [Corpus(Path(folder), audio=False) for folder in folders]
    names = {item.corpus for corpus in corpora for item in corpus.items}
    for name in weights:
        if name.removesuffix("*") not in names:
            raise SettingsError(f"no item is of the corpus {name!r}{nearest(name, sorted(names))}; there are {sorted(names)}")
    seen: set[str] = set()
    rows: list[tuple[list[int], list[int], float]] = []  # tokens, frames and score of each item
    with CorpusWriter(Path(out), corpora[0].tables) as writer:
        for corpus in corpora:
            if corpus.tables != corpora[0].tables:
                raise SettingsError(
                    f"{corpus.folder} has other symbols or another mel than {corpora[0].folder}; prepare it again"
                )
            for i, item in enumerate(corpus.items):
                if item.id in seen:
                    continue
                seen.add(item.id)
                name = item.corpus + "*" if "@" in item.speaker else item.corpus
                writer.add(replace(item, samples=0, weight=weights.get(name, item.weight)), corpus.mel(i))
                here = corpus.alignment is not None
                tokens, frames = (corpus.tokens(i).tolist(), corpus.token_frames(i).tolist()) if here else ([], [])
                rows.append((tokens, frames, corpus.score(i) if here else UNALIGNED))
    if any(corpus.alignment is not None for corpus in corpora):
        save_alignment(Path(out), [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    return len(seen)
