"""The hard list: 200 texts that make synthesis stumble, and how many of each kind come out whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tts.eval.measures import Meters
from tts.eval.protocols import Item
from tts.eval.report import METRICS, figure_text, save_report, summarise, wilson
from tts.eval.run import Speaks, Tries, run_items

LIST = Path(__file__).with_name("hard.tsv")  # category, text: numbers, times, words, repeats, twisters, long (60 words each)
SHOWN = ("lost", "per", "wer")  # beside the share of items without runs


def hard_items(voices: Sequence[Item] = ()) -> list[Item]:
    """The list, "numbers-01" to "long-34", in the voices of a protocol's items by turns; without any, in the system's own."""
    items: list[Item] = []
    counts: dict[str, int] = {}
    for number, line in enumerate(LIST.read_text(encoding="utf-8").splitlines()[1:]):
        category, text = line.split("\t")
        counts[category] = counts.get(category, 0) + 1
        voice = voices[number % len(voices)] if voices else Item("", "", None)
        name = f"{category}-{counts[category]:02}"
        items.append(Item(name, text, voice.prompt, voice.prompt_text, None, voice.speaker))
    return items


def run_hard(
    items: Sequence[Item],
    synthesizer: Speaks,
    folder: str | Path,
    meters: Meters,
    tries: Sequence[Tries] = (Tries(2),),
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Run items of the hard list (`tts.eval.run.run_items` knows the options); report.md has a table of categories, too.

    Returns:
        the report; report["categories"][row][category] holds "free": the share of items in which no run of phones is missing or
        repeated, as the system's recognizer hears it, with its Wilson interval; and words lost, PER and WER. Words come from
        another recognizer, since the first one has already chosen among tries.
    """
    report = run_items(items, "hard", synthesizer, folder, meters, tries, seed=seed, **options)
    report["categories"] = {name: _categories(row["items"], seed) for name, row in report["rows"].items()}
    save_report(report, Path(folder) / "report.json", category_tables(report))
    return report


def category_tables(report: dict[str, Any]) -> list[Table]:
    """A table for each row of the report: a line for each category, and one for all."""
    metrics = {metric.name: metric for metric in METRICS}
    tables = []
    for name, categories in report["categories"].items():
        drawn = Table(
            title=f"hard list, {name}", caption="95 % intervals: Wilson's of the shares of items, bootstrap of the others"
        )
        for heading in ("", "items", *(metrics[key].label for key in ("free", *SHOWN))):
            drawn.add_column(heading, justify="right" if heading else "left")
        for category, found in categories.items():
            figures = [figure_text(found.get(key), percent=True) for key in ("free", *SHOWN)]
            drawn.add_row(category, str(found["items"]), *figures)
        tables.append(drawn)
    return tables


def _categories(rows: Sequence[dict[str, Any]], seed: int) -> dict[str, dict[str, Any]]:
    """What the items of each category score, and in the end of "all"."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["id"].rpartition("-")[0], []).append(row)
    found = {}
    for category, members in {**groups, "all": list(rows)}.items():
        free = [row["free"] for row in members if "free" in row]
        share = wilson(sum(free), len(free))
        figures = {name: vars(figure) for name, figure in summarise(members, seed).items() if name in SHOWN}
        found[category] = {"items": len(members), **({"free": vars(share)} if share is not None else {}), **figures}
    return found
