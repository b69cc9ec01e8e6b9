"""The picture of a benchmark's JSON: how much faster than peers, what length costs, how a text becomes sound."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from tts.eval.packages import optional

BESIDE = ("sampler", "masked", "ar", "dit", "codec", "vocoder")  # sections of times of equal work
MOST_BYTES = 200_000


def draw(sections: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A PNG of what the sections hold. Raises MissingPackageError without matplotlib."""
    figure = optional("matplotlib.figure").Figure(figsize=(11, 8), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(5, 3))
    _beside(figure.add_subplot(grid[0, :]), sections)
    _lengths(figure.add_subplot(grid[1, 0]), sections)
    _speech(figure.add_subplot(grid[1, 1]), sections)
    loads = [each["load average"] for each in sections.values()]
    if loads:
        figure.suptitle(f"Load average before the start: {min(loads):.1f} to {max(loads):.1f}", fontsize=9)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    return drawn.getvalue()


def _beside(axes: Any, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """A bar for each peer: how many times as long it takes, by the median; the thin line ends at the least's."""
    bars = []
    for name in BESIDE:
        for row in sections.get(name, {"rows": []})["rows"]:
            what = row["what"].split(", ")
            for other, times in row["times ours"].items():
                bars.append((f"{', '.join(what[:2])}{_kind(row['what'])} / {other}", times))
    for at, (_, times) in enumerate(reversed(bars)):
        axes.barh(at, times["median"], height=0.6, color="C0")
        axes.plot([times["median"], times["min"]], [at, at], color="black", linewidth=1)
    axes.set_yticks(range(len(bars)), [label for label, _ in reversed(bars)], fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xlabel="times as long as ours takes (median; black: to that of the least)", xscale="log")
    axes.grid(axis="x", alpha=0.3, which="both")


def _kind(what: str) -> str:
    return next((f", {kind}" for kind in ("int8", "bf16", "fp32") if what.endswith(kind)), "")


def _lengths(axes: Any, sections: Mapping[str, Mapping[str, Any]]) -> None:
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in sections.get("length", {"rows": []})["rows"]:
        if row["point"] is not None and row["contenders"]:
            curve, x = row["point"]
            curves.setdefault(curve, []).append((x, row["contenders"]["ours"]["median"]))
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set(xlabel="frames", ylabel="ms a frame (median)", ylim=(0, None))
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(fontsize=8)


def _speech(axes: Any, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Points: until the first sound, and the real-time factor."""
    rows = sections.get("speech", {"rows": []})["rows"]
    seconds: dict[str, dict[str, float]] = {}
    for row in rows:
        kind = "first" if row["unit"] == "ms" else "rtf"
        for name, figures in row["contenders"].items():
            own = row["what"].partition(":")[0].split(", ")[1] if name == "ours" else name
            seconds.setdefault(own, {})[kind] = figures["median"]
    for name, each in seconds.items():
        if len(each) == 2:
            axes.plot(each["first"], each["rtf"], "o")
            axes.annotate(name, (each["first"], each["rtf"]), fontsize=7, xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="ms to the first sound", ylabel="real-time factor", ylim=(0, None))
    axes.margins(0.25)
    axes.grid(alpha=0.3)
