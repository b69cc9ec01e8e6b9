"""Several protocols in one report: a row for each of them, and one for all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tts.errors import SettingsError
from tts.eval.measures import Meters
from tts.eval.report import HUMAN, build_report, save_report
from tts.eval.run import Speaks, run


def run_pooled(
    protocols: Sequence[str | Path],
    synthesizer: Speaks,
    folder: str | Path,
    meters: Meters | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Run each protocol in a folder of its own (`tts.eval.run.run` knows the options), and report on all their items together.

    Returns:
        the report: rows "NAME check-off", … for each protocol, named as its file without the extension, and "all check-off", …;
        items are named "NAME/ID". Recordings of all protocols are one row.
    Raises:
        SettingsError: two protocols have the same name. As `run`.
    """
    names = [Path(protocol).stem for protocol in protocols]
    if len(set(names)) < len(names):
        raise SettingsError(f"protocols are told apart by their file names, got {', '.join(names)}; rename one")
    folder = Path(folder)
    rows: dict[str, list[dict[str, Any]]] = {}
    pooled: dict[str, list[dict[str, Any]]] = {}
    about: dict[str, Any] = {}
    for name, protocol in zip(names, protocols, strict=True):
        report = run(protocol, synthesizer, folder / name, meters, seed=seed, **options)
        about[name] = report["settings"]
        for row, found in report["rows"].items():
            items = [item | {"id": f"{name}/{item['id']}"} for item in found["items"]]
            pooled.setdefault(row if row == HUMAN else f"all {row}", []).extend(items)
            if row != HUMAN:
                rows[f"{name} {row}"] = items
    together = build_report(rows | pooled, {"protocols": about}, seed)
    save_report(together, folder / "report.json")
    return together
