"""Cross-utterance prompts: with each clip another one of its speaker, with its phones, as they are written or as heard.

written   " " ð ə " " k ˈæ t " " s ˈæ t .        heard   " " ð ə k æ t " " s æ t .      (a silence before "sat")
"""

from __future__ import annotations

from dataclasses import dataclass

from tts.asr.align import BREAK_SECONDS
from tts.text.tokens import SymbolTable
from tts.train.data import UNALIGNED, Corpus


@dataclass(frozen=True)
class Spoken:
    """Tokens and the frames that each lasts; both empty where nothing is known."""

    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()


class Prompts:
    """The clips of an aligned corpus by speaker, without those aligned worse than min_score."""

    def __init__(self, corpus: Corpus, min_score: float, table: SymbolTable) -> None:
        self.corpus, self.table = corpus, table
        self.of_speaker: dict[str, list[int]] = {}
        if corpus.alignment is None:
            return
        for i, item in enumerate(corpus.items):
            if corpus.score(i) > UNALIGNED and corpus.score(i) >= min_score:
                self.of_speaker.setdefault(item.speaker, []).append(i)

    def draw(self, i: int, share: float) -> Spoken:
        """The clip at `share` (0 to 1) of the way through the speaker's others; nothing where there is no other."""
        others = [k for k in self.of_speaker.get(self.corpus.item(i).speaker, []) if k != i]
        return self._spoken(others[int(share * len(others))]) if others else Spoken()

    def next(self, i: int) -> Spoken:
        """The speaker's next clip, the first after the last."""
        others = [k for k in self.of_speaker.get(self.corpus.item(i).speaker, []) if k != i]
        return self._spoken(next((k for k in others if k > i), others[0])) if others else Spoken()

    def _spoken(self, i: int) -> Spoken:
        return Spoken(tuple(self.corpus.tokens(i).tolist()), tuple(self.corpus.token_frames(i).tolist()))

    def as_heard(self, spoken: Spoken, rate: float) -> Spoken:
        """As tts.asr.align.read would have it: no stress, and a boundary only at either end and in longer silences."""
        tokens: list[int] = []
        frames: list[int] = []
        last = len(spoken.tokens) - 1
        for k, (token, length) in enumerate(zip(spoken.tokens, spoken.frames, strict=True)):
            if not self.table.is_boundary(token):
                tokens.append(self.table.stress_free[token])
                frames.append(length)
            elif k in (0, last) or length >= BREAK_SECONDS * rate:
                tokens.append(token if k == last else self.table.id(" "))
                frames.append(length)
            else:
                frames[-1] += length  # the gap belongs to the phone before it
        return Spoken(tuple(tokens), tuple(frames))
