"""Speed is measured on the second and later runs, memory in a process of its own."""

import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tts.errors import SettingsError
from tts.eval.speed import measure_rtf, time_process


@dataclass
class Audio:
    samples: np.ndarray
    sample_rate: int


@dataclass
class Slow:
    """Takes 20 ms for a second of sound, the first time 100 ms."""

    asked: list[dict[str, Any]] = field(default_factory=list)

    def synthesize(self, text: str, prompt: Any, **options: Any) -> Audio:
        time.sleep(0.02 if self.asked else 0.1)
        self.asked.append(options)
        return Audio(np.zeros(1000), 1000)


def test_rtf_leaves_out_the_first_run() -> None:
    slow = Slow()
    speed = measure_rtf(slow, runs=3)
    assert len(speed.rtfs) == 3 and speed.seconds == 1.0 and speed.first_seconds >= 0.1
    assert 0.02 <= min(speed.rtfs) <= speed.rtf <= max(speed.rtfs)
    assert [options["seed"] for options in slow.asked] == [0, 1, 2, 3]
    assert all(options["check"] and options["seconds"] == 6.0 for options in slow.asked)
    with pytest.raises(SettingsError, match="at least 1, got 0"):
        measure_rtf(slow, runs=0)


@pytest.mark.skipif(sys.platform == "win32", reason="wait4 is POSIX")
def test_process_time_and_peak_memory_are_the_childs() -> None:
    # 300 MB, and touched
    code = "import os, time; x = bytearray(os.urandom(1)) * 300_000_000; time.sleep(0.1)"
    big = time_process([sys.executable, "-c", code])
    assert big.seconds >= 0.1 and big.peak_bytes >= 3e8
    limit = "import os, sys; sys.exit(os.environ['OMP_NUM_THREADS'] != '3')"
    time_process([sys.executable, "-c", limit], threads=3)
    with pytest.raises(SettingsError, match=r"status 3:\nbroken"):
        time_process([sys.executable, "-c", "print('broken'); raise SystemExit(3)"])
