"""Whole speech: what a backend costs by length and batch, and base-en from a text to its sound beside pocket-tts."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pocket
import torch
from harness import Pace, Row, Run, absent, call, interleave, threads

from tts.eval.speed import SENTENCE, SENTENCE_SECONDS

LENGTHS = (100, 500, 1490)  # frames; base-en's language model looks back on 1,500
BATCHES = (1, 4)
PHONE_SECONDS = 0.08
SIZES = ("english_7m_2026-10", "english")  # of pocket-tts: 7 M parameters, and 100 M, its default
PROMPT_SECONDS = 5.0


# -------------------------------------------------------------------------------------------- by length and batch


def length(
    pace: Pace = Pace(2, 0.0),
    threads_: int = 2,
    system: str = "base-en",
    lengths: tuple[int, ...] = LENGTHS,
    batches: tuple[int, ...] = BATCHES,
) -> list[Row]:
    """`Backend.generate` with its own default settings, without a prompt: milliseconds a frame, by frames and by items."""
    rows = []
    for name, (backend, note) in backends(system).items():
        speak, rate, few = generating(backend), float(backend.emits.rate), lengths[0]
        with threads(threads_):
            for T in lengths:
                spent = interleave({"ours": call(partial(speak, T, 1))}, pace, 1e3 / T)
                rows.append(Row(f"{name}, {T} frames, {T / rate:g} s", "ms a frame", spent, note=note, point=(name, T)))
            for B in batches[1:]:
                spent = interleave({"ours": call(partial(speak, few, B))}, pace, 1e3 / few / B)
                rows.append(Row(f"{name}, {B} items of {few} frames", "ms a frame", spent, note=note))
    return rows


def backends(system: str) -> dict[str, tuple[Any, str]]:
    """Those of a system with a note each; a masked one of the same sizes and random weights where it has none."""
    parts = synthesizer(system).parts
    found = {name: (backend, "") for name, backend in parts.backends.items()}
    if "masked" not in found and parts.codec is not None:
        from tts.backends.masked.config import MaskedConfig
        from tts.backends.masked.model import MaskedBackend

        codes, flow = parts.codec.emits, next(iter(parts.backends.values()))
        sizes = {"codebooks": codes.width, "size": codes.sizes[0], "rate": codes.rate, "flavour": codes.flavour}
        config = MaskedConfig(vocabulary=flow.config.vocabulary, table=flow.table, **sizes, **masked_sizes(parts))
        found["masked"] = (MaskedBackend(config).eval(), "random weights")
    return found


def masked_sizes(parts: Any) -> dict[str, int]:
    """The transformer of the system's own first backend, which base-en's masked one shares."""
    config = next(iter(parts.backends.values())).config
    return {name: getattr(config, name) for name in ("dim", "depth", "heads", "head_dim")}


def generating(backend: Any, device: str = "cpu") -> Callable[[int, int], Any]:
    """A function that speaks B items of T frames each, all of phones of 80 ms."""
    from tts.frames import Plan, Tokens, Utterance

    def speak(T: int, B: int) -> Any:
        seconds = T / float(backend.emits.rate)
        L = max(1, round(seconds / PHONE_SECONDS))
        ids = torch.randint(10, 90, (B, L), generator=torch.Generator().manual_seed(0))
        shares = torch.full((B, L), seconds / L, dtype=torch.float64)
        tokens = Tokens(ids.to(device), torch.full((B,), L, device=device), backend.table)
        plan = Plan(shares.sum(1).to(device), shares.to(device))
        return backend.generate(Utterance(tokens, torch.arange(B, device=device), plan=plan), None)

    return speak


@lru_cache(maxsize=2)
def synthesizer(system: str, device: str = "cpu") -> Any:
    from tts import Synthesizer

    return Synthesizer.from_pretrained(system, device=device, retries=0)


# ----------------------------------------------------------------------------------------- from a text to its sound


def speech(
    pace: Pace = Pace(5, 0.0, 40.0), threads_: int = 2, system: str = "base-en", sizes: tuple[str, ...] = SIZES
) -> list[Row]:
    """A sentence of six seconds, the voice encoded before: seconds by second of sound, and until the first sound is out."""
    speaker, firsts, runs = synthesizer(system), {}, {}
    voice = speaker.encode_prompt(None)
    names = list(speaker.parts.backends)
    for name in names:
        runs[name], firsts[name] = own(speaker, voice, name), first_of(speaker, voice, name)
    peers, note = {}, ""
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes if pocket.available() else ():
            model, state = pocket.load(size, Path(folder))
            peers[f"pocket-tts, {size}"] = (model, state)
        if not pocket.available():
            note = absent("pocket-tts")
        for name, (model, state) in peers.items():
            runs[name] = pocket.speaking(model, state, SENTENCE)
            firsts[name] = pocket.first(model, state, SENTENCE)
    with threads(threads_):
        spent, first = interleave(runs, pace), interleave(firsts, pace, 1e3)
    rows = []
    for name in names:
        own_first = [name, *peers]
        what = f"{system}, {name}, {SENTENCE_SECONDS:g} s, check on"
        rows.append(Row(f"{what}: real-time factor", "s/s", _beside(spent, own_first), note=note))
        rows.append(Row(f"{system}, {name}: first sound", "ms", _beside(first, own_first), note=note))
    return rows


def _beside(spent: dict[str, list[float]], names: list[str]) -> dict[str, list[float]]:
    return {"ours" if name == names[0] else name: spent[name] for name in names}


def own(speaker: Any, voice: Any, backend: str) -> Run:
    """Seconds by second of sound."""

    def run(n: int) -> float:
        taken = []
        for seed in range(n):
            started = time.perf_counter()
            audio = speaker.synthesize(SENTENCE, voice, backend=backend, seed=seed, seconds=SENTENCE_SECONDS, check=True)
            taken.append((time.perf_counter() - started) * audio.sample_rate / len(audio.samples))
        return statistics.mean(taken)

    return run


def first_of(speaker: Any, voice: Any, backend: str) -> Run:
    """Seconds from the request to the first chunk of a stream; the rest is not asked for."""

    def run(n: int) -> float:
        taken = []
        for seed in range(n):
            started = time.perf_counter()
            with speaker.stream(SENTENCE, voice, backend=backend, seed=seed) as stream:
                next(stream)
                taken.append(time.perf_counter() - started)
        return statistics.mean(taken)

    return run


# --------------------------------------------------------------------------------------------------------- cold


def cold(pace: Pace = Pace(2), threads_: int = 2, system: str = "base-en", sizes: tuple[str, ...] = SIZES[1:]) -> list[Row]:
    """New processes, from the shell to a file in the voice of a recording: seconds, and the most memory that they held."""
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        prompt, out = Path(folder) / "prompt.wav", Path(folder) / "out.wav"
        audio = synthesizer(system).synthesize(SENTENCE, seed=1, seconds=PROMPT_SECONDS, check=False)
        soundfile.write(prompt, audio.samples, audio.sample_rate)
        say = ("say", SENTENCE, "--system", system, "--seconds", f"{SENTENCE_SECONDS:g}", "--prompt", prompt, "--out", out)
        commands = {"ours": [sys.executable, "-m", "tts.cli", *map(str, say)]}
        for size in sizes if pocket.available() else ():
            config = pocket.write(size, Path(folder))
            script = [sys.executable, pocket.__file__, str(config), str(prompt), SENTENCE, str(out)]
            commands[f"pocket-tts, {size}"] = script
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for turn in range(pace.rounds + 1):
            for name, command in commands.items():
                told = timed(command, threads_)
                if turn:  # the first one brings what it reads into the cache of files
                    found[name].append(told)
    note = "" if pocket.available() else absent("pocket-tts")
    what = f"{system}, flow, a recording as voice, to a file of {SENTENCE_SECONDS:g} s"
    return [
        Row(f"cold start: {what}", "s", {name: [s for s, _ in each] for name, each in found.items()}, note=note),
        Row("its peak memory", "MB", {name: [b / 1e6 for _, b in each] for name, each in found.items()}, note=note),
    ]


WATCH = """
import sys
from tts.eval.speed import time_process
process = time_process(sys.argv[2:], int(sys.argv[1]))
print(process.seconds, process.peak_bytes)
"""


def timed(command: list[str], threads_: int) -> tuple[float, float]:
    """Seconds and bytes, told by a small process between, as what this one holds would count as its child's peak."""
    words = [sys.executable, "-c", WATCH, str(threads_), *command]
    seconds, peak = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(peak)
