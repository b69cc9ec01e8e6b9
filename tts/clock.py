"""How long the stages of a work take."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_here = threading.local()  # .others: seconds that this thread has waited, or worked, for others


def for_others(seconds: float) -> None:
    """Seconds that have passed in this thread while others were served; the clocks that run in it leave them out."""
    _here.others = getattr(_here, "others", 0.0) + seconds


def _now() -> float:
    return time.perf_counter() - getattr(_here, "others", 0.0)


class Clock:
    """Wall time, in seconds, by stage: `with clock("vocoder"): …`. Of what several share, one's own share."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.started = _now()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        before = _now()
        yield
        self.spent[stage] += _now() - before  # type: ignore[assignment]

    def total(self) -> float:
        """Seconds since it was made, in the same thread."""
        return _now() - self.started
