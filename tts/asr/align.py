"""Where each token lies in the sound: Viterbi alignment of known tokens, and reading of unknown ones.

frames     · · ð ð ə ə · k k æ æ æ t · · ·          · blank
tokens    " "   ð   ə  k   ˈæ   t   "."
durations  2    2   3  2   3    1    3              sum = T, always
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tts.text.tokens import PHONES, SymbolTable

PAUSE_SECONDS = 0.06  # a shorter gap between words belongs to the phone before it
BREAK_SECONDS = 0.12  # in unknown speech, a longer silence is written down as a boundary
COMMA_SECONDS = 0.2  # a silence between words that is written down as a comma, since transcripts often carry none


@dataclass(frozen=True)
class Alignment:
    """frames: one integer >= 0 a token, their sum is T. score: mean log-posterior of the path, at most 0."""

    frames: list[int]
    score: float


def phones_of(tokens: Sequence[int], table: SymbolTable = PHONES) -> list[int]:
    """Recognizer indices of the tokens it knows: no stress, no boundaries, no foreign phones."""
    return [table.to_recognizer[t] for t in tokens if table.to_recognizer[t] > 0]


def viterbi(log_probs: Tensor, targets: Sequence[int]) -> tuple[list[tuple[int, int]], float] | None:
    """The best CTC path through all targets.

    Args:
        log_probs: [T, V] log-posteriors, blank at index 0. targets: indices > 0.
    Returns:
        (first frame, last frame + 1) of every target and the mean log-posterior, or None where T is too short.
    """
    from torchaudio.functional import forced_align

    repeats = sum(a == b for a, b in itertools.pairwise(targets))
    if not targets or len(log_probs) < len(targets) + repeats:
        return None
    path, scores = forced_align(log_probs[None].contiguous(), torch.tensor([list(targets)], dtype=torch.int32))
    labels = path[0].tolist()
    spans: list[tuple[int, int]] = []
    before = 0
    for t, label in enumerate(labels):
        if label and label != before:
            spans.append((t, t + 1))
        elif label:
            spans[-1] = (spans[-1][0], t + 1)
        before = label
    assert len(spans) == len(targets), (len(spans), len(targets))
    return spans, float(scores.mean())


def align(log_probs: Tensor, tokens: Sequence[int], rate: float = 50.0, table: SymbolTable = PHONES) -> Alignment | None:
    """Durations of known tokens in frames.

    A silence goes to the boundary token where it lies; inside a word, and where it is shorter than PAUSE_SECONDS and does not
    open or close the clip, to the phone before it. Phones the recognizer does not know last no frames.

    Args:
        log_probs: [T, V] at `rate` Hz, blank first. tokens: ids of `table`, boundaries included.
    Returns:
        None where no token is known to the recognizer or T is shorter than the text.
    """
    T = len(log_probs)
    known = [p for p, token in enumerate(tokens) if table.to_recognizer[token] > 0]
    found = viterbi(log_probs, [table.to_recognizer[tokens[p]] for p in known])
    if found is None:
        return None
    spans, score = found
    frames = [0] * len(tokens)
    for k, position in enumerate(known):
        start, end = spans[k]
        frames[position] += end - start
        following = spans[k + 1][0] if k + 1 < len(spans) else T
        next_known = known[k + 1] if k + 1 < len(known) else len(tokens)
        boundary = next((p for p in range(position + 1, next_known) if table.is_boundary(tokens[p])), None)
        gap = following - end
        long_enough = gap >= PAUSE_SECONDS * rate or following == T
        frames[boundary if boundary is not None and long_enough else position] += gap
    opening = spans[0][0]  # silence before the first phone
    frames[0 if table.is_boundary(tokens[0]) else known[0]] += opening
    return Alignment(frames, score)


def with_commas(tokens: list[int], frames: list[int], rate: float, table: SymbolTable = PHONES) -> list[int]:
    """The tokens, with a comma for each space inside the sentence that lasts COMMA_SECONDS or longer."""
    space, comma = table.id(" "), table.id(",")
    inner = range(1, len(tokens) - 1)
    return [
        comma if i in inner and token == space and frames[i] >= COMMA_SECONDS * rate else token
        for i, token in enumerate(tokens)
    ]


@dataclass(frozen=True)
class Reading:
    """What was heard: token ids (no stress), frames of each (sum T), how many of the tokens are phones, and confidence 0 to 1
    (mean posterior of its phones)."""

    tokens: list[int]
    frames: list[int]
    phones: int
    confidence: float


def read(log_probs: Tensor, rate: float = 50.0, table: SymbolTable = PHONES) -> Reading:
    """Greedy CTC reading of unknown speech, with a boundary at either end and at every longer silence.

    Args:
        log_probs: [T, V] at `rate` Hz, blank first, then `table.phones` in order.
    """
    spans: list[tuple[int, int, int]] = []
    before = 0
    for t, label in enumerate(log_probs.argmax(1).tolist()):
        if label and label != before:
            spans.append((label, t, t + 1))
        elif label:
            spans[-1] = (label, spans[-1][1], t + 1)
        before = label
    return written(log_probs, spans, rate, table)


def written(log_probs: Tensor, spans: Sequence[tuple[int, int, int]], rate: float, table: SymbolTable = PHONES) -> Reading:
    """What was heard as tokens with boundaries. spans: (index > 0, first frame, last frame + 1) of each phone, in order."""
    T = len(log_probs)
    space, stop = table.id(" "), table.id(".")
    tokens, frames = [space], [spans[0][1] if spans else T]
    for k, (label, start, end) in enumerate(spans):
        following = spans[k + 1][1] if k + 1 < len(spans) else T
        gap = following - end
        tokens.append(table.id(table.recognizer_symbols[label]))
        if k + 1 == len(spans) or gap >= BREAK_SECONDS * rate:
            tokens.append(space if k + 1 < len(spans) else stop)
            frames += [end - start, gap]
        else:
            frames.append(following - start)
    path = torch.cat([log_probs[start:end, label] for label, start, end in spans]) if spans else log_probs.new_zeros(0)
    confidence = float(path.exp().mean()) if spans else 0.0
    return Reading(tokens, frames, len(spans), confidence)
