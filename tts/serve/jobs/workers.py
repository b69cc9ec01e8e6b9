"""Who does the work of a batch: an engine hands jobs to workers, each of which has loaded the system once.

jobs ─► Engine ─┬─► Speaker ─┬─► outcomes, in any order
                └─► Speaker ─┘

Workers write no files: what they made comes back as bytes, and one process keeps the books (tts/serve/batch.py). So a worker
may be killed at any moment, or outlive its batch, and do no harm.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

from tts.errors import MynahError
from tts.frames import Request
from tts.pipeline import Synthesizer
from tts.prompts import EncodedPrompt
from tts.request import find_backend, find_language
from tts.serve.jobs.manifests import Job
from tts.serve.jobs.urls import fetched
from tts.together import MOST, seated

log = logging.getLogger(__name__)
KEPT = 1024  # encoded prompts that a worker remembers
DEATHS = 2  # workers that may die over one item before it is given up


@dataclass(frozen=True)
class Work:
    """What every worker is told before its first job. template: what must fit the system, or no job is begun. together: how
    many jobs a worker speaks side by side (tts/together.py); None: one, or on a GPU some."""

    system: str
    device: str = "cpu"
    threads: int = 1
    extension: str = ".wav"
    template: Request = field(default_factory=lambda: Request(""))
    together: int | None = None

    @property
    def beside(self) -> int:
        """How many jobs are in a worker's hands at most."""
        on_gpu = self.device.startswith("cuda") and torch.cuda.is_available()
        return self.together if self.together is not None else MOST if on_gpu else 1

    def open(self, number: int) -> Speaker:
        """The work of worker `number`, 0, 1, …; on "cuda" they take turns at the devices. Raises MynahError."""
        device = self.device
        if device == "cuda" and torch.cuda.is_available():
            device = f"cuda:{number % torch.cuda.device_count()}"
        synthesizer = Synthesizer.from_pretrained(self.system, device)
        return Speaker(self, synthesizer.together() if self.beside > 1 else synthesizer)


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a sound, the bytes of its file, or none. told: what to write down about it."""

    id: str
    told: Mapping[str, Any]
    sound: bytes | None = None

    @classmethod
    def failed(cls, job: Job, kind: str, reason: str) -> Outcome:
        told = {"id": job.id, "row": job.row, "error": kind, "reason": reason, "extra": dict(job.extra)}
        return cls(job.id, told)


class Engine(Protocol):
    """A way to get jobs done: processes of this machine, a cluster, …"""

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """The outcome of each job, once, in any order; the first jobs take longest. Stops its workers when it is closed.

        Raises MynahError: no worker can begin, for instance since the system is broken.
        """
        ...


class Speaker:
    """What a worker does: jobs to outcomes, in one thread or several. A prompt is heard once, for all jobs that name it."""

    def __init__(self, work: Work, synthesizer: Synthesizer) -> None:
        """Raises SettingsError, LanguageError: the work's template does not fit the system."""
        self.work, self.synthesizer = work, synthesizer
        self._heard: OrderedDict[tuple[Any, ...], EncodedPrompt | MynahError] = OrderedDict()
        self._hearing = threading.Lock()
        find_backend(synthesizer.parts, synthesizer.system, work.template)
        find_language(synthesizer.system, work.template.language)

    def __call__(self, job: Job) -> Outcome:
        try:
            with self._hearing:
                request = replace(job.request, prompt=self._voice(job.request), prompt_text=None)
            with seated(self.synthesizer.company):
                audio = self.synthesizer.speak(request)
            sound = audio.encode(self.work.extension)
        except MynahError as error:
            return Outcome.failed(job, type(error).__name__, str(error))
        report = audio.report
        told = {
            "id": job.id,
            "file": f"{job.file_name}{self.work.extension}",
            "sha256": sha256(sound).hexdigest(),
            "seconds": round(report.seconds, 4),
            "seed": report.seed,
            "passed": all(sentence.passed for sentence in report.sentences) if report.checked else None,
            "missed": report.missed,
            "repeated": report.repeated,
            "tries": report.tries,
            "spent_seconds": round(report.spent_seconds, 3),
            "warnings": report.warnings,
            "backend": report.backend,
            "language": report.language,
            "extra": dict(job.extra),
        }
        return Outcome(job.id, told, sound)

    def _voice(self, request: Request) -> EncodedPrompt:
        """The prompt of a request, from memory where it was heard before. Raises MynahError, each time anew."""
        key = (repr(request.prompt), request.prompt_text, request.language)
        if key not in self._heard:
            try:
                prompt = fetched(request.prompt)
                self._heard[key] = self.synthesizer.encode_prompt(prompt, request.prompt_text, request.language)
            except MynahError as error:
                self._heard[key] = error
            if len(self._heard) > KEPT:
                self._heard.popitem(last=False)
        self._heard.move_to_end(key)
        voice = self._heard[key]
        if isinstance(voice, MynahError):
            raise voice
        return voice


class Here:
    """The engine that a test compares others with: this process, one job after another."""

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[Outcome]:
        yield from map(work.open(0), jobs)


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    jobs: list[Job] = field(default_factory=list)  # those in hand

    def takes(self, job: Job, beside: int, alone: set[str]) -> bool:
        """Whether it is that worker's turn. alone: jobs that are spoken with no other beside them."""
        apart = job.id in alone or any(other.id in alone for other in self.jobs)
        return self.ready and len(self.jobs) < (1 if apart else beside)


class Processes:
    """Processes of this machine; each takes the next job when it is done with one. One that dies is replaced.

    A job over which DEATHS workers have died is a failure, and the others go on. Of jobs that were spoken side by side nobody
    knows which one it was; they are spoken again, each alone.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, work: Work, jobs: Sequence[Job]) -> Iterator[Outcome]:
        todo, deaths, alone, started = deque(jobs), Counter[str](), set[str](), 0
        alive: list[_Worker] = []
        try:
            while todo or any(worker.jobs for worker in alive):
                while len(alive) < min(self.workers, len(todo) + sum(len(worker.jobs) for worker in alive)):
                    alive.append(_start(work, started))
                    started += 1
                for worker in alive:  # also one that has waited: a dead worker's job may have come back
                    while todo and worker.takes(todo[0], work.beside, alone):
                        worker.jobs.append(todo.popleft())
                        with suppress(OSError):  # it is dead, which the next look at its pipe tells
                            worker.pipe.send(worker.jobs[-1])
                ready = wait([worker.pipe for worker in alive])
                for worker in [worker for worker in alive if worker.pipe in ready]:
                    try:
                        answer = worker.pipe.recv()
                    except (EOFError, OSError):
                        alive.remove(worker)
                        yield from _bury(worker, todo, deaths, alone)
                        continue
                    if isinstance(answer, MynahError):
                        raise answer
                    worker.ready = True
                    if answer is not None:
                        worker.jobs = [job for job in worker.jobs if job.id != answer.id]
                        yield answer
        finally:
            for worker in alive:
                worker.pipe.close()
                worker.process.terminate()
            for worker in alive:
                worker.process.join()


def _start(work: Work, number: int) -> _Worker:
    """A new process, which Ctrl-C on the terminal does not reach: whoever started it tells it when to stop."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work, number), daemon=True, name=f"mynah-{number}")
    with _environment(OMP_NUM_THREADS=str(work.threads)), _deaf():
        process.start()
    theirs.close()
    return _Worker(process, ours)


def _bury(worker: _Worker, todo: deque[Job], deaths: Counter[str], alone: set[str]) -> list[Outcome]:
    """Put the jobs of a dead worker back, or give one up. Raises MynahError: it died before its first job."""
    worker.process.join()
    worker.pipe.close()
    code = worker.process.exitcode
    if not worker.ready:
        raise MynahError(f"a worker ended before it could begin (exit code {code}); is there memory for so many of them?")
    if len(worker.jobs) != 1:
        alone.update(job.id for job in worker.jobs)
        todo.extendleft(reversed(worker.jobs))
        return []
    job = worker.jobs[0]
    deaths[job.id] += 1
    if deaths[job.id] < DEATHS:
        todo.appendleft(job)
        return []
    return [Outcome.failed(job, "WorkerDied", f"{DEATHS} workers ended while they spoke it (exit code {code})")]


def _serve(pipe: Connection, work: Work, number: int) -> None:
    """The life of a worker: None when it is ready, then an outcome for each job, as it is done, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(work.threads)
    with suppress(EOFError, ConnectionError):
        try:
            speaker = work.open(number)
        except MynahError as error:
            pipe.send(error)
            return
        pipe.send(None)
        sending = threading.Lock()

        def answer(job: Job) -> None:
            try:
                outcome = speaker(job)
                with sending, suppress(OSError):  # nobody waits for it any more
                    pipe.send(outcome)
            except BaseException as error:  # a fault of ours, or no memory: the process ends as it would without threads
                log.exception("a worker ends over %s: %s", job.id, error)
                os._exit(1)

        if work.beside == 1:
            while True:
                pipe.send(speaker(pipe.recv()))
        with ThreadPoolExecutor(work.beside, "mynah") as threads:
            while True:
                threads.submit(answer, pipe.recv())


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables, as a process that is now started shall see them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C ignored, which a process that is now started inherits, so that it is not interrupted while it imports."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
