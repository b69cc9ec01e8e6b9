"""Editing a recording: what a new text changes is said anew, in the recording's own voice; all other samples stay as they are.

words     the   cat   sat on the mat        ─►   the   black dog   sat on the mat
frames    ▓▓▓▓▓·░░░░░·▓▓▓▓▓▓▓▓▓▓▓▓▓▓        ─►   ▓▓▓▓▓·░░░░░░░░░░░·▓▓▓▓▓▓▓▓▓▓▓▓▓▓
sound     ─────╲                                      ╳ made    made ╳───────────────

░ new words, · a margin of their neighbours that is made with them, ▓ kept: the backend hears it and goes on from it to it
(in-filling, as Voicebox and SimpleSpeech 2 edit). A vocoder's copy of kept frames is only heard within the two cross-fades ╳.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from math import ceil
from typing import Any

import torch
from torch import Tensor

from tts.asr.align import align, with_commas
from tts.audio import PEAK, level, resample
from tts.clock import Clock
from tts.errors import FitError, TextError
from tts.frames import Frames, Plan, Prompt, Tokens, Utterance, Wave
from tts.interfaces import FrameCodec
from tts.parts import Parts
from tts.prompts import MISFIT, cut, moved
from tts.recording import load
from tts.request import Manner
from tts.result import Edit, Sentence
from tts.script import Line
from tts.text.chunk import chunk
from tts.text.tokens import PHONES, SymbolTable
from tts.tries import say

MARGIN_SECONDS = 0.04  # of the kept words beside a change that are made anew with it, since alignments are not exact
FADE_SECONDS = 0.02  # beyond the margin, on either side
WINDOW_SECONDS = 14.0  # the most that a backend makes and hears in one go
LONGEST_SECONDS = 8.0  # of new words in one place
NEAR_SECONDS = 6.0  # on either side of a change, whose pace the new words take on

Range = tuple[int, int]  # first, last + 1


@dataclass(frozen=True)
class Change:
    """Tokens `old` of the text before are to become tokens `new` of the text after; either may be empty."""

    old: Range
    new: Range


@dataclass(frozen=True)
class Heard:
    """A recording as the parts hear it: its mel [1, bands, T] at the level of prompts, its tokens, and the frames of each."""

    mel: Frames
    tokens: list[int]
    frames: list[int]

    def at(self, token: int) -> int:
        """The frame where a token begins."""
        return sum(self.frames[:token])


@dataclass(frozen=True)
class Hole:
    """Frames `old` of a recording become `length` new ones, which are made within the frames `window` of it."""

    old: Range
    length: int
    window: Range
    line: Line  # what is new
    utterance: Utterance  # the window as it shall be; what is new lies in its frames at `inside`

    @property
    def inside(self) -> Range:
        start = self.old[0] - self.window[0]
        return start, start + self.length


@dataclass(frozen=True)
class Edited:
    """samples [N] at the recording's own rate (Hz), which of them are new, and what became of each change."""

    samples: Tensor
    rate: int
    edits: tuple[Edit, ...]
    sentences: list[Sentence]
    warnings: list[str]


def edit(
    parts: Parts,
    recording: Any,
    text_before: Any,
    text_after: Any,
    manner: Manner,
    clock: Clock,
    progress: Callable[[int, int], None] = lambda done, todo: None,
) -> Edited:
    """Edit a recording; words and errors are those of `Synthesizer.edit`. manner.voice is not looked at."""
    # 1. hear the recording, in the words of its text
    with clock("text"):
        before = _tokens(parts, "the text before", text_before, manner.language)
        after = _tokens(parts, "the text after", text_after, manner.language)
    with clock("prompt"):
        samples, rate, warnings = load(recording)
        own_rate = parts.vocoder.sample_rate
        plain = resample(samples, rate, own_rate)
        levelled = level(plain, own_rate)
        gain = float(levelled.abs().max() / plain.abs().max())
        heard = hear(parts, Wave.of(levelled, own_rate), before)
    # 2. where it changes, and by how much
    with clock("plan"):
        holes = [_hole(parts, heard, after, change, manner) for change in _apart(find_changes(before, after), heard)]
    if not holes:
        warnings.append("The two texts are said alike, so the recording stays as it is.")
    # 3. say what is new, and put it in its place
    patches: list[tuple[Hole, Tensor]] = []
    sentences: list[Sentence] = []
    for number, hole in enumerate(holes):
        progress(number, len(holes))
        told, made = say(parts, manner, number, hole.line, hole.utterance, clock, hole.inside)
        with clock("vocoder"):
            wave = parts.vocoder.decode(_kept(parts.restored(made), hole, heard.mel))
            patches.append((hole, resample(wave.samples[0].float().cpu() / gain, own_rate, rate)))
        seconds = hole.length / float(heard.mel.spec.rate)
        sentences.append(replace(told, planned_seconds=seconds, seconds=seconds))
    joined, edits = splice(samples, patches, rate / float(heard.mel.spec.rate), round(FADE_SECONDS * rate))
    return Edited(joined, rate, edits, sentences, warnings)


def hear(parts: Parts, wave: Wave, tokens: list[int]) -> Heard:
    """Align what is said in a recording. Raises TextError: something else is said in it."""
    mel = moved(parts.encoder.encode(wave), parts.device)
    log_probs = parts.recognizer.posteriors(mel).data[0].T.float().cpu()  # [T, V]
    rate = float(mel.spec.rate)
    found = align(log_probs, tokens, rate)
    if found is None or float(log_probs.max(1).values.mean()) - found.score > MISFIT:
        raise TextError(
            "the text before does not seem to be what is said in the recording; give all of its words, and no others"
        )
    return Heard(mel, with_commas(tokens, found.frames, rate), found.frames)


def find_changes(before: Sequence[int], after: Sequence[int], table: SymbolTable = PHONES) -> list[Change]:
    """Which words, in order, are others. A mark that changes takes the word before it along, which is said otherwise with it.

    Args:
        before, after: tokens with one boundary before, between and after all words.
    Raises:
        TextError: no word stays.
    """
    (old_marks, old_words), (new_marks, new_words) = (_words(tokens, table) for tokens in (before, after))
    pairs: list[tuple[Range, Range]] = []  # of words
    matcher = SequenceMatcher(None, old_words, new_words, autojunk=False)
    if not matcher.find_longest_match().size:
        raise TextError("no word of the text before stays in the text after; synthesize it, with the recording as the prompt")
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind != "equal":
            pairs.append(((i1, i2), (j1, j2)))
            continue
        for i, j in zip(range(i1, i2), range(j1, j2), strict=True):
            inner = i + 1 < i2 or (i2, j2) == (len(old_words), len(new_words))
            if inner and before[old_marks[i + 1]] != after[new_marks[j + 1]]:
                pairs.append(((i, i + 1), (j, j + 1)))
    found = []
    for (i1, i2), (j1, j2) in pairs:
        # from the mark before the words to the mark after them, without the marks that stay
        old, new = [old_marks[i1], old_marks[i2] + 1], [new_marks[j1], new_marks[j2] + 1]
        if before[old[0]] == after[new[0]]:
            old[0], new[0] = old[0] + 1, new[0] + 1
        if old[0] < old[1] and new[0] < new[1] and before[old[1] - 1] == after[new[1] - 1]:
            old[1], new[1] = old[1] - 1, new[1] - 1
        found.append(Change((old[0], old[1]), (new[0], new[1])))
    return found


def splice(samples: Tensor, patches: Sequence[tuple[Hole, Tensor]], hop: float, fade: int) -> tuple[Tensor, tuple[Edit, ...]]:
    """Samples [N] with the holes in them filled.

    Args:
        patches: each hole, in order, with the sound of its whole window. hop: samples a frame. fade: samples of a cross-fade.
    Returns:
        The samples, and what was replaced by what; outside, every sample is one of the recording's.
    """
    N, done, length = len(samples), 0, 0
    pieces: list[Tensor] = []
    edits: list[Edit] = []
    angle = torch.linspace(0, torch.pi / 2, fade + 2)[1:-1]
    rise, fall = angle.sin(), angle.cos()  # of equal power, since the two sounds differ in phase
    for hole, wave in patches:
        opens, closes = hole.old[0] == 0, round(hole.old[1] * hop) >= N  # at the ends of the recording nothing is kept
        start = 0 if opens else round(hole.old[0] * hop) - fade
        end = N if closes else round(hole.old[1] * hop) + fade
        first, last = (round(frame * hop) for frame in hole.inside)
        made = wave[max(0, first - (0 if opens else fade)) : last + (0 if closes else fade)].clone()
        made[:fade] *= rise
        made[-fade:] *= fall
        if not opens:
            made[:fade] += samples[start : start + fade] * fall
        if not closes:
            made[-fade:] += samples[end - fade : end] * rise
        pieces += [samples[done:start], made.clamp(-PEAK, PEAK)]
        length += start - done
        edits.append(Edit((start, end), (length, length + len(made))))
        length, done = length + len(made), end
    return torch.cat([*pieces, samples[done:]]), tuple(edits)


def _tokens(parts: Parts, name: str, text: Any, language: str) -> list[int]:
    if not isinstance(text, str):
        raise TextError(f"{name} is a string, got {type(text).__name__}")
    try:
        chunk(text)  # so that it is refused in the same words as where all is new
        tokens = parts.front_end.encode(text, language)
    except TextError as error:
        raise TextError(f"{name}: {error}") from error
    if not all(isinstance(token, int) for token in tokens):
        raise TextError(f"{name} holds a pause in brackets; in an edit, write a comma or a full stop for it")
    return tokens


def _words(tokens: Sequence[int], table: SymbolTable) -> tuple[list[int], list[tuple[int, ...]]]:
    """Where the boundaries stand, and the words between them."""
    marks = [p for p, token in enumerate(tokens) if table.is_boundary(token)]
    return marks, [tuple(tokens[a + 1 : b]) for a, b in itertools.pairwise(marks)]


def _apart(changes: Sequence[Change], heard: Heard) -> list[Change]:
    """Changes that are too near each other for margins and cross-fades between them become one."""
    least = 2 * ceil((MARGIN_SECONDS + FADE_SECONDS) * float(heard.mel.spec.rate)) + 4
    apart: list[Change] = []
    for change in changes:
        if apart and heard.at(change.old[0]) - heard.at(apart[-1].old[1]) < least:
            before = apart.pop()
            change = Change((before.old[0], change.old[1]), (before.new[0], change.new[1]))
        apart.append(change)
    return apart


def _hole(parts: Parts, heard: Heard, after: list[int], change: Change, manner: Manner) -> Hole:
    """Everything about one change. Raises TextError: too much is new, or too little is kept."""
    spec, rate = heard.mel.spec, float(heard.mel.spec.rate)
    T = sum(heard.frames)
    step = int(spec.rate / manner.backend.emits.rate)  # frames of the mel that are one of the backend's
    # 1. which frames are replaced: whole ones of the backend's
    first, last = (heard.at(token) for token in change.old)
    edge = MARGIN_SECONDS * rate
    start, end = int((first - edge) // step) * step, ceil((last + edge) / step) * step
    start = start if start > FADE_SECONDS * rate else 0
    end = end if end < T - FADE_SECONDS * rate else T
    # 2. how long what is new takes, by the pace of what stands around it
    text = after[slice(*change.new)]
    lasts = _lasting(parts, heard, text, change)
    if sum(lasts) > LONGEST_SECONDS * rate:
        raise TextError(
            f"new words in one place take at most {LONGEST_SECONDS:g} s, and these take {sum(lasts) / rate:.1f} s; "
            "edit the recording in several steps, or synthesize it"
        )
    tokens = [*heard.tokens[: change.old[0]], *text, *heard.tokens[change.old[1] :]]
    frames = [*heard.frames[: change.old[0]], *lasts, *heard.frames[change.old[1] :]]
    frames[change.old[0] + len(lasts) - 1] += (last - first - sum(lasts)) % step  # the rest lies on frames of the backend again
    length = end - start + sum(frames) - T
    # 3. what is heard of the recording around it
    shortest, longest = manner.backend.prompt_seconds
    most = int(min(longest, WINDOW_SECONDS - length / rate) * rate) // step * step
    right = min(T - end, most - min(start, most // 2 // step * step))
    left = min(start, most - right) // step * step
    if left + right < shortest * rate:
        raise TextError(
            f"only {(left + right) / rate:.2f} s of the recording would stay; a backend goes on from {shortest:g} s or more, "
            "so synthesize the text, with the recording as its prompt"
        )
    window = start - left, end + right
    # 4. the whole, as the backend is asked for it
    ids, frames = cut(tokens, frames, window[0], window[1] + length - (end - start), soundless=True)
    made = parts.codec if manner.backend.emits.kind == "codes" else None
    context, keep = _context(heard.mel, made, window, (start, end), length, step)
    seconds = torch.tensor([frames], dtype=torch.float64) / rate  # [1, L]
    total = context.data.shape[2] / float(manner.backend.emits.rate)
    seconds[0, -1] += total - float(seconds.sum())
    plan = Plan(torch.tensor([total], dtype=torch.float64), seconds)
    utterance = Utterance(
        Tokens.of([ids], parts.front_end.table), torch.zeros(1, dtype=torch.int64), plan=plan, context=context, keep=keep
    )
    words = "".join(PHONES.symbols[token] for token in text).strip()
    return Hole((start, end), length, window, Line(words, tuple(text)), utterance)


def _lasting(parts: Parts, heard: Heard, text: list[int], change: Change) -> list[int]:
    """Frames of each new token, when the recording is the prompt of its own new text."""
    if not text:
        return []
    (a, b), table, spec = change.old, parts.front_end.table, heard.mel.spec
    near = round(NEAR_SECONDS * spec.rate)
    before, before_frames = cut(heard.tokens[:a], heard.frames[:a], heard.at(a) - near, heard.at(a), soundless=True)
    behind, behind_frames = cut(heard.tokens[b:], heard.frames[b:], 0, near, soundless=True)
    frames = torch.tensor([[*before_frames, *heard.frames[a:b], *behind_frames]])
    said = Tokens.of([[*before, *heard.tokens[a:b], *behind]], table)
    voice = Prompt({}, said, frames.sum(1) / float(spec.rate), frames)
    planned = parts.duration.plan(Tokens.of([[*before, *text, *behind]], table), voice).token_seconds
    if planned is None:
        raise FitError("an edit needs a duration that says how long each token takes; this system's says it of sentences only")
    new = planned[:, len(before) : len(before) + len(text)]  # [1, L]
    return [int(n) for n in Plan(new.sum(1), new).token_frames(spec.rate)[0]]


def _context(mel: Frames, codec: Any, window: Range, old: Range, length: int, step: int) -> tuple[Frames, Tensor]:
    """The window in the frames of a backend, zeros where it shall be new, and what of it is kept [1, T] bool."""
    own = Frames(mel.data[:, :, slice(*window)], torch.full_like(mel.lengths, window[1] - window[0]), mel.spec)
    if codec is not None:
        assert isinstance(codec, FrameCodec)
        own = codec.encode_frames(own)
    start, end = (old[0] - window[0]) // step, ceil((old[1] - window[0]) / step)
    left, right = own.data[:, :, :start], own.data[:, :, end:]
    n = round(length / step)
    data = torch.cat([left, left.new_zeros(1, left.shape[1], n), right], 2)
    at = torch.arange(data.shape[2], device=data.device)[None]
    return Frames(data, torch.full_like(own.lengths, data.shape[2]), own.spec), (at < start) | (at >= start + n)


def _kept(made: Frames, hole: Hole, mel: Frames) -> Frames:
    """What a backend made of a window, but for the recording's own mel where that is kept."""
    (start, end), (first, last) = hole.inside, hole.window
    new = made.data[:, :, start:end]
    data = torch.cat([mel.data[:, :, first : hole.old[0]], new, mel.data[:, :, hole.old[1] : last]], 2)
    return Frames(data, torch.full_like(made.lengths, data.shape[2]), made.spec)
