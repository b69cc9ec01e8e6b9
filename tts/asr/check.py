"""Was everything said? The phones of a request against the phones heard in the sound.

    asked   ð ə  k æ t  s æ t            missed: asked, and not heard where it should be
    heard   ð ə  k æ    s æ s æ t        repeated: a run of two phones or more that is heard again

The recognizer is small and mishears people too, so the check looks for what failing synthesis does (words left out, words
said twice), and the phone error rate only ranks one try against another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tts.asr.align import phones_of, read, viterbi
from tts.text.tokens import PHONES, SymbolTable

HEARD = 0.05  # a phone is said where its posterior reaches this anywhere in its aligned time
TOLERATED = 0.10  # share of phones that may be missed before a sentence is tried again


@dataclass(frozen=True)
class Check:
    """What was said of what was asked. Phones are symbols of the recognizer, in order of the text."""

    asked: tuple[str, ...]
    missed: tuple[str, ...]
    repeated: tuple[str, ...]
    error_rate: float  # (substituted + left out + added) / asked, stress and punctuation stripped
    likelihood: float  # mean log-posterior of the asked phones along their alignment; -inf where they do not fit

    @property
    def passed(self) -> bool:
        """Whether the sentence may go out: few phones missed, none repeated."""
        return len(self.missed) <= TOLERATED * len(self.asked) and not self.repeated


@dataclass(frozen=True)
class Edit:
    """One step of an edit path: asked[i] against heard[j]; None on one side where it was left out or added."""

    asked: int | None
    heard: int | None
    same: bool


def edits(asked: Sequence[int], heard: Sequence[int]) -> list[Edit]:
    """A shortest edit path (Levenshtein), in order."""
    rows, columns = len(asked) + 1, len(heard) + 1
    cost = [[i + j if i * j == 0 else 0 for j in range(columns)] for i in range(rows)]
    for i in range(1, rows):
        for j in range(1, columns):
            swap = cost[i - 1][j - 1] + (asked[i - 1] != heard[j - 1])
            cost[i][j] = min(swap, cost[i - 1][j] + 1, cost[i][j - 1] + 1)
    path: list[Edit] = []
    i, j = rows - 1, columns - 1
    while i or j:
        same = i > 0 and j > 0 and asked[i - 1] == heard[j - 1]
        if i and j and cost[i][j] == cost[i - 1][j - 1] + (not same):
            i, j = i - 1, j - 1
            path.append(Edit(i, j, same))
        elif i and cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            path.append(Edit(i, None, False))
        else:
            j -= 1
            path.append(Edit(None, j, False))
    return path[::-1]


def check(log_probs: Tensor, tokens: Sequence[int], table: SymbolTable = PHONES) -> Check:
    """Compare what was asked with what is heard.

    Args:
        log_probs: [T, V] log-posteriors of the synthesised sentence, blank first.
        tokens: ids of `table` that were asked for; boundaries and foreign phones are passed over.
    """
    asked = phones_of(tokens, table)
    heard = phones_of(read(log_probs, table=table).tokens, table)
    path = edits(asked, heard)
    names = table.recognizer_symbols
    found = viterbi(log_probs, asked)
    # 1. missed: not heard by free reading, and barely there along the forced path either
    left_out = [step.asked for step in path if step.asked is not None and step.heard is None]
    if found is None:
        missed, likelihood = [names[asked[i]] for i in left_out], float("-inf")
    else:
        spans, likelihood = found
        missed = []
        for i in left_out:
            start, end = spans[i]
            if float(log_probs[start:end, asked[i]].exp().max()) < HEARD:
                missed.append(names[asked[i]])
    # 2. repeated: a run of added phones that has just been heard
    repeated: list[str] = []
    run: list[int] = []
    for step in [*path, Edit(0, 0, True)]:
        if step.asked is None and step.heard is not None:
            run.append(step.heard)
            continue
        if len(run) >= 2:
            again = [heard[j] for j in run]
            before = heard[max(0, run[0] - len(run)) : run[0]]
            after = heard[run[-1] + 1 : run[-1] + 1 + len(run)]
            if again in (before, after):
                repeated += [names[p] for p in again]
        run = []
    errors = sum(not step.same for step in path)
    return Check(tuple(names[p] for p in asked), tuple(missed), tuple(repeated), errors / max(1, len(asked)), likelihood)
