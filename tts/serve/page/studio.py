"""What the buttons of the web page do, without the page: speak, compare and edit; errors are MynahErrors.

Whatever takes long is a generator of `Shown`: first how far it has come, in the end the sound. Closed early,
it stops its work at the next sentence.
"""

from __future__ import annotations

import queue
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from tts.asr.check import Check, check
from tts.errors import PromptError, SettingsError, TextError
from tts.frames import Request, Wave
from tts.interfaces import Streaming
from tts.pipeline import Synthesizer
from tts.request import find_language
from tts.result import Audio, Report
from tts.serve.page.pictures import picture
from tts.serve.page.told import told, warned
from tts.voices import VOICE

BUILT_IN, RECORDING = "built-in", "recording"  # choices of a voice beside those that are kept
LONGEST = 2000  # letters that are spoken in one go; longer texts have a page of their own
WAITING = 32  # streams that nobody has come to hear, at most
PATIENCE = 600.0  # seconds that a listener waits for the next piece
T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """What a page shows: a sentence on how far it is (HTML), and what is ready of file, picture, and stream."""

    told: str
    file: Path | None = None
    picture: str = ""
    stream: str = ""  # the name of a stream that may be heard now
    report: Report | None = None
    others: tuple[Path, ...] = ()  # further files


class Streams:
    """Sounds that are heard while they are made: one writes, one listens, each in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, queue.SimpleQueue[bytes | None]] = {}

    @contextmanager
    def open(self) -> Iterator[tuple[str, Callable[[np.ndarray], None]]]:
        """A name that cannot be guessed, and what takes chunks of samples, float32 [N]."""
        name, pieces = secrets.token_urlsafe(16), queue.SimpleQueue[bytes | None]()
        with self._lock:
            while len(self._open) >= WAITING:
                self._open.pop(next(iter(self._open)))
            self._open[name] = pieces

        def put(chunk: np.ndarray) -> None:
            pieces.put((chunk.clip(-1, 1) * 32767).astype("<i2").tobytes())

        try:
            yield name, put
        finally:
            pieces.put(None)

    def listen(self, name: str) -> Iterator[bytes] | None:
        """The pieces of a stream as they come, 16-bit samples; None: there is no such stream, or somebody heard it before."""
        with self._lock:
            pieces = self._open.pop(name, None)
        return iter(lambda: pieces.get(timeout=PATIENCE), None) if pieces is not None else None


@dataclass
class Studio:
    """One loaded system for all who come."""

    synthesizer: Synthesizer
    streams: Streams = field(default_factory=Streams)

    # ------------------------------------------------------------------------------------------------- what there is

    @property
    def backends(self) -> list[str]:
        return list(self.synthesizer.parts.backends)

    def streaming(self, backend: str) -> bool:
        """Whether a backend makes its sound from the beginning on."""
        return isinstance(self.synthesizer.parts.backends.get(backend), Streaming)

    def steps(self, backend: str) -> int | None:
        """How many steps a backend takes of its own; 0: it depends. None: it takes no number of steps."""
        settings = self.synthesizer.parts.backends[backend].settings_type()
        return (settings.steps or 0) if hasattr(settings, "steps") else None

    def voices(self) -> list[tuple[str, str]]:
        """What a voice may be chosen from: (words, value)."""
        built_in = self.synthesizer.system.extra.get("voice")
        named = [(name, f"{VOICE}{name}") for name in self.synthesizer.voices if name != built_in]
        return [("Built-in voice", BUILT_IN), *named, ("A recording", RECORDING)]

    def request(
        self,
        text: str,
        voice: str = BUILT_IN,
        recording: str | None = None,
        words: str = "",
        backend: str = "flow",
        speed: float = 1.0,
        seed: float | None = 0,
        steps: float | None = None,
        language: str | None = None,
    ) -> Request:
        """What a form was filled with, as a request. Raises TextError, PromptError, SettingsError."""
        if not (text or "").strip():
            raise TextError("there is nothing to say yet; write a text")
        if voice == RECORDING and not recording:
            raise PromptError("there is no recording yet; record or upload a voice, or choose another one")
        prompt = {BUILT_IN: None, RECORDING: recording}.get(voice, voice)
        settings = {"steps": whole("steps", steps)} if steps and self.steps(backend) is not None else None
        said = words.strip() or None if voice == RECORDING and words else None
        chosen = whole("the seed", 0 if seed is None else seed)
        return Request(text, prompt, said, backend, chosen, speed, None, language, True, settings)

    # ---------------------------------------------------------------------------------------------------- the sounds

    def speak(self, request: Request, folder: Path, live: bool = True) -> Generator[Shown]:
        """Say a text; live: so that it can be heard meanwhile, of a backend that streams, and listened to afterwards."""
        if len(request.text) > LONGEST:
            raise TextError(f"the text has {len(request.text)} letters, and {LONGEST} are said in one go; see “Long text”")
        yield Shown(progressing("Listening to the voice and speaking …"))
        if live and self.streaming(request.backend):
            yield from self._stream(request, folder)
            return
        audio = yield from self._said(request)
        yield self._shown(audio, folder)

    def compare(self, request: Request, folder: Path) -> Generator[dict[str, Shown]]:
        """The same by all backends, one after another. The voice is heard once, before, and is in no backend's time."""
        shown: dict[str, Shown] = {}
        voice = self.synthesizer.encode_prompt(request.prompt, request.prompt_text, request.language)
        for name in self.backends:
            doing = {**shown, name: Shown(progressing("Speaking …"))}
            yield doing
            asked = replace(request, prompt=voice, prompt_text=None, backend=name, settings=None)
            audio = yield from watched(partial(self.synthesizer.speak, asked), lambda *_, doing=doing: doing)
            shown = {**shown, name: self._shown(audio, folder)}
        yield shown

    def edit(
        self, recording: str | None, before: str, after: str, backend: str, seed: float | None, folder: Path
    ) -> Generator[Shown]:
        """Say anew what the text after changes of a recording."""
        if not recording:
            raise PromptError("there is no recording yet; record or upload one, or take the example")
        if not (before or "").strip() or not (after or "").strip():
            raise TextError("write what is said in the recording, and then what it shall say")
        yield Shown(progressing("Listening, and saying the new words …"))
        chosen = whole("the seed", 0 if seed is None else seed)
        work = partial(self.synthesizer.edit, recording, before, after, backend=backend, seed=chosen)
        audio = yield from watched(
            lambda tell: work(progress=tell),
            lambda done, todo: Shown(progressing(f"{done} of {todo} changes are made …", done / max(1, todo))),
        )
        new = [(edit.new[0] / audio.sample_rate, edit.new[1] / audio.sample_rate) for edit in audio.report.edits]
        where = ", ".join(f"{start:.2f} to {end:.2f} s" for start, end in new)
        note = (
            f"New is {where}; every other sample is the recording's own."
            if new
            else "The two texts sound alike: nothing is new."
        )
        yield self._shown(audio, folder, marks=new, note=note)

    def example(self, text: str, folder: Path) -> Path:
        """A sentence of the built-in voice, for those who have nothing to edit."""
        return self.synthesizer.synthesize(text).save(folder / "built-in-voice.wav")

    def listen(self, samples: np.ndarray, text: str, language: str | None = None) -> Check:
        """What the recognizer hears in samples [N] that shall say a text."""
        parts, system = self.synthesizer.parts, self.synthesizer.system
        tokens = parts.front_end.encode(text, find_language(system, language))
        with torch.inference_mode():
            mel = parts.encoder.encode(Wave.of(torch.from_numpy(samples).to(parts.device), system.sample_rate))
            log_probs = parts.recognizer.posteriors(mel).data[0].T.float().cpu()  # [T, V]
        return check(log_probs, [token for token in tokens if isinstance(token, int)])

    def _stream(self, request: Request, folder: Path) -> Iterator[Shown]:
        options: dict[str, Any] = {
            "backend": request.backend,
            "seed": request.seed,
            "speed": request.speed,
            "language": request.language,
        }
        voice: dict[str, Any] = {"prompt_text": request.prompt_text, "settings": request.settings}
        made: list[np.ndarray] = []
        with (
            self.synthesizer.stream(request.text, request.prompt, **voice, **options) as stream,
            self.streams.open() as (name, put),
        ):
            for chunk in stream:
                put(chunk)
                made.append(chunk)
                seconds = sum(map(len, made)) / stream.sample_rate
                yield Shown(progressing(f"{seconds:.1f} s of speech so far, which you hear while it is made …"), stream=name)
        assert stream.report is not None
        samples = np.concatenate(made)
        yield self._shown(Audio(samples, stream.sample_rate, stream.report), folder, after=self._after(samples, request))

    def _after(self, samples: np.ndarray, request: Request) -> Check | None:
        language = find_language(self.synthesizer.system, request.language)
        known = self.synthesizer.system.extra.get("recognizer_languages", self.synthesizer.system.languages)
        return self.listen(samples, request.text, language) if language in known else None

    def _said(self, request: Request) -> Generator[Shown, None, Audio[Report]]:
        """Speak, and tell after each sentence."""
        return (
            yield from watched(
                partial(self.synthesizer.speak, request),
                lambda done, todo: Shown(progressing(f"{done} of {todo} sentences are spoken …", done / todo)),
            )
        )

    def _shown(
        self,
        audio: Audio[Report],
        folder: Path,
        marks: Sequence[tuple[float, float]] = (),
        note: str = "",
        after: Check | None = None,
    ) -> Shown:
        report = audio.report
        place = Path(tempfile.mkdtemp(dir=folder))
        file = audio.save(place / f"mynah-{report.backend}-{report.seed}.wav")
        words = (warned([note]) if note else "") + told(report, after)
        return Shown(words, file, picture(audio.samples, audio.sample_rate, marks), report=report)


class _Left(BaseException):
    """Whoever watched has gone. No Exception, so that nothing on its way takes it for a failure."""


def watched(act: Callable[[Callable[..., None]], T], show: Callable[..., Any]) -> Generator[Any, None, T]:
    """Do act(tell) in a thread; yield show(…) of what it tells, and give its result. Closed early, it ends at its next word."""
    news: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
    left = threading.Event()

    def tell(*arguments: Any) -> None:
        if left.is_set():
            raise _Left
        news.put(arguments)

    executor = ThreadPoolExecutor(1, "mynah")
    try:
        result = executor.submit(act, tell)
        result.add_done_callback(lambda _: news.put(None))
        while (what := news.get()) is not None:
            yield show(*what)
        return result.result()
    finally:
        left.set()
        executor.shutdown(wait=False)


def plain(message: str, folder: Path) -> str:
    """An error's sentence without the folders in which uploads lie."""
    return re.sub(re.escape(str(folder)) + r"(?:/[\w.-]+)*/", "", message)


def progressing(words: str, share: float | None = None) -> str:
    """A quiet sentence on what is being done, with a bar where it is known how far."""
    bar = f'<progress max="1" value="{share:.3f}"></progress>' if share is not None else ""
    return f'<div class="mynah-doing" role="status"><p>{words}</p>{bar}</div>'


def whole(name: str, value: float) -> int:
    if value != int(value):
        raise SettingsError(f"{name} must be a whole number, got {value:g}")
    return int(value)
