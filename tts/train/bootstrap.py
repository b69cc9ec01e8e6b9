"""A first alignment to begin the recognizer with: word times from pocketsphinx, phones within them.

A CTC network alone spends its first hours finding out that phones come in order; told where the words lie, it reads phones
after minutes. Pocketsphinx (whose acoustic model lies in its package, so no network is needed) aligns the words at some
sixty times real time; where its second pass also finds the phones those times are taken, elsewhere a word's phones share its
time. Afterwards the recognizer aligns everything again by itself (tts/asr/align.py) and this file is no longer needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from tts.errors import MissingPackageError
from tts.text.tokens import PHONES
from tts.train.data import AUDIO_SCALE, UNALIGNED, Corpus, save_alignment

# Our phones in the ARPAbet of pocketsphinx's acoustic model.
ARPABET = {
    "ə": "AH", "ɚ": "ER", "ɐ": "AH", "ᵻ": "IH", "i": "IY", "iː": "IY", "ɪ": "IH", "ɛ": "EH", "æ": "AE", "ʌ": "AH",
    "ɑː": "AA", "ɔ": "AO", "ɔː": "AO", "ʊ": "UH", "uː": "UW", "ɜː": "ER", "eɪ": "EY", "aɪ": "AY", "ɔɪ": "OY", "aʊ": "AW",
    "oʊ": "OW", "p": "P", "b": "B", "t": "T", "d": "D", "k": "K", "ɡ": "G", "tʃ": "CH", "dʒ": "JH", "f": "F", "v": "V",
    "θ": "TH", "ð": "DH", "s": "S", "z": "Z", "ʃ": "SH", "ʒ": "ZH", "h": "HH", "m": "M", "n": "N", "ŋ": "NG", "l": "L",
    "ɹ": "R", "j": "Y", "w": "W", "ɾ": "D", "ʔ": "T",
}  # fmt: skip
TRUSTED = -1.0  # the score of what was aligned: pocketsphinx gives none of its own
SECONDS_PER_STEP = 0.01  # pocketsphinx counts time in hundredths of a second


def words_of(tokens: Sequence[int]) -> list[list[int]]:
    """Positions in `tokens` of each word's phones: the runs between boundaries."""
    words: list[list[int]] = [[]]
    for position, token in enumerate(tokens):
        if PHONES.is_boundary(token):
            words.append([])
        else:
            words[-1].append(position)
    return [word for word in words if word]


def frames_of_spans(n_tokens: int, spans: dict[int, tuple[float, float]], frames: int, rate: float) -> list[int]:
    """Spans (start, end in seconds) of the phones to frames of every token; a boundary takes the time between its neighbours.

    Returns:
        n_tokens integers >= 0 whose sum is `frames`.
    """
    ends = np.full(n_tokens, frames / rate)  # seconds
    for position in range(n_tokens):
        if position in spans:
            ends[position] = spans[position][1]
        elif position + 1 in spans:  # a boundary ends where the next phone begins
            ends[position] = spans[position + 1][0]
    marks = np.maximum.accumulate(np.clip(np.round(ends * rate), 0, frames)).astype(int)
    marks[-1] = frames
    return np.diff(marks, prepend=0).tolist()


class WordAligner:
    """Holds one pocketsphinx decoder; not for use from several threads."""

    def __init__(self) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            raise MissingPackageError("aligning words needs pocketsphinx: pip install mynah-tts[train]") from error
        self.decoder: Any = pocketsphinx.Decoder(lm=None, loglevel="FATAL", beam=1e-80, wbeam=1e-60, pbeam=1e-80)
        self.names: dict[str, str] = {}  # pronunciation -> the name it has in the decoder's dictionary

    def _name(self, pronunciation: str) -> str:
        if pronunciation not in self.names:
            self.names[pronunciation] = f"_{len(self.names)}_"
            self.decoder.add_word(self.names[pronunciation], pronunciation, True)
        return self.names[pronunciation]

    def _listen(self, samples: bytes) -> None:
        self.decoder.start_utt()
        self.decoder.process_raw(samples, full_utt=True)
        self.decoder.end_utt()

    def align(self, samples: np.ndarray, tokens: Sequence[int], frames: int, rate: float = 50.0) -> list[int] | None:
        """Frames of every token.

        Args:
            samples: [N] int16 at 16 kHz. tokens: ids of PHONES. frames: how many frames the clip has, at `rate` a second.
        Returns:
            len(tokens) integers >= 0 with sum `frames`, or None where the decoder does not find the words in the sound.
        """
        words = words_of(tokens)
        if not words or any(PHONES.phone_of(tokens[p]) not in ARPABET for word in words for p in word):
            return None
        names = [self._name(" ".join(ARPABET[PHONES.phone_of(tokens[p])] for p in word)) for word in words]
        sound = samples.tobytes()
        try:
            self.decoder.set_align_text(" ".join(names))
            self._listen(sound)
        except RuntimeError:
            return None
        found = [(s.start_frame, s.end_frame + 1) for s in self.decoder.seg() if s.word in self.names.values()]
        if len(found) != len(words):
            return None
        spans: dict[int, tuple[float, float]] = {}
        for word, (start, end) in zip(words, found, strict=True):
            # vowels last longer than consonants
            shares = np.array([1.5 if PHONES.phone_of(tokens[p])[0] in "əɚɐᵻiɪɛæʌɑɔʊuɜeao" else 1.0 for p in word])
            marks = (start + (end - start) * np.concatenate([[0], np.cumsum(shares) / shares.sum()])) * SECONDS_PER_STEP
            spans |= {p: (marks[i], marks[i + 1]) for i, p in enumerate(word)}
        spans |= self._phone_spans(sound, words)
        return frames_of_spans(len(tokens), spans, frames, rate)

    def _phone_spans(self, sound: bytes, words: list[list[int]]) -> dict[int, tuple[float, float]]:
        """Times of single phones by the decoder's second pass; empty where it does not reach the end."""
        try:
            self.decoder.set_alignment()
            self._listen(sound)
        except RuntimeError:
            return {}
        phones = [p for word in self.decoder.get_alignment() if word.name in self.names.values() for p in word]
        positions = [p for word in words for p in word]
        if len(phones) != len(positions):
            return {}
        return {
            position: (p.start * SECONDS_PER_STEP, (p.start + p.duration) * SECONDS_PER_STEP)
            for position, p in zip(positions, phones, strict=True)
        }


def bootstrap_corpus(folder: str | Path, workers: int = 2) -> int:
    """Write folder/alignment.safetensors by pocketsphinx; returns how many items were aligned.

    Items without a text, and those whose words are not found in the sound, stay without alignment.
    """
    from rich.progress import track

    corpus = Corpus(folder, audio=False)
    with ProcessPoolExecutor(workers, get_context("spawn"), _open, (str(folder),)) as pool:
        rows = list(track(pool.map(_align_item, range(len(corpus)), chunksize=16), "aligning", len(corpus)))
    tokens = [list(item.tokens) if row else [] for item, row in zip(corpus.items, rows, strict=True)]
    aligned = [bool(row) for row in rows]
    save_alignment(folder, tokens, [row or [] for row in rows], [TRUSTED if found else UNALIGNED for found in aligned])
    return sum(aligned)


_worker: tuple[Corpus, WordAligner]  # of a process of the pool, which aligns one item at a time


def _open(folder: str) -> None:
    global _worker
    _worker = Corpus(folder), WordAligner()


def _align_item(i: int) -> list[int] | None:
    corpus, aligner = _worker
    item = corpus.item(i)
    if not item.tokens:
        return None
    samples = (corpus.audio(i) * AUDIO_SCALE).round().short().numpy()
    return aligner.align(samples, item.tokens, item.frames, item.frames / item.seconds)
