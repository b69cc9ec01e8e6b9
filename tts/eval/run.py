"""One evaluation from end to end: every sentence of a protocol is spoken, kept, measured and reported."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from tts.audio import save
from tts.errors import OutputError, PromptError, SettingsError, TextError
from tts.eval.measures import Clip, Meters, measure, read_clip
from tts.eval.pages import Entry, hardest, write_page
from tts.eval.plots import plot_item, worst
from tts.eval.protocols import Item, read_protocol
from tts.eval.report import HUMAN, build_report, save_report
from tts.files import write_whole

log = logging.getLogger(__name__)
Voices = Mapping[Path, np.ndarray]  # prompts by their files, [N] at 16 kHz
PLOTS = 4  # of the first items and of the worst, each


class Speaks(Protocol):
    """What is evaluated: `tts.pipeline.Synthesizer`, or anything that speaks like it."""

    def synthesize(
        self, text: str, prompt: Any, *, prompt_text: str | None, backend: str, seed: int, check: bool, settings: Any
    ) -> Any:
        """An audio with `samples` [N], `sample_rate` in Hz and `report`; raises TextError or PromptError."""
        ...

    def trying(self, retries: int, rerank: bool) -> Speaks:
        """The same, with other tries; asked of it only where there shall be several."""
        ...


@dataclass(frozen=True)
class Tries:
    """How often a sentence is tried: once, unchecked; up to `count` times, until the check passes; or, with `rerank`, `count`
    times, of which the check chooses the best."""

    count: int = 1
    rerank: bool = False

    @property
    def row(self) -> str:
        """Its row in the report, and its folder."""
        if self.rerank:
            return f"rerank-{self.count}"
        return {1: "check-off", 2: "check-on"}.get(self.count, f"check-on-{self.count}")


TRIES = (Tries(1), Tries(2))  # what a user may ask for: check off, check on


def run(
    protocol: str | Path,
    synthesizer: Speaks,
    folder: str | Path,
    meters: Meters | None = None,
    tries: Sequence[Tries] = TRIES,
    backend: str = "flow",
    seed: int = 0,
    settings: Any = None,
    pages: int = 0,
) -> dict[str, Any]:
    """Speak the items of a protocol file as `run_items` does."""
    items = read_protocol(protocol)
    return run_items(items, Path(protocol).name, synthesizer, folder, meters, tries, backend, seed, settings, pages)


def run_items(
    items: Sequence[Item],
    protocol: str,
    synthesizer: Speaks,
    folder: str | Path,
    meters: Meters | None = None,
    tries: Sequence[Tries] = TRIES,
    backend: str = "flow",
    seed: int = 0,
    settings: Any = None,
    pages: int = 0,
) -> dict[str, Any]:
    """Speak every item once, with one seed, measure all of it, and write what was found.

    The folder then holds, for each of `tries`, a row of sounds and reports (`check-off/ID.wav`, `ID.json`), report.json,
    report.md, plots/ (the first items and the worst), pages/ and transcripts.json. What is there already is not spoken
    again, so a run that was cut short goes on where it stopped. An item that is refused counts as an empty output.

    Args:
        protocol: what the items are called in the report.
        meters: the instruments; None: `Meters()`, with transcripts kept in the folder.
        tries: each a row.
        settings: of the backend, as `synthesize` takes them.
        pages: how many of each row's worst items the listening pages show; 0: none are written.
    Returns:
        the report (see `build_report`); where items have recordings they are measured too, in the row "recordings".
    Raises:
        InputError for the protocol; SettingsError where the folder holds a run with other settings; OutputError;
        MissingPackageError before anything is spoken.
    """
    folder = Path(folder)
    meters = meters if meters is not None else Meters()
    meters = meters if meters.cache is not None else replace(meters, cache=folder / "transcripts.json")
    meters.require()
    about = {"protocol": protocol, "backend": backend, "seed": seed, "settings": _plain(settings)}
    about |= {"system": getattr(synthesizer, "identity", None), "items": _digest(items), "meters": meters.names}
    _claim(folder, {name: value for name, value in about.items() if name != "meters"})

    # 1. speak
    options = {"backend": backend, "seed": seed, "settings": settings}
    for each in tries:
        speaks = synthesizer.trying(each.count - 1, each.rerank) if each.count > 1 else synthesizer
        speak_all(items, speaks, folder / each.row, check=each.count > 1, **options)
    # 2. measure
    voices = {item.prompt: read_clip(item.prompt) for item in items if item.prompt is not None}
    rows = {each.row: _measure_row(items, folder / each.row, voices, meters) for each in tries}
    recordings = {item.id: read_clip(item.recording) for item in items if item.recording is not None}
    if recordings:
        recorded = [item for item in items if item.id in recordings]
        clips = [Clip(item.id, recordings[item.id], item.text, _voice(item, voices)) for item in recorded]
        rows[HUMAN] = _with_speakers(recorded, measure(clips, meters))
    # 3. report
    report = build_report(rows, about, seed)
    save_report(report, folder / "report.json")
    _plot_rows(items, rows, folder)
    for each in tries if pages else ():
        _write_page(items, each.row, rows[each.row], folder, voices, meters, pages)
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


def _measure_row(items: Sequence[Item], folder: Path, voices: Voices, meters: Meters) -> list[dict[str, Any]]:
    clips, abouts = [], []
    for item in items:
        wav, path = _files(folder, item)
        about = json.loads(path.read_text(encoding="utf-8"))
        told = about["report"] or {}
        planned = told.get("planned_seconds")
        clips.append(Clip(item.id, read_clip(wav), item.text, _voice(item, voices), planned_seconds=planned))
        spoken = told.get("sentences", ())
        if spoken:
            about |= {"tries": sum(sentence["tries"] for sentence in spoken), "sentences": len(spoken)}
        abouts.append(about)
    measured = [row | about for row, about in zip(measure(clips, meters), abouts, strict=True)]
    return _with_speakers(items, measured)


def _voice(item: Item, voices: Voices) -> np.ndarray | None:
    return voices[item.prompt] if item.prompt is not None else None


def _with_speakers(items: Sequence[Item], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their items' speakers; a prompt of nobody known is a speaker of its own."""
    names = [item.speaker or (str(item.prompt) if item.prompt is not None else None) for item in items]
    return [row | {"speaker": name} for row, name in zip(rows, names, strict=True)]


def _write_page(
    items: Sequence[Item],
    name: str,
    rows: list[dict[str, Any]],
    folder: Path,
    voices: Voices,
    meters: Meters,
    count: int,
) -> None:
    """A row's worst items to listen to and to look at."""
    by_id = {item.id: item for item in items}
    entries = []
    for row in hardest(rows, count):
        item = by_id[row["id"]]
        recording = read_clip(item.recording) if item.recording is not None else None
        sound = read_clip(_files(folder / name, item)[0])
        entries.append(Entry(item.text, row, sound, _voice(item, voices), recording))
    (folder / "pages").mkdir(exist_ok=True)
    write_page(folder / "pages" / f"{name}.html", f"{name}: the {len(entries)} worst of {len(rows)}", entries, meters.said)


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


def _files(folder: Path, item: Item) -> tuple[Path, Path]:
    return folder / f"{item.file_name}.wav", folder / f"{item.file_name}.json"


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _digest(items: Sequence[Item]) -> str:
    return hashlib.sha256("\n".join(map(repr, items)).encode()).hexdigest()[:16]
