"""What a batch shall say: manifests as JSONL, CSV, TSV or Seed-TTS-eval lists become jobs, or are refused in one sentence.

A row is a request. Its columns are those of `COLUMNS`, any of which but text may be missing; "settings.steps" is a setting of
the backend. Other columns travel along, untouched.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tts.errors import InputError, SettingsError
from tts.frames import Request
from tts.request import check_request
from tts.sampling.philox import derive
from tts.serve.jobs.urls import beside, is_url, read_url
from tts.voices import VOICE

COLUMNS = (
    *("id", "text", "prompt", "voice", "prompt_text", "seed"),
    *("speed", "seconds", "language", "backend", "check", "settings"),
)
LIST = ("id", "prompt_text", "prompt", "text", "recording")  # the columns of a Seed-TTS-eval list
SETTING = "settings."  # a column that begins with this is one of the backend's settings
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
GIVE = "give a manifest: JSONL, CSV, TSV or a Seed-TTS-eval list"
Row = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One row: what to say, under which id, and what travels along."""

    id: str
    row: int  # of the manifest, from 1, its header included
    request: Request
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """The id, and where it holds other signs than letters, digits, "-" and "_", those replaced and a digest added."""
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", self.id)[:80]
        return plain if plain == self.id else f"{plain}-{hashlib.sha256(self.id.encode()).hexdigest()[:8]}"


def read_manifest(path: str | Path, template: Request = Request("")) -> list[Job]:
    """The jobs of a manifest, in its order. Paths in it are relative to the file; URLs are understood for both.

    JSONL: an object a line. CSV, TSV: a header, then rows; an empty field is not given. List: `id|prompt text|prompt wav|text`.

    Args:
        template: what a row does not say. Its seed is not taken as it is: the seed of an item is derived from it and the
            item's id, so that it depends neither on the row's place nor on other rows.
    Raises:
        InputError: the manifest cannot be used; one sentence that names the row and the column.
    Source: the list format is that of seed-tts-eval (Anastassiou et al. 2024, arXiv:2406.02430).
    """
    file = str(path) if is_url(path) else str(Path(path))
    try:
        data = read_url(file) if is_url(file) else Path(file).read_bytes()
        text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read()
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist; {GIVE}") from error
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{file} cannot be read as UTF-8 text ({reason}); {GIVE}") from error
    if "\0" in text:
        raise InputError(f"{file} holds zero bytes, so it is no text; save a spreadsheet as CSV, or {GIVE}")
    if re.match(r"\s*\[\s*\{", text):
        raise InputError(f"{file} is one list of JSON; a manifest is JSONL, with an object a line and no brackets around them")
    jobs: dict[str, Job] = {}
    for number, row in _rows(file, text):
        job = _job(file, number, row, template)
        if "id" in row and job.id in jobs:
            raise InputError(
                f"{file}, row {number}, column id: {job.id!r} is that of row {jobs[job.id].row}, too; ids must differ"
            )
        while job.id in jobs:  # two rows that say the same: each is spoken
            job = _named(job, f"{job.id}-again", template, row)
        jobs[job.id] = job
    if not jobs:
        raise InputError(f"{file} holds no items; give at least one row")
    return list(jobs.values())


def travelling(jobs: list[Job]) -> list[str]:
    """The columns that mean nothing here, each with the one that may have been meant: "promt (did you mean 'prompt'?)"."""
    names = dict.fromkeys(name for job in jobs for name in job.extra)
    return [name + "".join(f" (did you mean {one!r}?)" for one in get_close_matches(name, COLUMNS, 1, 0.8)) for name in names]


# ------------------------------------------------------------------------------------------------------------------ rows


def _rows(path: str, text: str) -> Iterator[Row]:
    """The rows of a manifest of any kind, without what is not given."""
    first = text.lstrip().partition("\n")[0]
    kind = Path(path).suffix.lower()
    if kind in (".jsonl", ".ndjson") or first.startswith("{"):
        return _objects(path, text)
    if "|" in first and "\t" not in first and kind not in (".csv", ".tsv"):
        return _list(path, text)
    return _table(path, text, max("\t,;", key=first.count))


def _objects(path: str, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON may hold other line separators
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{path}, row {number}: it holds half of a character, {error.object[error.start]!a}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, row {number}: this is not JSON ({error}); write one object a line") from error
        if not isinstance(row, dict):
            raise InputError(f'{path}, row {number}: write an object, such as {{"text": "…"}}, got {line.strip()[:40]}')
        yield number, {name: value for name, value in row.items() if value is not None}


def _list(path: str, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), 1):
        fields = [part.strip() for part in line.split("|")]
        if line.strip() and len(fields) not in (4, 5):
            form = "id|prompt text|prompt wav|text[|recording]"
            raise InputError(f"{path}, row {number}: {len(fields)} fields between bars; a list has 4 or 5: {form}")
        if line.strip():
            yield number, _given(LIST, fields)


def _table(path: str, text: str, delimiter: str) -> Iterator[Row]:
    # Tab-separated texts hold quotation marks that quote speech, and no field.
    lines = io.StringIO(text, newline="")
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] = []
    number = 0
    try:
        for number, fields in enumerate(reader, 1):
            if not names:
                names = [name.strip() for name in fields]
                if "text" not in names or len(set(names)) < len(names):
                    has = f"the header is {', '.join(names)[:200]}"
                    raise InputError(f"{path}, row {number}, column text: {has}; a manifest needs text, and each column once")
            elif len(fields) > len(names):
                raise InputError(
                    f"{path}, row {number}: {len(fields)} fields under {len(names)} columns; quote a text with commas"
                )
            elif any(part.strip() for part in fields):
                yield number, {"text": "", **_given(names, fields)}
    except csv.Error as error:
        raise InputError(f"{path}, row {number + 1}: the fields cannot be told apart ({error})") from error


def _given(names: list[str] | tuple[str, ...], fields: list[str]) -> dict[str, Any]:
    return {name: part.strip() for name, part in zip(names, fields, strict=False) if part.strip()}


# ------------------------------------------------------------------------------------------------------------------ a row


def _job(path: str, number: int, row: dict[str, Any], template: Request) -> Job:
    """A row as a job. Raises InputError, naming row and column."""

    def wrong(column: str, wants: str) -> InputError:
        return InputError(f"{path}, row {number}, column {column}: {wants}, got {row.get(column)!r}")

    def text(column: str) -> str | None:
        if not isinstance(row.get(column), str | None):
            raise wrong(column, "it must be text")
        return row.get(column)

    def parsed(column: str, kind: type[int] | type[float], wants: str) -> Any:
        value = row.get(column)
        try:
            if isinstance(value, bool) or (kind is int and isinstance(value, float)):
                raise ValueError
            return kind(value) if value is not None else None
        except (ValueError, TypeError, OverflowError) as error:
            raise wrong(column, f"it must be {wants}") from error

    said = text("text")
    if said is None:
        raise InputError(f"{path}, row {number}, column text: it is missing; every row needs a text")
    seconds, speed = parsed("seconds", float, "a number"), parsed("speed", float, "a number")
    truth = str(row.get("check", template.check)).lower()
    if truth not in TRUTHS:
        raise wrong("check", "it must be true or false")
    request = replace(
        template,
        text=said,
        prompt_text=text("prompt_text") or (None if row.keys() & {"prompt", "voice"} else template.prompt_text),
        backend=text("backend") or template.backend,
        language=text("language") or template.language,
        speed=speed if speed is not None else (template.speed if seconds is None else 1.0),
        seconds=seconds if seconds is not None else (template.seconds if speed is None else None),
        check=TRUTHS[truth],
    )
    voice, prompt = text("voice"), row.get("prompt")
    if voice and prompt:
        raise wrong("voice", f"give a prompt or a voice, not both (the prompt is {prompt!r})")
    if prompt:
        recordings = prompt if isinstance(prompt, list) else [prompt]
        if not all(isinstance(one, str) and one for one in recordings):
            raise wrong("prompt", "it must be the path of a recording, or a list of them")
        places = [one if one.startswith(VOICE) else beside(path, one) for one in recordings]
        request = replace(request, prompt=places if isinstance(prompt, list) else places[0])
    elif voice:
        request = replace(request, prompt=f"{VOICE}{voice.removeprefix(VOICE)}")
    request = replace(request, settings=_settings(path, number, row, request, template))
    name = row.get("id")
    if not isinstance(name, str | int | None) or isinstance(name, bool) or name == "":
        raise wrong("id", "it must be text or a whole number")
    own = parsed("seed", int, "a whole number")
    try:
        check_request(request if own is None else replace(request, seed=own))
    except InputError as error:
        columns = next((column for column in COLUMNS if str(error).startswith(column)), "speed and seconds")
        raise InputError(f"{path}, row {number}, column {columns}: {error}") from error
    extra = {column: value for column, value in row.items() if column not in COLUMNS and not column.startswith(SETTING)}
    content = json.dumps(row, sort_keys=True, ensure_ascii=False)
    job = Job("", number, request, extra)
    return _named(job, str(name) if name is not None else hashlib.sha256(content.encode()).hexdigest()[:12], template, row)


def _named(job: Job, name: str, template: Request, row: Mapping[str, Any]) -> Job:
    """The job under an id; its seed is the row's own, or derived from that of the batch and the id."""
    word = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    seed = int(row["seed"]) if "seed" in row else derive(template.seed, word)
    return replace(job, id=name, request=replace(job.request, seed=seed))


def _settings(path: str, number: int, row: dict[str, Any], request: Request, template: Request) -> dict[str, Any] | None:
    """The backend's settings of a row, over those of the template where they are for the same backend."""
    settings = dict(template.settings or {}) if request.backend == template.backend else {}
    given = row.get("settings", {})
    try:
        given = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f'{path}, row {number}, column settings: write JSON, such as {{"steps": 8}}, got {given!r}'
        ) from error
    if not isinstance(given, dict):
        raise SettingsError(f"{path}, row {number}, column settings: it must be names and values, got {given!r}")
    settings.update(given)
    for column, value in row.items():
        if column.startswith(SETTING):
            settings[column.removeprefix(SETTING)] = _value(value)
    return settings or None


def _value(written: Any) -> Any:
    """A field of a table as the number or truth it spells; else as it is."""
    try:
        return json.loads(written) if isinstance(written, str) else written
    except (ValueError, RecursionError):
        return written
