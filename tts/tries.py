"""One line said until it passes: tries of a backend with other seeds, each heard by the recognizer, the best of them kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tts.asr.check import Check, check
from tts.clock import Clock
from tts.frames import Frames, Utterance
from tts.parts import Parts
from tts.request import Manner
from tts.result import Sentence
from tts.sampling.philox import derive
from tts.script import Line


@dataclass(frozen=True)
class Try:
    """One try of a line, and what the recognizer thought of it; None: it was not asked."""

    seed: int
    frames: Frames
    check: Check | None

    def faults(self) -> tuple[bool, int, int, float]:
        """The lowest is the best."""
        if self.check is None:
            return False, 0, 0, 0.0
        return not self.check.passed, len(self.check.missed), len(self.check.repeated), self.check.error_rate


def say(
    parts: Parts,
    manner: Manner,
    number: int,
    line: Line,
    utterance: Utterance,
    clock: Clock,
    within: tuple[int, int] | None = None,
) -> tuple[Sentence, Frames]:
    """What the backend made in the best try of line `number`, by default the first that passes the check.

    The sentence's `seconds` are yet to be known.

    Args:
        line: what the recognizer shall hear. utterance: what the backend says, one row; its seed is that of the try.
        within: where in the frames the line is said, (first, last + 1); None: they are the line.
    """
    tried: list[Try] = []
    for attempt in range(1 + manner.retries if manner.listens else 1):
        seed = seed_of(manner.seed, number, attempt)
        with clock("backend"):
            made = manner.backend.generate(replace(utterance, seeds=torch.tensor([seed])), manner.settings)
        with clock("check"):
            found = listen(parts, parts.restored(made), line.ids, within) if manner.listens else None
        tried.append(Try(seed, made, found))
        if found is None or (found.passed and not manner.rerank):
            break
    best = min(tried, key=Try.faults)
    assert utterance.plan is not None
    rate = manner.backend.emits.rate
    told = Sentence(line.text, best.seed, len(tried), int(utterance.plan.frames(rate)) / float(rate), 0.0)
    return judged(told, best.check), best.frames


def judged(told: Sentence, found: Check | None) -> Sentence:
    """The sentence with the recognizer's verdict; None: it was not asked."""
    if found is None:
        return told
    return replace(told, passed=found.passed, missed=found.missed, repeated=found.repeated, error_rate=found.error_rate)


def listen(parts: Parts, frames: Frames, ids: Sequence[int], within: tuple[int, int] | None = None) -> Check:
    """The recognizer's opinion of frames, which it reads as they are: what the vocoder gets, though of a stream in pieces."""
    start, end = within if within is not None else (0, int(frames.lengths[0]))
    T = int(frames.lengths[0])
    log_probs = parts.recognizer.posteriors(frames).data[0, :, :T].T.float().cpu()  # [T, V]
    return check(log_probs[start:end], ids)


def seed_of(seed: int, number: int, attempt: int) -> int:
    """Of one try of one line; the first of the first line has the request's own."""
    return seed if number == attempt == 0 else derive(seed, number, attempt)
