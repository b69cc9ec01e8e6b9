"""How benchmarks take time: contenders turn by turn, the least and the median of each, and no conclusion from a busy machine.

round 1    ours  theirs   round 2    ours  theirs   …        A B A B: what slows the machine slows both
ours       12.1           11.8                      …   ─►   min 11.8, median 12.0
theirs           19.5           19.9                …   ─►   min 19.5, median 19.7, so 1.65 times and 1.64 times ours
"""

from __future__ import annotations

import importlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

BUSY = 1.5  # load average of a minute, beside which no conclusion is drawn
SPREAD = 0.25  # by which the median may lie above the least, and a conclusion still be drawn
PEERS = "benchmarks/peers.txt"
NOT_MEASURED = "not measured"

Run: TypeAlias = Callable[[int], float]  # does its work so many times, and tells the seconds of one


@dataclass(frozen=True)
class Pace:
    """rounds: of all contenders. least: seconds that a contender's turn takes at least, by repetition. seconds: after which no
    further round begins, once there were three."""

    rounds: int = 9
    least: float = 0.05
    seconds: float = 12.0


QUICK = Pace(rounds=2, least=0.0, seconds=0.0)


@dataclass(frozen=True)
class Goal:
    """What is to be reached. over: None, then a time of ours of at most `limit`; or a contender, `limit` times as slow."""

    limit: float
    over: str | None = None

    def words(self, unit: str) -> str:
        return f"≤ {self.limit:g} {unit}" if self.over is None else f"≥ {self.limit:g} × {self.over}"

    def met(self, ours: Sequence[float], theirs: Sequence[float] | None) -> bool | None:
        """By the least and by the median; None: by one of them, or there is nothing to compare with."""
        if self.over is None:
            found = {of(ours) <= self.limit for of in (min, statistics.median)}
        elif not theirs:
            return None
        else:
            found = {of(theirs) >= self.limit * of(ours) for of in (min, statistics.median)}
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Row:
    """A line of the table. figures: what each repeat took, in `unit`, of every contender, ours first; less is better.

    Empty figures say that nothing was measured, and `note` why. point: (curve, x) of ours in a plot.
    """

    what: str
    unit: str = ""
    figures: Mapping[str, Sequence[float]] | None = None
    goal: Goal | None = None
    note: str = ""
    point: tuple[str, float] | None = None

    def told(self, busy: bool) -> dict[str, Any]:
        """As the JSON has it."""
        figures = {name: list(each) for name, each in (self.figures or {}).items() if len(each)}
        rest: dict[str, Any] = {"what": self.what, "unit": self.unit, "note": self.note}
        rest |= {"goal": self.goal.words(self.unit) if self.goal else None, "point": self.point}
        if not figures:
            return rest | {"contenders": {}, "times ours": {}, "spread": None, "verdict": NOT_MEASURED}
        found = {name: {"min": min(each), "median": statistics.median(each), "runs": each} for name, each in figures.items()}
        first, *others = figures
        times = {}
        for name in others:
            times[name] = {of.__name__: of(figures[name]) / of(figures[first]) for of in (min, statistics.median)}
        spread = max(spread_of(each) for each in figures.values())
        return rest | {
            "contenders": found,
            "times ours": times,
            "spread": spread,
            "verdict": self._verdict(busy, figures, spread),
        }

    def _verdict(self, busy: bool, figures: Mapping[str, Sequence[float]], spread: float) -> str:
        if busy:
            return "no conclusion: the machine was busy"
        if spread > SPREAD:
            return f"no conclusion: repeats differ by {spread:.0%}"
        if self.goal is None:
            return "measured"
        ours = next(iter(figures.values()))
        met = self.goal.met(ours, figures.get(self.goal.over or ""))
        return {True: "reached", False: "missed", None: "open"}[met]


def spread_of(figures: Sequence[float]) -> float:
    """How far the median lies above the least, as a part of it."""
    return statistics.median(figures) / min(figures) - 1 if min(figures) > 0 else 0.0


def call(work: Callable[[], Any]) -> Run:
    """Something that is called again and again, by the wall clock."""

    def run(n: int) -> float:
        started = time.perf_counter()
        for _ in range(n):
            work()
        return (time.perf_counter() - started) / n

    return run


def interleave(runs: Mapping[str, Run], pace: Pace = Pace(), unit: float = 1.0) -> dict[str, list[float]]:
    """Turn by turn, after a first turn of each that does not count: what one took, times `unit` (1e3 for milliseconds)."""
    often = {}
    for name, run in runs.items():
        if (took := run(1)) < pace.least:
            took = run(1)  # what is quick is slower the first time
        often[name] = max(1, round(pace.least / took)) if took > 0 else 1
    spent: dict[str, list[float]] = {name: [] for name in runs}
    started = time.perf_counter()
    for done in range(pace.rounds):
        if done >= 3 and time.perf_counter() - started > pace.seconds:
            break
        for name, run in runs.items():
            spent[name].append(unit * run(often[name]))
    return spent


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many for torch's own work, and as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peer(module: str) -> Any | None:
    """Another implementation; None where it, or something that it imports, is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def absent(*names: str) -> str:
    """The sentence of a row whose peers are not there."""
    return f"peer not installed: {', '.join(names)} (see {PEERS})"


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def table(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """All rows as Markdown: a line for each contender beside ours, the least and the median of both."""
    lines = ["| | ours: min, median | beside | its min, median | × ours | to reach | |", "|---|---:|---|---:|---:|---|---|"]
    for title, section in sections.items():
        lines.append(f"| **{title}** | | | | | | |")
        for row in section["rows"]:
            lines += _lines(row)
    return "\n".join(lines) + "\n"


def _lines(row: Mapping[str, Any]) -> list[str]:
    goal, verdict, note = row["goal"] or "", row["verdict"], row["note"]
    what = row["what"] + (f"; {note}" if note else "")
    if not row["contenders"]:
        return [_line(what, verdict, "", "", "", goal, "")]
    (_, ours), *others = row["contenders"].items()
    cells = [what, _pair(ours, row["unit"])]
    if not others:
        return [_line(*cells, "", "", "", goal, verdict)]
    lines = []
    for name, theirs in others:
        times = row["times ours"][name]
        ratio = ", ".join(f"{times[kind]:.2f}" for kind in ("min", "median"))
        last = name == others[-1][0]
        lines.append(_line(*cells, name, _pair(theirs, row["unit"]), ratio, goal if last else "", verdict if last else ""))
        cells = ["", ""]
    return lines


def _pair(figures: Mapping[str, float], unit: str) -> str:
    if figures["min"] == figures["median"]:
        return f"{_short(figures['min'])} {unit}".rstrip()
    return f"{_short(figures['min'])}, {_short(figures['median'])} {unit}".rstrip()


def _short(x: float) -> str:
    """Three figures that count."""
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
