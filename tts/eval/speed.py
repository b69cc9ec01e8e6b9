"""Speed: the real-time factor of a warm system, and what a cold one takes in time and memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tts.errors import SettingsError

# A sentence that takes about six seconds to say.
SENTENCE = "The little harbour lay quiet under the morning sun, and two old boats were drifting slowly towards the sea."
SENTENCE_SECONDS = 6.0


@dataclass(frozen=True)
class Speed:
    """rtf: the median over the runs of seconds spent by seconds of sound; `rtfs`: each run's."""

    rtf: float
    rtfs: tuple[float, ...]
    seconds: float  # of sound, each run
    first_seconds: float  # spent on the first run, which encodes the prompt and warms up
    retried: int  # runs left out because a sentence was tried again


def measure_rtf(synthesizer: Any, prompt: Any = None, runs: int = 5, **options: Any) -> Speed:
    """Say SENTENCE in exactly SENTENCE_SECONDS, check on, `runs` times (seeds 1, 2, …) after a first run that does not count.

    The first run leaves the prompt encoded in the synthesizer; should a later report still name seconds of a stage "prompt",
    they are subtracted. Runs in which a sentence was tried again are left out, since they time two syntheses.

    Args:
        synthesizer: as in `tts.eval.run`; its reports name `tries`, and `stages` (seconds by name).
        options: further words of `synthesize`.
    Raises:
        SettingsError: runs is below 1, or every run tried again.
    """
    if runs < 1:
        raise SettingsError(f"runs must be at least 1, got {runs}")
    rtfs, spent, length = [], [], 0.0
    for seed in range(runs + 1):
        started = time.perf_counter()
        audio = synthesizer.synthesize(SENTENCE, prompt, seed=seed, seconds=SENTENCE_SECONDS, check=True, **options)
        spent.append(time.perf_counter() - started)
        length = len(audio.samples) / audio.sample_rate
        if seed and _told(audio.report, "tries", 1) == 1:
            encoding = (_told(audio.report, "stages", None) or {}).get("prompt", 0.0)
            rtfs.append((spent[-1] - encoding) / length)
    if not rtfs:
        raise SettingsError(f"each of {runs} runs tried its sentence again; measure a system that passes its own check")
    return Speed(statistics.median(rtfs), tuple(rtfs), length, spent[0], runs - len(rtfs))


def _told(report: Any, name: str, default: Any) -> Any:
    """A field of a report, be it a mapping or a dataclass."""
    return report.get(name, default) if isinstance(report, dict) else getattr(report, name, default)


@dataclass(frozen=True)
class Process:
    """A command from its start to its end: wall-clock seconds, peak resident memory in bytes."""

    seconds: float
    peak_bytes: int


def time_process(command: Sequence[str], threads: int | None = None) -> Process:
    """Run a command in a fresh process with `threads` threads (None: as many as it likes).

    Call it before the calling process grows: Linux counts what a parent held at the fork towards its child's peak. POSIX only.

    Raises:
        SettingsError with the last lines it wrote, where the command fails.
    """
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    child = subprocess.Popen(
        list(command), env=os.environ | limits, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert child.stdout is not None
    with child.stdout:
        said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)  # wait4 took it from under Popen
    if child.returncode:
        raise SettingsError(f"{' '.join(command)} ended with status {child.returncode}:\n{said[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return Process(time.perf_counter() - started, usage.ru_maxrss * unit)
