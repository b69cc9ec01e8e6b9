"""What an evaluation found: means with confidence intervals, one table, one JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from tts.eval.packages import versions
from tts.files import write_whole

RESAMPLES = 1000
HUMAN = "recordings"  # the row that systems are held to, where it exists
Items = Sequence[Mapping[str, Any]]  # per-item values, as `tts.eval.measures.measure` gives them


@dataclass(frozen=True)
class Metric:
    """A mean of `top` over the items, or, with `below`, the sum of one over the sum of the other.

    over: a key by which items are averaged first, so that each of its values (a speaker) counts once.
    """

    name: str
    label: str
    top: str
    below: str | None = None
    percent: bool = False
    over: str | None = None


METRICS = (
    Metric("wer", "WER", "word_errors", "words", percent=True),
    Metric("mean_wer", "WER, mean of utterances", "utterance_wer", percent=True),
    Metric("per", "PER", "phone_errors", "phones", percent=True),
    Metric("free", "no run of 4 phones missing or repeated", "free", percent=True),
    Metric("lost", "words missing, 3 or more in a row", "words_lost", "words", percent=True),
    Metric("sim", "SIM", "sim"),
    Metric("sim_speakers", "SIM, mean over speakers", "sim", over="speaker"),
    Metric("ovrl", "DNSMOS OVRL", "ovrl"),
    Metric("p808", "DNSMOS P.808", "p808"),
    Metric("pesq", "PESQ-wb", "pesq"),
    Metric("stoi", "STOI", "stoi"),
    Metric("tries", "tries a sentence", "tries", "sentences"),
    Metric("rtf", "RTF, prompt encoded anew", "spent_seconds", "seconds"),
    Metric("codec_rtf", "RTF, codec there and back", "codec_seconds", "seconds"),
    Metric("vocoder_rtf", "RTF, vocoder", "vocoder_seconds", "seconds"),
    Metric("filled", "speech / plan", "filled", percent=True),
    Metric("well_filled", "speech fills 70-100 %", "well_filled", percent=True),
    Metric("aligned", "all phones aligned", "aligned", percent=True),
    Metric("empty", "empty", "empty", percent=True),
)


@dataclass(frozen=True)
class Estimate:
    """A figure over n items, with the bounds of its 95 % bootstrap confidence interval."""

    value: float
    low: float
    high: float
    n: int


def estimate(top: Sequence[float], below: Sequence[float] | None = None, seed: int = 0) -> Estimate | None:
    """sum(top) / sum(below) over n items, or the mean of top; None where there are no items or nothing to divide by.

    The interval is the 2.5th to 97.5th percentile over RESAMPLES draws of n items with replacement (Efron 1979); a corpus
    rate is thus resampled by items, numerator and denominator together.
    """
    over = np.asarray(top, dtype=np.float64)
    under = np.ones_like(over) if below is None else np.asarray(below, dtype=np.float64)
    if not under.sum():
        return None
    draws = np.random.default_rng(seed).integers(len(over), size=(RESAMPLES, len(over)))
    sums = under[draws].sum(1)
    rates = over[draws].sum(1)[sums > 0] / sums[sums > 0]
    low, high = np.percentile(rates, [2.5, 97.5])
    return Estimate(float(over.sum() / under.sum()), float(low), float(high), len(over))


def summarise(items: Items, seed: int = 0) -> dict[str, Estimate]:
    """Every metric of METRICS that at least one item has values for."""
    found = {}
    for metric in METRICS:
        keys = [key for key in (metric.top, metric.below) if key is not None]
        having = _averaged(items, metric.top, metric.over) if metric.over is not None else items
        having = [item for item in having if all(item.get(key) is not None for key in keys)]
        top, *below = ([float(item[key]) for item in having] for key in keys)
        figure = estimate(top, below[0] if below else None, seed)
        if figure is not None:
            found[metric.name] = figure
    return found


def _averaged(items: Items, key: str, over: str) -> list[dict[str, Any]]:
    """For each value of `over` among the items that have a `key`: {over: that value, key: their mean, "items": how many}."""
    groups: dict[str, list[float]] = {}
    for item in items:
        if item.get(key) is not None and item.get(over) is not None:
            groups.setdefault(item[over], []).append(float(item[key]))
    return [{over: name, key: float(np.mean(values)), "items": len(values)} for name, values in groups.items()]


def wilson(successes: float, n: int) -> Estimate | None:
    """A share of n items with its 95 % score interval (Wilson 1927), which also holds near 0 and 1; None where n is 0."""
    if not n:
        return None
    share, z2 = successes / n, 1.96**2
    middle, half = share + z2 / (2 * n), (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5
    low, high = ((middle + side * half) / (1 + z2 / n) for side in (-1, 1))
    return Estimate(share, max(0.0, low), min(1.0, high), n)


def times_human(items: Items, human: Items, seed: int = 0) -> Estimate | None:
    """The corpus WER of a system divided by that of recordings of the same sentences, both resampled together."""
    recordings = {item["id"]: item for item in human if item.get("words")}
    pairs = [(item, recordings[item["id"]]) for item in items if item["id"] in recordings and item.get("words")]
    errors = [(item["word_errors"], recording["word_errors"]) for item, recording in pairs]
    return estimate([ours for ours, _ in errors], [theirs for _, theirs in errors], seed)


def build_report(
    rows: Mapping[str, Items], settings: Mapping[str, Any], seed: int, human: str = "recordings"
) -> dict[str, Any]:
    """Everything that is known of an evaluation, ready for JSON.

    Args:
        rows: per-item values by the name of the row; HUMAN is the name of the recordings' row.
        settings: whatever made the rows: backend, options, protocol, instruments.
    """
    report: dict[str, Any] = {
        "settings": dict(settings),
        "seed": seed,
        "versions": versions(),
        "interval": f"95 % bootstrap over items, {RESAMPLES} resamples, seed {seed}",
        "rows": {},
    }
    for name, items in rows.items():
        row: dict[str, Any] = {"metrics": {key: vars(figure) for key, figure in summarise(items, seed).items()}}
        ratio = times_human(items, rows[HUMAN], seed) if HUMAN in rows and name != HUMAN else None
        if ratio is not None:
            row["wer_times_human"] = vars(ratio)
        speakers = _averaged(items, "sim", "speaker")
        if speakers:
            row["speakers"] = speakers
        report["rows"][name] = row | {"items": [dict(item) for item in items]}
    return report


def save_report(report: Mapping[str, Any], path: str | Path, tables: Sequence[Table] = ()) -> None:
    """Write a report as JSON, and beside it its table, and further ones, as Markdown; each whole or not at all."""
    write_whole(Path(path).with_suffix(".md"), "\n".join(map(markdown, [table(report), *tables])).encode())
    write_whole(Path(path), (json.dumps(report, indent=1, ensure_ascii=False, default=str) + "\n").encode())


def table(report: Mapping[str, Any]) -> Table:
    """A report as one table: a column for each row of it, a line for each metric, "value [low, high]"."""
    rows = report["rows"]
    drawn = Table(caption=report["interval"])
    drawn.add_column("")
    for name, row in rows.items():
        drawn.add_column(f"{name} ({len(row['items'])})", justify="right")
    for metric in METRICS:
        figures = [row["metrics"].get(metric.name) for row in rows.values()]
        if any(figures):
            drawn.add_row(metric.label, *(figure_text(figure, metric.percent) for figure in figures))
    ratios = [row.get("wer_times_human") for row in rows.values()]
    if any(ratios):
        drawn.add_row("WER, times that of recordings", *(figure_text(ratio) for ratio in ratios))
    rates = [row.get("bits_per_second") for row in rows.values()]
    if any(rates):
        drawn.add_row("kbit/s", *("" if rate is None else f"{rate / 1000:.2f}" for rate in rates))
    return drawn


def markdown(drawn: Table) -> str:
    """A table as Markdown, its title before and its caption behind."""
    columns = drawn.columns
    lines = [[str(column.header) for column in columns], [":--" if i == 0 else "--:" for i in range(len(columns))]]
    lines += [list(cells) for cells in zip(*([str(cell) for cell in column.cells] for column in columns), strict=True)]
    body = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
    title = f"{drawn.title}\n\n" if drawn.title else ""
    return f"{title}{body}\n{drawn.caption}\n" if drawn.caption else f"{title}{body}"


def figure_text(figure: Mapping[str, float] | None, percent: bool = False) -> str:
    """ "value [low, high]" of an estimate in a report; "" for none."""
    if figure is None:
        return ""
    value, low, high = (figure[name] * (100 if percent else 1) for name in ("value", "low", "high"))
    digits = 1 if percent else 3
    return f"{value:.{digits}f}{' %' if percent else ''} [{low:.{digits}f}, {high:.{digits}f}]"
