"""Texts of any length, passage by passage: each is spoken, heard, brought to one loudness and handed out before the next.

text ─► pieces ─► say ─► vocoder ─► level ─► fade ─► Passage(samples, words and their times)  + silence
          ▲ one at a time; nothing of it is kept

A passage's seed is made of the request's and its number, so it sounds the same wherever a narration was begun or stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tts.asr.align import align
from tts.asr.words import Said, Word, shared_times, shown, word_times
from tts.audio import LOUDNESS, PEAK, loudness
from tts.clock import Clock
from tts.errors import SettingsError, TextError
from tts.frames import Frames, Plan, Prompt, Request, Tokens, Utterance
from tts.prompts import moved
from tts.request import Manner, understand
from tts.result import Sentence
from tts.sampling.philox import derive
from tts.script import FADE_SECONDS, GAP_SECONDS, Line, faded, gaps, plan_script, write_script
from tts.streaming import sound_of
from tts.text.markup import Pause, segments
from tts.text.paragraphs import Piece, split
from tts.text.tokens import PHONES
from tts.tries import say

if TYPE_CHECKING:
    from tts.pipeline import Synthesizer

CORRECTED = 6.0  # dB that a line is made softer or louder at most


@dataclass(frozen=True)
class Passage:
    """A sentence of a narration, or a part of a long one, and the silence after it.

    samples: float32 [N] in [-1, 1], which begin at sample `begins` of the whole. start, end: of what is said in them, in
    seconds of the whole; so are those of its words. sentences: what became of each line (several where a pause cuts), with
    its report. aligned: the recognizer found the times; else they are those planned. letters: of the text up to its end.
    """

    number: int
    text: str
    samples: np.ndarray
    begins: int
    start: float
    end: float
    words: tuple[Word, ...]
    sentences: tuple[Sentence, ...]
    aligned: bool
    warnings: tuple[str, ...]
    letters: int
    spent_seconds: float


class Narration(Iterator[Passage]):
    """The passages of a text, in order; joined, their samples are the whole. Each is made when it is asked for.

    passages: how many there are. letters: of the whole text. identity: a digest of all that decides the samples. provenance:
    what a file says about where it comes from. warnings: of the request; those of passages are theirs.
    """

    def __init__(self, synthesizer: Synthesizer, request: Request) -> None:
        """As `narrate`."""
        if request.seconds is not None:
            raise SettingsError(f"a narration takes as long as it takes; give a speed instead of {request.seconds!r} seconds")
        if not isinstance(request.text, str):
            raise TextError(f"a text is a string, got {type(request.text).__name__}")
        self._parts, self._speed = synthesizer.parts, float(request.speed)
        system = synthesizer.system
        manner, warnings = understand(request, synthesizer.parts, system, synthesizer.retries, synthesizer.rerank)
        segments(request.text)  # a wrong mark is an error wherever it stands
        self._pieces = split(request.text)
        self._check_speaks(manner)
        with torch.inference_mode():
            encoded = synthesizer.encode_prompt(request.prompt, request.prompt_text, manner.language)
            spoken = {name: moved(frames, self._parts.device) for name, frames in encoded.prompt.frames.items()}
        self._manner = replace(manner, voice=replace(encoded.prompt, frames=spoken))
        self._hears = manner.language in system.extra.get("recognizer_languages", system.languages)
        self.sample_rate = system.sample_rate
        self.passages, self.letters = len(self._pieces), sum(len(piece.text) for piece in self._pieces)
        self.warnings = (*encoded.warnings, *warnings)
        settings = {f.name: getattr(manner.settings, f.name) for f in fields(manner.settings)}
        self.provenance: dict[str, Any] = {
            "generator": "mynah-tts",
            "model": asdict(synthesizer.model),
            "backend": request.backend,
            "settings": settings,
            "language": manner.language,
            "seed": request.seed,
            "speed": request.speed,
        }
        tries = (manner.listens, manner.retries, manner.rerank)
        self.identity = _digest(self.provenance, [asdict(piece) for piece in self._pieces], tries, self._manner.voice)
        self._at, self._letters, self._begins = 0, 0, 0

    def begin(self, passage: int, sample: int) -> None:
        """Go on with a passage that begins at that sample of the whole, as if those before it had been spoken."""
        self._at, self._begins = passage, sample
        self._letters = sum(len(piece.text) for piece in self._pieces[:passage])

    @torch.inference_mode()
    def __next__(self) -> Passage:
        if self._at >= self.passages:
            raise StopIteration
        piece, number, begins = self._pieces[self._at], self._at, self._begins
        clock = Clock()
        found = self._speak(piece, number, clock)
        gap = round(piece.gap / self._speed * self.sample_rate) if found.sentences else 0
        samples = torch.cat((found.samples, torch.zeros(gap)))
        self._at, self._begins, self._letters = number + 1, begins + len(samples), self._letters + len(piece.text)
        offset = begins / self.sample_rate
        words = tuple(Word(word.text, offset + word.start, offset + word.end) for word in found.words)
        start, end = (words[0].start, words[-1].end) if words else (offset, offset)
        _trim()(0)
        told = (tuple(found.sentences), found.aligned, tuple(found.warnings), self._letters, clock.total())
        return Passage(number, shown(piece.text), samples.numpy(), begins, start, end, words, *told)

    def _check_speaks(self, manner: Manner) -> None:
        """Raise the error of the first piece where no piece can be spoken."""
        refused: TextError | None = None
        for piece in self._pieces:
            try:
                self._parts.front_end.encode(piece.text, manner.language)
                return
            except TextError as error:
                refused = refused or error
        assert refused is not None
        raise refused

    def _speak(self, piece: Piece, number: int, clock: Clock) -> _Spoken:
        """A piece, without the silence after it; times count from its beginning."""
        manner, parts, rate = self._manner, self._parts, self.sample_rate
        assert manner.voice is not None
        try:
            script, warnings = write_script(piece.text, manner.language, parts.front_end, self._speed)
        except TextError as error:
            return _Spoken(torch.zeros(0), [], [], False, [f"A sentence was left out: {error}."])
        plans = iter(plan_script(script, manner.voice, parts.duration, float(manner.backend.emits.rate), self._speed))
        manner = replace(manner, seed=manner.seed if number == 0 else derive(manner.seed, number))
        sentences: list[Sentence] = []
        sounds: list[Tensor] = []
        said: list[Said] = []
        aligned, length = True, 0
        for part, gap in zip(script, gaps(script), strict=True):
            if gap:
                sounds.append(torch.zeros(round(GAP_SECONDS * rate)))
                length += len(sounds[-1])
            if isinstance(part, Pause):
                sounds.append(torch.zeros(round(part.seconds * rate)))
            else:
                plan = next(plans)
                tokens = Tokens.of([part.ids], parts.front_end.table)
                utterance = Utterance(tokens, torch.tensor([manner.seed]), manner.voice, plan)
                told, frames = say(parts, manner, len(sentences), part, utterance, clock)
                sounds.append(faded(steady(sound_of(parts, manner.backend, frames), rate), round(FADE_SECONDS * rate)))
                seconds = len(sounds[-1]) / rate
                lasting = self._heard(part, frames) if self._hears else None
                aligned = aligned and lasting is not None
                said += _times(part.ids, lasting if lasting is not None else _planned(plan), length / rate, seconds)
                sentences.append(replace(told, seconds=seconds))
                warnings += [told.complaint] if told.complaint else []
            length += len(sounds[-1])
        if parts.front_end.table == PHONES.identity:
            words = word_times(piece.text, said, lambda word: parts.front_end.encode(word, manner.language))
        else:  # letters or bytes, which no recognizer aligns
            words, aligned = shared_times(piece.text, said[0].start, said[-1].end), False
        return _Spoken(torch.cat(sounds), sentences, words, aligned, warnings)

    def _heard(self, line: Line, frames: Frames) -> list[float] | None:
        """How long each token of a line lasts by the recognizer's alignment, in any unit; None where it finds none."""
        heard = self._parts.restored(frames)
        log_probs = self._parts.recognizer.posteriors(heard).data[0, :, : int(heard.lengths[0])].T.float().cpu()  # [T, V]
        found = align(log_probs, line.ids, float(heard.spec.rate)) if self._parts.front_end.table == PHONES.identity else None
        return [float(n) for n in found.frames] if found is not None else None


@dataclass(frozen=True)
class _Spoken:
    """What became of a piece."""

    samples: Tensor
    sentences: list[Sentence]
    words: list[Word]
    aligned: bool
    warnings: list[str]


def narrate(synthesizer: Synthesizer, request: Request) -> Narration:
    """Speak a text of any length: an iterator of its passages. Memory does not grow with the text.

    Args:
        request: as for `Synthesizer.speak`, but without seconds.
    Raises (at once, not at the first passage):
        InputError: something in the request cannot be used; the message says what, and what can.
    """
    return Narration(synthesizer, request)


def steady(samples: Tensor, rate: int) -> Tensor:
    """A line [N] at LOUDNESS, so that none stands out; changed by CORRECTED dB at most, and never beyond PEAK."""
    peak = float(samples.abs().max()) if samples.numel() else 0.0
    if peak == 0.0:
        return samples
    gain = max(-CORRECTED, min(CORRECTED, LOUDNESS - loudness(samples, rate)))
    return samples * min(10.0 ** (gain / 20.0), PEAK / peak)


@cache
def _trim() -> Callable[[int], int]:
    """glibc's malloc_trim, where it is there. Lines of all lengths tear the heap, of which ever more is kept (measured: base-en
    grows by 36 MB in twelve lines, and by 11 with it)."""
    import ctypes

    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another allocator, another system
        return lambda pad: 0
    return trim


def _planned(plan: Plan) -> list[float] | None:
    return plan.token_seconds[0].tolist() if plan.token_seconds is not None else None


def _times(ids: Sequence[int], lasting: Sequence[float] | None, start: float, seconds: float) -> list[Said]:
    """Tokens in order within `seconds` from `start`, each with its share of them; alike where none is known."""
    shares = list(lasting) if lasting is not None and sum(lasting) > 0 else [1.0] * len(ids)
    ends = [start + seconds * done / sum(shares) for done in accumulate(shares, initial=0.0)]
    return [Said(token, a, b) for token, (a, b) in zip(ids, pairwise(ends), strict=True)]


def _digest(*parts: Any) -> str:
    """Of values that JSON knows, and of a voice."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Prompt):
            tensors = [part.tokens.ids, part.seconds, part.token_frames, part.speaker]
            for tensor in (*tensors, *(part.frames[name].data for name in sorted(part.frames))):
                digest.update(tensor.cpu().contiguous().numpy().tobytes() if tensor is not None else b"-")
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()
