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
    first_seconds: float  # spent on the first run, which warms up


def measure_rtf(synthesizer: Any, prompt: Any = None, runs: int = 5, **options: Any) -> Speed:
    """Say SENTENCE in exactly SENTENCE_SECONDS, check on, `runs` times (seeds 1, 2, …) after a first run that does not count.

    Args:
        synthesizer: a `tts.pipeline.Synthesizer`; one with retries=0 times one synthesis a run, never two.
        prompt: as `synthesize` takes it; encode it before (`Synthesizer.encode_prompt`), or its encoding is timed too.
        options: further words of `synthesize`.
    Raises:
        SettingsError: runs is below 1.
    """
    if runs < 1:
        raise SettingsError(f"runs must be at least 1, got {runs}")
    spent, rtfs, length = [], [], 0.0
    for seed in range(runs + 1):
        started = time.perf_counter()
        audio = synthesizer.synthesize(SENTENCE, prompt, seed=seed, seconds=SENTENCE_SECONDS, check=True, **options)
        spent.append(time.perf_counter() - started)
        length = len(audio.samples) / audio.sample_rate
        rtfs.append(spent[-1] / length)
    return Speed(statistics.median(rtfs[1:]), tuple(rtfs[1:]), length, spent[0])


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
