"""What to synthesise in an evaluation: protocol files, read, written, and made from a manifest."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tts.errors import InputError, nearest

COLUMNS = ("id", "prompt", "prompt_text", "text", "recording", "speaker")
REQUIRED = ("id", "prompt", "text")
COPIED = ("id", "recording")  # what is required where recordings are copied, and nothing is spoken
SENTENCE_SECONDS = (2.5, 12.0)  # clips whose transcript is spoken again
PROMPT_SECONDS = (3.0, 10.0)  # clips that serve as their prompt
SENTENCE_WORDS = (5, 25)  # sentences that prompts without a transcript are given


@dataclass(frozen=True)
class Item:
    """One sentence to speak in one voice; `recording`: the same sentence spoken by the same person, if there is one.

    prompt: None is the system's own voice.
    """

    id: str
    text: str
    prompt: Path | None
    prompt_text: str | None = None
    recording: Path | None = None
    speaker: str | None = None

    @property
    def file_name(self) -> str:
        """The id, and where it holds other signs than letters, digits, "-" and "_", those replaced and a digest added."""
        plain = re.sub(r"[^\w-]", "_", self.id)
        return plain if plain == self.id else f"{plain}-{hashlib.sha256(self.id.encode()).hexdigest()[:8]}"


def read_protocol(path: str | Path, required: Sequence[str] = REQUIRED) -> list[Item]:
    """Read a protocol: a Seed-TTS-eval list or a TSV (one whose first line has a tab). Paths in it are relative to the file.

    List: `id|prompt text|prompt wav|text`, and optionally `|recording`.
    TSV: a header with the columns id, prompt and text, and optionally prompt_text, recording and speaker; with other `required`
    columns those instead. An item without a prompt has its recording for one, an item without a text has "".

    Raises:
        InputError, naming file and line: no such file, a missing or unknown column, an empty field that is required, an id
        twice, a sound file that does not exist, no item at all.
    Source: the list format is that of seed-tts-eval (Anastassiou et al. 2024, arXiv:2406.02430).
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give a Seed-TTS-eval list or a TSV") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({error}); give a Seed-TTS-eval list or a TSV") from error
    rows = _tsv_rows(path, lines, required) if lines and "\t" in lines[0] else _list_rows(path, lines)
    items: dict[str, Item] = {}
    for number, row in rows:
        item = _item(path, number, row, required)
        if item.id in items:
            raise InputError(f"{path}, line {number}: the id {item.id!r} was used before; ids must differ")
        items[item.id] = item
    if not items:
        raise InputError(f"{path} holds no items; give at least one line")
    return list(items.values())


def _list_rows(path: Path, lines: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split("|")
        if len(fields) not in (4, 5):
            form = "id|prompt text|prompt wav|text[|recording]"
            raise InputError(f"{path}, line {number}: {len(fields)} fields between bars; a list has 4 or 5: {form}")
        yield number, dict(zip(("id", "prompt_text", "prompt", "text", "recording"), fields, strict=False))


def _tsv_rows(path: Path, lines: Sequence[str], required: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    names = [name.strip() for name in lines[0].split("\t")]
    for name in names:
        if name not in COLUMNS:
            hint = nearest(name, list(COLUMNS))
            raise InputError(f"{path}, line 1: unknown column {name!r}{hint}; columns are {', '.join(COLUMNS)}")
    missing = [name for name in required if name not in names]
    if missing or len(set(names)) < len(names):
        needs = f"needs {', '.join(required)}, each column once"
        raise InputError(f"{path}, line 1: the header is {', '.join(names)}; a protocol {needs}")
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) > len(names):
            raise InputError(f"{path}, line {number}: {len(fields)} fields under {len(names)} columns")
        yield number, dict(zip(names, fields, strict=False))


def _item(path: Path, number: int, row: dict[str, str], required: Sequence[str]) -> Item:
    row = {name: value.strip() for name, value in row.items()}
    for name in required:
        if not row.get(name):
            raise InputError(f"{path}, line {number}: {name} is empty; every item needs {', '.join(required)}")
    sounds: dict[str, Path | None] = {"prompt": None, "recording": None}
    for name in sounds:
        if row.get(name):
            sound = path.parent / row[name]
            if not sound.is_file():
                raise InputError(f"{path}, line {number}: no {name} {sound}; paths are relative to the protocol")
            sounds[name] = sound
    prompt = sounds["prompt"] or sounds["recording"]
    assert prompt is not None
    return Item(
        row["id"], row.get("text", ""), prompt, row.get("prompt_text") or None, sounds["recording"], row.get("speaker") or None
    )


def write_protocol(items: Iterable[Item], path: str | Path) -> None:
    """Write items as a TSV, with absolute paths, so that the file may lie anywhere."""
    rows = ["\t".join(COLUMNS)]
    for item in items:
        recording = str(item.recording.resolve()) if item.recording else ""
        fields = (
            item.id,
            str(item.prompt.resolve()) if item.prompt else "",
            item.prompt_text or "",
            item.text,
            recording,
            item.speaker or "",
        )
        rows.append("\t".join(" ".join(field.split()) for field in fields))
    Path(path).write_text("\n".join(rows) + "\n", encoding="utf-8")


def from_manifest(
    manifest: str | Path, texts: str | Path, per_speaker: int = 20, corpora: Collection[str] | None = None
) -> tuple[list[Item], list[Item]]:
    """Two protocols from a manifest of recordings (columns path, corpus, speaker, seconds, text), the same on every call.

    Returns:
        spoken again: clips with a transcript that last SENTENCE_SECONDS, at most `per_speaker` of a speaker, evenly spaced over
            the manifest; the recording is the clip, the prompt the next other clip of the speaker that lasts PROMPT_SECONDS.
        new sentences: each speaker without any transcript, in the manifest's order, with the next line of `texts` that has
            SENTENCE_WORDS; as many as there are speakers and sentences for.
    `corpora` limits the first protocol to these corpora (None: all).
    """
    manifest = Path(manifest)
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    speakers: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        speakers.setdefault(row["speaker"], []).append(row)

    again = []
    for speaker, clips in speakers.items():
        clips = [clip for clip in clips if clip["text"] and (corpora is None or clip["corpus"] in corpora)]
        sentences = [clip for clip in clips if _lasts(clip, SENTENCE_SECONDS)]
        prompts = [clip for clip in clips if _lasts(clip, PROMPT_SECONDS)]
        count = min(per_speaker, len(sentences))
        for sentence in (sentences[len(sentences) * i // count] for i in range(count)):
            at = clips.index(sentence)
            others = [clip for clip in clips[at + 1 :] + clips[:at] if clip in prompts]
            if others:
                again.append(_again(manifest.parent, speaker, sentence, others[0]))

    fewest, most = SENTENCE_WORDS
    lines = Path(texts).read_text(encoding="utf-8").splitlines()
    sentences_left = iter([line.strip() for line in lines if fewest <= len(line.split()) <= most])
    silent = [clips[0] for clips in speakers.values() if not any(clip["text"] for clip in clips)]
    new = [
        Item(Path(clip["path"]).stem, text, manifest.parent / clip["path"], speaker=clip["speaker"])
        for clip, text in zip(silent, sentences_left, strict=False)
    ]
    return again, new


def shorten(items: Iterable[Item]) -> list[Item]:
    """The items with only the first one, two, three, one, … words of their texts: what short requests are tested with."""
    short = []
    for index, item in enumerate(items):
        text = " ".join(item.text.split()[: 1 + index % 3])
        short.append(replace(item, text=text, recording=None))
    return short


def _lasts(clip: dict[str, str], seconds: tuple[float, float]) -> bool:
    return seconds[0] <= float(clip["seconds"]) <= seconds[1]


def _again(folder: Path, speaker: str, sentence: dict[str, str], prompt: dict[str, str]) -> Item:
    recording = folder / sentence["path"]
    return Item(recording.stem, sentence["text"], folder / prompt["path"], prompt["text"], recording, speaker)
