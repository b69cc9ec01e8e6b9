"""What is said, in which order and how long: a text to lines and pauses, their plans, and their sounds joined again.

"One. Two, [pause:0.5] three."   ─►   Line(One.)  Line(Two,)  Pause(0.5)  Line(three.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tts.audio import PEAK
from tts.duration.rules import lasting, paced
from tts.errors import SettingsError, TextError
from tts.frames import Plan, Prompt, Tokens
from tts.interfaces import Duration, FrontEnd
from tts.text.chunk import LONGEST, chunk
from tts.text.clean import unreadable
from tts.text.markup import Pause, segments

GAP_SECONDS = 0.15  # of silence between two sentences, beside what each ends with
FADE_SECONDS = 0.005  # at both ends of each line, so that nothing clicks
PACE = (0.2, 5.0)  # how many times as fast as planned a text may be spoken


@dataclass(frozen=True)
class Line:
    """Tokens that are spoken in one go: a sentence, or what a pause cuts off from it."""

    text: str
    ids: tuple[int, ...]


Script = list[Line | Pause]


def write_script(text: str, language: str, front_end: FrontEnd, speed: float = 1.0) -> tuple[Script, list[str]]:
    """A text as lines and pauses, and warnings of what is left out: sentences without a sound, letters of other scripts.

    speed: what is said slower than by half is cut into shorter lines, so that none takes longer than a backend can look back.
    Raises TextError when that is so of every sentence, or a mark in the text is wrong; LanguageError.
    """
    if not isinstance(text, str):
        raise TextError(f"a text is a string, got {type(text).__name__}")
    parts = segments(text)  # a wrong mark is an error wherever it stands, not a sentence that is left out
    script: Script = []
    refused: list[TextError] = []
    for sentence in chunk(text, round(LONGEST * min(1.0, 2 * speed))):
        try:
            tokens = front_end.encode(sentence, language)
        except TextError as error:
            refused.append(error)
            continue
        for is_pause, run in itertools.groupby(tokens, lambda token: isinstance(token, Pause)):
            part = list(run)
            script += part if is_pause else [Line(sentence, tuple(part))]
    if not any(isinstance(part, Line) for part in script):
        raise refused[0] if refused else TextError(f"there is nothing to say in {text[:60]!r}; give words or numbers")
    warnings = [f"A sentence was left out: {error}." for error in refused]
    if language.startswith("en") and (foreign := unreadable("".join(part for part in parts if isinstance(part, str)))):
        warnings.append(f"Letters that cannot be said in English were left out: {foreign[:40]}.")
    return script, warnings


def plan_script(
    script: Script, voice: Prompt, duration: Duration, rate: float, speed: float = 1.0, seconds: float | None = None
) -> list[Plan]:
    """How long each line takes, at `speed`, or so that the whole with its pauses takes `seconds` to the frame (at `rate` Hz).

    Every line gets its share of the seconds in proportion to its plan.

    Raises:
        SettingsError: a speed, or seconds that amount to one, outside PACE.
    """
    lines = [part for part in script if isinstance(part, Line)]
    plans = [duration.plan(Tokens.of([line.ids], duration.table), voice) for line in lines]
    if seconds is None:
        check_speed(speed)
        return [paced(plan, speed) for plan in plans]
    silence = sum(part.seconds for part in script if isinstance(part, Pause)) + GAP_SECONDS * sum(gaps(script))
    planned = sum(float(plan.seconds) for plan in plans)
    slowest, fastest = PACE
    least, most = planned / fastest + silence, planned / slowest + silence
    least, most = math.ceil(100 * least) / 100, math.floor(100 * most) / 100  # so that what the message offers is accepted
    if not least <= seconds <= most:
        raise SettingsError(f"this text takes {least:.2f} to {most:.2f} seconds in this voice, got {seconds:g} seconds")
    # shares are rounded where they end, so that errors do not add up
    shares = torch.cat([plan.seconds for plan in plans]).cumsum(0) * ((seconds - silence) / planned)
    ends = (shares * rate).round() / rate
    return [lasting(plan, own) for plan, own in zip(plans, torch.diff(ends, prepend=ends.new_zeros(1)).split(1), strict=True)]


def check_speed(speed: Any) -> None:
    """Raise SettingsError for a speed that is none, or outside PACE."""
    slowest, fastest = PACE
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not slowest <= speed <= fastest:
        raise SettingsError(f"speed must be a number from {slowest:g} to {fastest:g} (1 is the voice's own), got {speed!r}")


def gaps(script: Script) -> list[bool]:
    """For each part of a script, whether a gap stands before it: between two sentences without a pause."""
    return [isinstance(a, Line) and isinstance(b, Line) for a, b in zip([None, *script], script, strict=False)]


def join(script: Script, sounds: Sequence[Tensor], sample_rate: int, soften: bool = True) -> Tensor:
    """The sounds [N] of the lines, in order, with pauses of exactly their samples and gaps between: [N], |x| <= PEAK.

    What is too loud is made softer as a whole, so that nothing is clipped; or not, as in a stream, which knows no future.
    """
    samples = torch.cat(list(lay(script, ([sound] for sound in sounds), sample_rate)))
    if not soften:
        return samples.clamp(-PEAK, PEAK)
    loudest = float(samples.abs().max()) if len(samples) else 0.0
    return samples * min(1.0, PEAK / max(loudest, 1e-9))


def lay(script: Script, lines: Iterable[Iterable[Tensor]], sample_rate: int) -> Iterator[Tensor]:
    """Sounds [N] in order, silence among them, as soon as they are there; each line comes in as many pieces as it likes."""
    following = iter(lines)
    for part, gap in zip(script, gaps(script), strict=True):
        if gap:
            yield torch.zeros(round(GAP_SECONDS * sample_rate))
        if isinstance(part, Pause):
            yield torch.zeros(round(part.seconds * sample_rate))
        else:
            yield from faded_pieces(next(following), round(FADE_SECONDS * sample_rate))


def faded_pieces(pieces: Iterable[Tensor], n: int) -> Iterator[Tensor]:
    """`faded` of all pieces joined, piece by piece; the last n samples wait until it is known whether they are the last."""
    held = torch.zeros(0)
    begun = False
    for piece in pieces:
        held = torch.cat((held, piece))
        if len(held) - n >= (1 if begun else max(1, n)):
            ready, held = held[: len(held) - n], held[len(held) - n :]
            if not begun:
                ready = ready.clone()
                ready[:n] *= torch.linspace(0, 1, n + 2)[1:-1]
            begun = True
            yield ready
    if not begun:
        yield faded(held, n)
    elif n:
        yield held * torch.linspace(0, 1, n + 2)[1:-1].flip(0)


def faded(samples: Tensor, n: int) -> Tensor:
    """Samples [N] that rise from silence over the first n, and fall back over the last."""
    n = min(n, len(samples) // 2)
    rise = torch.linspace(0, 1, n + 2)[1:-1]
    samples = samples.clone()
    samples[:n] *= rise
    samples[len(samples) - n :] *= rise.flip(0)
    return samples
