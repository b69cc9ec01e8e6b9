"""A manifest becomes a folder of sounds: which are done, which are to do, and a line in the books for each.

    OUT/ID.wav            whole or not there
    OUT/results.jsonl     a line for each sound, with the verdict of its check
    OUT/errors.jsonl      a line for each item that could not be spoken, and why

One process writes, in this order: the line of an item, then its sound, which is moved into place. A line whose sound is not
there, or is another one, was cut off in between and counts for nothing; so a batch that was killed anywhere goes on exactly.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tts.audio import FORMATS
from tts.checkpoint import System, load
from tts.errors import MynahError, SettingsError
from tts.frames import Request
from tts.request import check_asked
from tts.serve.jobs.manifests import Job, read_manifest
from tts.serve.jobs.stores import Store, digest, store_at
from tts.serve.jobs.urls import is_url, read_url
from tts.serve.jobs.workers import Engine, Outcome, Processes, Work
from tts.voices import VOICE, find_voice
from tts.weights import find

RESULTS, ERRORS = "results.jsonl", "errors.jsonl"
MOST = 8  # workers, unless somebody asks for more


@dataclass(frozen=True)
class Tally:
    """How far a batch has come. seconds: of sound, made in this run. letters: of the texts to speak in this run."""

    items: int
    before: int = 0  # done by an earlier run
    spoken: int = 0
    doubted: int = 0  # of these: did not pass their check
    failed: int = 0
    seconds: float = 0.0
    letters: int = 0
    letters_done: int = 0


def run_batch(
    manifest: str | Path | Sequence[Job],
    out: str | Path,
    *,
    system: str = "base-en",
    template: Request = Request(""),
    extension: str = ".wav",
    workers: int | None = None,
    threads: int = 1,
    device: str = "cpu",
    engine: Engine | None = None,
    together: int | None = None,
    progress: Callable[[Tally], None] | None = None,
) -> Tally:
    """Speak a manifest into a folder; what an earlier run has done there is not done again.

    On the CPU an item's file depends on nothing but its own row, the template, the system and the threads of a worker: not on
    other rows, their order, the number of workers, or how often the batch was stopped.

    Args:
        manifest: a file as `read_manifest` takes it, or its jobs. out: a folder, or the URL of one.
        template: what rows do not say; its seed: see there.
        workers: processes; None: one for each core or CUDA device. engine: who works instead of processes of this machine.
        together: how many items a worker speaks side by side; None: one, or on a GPU some.
        progress: told at the beginning, and after each item.
    Raises:
        InputError: the manifest, the folder or an option cannot be used. CheckpointError: nor the system.
    """
    # 1. what is asked
    if extension not in FORMATS:
        raise SettingsError(f"the format must be one of {', '.join(FORMATS)}, got {extension!r}")
    for name, value in (("workers", workers), ("threads", threads), ("together", together)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise SettingsError(f"{name} must be a whole number from 1, got {value!r}")
    jobs = read_manifest(manifest, template) if isinstance(manifest, str | Path) else list(manifest)
    checkpoint = load(find(system))
    check_asked(template, checkpoint.system)
    store = store_at(out)
    with store.only_writer():
        # 2. what is done
        keys = _keys(jobs, checkpoint.folder, checkpoint.system, extension)
        done = _tidy(store, keys)
        todo = in_order([job for job in jobs if job.id not in done])
        tally = Tally(len(jobs), before=len(done), letters=sum(_letters(job) for job in todo))
        tell = progress if progress is not None else lambda tally: None
        tell(tally)
        # 3. the rest
        by_id = {job.id: job for job in todo}
        work = Work(str(system), device, threads, extension, template, together)
        engine = engine if engine is not None else Processes(workers if workers is not None else count_workers(device))
        with closing(_outcomes(engine, work, todo)) as outcomes:
            for outcome in outcomes:
                _keep(store, outcome, keys[outcome.id])
                tally = _counted(tally, outcome, by_id[outcome.id])
                tell(tally)
    return tally


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """Buckets of like length, the longest first, so that all workers end at about the same time; in each, voice by voice."""

    def place(job: Job) -> tuple[int, str, str]:
        return -int(2 * math.log2(1 + _letters(job))), repr(job.request.prompt), job.id

    return sorted(jobs, key=place)


def count_workers(device: str) -> int:
    """One worker for each CUDA device, or for each core that this process may use, MOST at the most."""
    if device.startswith("cuda"):
        import torch

        return max(1, torch.cuda.device_count()) if device == "cuda" else 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST)


def _letters(job: Job) -> int:
    return max(1, len(job.request.text))


def _outcomes(engine: Engine, work: Work, todo: Sequence[Job]) -> Generator[Outcome, None, None]:
    """Those of the engine; where there is nothing to do, no worker is started."""
    if todo:
        yield from engine.run(work, todo)


def _counted(tally: Tally, outcome: Outcome, job: Job) -> Tally:
    tally = replace(tally, letters_done=tally.letters_done + _letters(job))
    if outcome.sound is None:
        return replace(tally, failed=tally.failed + 1)
    doubted = tally.doubted + (outcome.told["passed"] is False)
    return replace(tally, spoken=tally.spoken + 1, doubted=doubted, seconds=tally.seconds + outcome.told["seconds"])


# ------------------------------------------------------------------------------------------------------------- the books


def _keep(store: Store, outcome: Outcome, key: str) -> None:
    """Write down what became of an item. Raises OutputError."""
    if outcome.sound is None:
        store.add(ERRORS, outcome.told)
    else:
        store.add(RESULTS, {**outcome.told, "key": key})
        store.write(outcome.told["file"], outcome.sound)


def _tidy(store: Store, keys: dict[str, str]) -> set[str]:
    """The ids of a manifest that are done; of what a killed run left nothing else stays. Ids of other manifests stay."""
    store.remove(ERRORS)  # what failed is tried again
    written = store.read(RESULTS)
    kept: dict[str, bytes] = {}
    for line in written.splitlines(keepends=True):
        told = _parsed(line)
        if told is None:
            continue
        if told["id"] not in keys or _is_done(store, told, keys[told["id"]]):
            kept[told["id"]] = line
        else:  # its row was changed, or its sound
            store.remove(_file(told))
    if (whole := b"".join(kept.values())) != written:
        store.write(RESULTS, whole)
    return kept.keys() & keys.keys()


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line of results.jsonl; None for one that was cut off."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if line.endswith(b"\n") and isinstance(told, dict) and isinstance(told.get("id"), str) else None


def _file(told: dict[str, Any]) -> str:
    return Path(str(told.get("file"))).name


def _is_done(store: Store, told: dict[str, Any], key: str) -> bool:
    """Whether an item was spoken as it is asked for now, and its sound is there, whole."""
    return told.get("key") == key and told.get("sha256") is not None and store.digest(_file(told)) == told["sha256"]


def _keys(jobs: Sequence[Job], folder: Path, system: System, extension: str) -> dict[str, str]:
    """For each id a digest of all that decides its file: the row, what is in its prompt's file, the system, the format."""
    weights = [system.name, system.version, *(part.sha256 for part in system.parts.values())]

    @cache
    def heard(prompt: str) -> str:
        try:
            if is_url(prompt):
                return hashlib.sha256(read_url(prompt)).hexdigest()
            path = find_voice(folder, prompt.removeprefix(VOICE)) if prompt.startswith(VOICE) else Path(prompt)
            return digest(path) if path.is_file() else "missing"
        except (MynahError, OSError, ValueError):  # it will fail, or be there by then
            return "missing"

    def key(job: Job) -> str:
        asked = {**asdict(replace(job.request, prompt=None, extra={})), "extension": extension, "weights": weights}
        prompt = job.request.prompt
        names = [] if prompt is None else prompt if isinstance(prompt, list) else [prompt]
        asked["prompt"] = [heard(name) for name in names]
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]

    return {job.id: key(job) for job in jobs}
