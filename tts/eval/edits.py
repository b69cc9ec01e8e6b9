"""Word replacements: a word of each of some recordings is edited to another, and heard beside the same word in plain synthesis.

recording   the cat sat on the mat     ─► edit ─►          the dog sat on the mat      phones heard where `dog` lies
                                       ─► synthesis ─►     the dog sat on the mat      the same, of the whole text said anew
            the cat sat on the mat     ─► as recorded                                  the same of `cat`
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from rich.table import Table

from tts.asr.align import phones_of
from tts.audio import resample
from tts.editing import find_changes
from tts.errors import InputError
from tts.eval.phones import PhoneEars
from tts.eval.protocols import Item
from tts.eval.quality import RATE
from tts.eval.report import estimate, figure_text, markdown
from tts.eval.wer import phone_errors
from tts.files import write_whole
from tts.frames import Request
from tts.pipeline import Synthesizer
from tts.recording import read
from tts.text.tokens import PHONES

SHORTEST = 4  # letters of a word that is replaced, and of one that comes in its place
ROWS = {"edited": "edited", "spoken": "spoken anew", "recorded": "recorded, the word before"}


@dataclass(frozen=True)
class Replacement:
    """Word `old` of an item's text became `new` in `text`."""

    item: Item
    old: str
    new: str
    text: str


def replacements(items: Sequence[Item], count: int, seed: int = 0) -> list[Replacement]:
    """A word inside each of `count` recorded items, evenly spaced, and a word of another item for it: the same on every call.

    Raises InputError: fewer items have a recording and such a word.
    """
    words = {item.id: item.text.split() for item in items}
    inside = {name: [n for n in range(1, len(own) - 1) if _plain(own[n])] for name, own in words.items()}
    usable = [item for item in items if item.recording is not None and inside[item.id]]
    if not 0 < count <= len(usable):
        raise InputError(f"{count} words cannot be replaced: {len(usable)} items have a recording and a word inside of it")
    chance = random.Random(f"replacements {seed}")
    found = []
    for item in [usable[len(usable) * k // count] for k in range(count)]:
        own = words[item.id]
        n = chance.choice(inside[item.id])
        others = sorted({word for name, list_ in words.items() if name != item.id for word in list_ if _plain(word)} - set(own))
        if not others:
            raise InputError(f"no other item has a word of {SHORTEST} letters to put into {item.id}")
        new = chance.choice(others)
        found.append(Replacement(item, own[n], new, " ".join([*own[:n], new, *own[n + 1 :]])))
    return found


def span_errors(ears: PhoneEars, samples: np.ndarray, text: str, other: str) -> tuple[int, int]:
    """(errors, phones) of the words of `text` that `other` does not have, where they lie in samples [N] of 16 kHz."""
    tokens = ears.tokens(text)
    asked, wanted, before = phones_of(tokens), list[int](), 0
    for change in find_changes(ears.tokens(other), tokens):
        before = len(phones_of(tokens[: change.new[0]])) if not wanted else before
        wanted += phones_of(tokens[change.new[0] : change.new[1]])
    names = PHONES.recognizer_symbols
    heard = ears.between(samples, asked, before, before + len(wanted))
    return phone_errors([names[phone] for phone in wanted], [names[phone] for phone in heard])


def run_edits(
    chosen: Sequence[Replacement],
    synthesizer: Synthesizer,
    folder: str | Path,
    ears: PhoneEars,
    backend: str = "flow",
    seed: int = 0,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Edit, speak and measure every replacement, one try each, and write report.json, report.md and the edited sounds.

    Returns:
        the report: "items", and "rows" with the PER of the replaced words where edited, where the whole text is spoken with the
        recording as the prompt, and of the word before in the recording; "ratio" of the first two; "kept": the share of items
        whose samples outside of the reported edits are the recording's, bit for bit; "refused": those that could not be edited.
    Raises InputError: that is so of all.
    """
    folder = Path(folder)
    (folder / "edited").mkdir(parents=True, exist_ok=True)
    items: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    for one in track(chosen, "editing"):
        recording, item = one.item.recording, one.item
        options: dict[str, Any] = {"backend": backend, "seed": seed, "check": False, "settings": settings}
        try:
            edited = synthesizer.edit(recording, item.text, one.text, **options)
        except InputError as error:  # a transcript that the recognizer does not hear in its recording
            refused.append({"id": item.id, "reason": str(error)})
            continue
        edited.save(folder / "edited" / f"{item.file_name}.wav")
        spoken = synthesizer.speak(Request(one.text, recording, item.text, **options))
        given, rate = read(recording)
        sounds = {
            "edited": (edited.samples, edited.sample_rate, one.text, item.text),
            "spoken": (spoken.samples, spoken.sample_rate, one.text, item.text),
            "recorded": (given.numpy(), rate, item.text, one.text),
        }
        row: dict[str, Any] = {"id": item.id, "old": one.old, "new": one.new, "text": one.text}
        for name, (samples, own, text, other) in sounds.items():
            at_rate = resample(torch.as_tensor(samples), own, RATE).numpy()
            row[f"{name}_errors"], row[f"{name}_phones"] = span_errors(ears, at_rate, text, other)
        kept = all(np.array_equal(a, b) for a, b in _outside(given.numpy(), edited.samples, edited.report.edits))
        items.append({**row, "kept": kept, "edits": [asdict(change) for change in edited.report.edits]})
    if not items:
        raise InputError(f"no recording could be edited; the first: {refused[0]['id']}: {refused[0]['reason']}")
    rows = {}
    for name in ROWS:
        errors, phones = ([float(row[f"{name}_{key}"]) for row in items] for key in ("errors", "phones"))
        found = estimate(errors, phones, seed)
        rows[name] = vars(found) if found is not None else None
    spoken_per = rows["spoken"]["value"] if rows["spoken"] else 0.0
    report = {
        "system": synthesizer.identity,
        "backend": backend,
        "seed": seed,
        "rows": rows,
        "ratio": rows["edited"]["value"] / spoken_per if rows["edited"] and spoken_per else None,
        "kept": sum(row["kept"] for row in items) / len(items),
        "items": items,
        "refused": refused,
    }
    write_whole(folder / "report.md", markdown(edit_table(report)).encode())
    write_whole(folder / "report.json", (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    return report


def edit_table(report: dict[str, Any]) -> Table:
    """The PER of the replaced words, edited and spoken anew, and of the words that they replace."""
    ratio = f"{report['ratio']:.2f}" if report["ratio"] is not None else "none"
    kept = f"{100 * report['kept']:.0f} % of recordings keep all other samples; {len(report['refused'])} could not be edited"
    drawn = Table(title="word replacements", caption=f"edited over spoken: {ratio}; {kept}")
    for heading in ("", "items", "PER of the word"):
        drawn.add_column(heading, justify="right" if heading else "left")
    for name, label in ROWS.items():
        drawn.add_row(label, str(len(report["items"])), figure_text(report["rows"][name], percent=True))
    return drawn


def _plain(word: str) -> bool:
    return len(word) >= SHORTEST and word.isalpha()


def _outside(before: np.ndarray, after: np.ndarray, edits: Sequence[Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The stretches of both that no edit replaced, in pairs."""
    pairs, old, new = [], 0, 0
    for change in edits:
        pairs.append((before[old : change.old[0]], after[new : change.new[0]]))
        old, new = change.old[1], change.new[1]
    return [*pairs, (before[old:], after[new:])]
