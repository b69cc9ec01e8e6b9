"""From a request to speech: the parts of a system put together, and the acts in which they make a sentence.

text ─► sentences ─► tokens ─► plan ─► backend ─► check ─┬─► vocoder ─► join ─► Audio
prompt ─► EncodedPrompt ───────────────┘  ▲              │ phones missed or repeated: once more, with another seed
                                          └──────────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from tts import weights
from tts.asr.check import Check, check
from tts.audio import resample
from tts.checkpoint import Checkpoint, load
from tts.clock import Clock
from tts.config import from_mapping
from tts.errors import LanguageError, MynahError, SettingsError, TextError, nearest
from tts.frames import Frames, Plan, Prompt, Request, Tokens, Utterance
from tts.interfaces import Backend
from tts.parts import build_parts
from tts.prompts import EncodedPrompt, PromptEncoder, load_voice, moved, voice_names
from tts.reconstruction import bits_per_second, count_codebooks, reconstruct
from tts.recording import read
from tts.result import Audio, CopyReport, Failure, Model, Report, Sentence
from tts.sampling.philox import derive
from tts.script import Line, join, plan_script, write_script
from tts.text.phonemes import espeak_language

VOICE = "voice:"  # a prompt that begins with this names a voice of the checkpoint


@dataclass(frozen=True)
class Manner:
    """How the lines of one request are spoken. listens: whether the recognizer checks them."""

    voice: Prompt
    backend: Backend
    settings: Any
    seed: int
    listens: bool


@dataclass(frozen=True)
class Try:
    """One try of a line, and what the recognizer thought of it; None: it was not asked."""

    seed: int
    frames: Frames
    check: Check | None

    def faults(self) -> tuple[bool, int, int, float]:
        """The lowest is the best."""
        if self.check is None:
            return False, 0, 0, 0.0
        return not self.check.passed, len(self.check.missed), len(self.check.repeated), self.check.error_rate


class Synthesizer:
    """A system that speaks. No request leaves a trace in what another one says; may be used from several threads."""

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device = "cpu", retries: int = 1) -> None:
        """retries: further tries of a sentence that fails its check. Raises as `from_pretrained`."""
        self.folder, self.system, self.retries = checkpoint.folder, checkpoint.system, retries
        self.parts = build_parts(checkpoint, device)
        self._prompts = PromptEncoder(
            self.parts.encoder,
            self.parts.recognizer,
            self.parts.front_end,
            self.system.sample_rate,
            min(backend.prompt_seconds[1] for backend in self.parts.backends.values()),
            self.parts.device,
        )

    @classmethod
    def from_pretrained(
        cls, name: str | PathLike[str] = "base-en", device: str | torch.device = "cpu", retries: int = 1
    ) -> Synthesizer:
        """A system by its name, when it comes with the package, or by its folder.

        Raises:
            CheckpointError: there is none, or its weights are truncated, of another version, or do not fit each other.
            SettingsError: the device does not exist.
        """
        return cls(load(weights.find(name)), device, retries)

    @property
    def model(self) -> Model:
        """Which weights speak."""
        parts = {name: part.sha256[:8] for name, part in self.system.parts.items() if part.sha256}
        return Model(self.system.name, self.system.version, str(self.system.extra.get("licence", "not stated")), parts)

    @property
    def identity(self) -> str:
        """The system's name, version and weights in one line."""
        model = self.model
        return f"{model.name} {model.version} ({', '.join(f'{name} {digest}' for name, digest in model.parts.items())})"

    @property
    def voices(self) -> list[str]:
        """Names of the voices it brings, for `prompt="voice:NAME"`."""
        return voice_names(self.folder)

    # -------------------------------------------------------------------------------------------------- the doors

    def synthesize(
        self,
        text: str,
        prompt: Any = None,
        *,
        prompt_text: str | None = None,
        backend: str = "flow",
        seed: int = 0,
        speed: float = 1.0,
        seconds: float | None = None,
        language: str | None = None,
        check: bool = True,
        settings: Any = None,
    ) -> Audio[Report]:
        """Speak a text in the voice of a recording; words and meanings as in `tts.synthesize`."""
        request = Request(
            text=text,
            prompt=prompt,
            prompt_text=prompt_text,
            backend=backend,
            seed=seed,
            speed=speed,
            seconds=seconds,
            language=language,
            check=check,
            settings=settings,
        )
        return self.speak(request)

    def batch(self, requests: Iterable[Request]) -> Iterator[Audio[Report] | Failure]:
        """Speak requests one after another, in their order; one that cannot be spoken comes back as a Failure.

        Each gives the samples that it gives alone.
        """
        for request in requests:
            answer: Audio[Report] | Failure
            try:
                answer = self.speak(request)
            except MynahError as error:
                answer = Failure(request, error)
            yield answer

    def encode_prompt(self, source: Any, prompt_text: str | None = None, language: str | None = None) -> EncodedPrompt:
        """Hear a prompt once, for many texts: the result goes wherever a prompt does.

        Args:
            source: as `tts.synthesize` takes it; None: the built-in voice.
        """
        is_name = isinstance(source, str) and source.startswith(VOICE)
        if prompt_text is not None and (source is None or is_name or isinstance(source, EncodedPrompt)):
            raise SettingsError("prompt_text says what is said in a recording; a voice that is known has no need of it")
        if isinstance(source, EncodedPrompt):
            return source
        if source is None or is_name:
            built_in = self.system.extra.get("voice") or next(iter(self.voices), "")
            name = source.removeprefix(VOICE) if is_name else built_in
            return load_voice(self.folder, name, self.parts.encoder, self.parts.front_end.table)
        return self._prompts.encode(source, prompt_text, self._language(language))

    @torch.inference_mode()
    def speak(self, request: Request, progress: Callable[[int, int], None] | None = None) -> Audio[Report]:
        """Speak one request. progress(done, todo) is told of every line that is done.

        Raises InputError: something in the request cannot be used; the message says what, and what can.
        """
        torch.get_num_threads()  # without it a new thread may not know of an earlier `torch.set_num_threads`
        clock = Clock()
        # 1. what is asked
        _check_options(request)
        language = self._language(request.language)
        backend, settings = self._backend(request.backend, request.settings)
        with clock("text"):
            script, warnings = write_script(request.text, language, self.parts.front_end)
        with clock("prompt"):
            encoded = self.encode_prompt(request.prompt, request.prompt_text, language)
            spoken = {name: moved(frames, self.parts.device) for name, frames in encoded.prompt.frames.items()}
            voice = replace(encoded.prompt, frames=spoken)
        with clock("plan"):
            rate = float(backend.emits.rate)
            plans = plan_script(script, voice, self.parts.duration, rate, request.speed, request.seconds)
        warnings += encoded.warnings
        listens = request.check and language in self.system.extra.get("recognizer_languages", self.system.languages)
        if request.check and not listens:
            warnings.append(f"Nobody listened to what was said, since the recognizer does not know {language!r}.")
        manner = Manner(voice, backend, settings, request.seed, listens)
        # 2. line by line
        lines = [part for part in script if isinstance(part, Line)]
        sentences: list[Sentence] = []
        sounds: list[Tensor] = []
        for number, (line, plan) in enumerate(zip(lines, plans, strict=True)):
            told, frames = self._say(number, line, plan, manner, clock)
            with clock("vocoder"):
                wave = self.parts.vocoder.decode(frames)
            sounds.append(wave.samples[0, : int(wave.lengths[0])].float().cpu())  # [N]
            sentences.append(replace(told, seconds=len(sounds[-1]) / wave.sample_rate))
            if progress is not None:
                progress(number + 1, len(lines))
        # 3. together
        samples = join(script, sounds, self.system.sample_rate)
        seconds = len(samples) / self.system.sample_rate
        late = sum(sentence.seconds - sentence.planned_seconds for sentence in sentences)
        spent = clock.total()
        report = Report(
            seed=request.seed,
            sentences=tuple(sentences),
            planned_seconds=seconds - late,
            seconds=seconds,
            spent_seconds=spent,
            real_time_factor=spent / seconds,
            stages=dict(clock.spent),
            warnings=(*warnings, *filter(None, map(_complaint, sentences))),
            model=self.model,
            backend=request.backend,
            settings={f.name: getattr(settings, f.name) for f in fields(settings)},
            language=language,
        )
        return Audio(samples.numpy(), self.system.sample_rate, report)

    @torch.inference_mode()
    def reconstruct(self, audio: Any, n_codebooks: int | None = None) -> Audio[CopyReport]:
        """Copy a recording through codec and vocoder, sample beside sample: no backend of this system can sound better.

        Args:
            audio: a path, an open binary file or (samples, rate), of any length; neither trimmed nor brought to another level.
            n_codebooks: of the codec's, 1..K; None: all. 0: the vocoder alone.
        Raises:
            PromptError: the recording cannot be read or holds no samples. SettingsError: n_codebooks is out of range, or the
            system has no codec. FitError: the system's vocoder cannot do without the codec.
        """
        torch.get_num_threads()  # as in `speak`
        clock = Clock()
        codec = self.parts.codec
        n = count_codebooks(codec, n_codebooks)
        with clock("read"):
            given, given_rate = read(audio)
            rate = self.system.sample_rate
            samples = resample(given, given_rate, rate).to(self.parts.device)
        copy = reconstruct(samples, self.parts.encoder, self.parts.vocoder, codec, n, clock).cpu()
        seconds, spent = len(copy) / rate, clock.total()
        report = CopyReport(
            n_codebooks=n,
            bits_per_second=bits_per_second(codec.emits, n) if codec is not None and n else None,
            seconds=seconds,
            spent_seconds=spent,
            real_time_factor=spent / seconds,
            stages=dict(clock.spent),
            model=self.model,
        )
        return Audio(copy.numpy(), rate, report)

    # -------------------------------------------------------------------------------------------------- the acts

    def _say(self, number: int, line: Line, plan: Plan, manner: Manner, clock: Clock) -> tuple[Sentence, Frames]:
        """Frames of one line: of its first try that passes the check, else of the best; `seconds` is yet to be known."""
        tokens = Tokens.of([line.ids], self.parts.front_end.table)
        tried: list[Try] = []
        for attempt in range(1 + self.retries if manner.listens else 1):
            seed = manner.seed if number == attempt == 0 else derive(manner.seed, number, attempt)
            with clock("backend"):
                utterance = Utterance(tokens, torch.tensor([seed]), manner.voice, plan)
                frames = manner.backend.generate(utterance, manner.settings)
            with clock("check"):
                found = self._listen(frames, line) if manner.listens else None
            tried.append(Try(seed, frames, found))
            if found is None or found.passed:
                break
        best = min(tried, key=Try.faults)
        rate = manner.backend.emits.rate
        told = Sentence(line.text, best.seed, len(tried), int(plan.frames(rate)) / float(rate), 0.0)
        if best.check is not None:
            verdict = {name: getattr(best.check, name) for name in ("passed", "missed", "repeated", "error_rate")}
            told = replace(told, **verdict)
        return told, best.frames

    def _listen(self, frames: Frames, line: Line) -> Check:
        """The recognizer's opinion of frames, which it reads as they are: what it hears is what the vocoder gets."""
        T = int(frames.lengths[0])
        log_probs = self.parts.recognizer.posteriors(frames).data[0, :, :T].T.float().cpu()  # [T, V]
        return check(log_probs, line.ids)

    def _backend(self, name: str, settings: Any) -> tuple[Backend, Any]:
        """The backend of a name, and its settings."""
        if name not in self.parts.backends:
            names = list(self.parts.backends)
            raise SettingsError(
                f"unknown backend {name!r}{nearest(str(name), names)}; {self.system.name} has {', '.join(names)}"
            )
        backend = self.parts.backends[name]
        if not isinstance(settings, backend.settings_type):
            settings = from_mapping(backend.settings_type, settings if settings is not None else {})
        return backend, settings

    def _language(self, name: str | None) -> str:
        """The language in the checkpoint's words. Raises LanguageError."""
        languages = self.system.languages
        if name is None:
            return languages[0]
        if name in languages:
            return name
        known = espeak_language(name)
        if known not in languages:
            raise LanguageError(f"{self.system.name} does not speak {name!r}; it speaks {', '.join(languages)}")
        return known


def _check_options(request: Request) -> None:
    """Raise SettingsError for a name, a seed, a speed or seconds that are none; TextError for a prompt's text that is none."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")

    if not isinstance(request, Request):
        raise SettingsError(f"a request is a tts.Request, got {type(request).__name__}")
    if not isinstance(request.backend, str) or not isinstance(request.language, str | None):
        raise SettingsError(f"backend and language are names, got {request.backend!r} and {request.language!r}")
    if isinstance(request.seed, bool) or not isinstance(request.seed, int) or not 0 <= request.seed < 2**63:
        raise SettingsError(f"seed must be a whole number in 0..2**63-1, got {request.seed!r}")
    if not is_number(request.speed):
        raise SettingsError(f"speed must be a positive number, got {request.speed!r}")
    if request.seconds is not None and not is_number(request.seconds):
        raise SettingsError(f"seconds must be a positive number, got {request.seconds!r}")
    if request.seconds is not None and request.speed != 1.0:
        raise SettingsError(f"give speed or seconds, not both; got speed {request.speed:g} and {request.seconds:g} seconds")
    if not isinstance(request.prompt_text, str | None):
        raise TextError(f"prompt_text is what is said in the prompt, as a string; got {type(request.prompt_text).__name__}")


def _complaint(sentence: Sentence) -> str:
    """What to say of a sentence that failed its check, or ""."""
    if sentence.passed is not False:
        return ""
    faults = [
        f"{kind} {' '.join(phones)}"
        for kind, phones in (("missed", sentence.missed), ("repeated", sentence.repeated))
        if phones
    ]
    often = f"the best of {sentence.tries} tries" if sentence.tries > 1 else "the only try"
    return f"In {sentence.text[:40]!r} {often} {' and '.join(faults)}; another seed may do better."
