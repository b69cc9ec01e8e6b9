"""A batch from outside: a manifest and the recordings uploaded with it become a zip of sounds; no other file is read.

A row's prompt is a voice, or the name of a recording that was uploaded beside the manifest, whatever folder the row says; a
path of this machine is therefore never followed.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any

from tts.audio import FORMATS
from tts.errors import InputError, PromptError, SettingsError
from tts.frames import Request
from tts.pipeline import Synthesizer
from tts.serve.batch import ERRORS, RESULTS, Tally, run_batch
from tts.serve.jobs.manifests import Job, read_manifest
from tts.serve.jobs.workers import Outcome, Speaker, Work
from tts.serve.page.studio import Shown, progressing, watched
from tts.voices import VOICE

MOST_ITEMS, MOST_LETTERS = 500, 200_000  # of one manifest; a longer one is a matter for `mynah batch`
SHOWN = 200  # rows of the table of results


@dataclass(frozen=True)
class Loaded:
    """The engine of a batch whose only worker is a system that is loaded already."""

    synthesizer: Synthesizer

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[Outcome]:
        yield from map(Speaker(work, self.synthesizer), jobs)


def read_upload(manifest: str | None, recordings: Sequence[str], template: Request) -> list[Job]:
    """The jobs of an uploaded manifest. Raises InputError: it cannot be used, or asks for what was not uploaded."""
    if not manifest:
        raise InputError("there is no manifest yet; upload one: JSONL, CSV, TSV or a Seed-TTS-eval list, with a column text")
    brought = {Path(recording).name: recording for recording in recordings}

    def place(job: Job, prompt: str) -> str:
        name = PurePosixPath(prompt.replace("\\", "/")).name
        if prompt.startswith(VOICE) or name in brought:
            return prompt if prompt.startswith(VOICE) else brought[name]
        have = ", ".join(sorted(brought)) or "none"
        raise PromptError(f"row {job.row}, column prompt: {name!r} was not uploaded with the manifest; these were: {have}")

    def brought_only(job: Job) -> Job:
        prompt = job.request.prompt
        if job.request.prompt is template.prompt or prompt is None:
            return job
        places = [place(job, one) for one in prompt] if isinstance(prompt, list) else place(job, prompt)
        return replace(job, request=replace(job.request, prompt=places))

    jobs = [brought_only(job) for job in read_manifest(manifest, template)]
    letters = sum(len(job.request.text) for job in jobs)
    if len(jobs) > MOST_ITEMS or letters > MOST_LETTERS:
        raise InputError(
            f"the manifest has {len(jobs)} items with {letters} letters; {MOST_ITEMS} items and {MOST_LETTERS} letters "
            "are spoken here, and any number by `mynah batch`"
        )
    return jobs


def speak_upload(
    synthesizer: Synthesizer, system: str, jobs: Sequence[Job], template: Request, extension: str, folder: Path
) -> Generator[Shown]:
    """Speak jobs one after another into a zip with a sound each and the two books (tts/serve/batch.py)."""
    if extension not in FORMATS:
        raise SettingsError(f"the format must be one of {', '.join(FORMATS)}, got {extension!r}")
    place = Path(tempfile.mkdtemp(dir=folder))
    out = place / "mynah-batch"
    options: dict[str, Any] = {"system": system, "template": template, "extension": extension, "engine": Loaded(synthesizer)}

    def shown(tally: Tally) -> Shown:
        done = tally.spoken + tally.failed
        return Shown(progressing(f"{done} of {tally.items} items …", tally.letters_done / max(1, tally.letters)))

    with closing(watched(lambda tell: run_batch(jobs, out, progress=tell, **options), shown)) as work:
        tally = yield from work
    file = place / "mynah-batch.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for path in sorted(out.iterdir()):
            if not path.name.startswith("."):
                packed.write(path, path.name)
    yield Shown(results_table(out, tally), file)


def results_table(out: Path, tally: Tally) -> str:
    """What became of each item, in HTML."""
    rows = []
    for book in (ERRORS, RESULTS):
        lines = (out / book).read_text(encoding="utf-8").splitlines() if (out / book).exists() else []
        for told in map(json.loads, lines):
            if book == ERRORS:
                cells, kind = (str(told["id"]), "", f"failed: {told['reason']}"), "bad"
            else:
                verdict = {True: "said as asked", False: "doubtful: listen to it", None: "not listened to"}[told["passed"]]
                cells, kind = (str(told["id"]), f"{told['seconds']:.1f} s", verdict), "bad" if told["passed"] is False else ""
            rows.append(f"<tr class='{kind}'>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    doubted = f", {tally.doubted} of them doubtful" if tally.doubted else ""
    failed = f", {tally.failed} failed" if tally.failed else ""
    more = f"<p>… and {len(rows) - SHOWN} more, in the zip.</p>" if len(rows) > SHOWN else ""
    head = "<tr><th>Item</th><th>Length</th><th>Verdict</th></tr>"
    return (
        f"<p>{tally.spoken} spoken, {tally.seconds:.1f} s{doubted}{failed}.</p>"
        f"<table class='mynah-table'>{head}{''.join(rows[:SHOWN])}</table>{more}"
    )
