"""Intelligibility: word and phone errors between what was asked and what a recognizer heard."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from itertools import repeat
from pathlib import Path
from typing import Protocol

import numpy as np

from tts.errors import InputError
from tts.eval.packages import optional
from tts.files import write_whole

STRESS = str.maketrans("", "", "ˈˌ")
LOST = 3  # words missing in a row that are no slip of the recognizer


class Asr(Protocol):
    """A recognizer of words. With more than one worker it must be picklable."""

    @property
    def name(self) -> str:
        """What it is, with its version: transcripts are cached under this name."""
        ...

    def transcribe(self, samples: np.ndarray, rate: int) -> str:
        """The words in samples [N] float32; "" where none are heard. The same samples always give the same words."""
        ...


@dataclass(frozen=True)
class PocketsphinxAsr:
    """CMU Pocketsphinx with the en-us acoustic and language model of its package: weak, but needs no network.

    It mishears a third of the words of real read speech: compare its WER only with that of recordings of the same sentences.
    """

    @property
    def name(self) -> str:
        optional("pocketsphinx")
        return f"pocketsphinx {metadata.version('pocketsphinx')} en-us"

    def transcribe(self, samples: np.ndarray, rate: int) -> str:
        """Words in samples [N] at 16 kHz."""
        assert rate == 16_000, rate
        if not len(samples):
            return ""
        # A decoder adapts its cepstral mean from clip to clip; a fresh one makes the words independent of the order.
        decoder = optional("pocketsphinx").Decoder(samprate=rate, loglevel="FATAL")
        decoder.start_utt()
        decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        heard = decoder.hyp()
        return heard.hypstr if heard is not None else ""


def transcribe_all(
    asr: Asr, clips: Sequence[np.ndarray], rate: int, workers: int = 2, cache: str | Path | None = None
) -> list[str]:
    """Transcripts of clips, each [N] float32, in their order.

    Args:
        workers: processes to share the work; 1 stays in this one. With more, a script needs its `if __name__ == "__main__"`.
        cache: a JSON file of transcripts by content (samples, rate, recognizer); read first, and grown with every new one.
    """
    path = Path(cache) if cache is not None else None
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
    keys = [_content(asr.name, clip, rate) for clip in clips]
    todo = {key: clip for key, clip in zip(keys, clips, strict=True) if key not in known}

    def keep(key: str, words: str) -> None:
        known[key] = words
        if path is not None:
            write_whole(path, json.dumps(known, indent=1, ensure_ascii=False).encode())

    if workers == 1 or len(todo) < 2:
        for key, clip in todo.items():
            keep(key, asr.transcribe(clip, rate))
    else:
        # Spawned, not forked: the parent may hold threads of torch. Threads would not do: Pocketsphinx keeps the GIL.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            heard = pool.map(_transcribe, repeat(asr), todo.values(), repeat(rate))
            for key, words in zip(todo, heard, strict=True):
                keep(key, words)
    return [known[key] for key in keys]


def _transcribe(asr: Asr, clip: np.ndarray, rate: int) -> str:
    return asr.transcribe(clip, rate)


def _content(name: str, clip: np.ndarray, rate: int) -> str:
    return hashlib.sha256(f"{name}|{rate}|".encode() + np.ascontiguousarray(clip, dtype="<f4").tobytes()).hexdigest()


def spoken_words(text: str, language: str = "en-us") -> list[str]:
    """The words of a text as they are said, in lower case, without punctuation: "It's 7%." gives it's, seven, percent."""
    from tts.text.normalize import normalize

    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", normalize(text, language).lower().replace("’", "'"))


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """(substitutions + deletions + insertions, words of the reference), both texts as `spoken_words`."""
    return _errors(spoken_words(reference), spoken_words(hypothesis))


def lost_words(reference: str, hypothesis: str, run: int = LOST) -> int:
    """How many words of the reference are missing together with `run - 1` or more of their neighbours."""
    asked, heard = spoken_words(reference), spoken_words(hypothesis)
    if not asked or not heard:
        return len(asked) if len(asked) >= run else 0
    (steps,) = optional("jiwer").process_words(" ".join(asked), " ".join(heard)).alignments
    gaps = [step.ref_end_idx - step.ref_start_idx for step in steps if step.type == "delete"]
    return sum(gap for gap in gaps if gap >= run)


def phone_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, int]:
    """(errors, phones of the reference), without stress, punctuation and word boundaries."""
    return _errors(_bare(reference), _bare(hypothesis))


def phone_error_rate(reference: Sequence[str], hypothesis: Sequence[str]) -> float:
    """Errors per phone of the reference, as `phone_errors`. Raises InputError where the reference has no phones."""
    errors, phones = phone_errors(reference, hypothesis)
    if not phones:
        raise InputError("the reference has no phones; an error rate needs at least one")
    return errors / phones


def _bare(phones: Sequence[str]) -> list[str]:
    bare = [phone.translate(STRESS).strip() for phone in phones]
    return [phone for phone in bare if any(character.isalnum() for character in phone)]


def _errors(reference: list[str], hypothesis: list[str]) -> tuple[int, int]:
    if not reference:
        return len(hypothesis), 0
    found = optional("jiwer").process_words(" ".join(reference), " ".join(hypothesis))
    return found.substitutions + found.deletions + found.insertions, len(reference)
