"""What a request for speech comes to: the pieces of a sound file, as soon as they are there, and afterwards a report.

streamed    Synthesizer.stream, heard by the recognizer when it is out     ┐
at once     Synthesizer.speak, checked, tried again, and then sent         ├─► Writer ─► pieces     reports/ID
long        narrate: passage by passage, each checked before it is sent    ┘
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator, Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from tts.frames import Request
from tts.interfaces import Streaming
from tts.narration import narrate
from tts.pipeline import Synthesizer
from tts.request import check_request, find_backend, find_language
from tts.result import Report
from tts.serve.server.guard import Limits, Refusal
from tts.serve.server.metrics import Metrics
from tts.serve.server.schedule import Job, Work
from tts.serve.server.shelf import Shelf
from tts.serve.server.sounds import open_writer

LONG = 1000  # characters above which a text is narrated
ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")  # what OpenAI's clients ask for when nobody tells them


@dataclass(frozen=True)
class Wish:
    """What is asked for. request: its prompt is yet to be found, by the name `voice`. kind: of file. streamed: or at once."""

    request: Request
    voice: str
    kind: str = "mp3"
    streamed: bool = True


class Desk:
    """Takes wishes, and knows the reports of the last that were fulfilled. May be used from several threads."""

    def __init__(self, synthesizer: Synthesizer, shelf: Shelf, limits: Limits, metrics: Metrics) -> None:
        self.synthesizer, self.shelf, self.limits, self.metrics = synthesizer, shelf, limits, metrics
        self._lock = threading.Lock()
        self._reports: OrderedDict[str, dict[str, Any]] = OrderedDict()

    @property
    def models(self) -> list[str]:
        """The system, and each of its backends."""
        name = self.synthesizer.system.name
        return [name, *(f"{name}/{backend}" for backend in self.synthesizer.parts.backends)]

    def backend(self, model: str, backend: str | None, streamed: bool) -> str:
        """The backend that a model names, or the one that is asked for, or the best for what is wanted. Raises Refusal."""
        if model not in (*self.models, *ALIASES):
            raise Refusal(
                404, f"there is no model {model[:64]!r}; there are {', '.join(self.models)}", "model_not_found", "model"
            )
        named = model.partition("/")[2] or None
        if named is not None and backend not in (None, named):
            raise Refusal(400, f"the model {model!r} and the backend {backend!r} are two; give one", "invalid_value", "backend")
        backends = self.synthesizer.parts.backends
        streaming = next((name for name, part in backends.items() if isinstance(part, Streaming)), None)
        best = "flow" if "flow" in backends else next(iter(backends))
        return named or backend or (streaming if streamed and streaming is not None else best)

    def check(self, wish: Wish) -> None:
        """Raise Refusal or InputError for what can be seen before any work."""
        parts, system = self.synthesizer.parts, self.synthesizer.system
        check_request(wish.request)
        find_backend(parts, system, wish.request)
        find_language(system, wish.request.language)
        self.shelf.find(wish.voice)

    def work(self, wish: Wish, number: str) -> Work:
        """The pieces of the file, for the pool; its report is then known by that number."""

        def pieces(job: Job) -> Generator[bytes, None, None]:
            request = replace(wish.request, prompt=self.shelf.voice(wish.voice))
            if len(request.text) > LONG:
                yield from self._narrated(request, wish, number, job)
            elif wish.streamed:
                yield from self._streamed(request, wish, number, job)
            else:
                yield self._whole(request, wish, number, job)

        return pieces

    def report(self, number: str) -> dict[str, Any]:
        """Raises Refusal where there is none, or none yet."""
        with self._lock:
            if number in self._reports:
                return self._reports[number]
        raise Refusal(404, "there is no report of this number, not yet or no more", "report_not_found", "id")

    def _whole(self, request: Request, wish: Wish, number: str, job: Job) -> bytes:
        audio = self.synthesizer.speak(request, lambda done, todo: job.check())
        self._keep(number, told(audio.report))
        if wish.kind == "pcm":
            writer = open_writer("pcm", audio.sample_rate, {})
            return writer(audio.samples) + writer.close()
        return audio.encode(f".{wish.kind}")

    def _streamed(self, request: Request, wish: Wish, number: str, job: Job) -> Generator[bytes, None, None]:
        options = {f.name: getattr(request, f.name) for f in fields(request) if f.name not in ("text", "out", "extra", "check")}
        with self.synthesizer.stream(request.text, **options, check=request.check) as stream:
            yield from self._written(stream, wish, request, job)
            assert stream.report is not None
            self._keep(number, told(stream.report))

    def _narrated(self, request: Request, wish: Wish, number: str, job: Job) -> Generator[bytes, None, None]:
        narration = narrate(self.synthesizer, request)
        sentences: list[dict[str, Any]] = []
        warnings = list(narration.warnings)
        length = 0

        def samples() -> Generator[np.ndarray, None, None]:
            nonlocal length
            for passage in narration:
                sentences.extend(asdict(sentence) for sentence in passage.sentences)
                warnings.extend(passage.warnings)
                length += len(passage.samples)
                yield passage.samples

        held: list[bytes] = []
        for piece in self._written(samples(), wish, request, job):
            if wish.streamed:
                yield piece
            else:
                held.append(piece)
        about = {**narration.provenance, "seconds": length / narration.sample_rate, "warnings": warnings}
        self._keep(number, {**summed(sentences), **about})
        if held:
            yield b"".join(held)

    def _written(self, chunks: Iterable[np.ndarray], wish: Wish, request: Request, job: Job) -> Generator[bytes, None, None]:
        """The bytes of a file, as soon as there are some."""
        about = {"generator": "mynah-tts", "model": self.synthesizer.identity, "backend": request.backend, "seed": request.seed}
        writer = open_writer(wish.kind, self.synthesizer.system.sample_rate, about)
        for chunk in chunks:
            if piece := writer(chunk):
                yield piece
            job.check()
        if piece := writer.close():
            yield piece

    def _keep(self, number: str, report: dict[str, Any]) -> None:
        with self._lock:
            self._reports[number] = {"id": number, **report}
            while len(self._reports) > self.limits.reports:
                self._reports.popitem(last=False)
        self.metrics.spoken.labels(report["backend"]).inc(report["seconds"])
        self.metrics.doubted.inc(report["passed"] is False)


def told(report: Report) -> dict[str, Any]:
    """A report as JSON holds it."""
    whole = asdict(report)
    return {**summed(whole["sentences"]), **whole}


def summed(sentences: list[dict[str, Any]]) -> dict[str, Any]:
    """Sentences, and the verdict on all of them: passed None where nobody listened to one."""
    verdicts = [sentence["passed"] for sentence in sentences]
    passed = None if None in verdicts else all(verdicts)
    missed = [phone for sentence in sentences for phone in sentence["missed"]]
    repeated = [phone for sentence in sentences for phone in sentence["repeated"]]
    return {"passed": passed, "missed": missed, "repeated": repeated, "sentences": sentences}
