"""Runs of phones that were left out or said twice: what listeners notice first, told apart from single phones misheard.

asked   ð ə  k æ t s  s æ t  ɑː n  ð ə  m æ t        missing: "k æ t s", a run of 4
heard   ð ə  s æ t  ɑː n  ð ə  m æ t  ð ə  m æ p     repeated: "ð ə m æ p", a run of 5, one phone otherwise
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tts.asr.align import phones_of, read, viterbi
from tts.asr.check import HEARD, edits
from tts.text.tokens import PHONES, SymbolTable

RUN = 4  # phones; a shorter run may be the recognizer's own mistake


def runs(log_probs: Tensor, asked: Sequence[int], table: SymbolTable = PHONES) -> tuple[int, int]:
    """(longest missing run, longest repeated run), in phones.

    Missing are neighbours in what was asked that the edit path leaves out, and that are hardly there along the forced path
    either. Repeated is a run that was added beside one like it, of which a phone in four may differ.

    Args:
        log_probs: [T, V] log-posteriors of the sound, blank first. asked: recognizer indices, as `phones_of` gives them.
    """
    heard = phones_of(read(log_probs, table=table).tokens, table)
    path = edits(asked, heard)
    found = viterbi(log_probs, asked)
    # 1. missing
    spans = found[0] if found is not None else []  # without a path nothing is there
    there = {i for i, (start, end) in enumerate(spans) if float(log_probs[start:end, asked[i]].exp().max()) >= HEARD}
    left_out = [step.asked for step in path if step.asked is not None and step.heard is None]
    places = [place for stretch in _stretches(left_out) for place in _alike(asked, stretch[0], stretch[-1] + 1)]
    gaps = [gap for place in places for gap in _stretches([i for i in place if i not in there])]
    missing = max(map(len, gaps), default=0)
    # 2. repeated
    added = [step.heard for step in path if step.asked is None and step.heard is not None]
    repeated = max((_repeated(heard, stretch[0], stretch[-1] + 1) for stretch in _stretches(added)), default=0)
    return missing, repeated


def free_of_runs(missing: int, repeated: int, asked: int) -> bool:
    """Whether neither run is as long as RUN, or as a text that has only `asked` phones; a single phone is no run."""
    limit = max(2, min(RUN, asked))
    return missing < limit and repeated < limit


def _stretches(positions: Sequence[int]) -> list[list[int]]:
    """Rising whole numbers, cut where one is left out: [1, 2, 5] gives [[1, 2], [5]]."""
    cut: list[list[int]] = []
    for position in positions:
        if cut and position == cut[-1][-1] + 1:
            cut[-1].append(position)
        else:
            cut.append([position])
    return cut


def _alike(asked: Sequence[int], start: int, end: int) -> list[range]:
    """Every place where as many phones may be left out with the same outcome: of "very very very" it may be any "very"."""
    first, last = start, end
    while first > 0 and asked[first - 1] == asked[first - 1 + end - start]:
        first -= 1
    while last < len(asked) and asked[last] == asked[last - (end - start)]:
        last += 1
    return [range(at, at + end - start) for at in range(first, last - (end - start) + 1)]


def _repeated(heard: Sequence[int], start: int, end: int) -> int:
    """The length of the longest part of heard[start:end] that stands directly beside one like it."""
    for length in range(end - start, 0, -1):
        for first in range(start, end - length + 1):
            part = range(first, first + length)
            # An edit path may begin anywhere in "k æ t k æ t": each phone may have its twin on either side.
            strange = sum(not any(0 <= t < len(heard) and heard[t] == heard[j] for t in (j - length, j + length)) for j in part)
            if strange <= length // RUN:
                return length
    return 0
