"""One evaluation from end to end: every sentence of a protocol is spoken, kept, measured and reported."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from tts.audio import save
from tts.errors import OutputError, PromptError, SettingsError, TextError
from tts.eval.measures import Clip, Meters, measure, read_clip
from tts.eval.plots import plot_item, worst
from tts.eval.protocols import Item, read_protocol
from tts.eval.report import HUMAN, build_report, save_report
from tts.files import write_whole

log = logging.getLogger(__name__)
PLOTS = 4  # of the first items and of the worst, each


class Speaks(Protocol):
    """What is evaluated: `tts.pipeline.Synthesizer`, or anything that speaks like it."""

    def synthesize(
        self, text: str, prompt: Any, *, prompt_text: str | None, backend: str, seed: int, check: bool, settings: Any
    ) -> Any:
        """An audio with `samples` [N], `sample_rate` in Hz and `report`; raises TextError or PromptError."""
        ...


def run(
    protocol: str | Path,
    synthesizer: Speaks,
    folder: str | Path,
    meters: Meters | None = None,
    checks: Sequence[bool] = (False, True),
    backend: str = "flow",
    seed: int = 0,
    settings: Any = None,
) -> dict[str, Any]:
    """Speak every item of a protocol once, with one seed, measure all of it, and write what was found.

    The folder then holds, for each value of `checks`, a row of sounds and reports (`check-off/ID.wav`, `ID.json`), report.json,
    plots/ (the first items and the worst) and transcripts.json. What is there already is not spoken again, so a run that was
    cut short goes on where it stopped. An item whose text or prompt is refused counts as an empty output.

    Args:
        meters: the instruments; None: `Meters()`, with transcripts kept in the folder.
        checks: synthesis with the check off, on, or both, each a row.
        settings: of the backend, as `synthesize` takes them.
    Returns:
        the report (see `build_report`); where items have recordings they are measured too, in the row "recordings".
    Raises:
        InputError for the protocol; SettingsError where the folder holds a run with other settings; OutputError;
        MissingPackageError before anything is spoken.
    """
    items = read_protocol(protocol)
    folder = Path(folder)
    meters = meters if meters is not None else Meters()
    meters = meters if meters.cache is not None else replace(meters, cache=folder / "transcripts.json")
    meters.require()
    about = {"protocol": Path(protocol).name, "backend": backend, "seed": seed, "settings": _plain(settings)}
    about |= {"system": getattr(synthesizer, "identity", None), "items": _digest(items), "meters": meters.names}
    _claim(folder, {name: value for name, value in about.items() if name != "meters"})

    # 1. speak
    options = {"backend": backend, "seed": seed, "settings": settings}
    for check in checks:
        speak_all(items, synthesizer, folder / _row_name(check), check=check, **options)
    # 2. measure
    voices = {path: read_clip(path) for path in {item.prompt for item in items}}
    rows = {_row_name(check): _measure_row(items, folder / _row_name(check), voices, meters) for check in checks}
    recorded = [
        Clip(item.id, read_clip(item.recording), item.text, voices[item.prompt]) for item in items if item.recording is not None
    ]
    if recorded:
        rows[HUMAN] = measure(recorded, meters)
    # 3. report
    report = build_report(rows, about, seed)
    save_report(report, folder / "report.json")
    _plot_rows(items, rows, folder)
    return report


def speak_all(items: Iterable[Item], synthesizer: Speaks, folder: Path, **options: Any) -> None:
    """Write ID.wav and then ID.json (what synthesis reported, the time it took) for each item that has no ID.json yet."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = [item for item in items if not _files(folder, item)[1].exists()]
    console = Console(stderr=True)
    for item in track(todo, f"speaking, {folder.name}", console=console, disable=not sys.stderr.isatty()):
        wav, about = _files(folder, item)
        started = time.perf_counter()
        try:
            audio = synthesizer.synthesize(item.text, item.prompt, prompt_text=item.prompt_text, **options)
        except (TextError, PromptError) as error:  # any other error is the system's, and would spoil every item
            log.warning("%s cannot be spoken: %s", item.id, error)
            samples, rate, told = torch.zeros(0), 16_000, {"error": f"{type(error).__name__}: {error}"}
        else:
            samples, rate, told = torch.as_tensor(audio.samples), audio.sample_rate, _plain(audio.report)
        spent = time.perf_counter() - started
        save(wav, samples, rate)
        write_whole(about, json.dumps({"spent_seconds": spent, "report": told}, indent=1, default=str).encode())


def _measure_row(items: Sequence[Item], folder: Path, voices: dict[Path, np.ndarray], meters: Meters) -> list[dict[str, Any]]:
    clips, abouts = [], []
    for item in items:
        wav, path = _files(folder, item)
        about = json.loads(path.read_text(encoding="utf-8"))
        planned = (about["report"] or {}).get("planned_seconds")
        clips.append(Clip(item.id, read_clip(wav), item.text, voices[item.prompt], planned_seconds=planned))
        abouts.append(about)
    return [row | about for row, about in zip(measure(clips, meters), abouts, strict=True)]


def _plot_rows(items: Sequence[Item], rows: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Pictures of the first items and of the worst of every system's row, the recording beneath."""
    (folder / "plots").mkdir(exist_ok=True)
    by_id = {item.id: item for item in items}
    for name, measured in rows.items():
        if name == HUMAN:
            continue
        chosen = {row["id"]: row for row in [*measured[:PLOTS], *worst(measured, PLOTS)]}
        for row in chosen.values():
            item = by_id[row["id"]]
            sounds = {name: read_clip(_files(folder / name, item)[0])}
            if item.recording is not None:
                sounds["recording"] = read_clip(item.recording)
            if not len(sounds[name]):
                continue
            wer = f", WER {row['utterance_wer']:.0%}" if "utterance_wer" in row else ""
            path = folder / "plots" / f"{name}-{item.file_name}.png"
            plot_item(path, sounds, f"{item.id}{wer}: {item.text}", row.get("alignment", ()))


def _claim(folder: Path, about: dict[str, Any]) -> None:
    """Make the folder, and let no two runs with different settings mix in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error}); give a folder you may write to") from error
    path = folder / "run.json"
    text = json.dumps(about, indent=1, default=str, sort_keys=True)
    if path.exists() and (there := path.read_text(encoding="utf-8")) != text:
        old, new = json.loads(there), json.loads(text)
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        raise SettingsError(f"{folder} holds a run with another {', '.join(changed)}; give a new folder, or remove this one")
    write_whole(path, text.encode())


def _row_name(check: bool) -> str:
    return "check-on" if check else "check-off"


def _files(folder: Path, item: Item) -> tuple[Path, Path]:
    return folder / f"{item.file_name}.wav", folder / f"{item.file_name}.json"


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _digest(items: Sequence[Item]) -> str:
    return hashlib.sha256("\n".join(map(repr, items)).encode()).hexdigest()[:16]
