"""How long the stages of a work take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Wall time, in seconds, by stage: `with clock("vocoder"): …`."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.started = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self.spent[stage] += time.perf_counter() - before  # type: ignore[assignment]

    def total(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self.started
