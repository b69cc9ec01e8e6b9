"""The front door: `synthesize(text, prompt)` and `stream(text, prompt)`, with one system that is loaded once and kept."""

from __future__ import annotations

import threading
from typing import Any

from tts.pipeline import Synthesizer
from tts.result import Audio, Report
from tts.streaming import Stream

DEFAULT = "base-en"

_lock = threading.Lock()
_kept: dict[str, Synthesizer] = {}


def synthesize(
    text: str,
    prompt: Any = None,
    *,
    prompt_text: str | None = None,
    backend: str = "flow",
    seed: int = 0,
    speed: float = 1.0,
    seconds: float | None = None,
    language: str | None = None,
    check: bool = True,
    settings: Any = None,
) -> Audio[Report]:
    """Speak a text in the voice of a recording, with the default system on the CPU.

    The first call loads the system; later ones, from any thread, share it. The same arguments give the same samples.

    Args:
        text: any length; sentences are spoken one by one. `[word](/fəˈnɛtɪk/)` says how, `[pause:0.5]` is silence in seconds.
        prompt: the voice: a path, an open binary file, (samples, rate), a list of these, "voice:NAME" for a voice that the
            system brings or you keep, what `Synthesizer.encode_prompt` gave, or None for the built-in voice. 3 to 12 s is best.
        prompt_text: what is said in the prompt, where it is known; else the recognizer reads it.
        backend: by name. settings: the backend's settings, or a mapping of some of their fields, such as {"steps": 8}.
        seed: 0 to 2**63 - 1. Another seed says the same in another way.
        speed: 0.2 to 5 times the pace of the voice. seconds: how long the whole shall take. Not both.
        language: as espeak names it; None: the system's first.
        check: let the recognizer listen, and try a sentence again that misses or repeats phones.
    Returns:
        `audio.samples` float32 [N], `audio.sample_rate`, `audio.save(path)` and `audio.report`, which tells what happened.
    Raises:
        InputError: one of these cannot be used; the message names what was got, what is accepted and what to do.
        CheckpointError: the system's weights are missing or broken.
    """
    return default().synthesize(
        text,
        prompt,
        prompt_text=prompt_text,
        backend=backend,
        seed=seed,
        speed=speed,
        seconds=seconds,
        language=language,
        check=check,
        settings=settings,
    )


def stream(
    text: str,
    prompt: Any = None,
    *,
    prompt_text: str | None = None,
    backend: str | None = None,
    seed: int = 0,
    speed: float = 1.0,
    seconds: float | None = None,
    language: str | None = None,
    check: bool = False,
    settings: Any = None,
) -> Stream:
    """Speak while the rest is still being made: chunks of samples, float32 [N]. As `Synthesizer.stream`, with the default."""
    return default().stream(
        text,
        prompt,
        prompt_text=prompt_text,
        backend=backend,
        seed=seed,
        speed=speed,
        seconds=seconds,
        language=language,
        check=check,
        settings=settings,
    )


def default() -> Synthesizer:
    """The default system, loaded when first asked for."""
    with _lock:
        if DEFAULT not in _kept:
            _kept[DEFAULT] = Synthesizer.from_pretrained(DEFAULT)
        return _kept[DEFAULT]
