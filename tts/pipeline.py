"""From a request to speech: the parts of a system put together, and the acts in which they make a sentence.

text ─► sentences ─► tokens ─► plan ─► backend ─► check ─┬─► vocoder ─► join ─► Audio
prompt ─► EncodedPrompt ───────────────┘  ▲              │ phones missed or repeated: once more, with another seed
                                          └──────────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from copy import copy
from dataclasses import fields, replace
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tts import weights
from tts.asr.check import Check
from tts.asr.phone_lm import find_phone_lm
from tts.audio import PEAK, resample
from tts.checkpoint import Checkpoint, load
from tts.clock import Clock
from tts.editing import edit
from tts.errors import FitError, MynahError, SettingsError
from tts.frames import Plan, Request, Tokens, Utterance, Wave
from tts.interfaces import Duration, Streaming
from tts.parts import build_parts
from tts.prompts import EncodedPrompt, PromptEncoder, moved, with_codes
from tts.reconstruction import bits_per_second, count_codebooks, reconstruct
from tts.recording import read
from tts.request import Manner, Task, find_language, understand
from tts.result import Audio, CopyReport, Failure, Model, Report, Sentence
from tts.script import Line, join, lay, plan_script, write_script
from tts.streaming import Stream, sound, sound_of
from tts.together import Company, side_by_side
from tts.tries import judged, listen, say, seed_of
from tts.voices import VOICE, load_voice, user_folder, voice_names


class Synthesizer:
    """A system that speaks. No request leaves a trace in what another one says; may be used from several threads."""

    company: Company | None = None  # where its threads meet, see `together`

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str | torch.device = "cpu",
        retries: int = 1,
        rerank: bool = False,
        precision: str = "fp32",
    ) -> None:
        """Arguments and errors are those of `from_pretrained`."""
        self.folder, self.system, self.retries, self.rerank = checkpoint.folder, checkpoint.system, retries, rerank
        self.parts = build_parts(checkpoint, device, precision)
        self._prompts = PromptEncoder(
            self.parts.encoder,
            self.parts.recognizer,
            self.parts.front_end,
            self.system.sample_rate,
            min(backend.prompt_seconds[1] for backend in self.parts.backends.values()),
            self.parts.device,
            self.parts.prompt_codec,
            find_phone_lm(checkpoint.folder, self.parts.recognizer.table),
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str] = "base-en",
        device: str | torch.device = "cpu",
        retries: int = 1,
        rerank: bool = False,
        precision: str = "fp32",
    ) -> Synthesizer:
        """A system by its name, when it comes with the package, or by its folder.

        Args:
            retries: further tries of a sentence that fails its check.
            rerank: make all of them, whether it fails or not; the best is kept (MaskGCT, arXiv:2409.00750).
            precision: of the weights that backends multiply by, on a CPU: fp32, which says the same on every machine; bf16,
                int8 or int4; auto: what is fastest here, which may say it in another way (docs/speed.md).
        Raises:
            CheckpointError: there is none, or its weights are truncated, of another version, or do not fit each other.
            SettingsError: the device or the precision does not exist.
        """
        return cls(load(weights.find(name)), device, retries, rerank, precision)

    def trying(self, retries: int, rerank: bool = False) -> Synthesizer:
        """The same parts, with other tries of what they say."""
        other = copy(self)
        other.retries, other.rerank = retries, rerank
        return other

    def together(self) -> Synthesizer:
        """The same parts, which do side by side what several threads ask of them: for a GPU (tts/together.py)."""
        other = copy(self)
        other.company = Company()
        other.parts = other.company.parts(self.parts)
        return other

    def with_duration(self, duration: Duration) -> Synthesizer:
        """The same parts, but for what plans (a function: tts/duration/outside.py). Raises FitError: another symbol table."""
        if duration.table != self.parts.front_end.table:
            raise FitError(f"the duration reads table {duration.table}, the front end writes {self.parts.front_end.table}")
        other = copy(self)
        other.parts = replace(self.parts, duration=duration)
        other.system = replace(self.system, parts={k: v for k, v in self.system.parts.items() if k != "duration"})
        return other

    @property
    def model(self) -> Model:
        """Which weights speak."""
        parts = {name: part.sha256[:8] for name, part in self.system.parts.items() if part.sha256}
        small = {f"backend.{name}": bits for name, bits in self.parts.bits.items() if bits != 32}
        parts |= {name: f"{parts[name]} in {bits} bits" for name, bits in small.items() if name in parts}
        return Model(self.system.name, self.system.version, str(self.system.extra.get("licence", "not stated")), parts)

    @property
    def identity(self) -> str:
        """The system's name, version and weights in one line."""
        model = self.model
        return f"{model.name} {model.version} ({', '.join(f'{name} {digest}' for name, digest in model.parts.items())})"

    @property
    def voices(self) -> list[str]:
        """Names of the voices it brings, then of those that the user keeps, for `prompt="voice:NAME"`."""
        brought = voice_names(self.folder)
        return [*brought, *(name for name in voice_names(user_folder()) if name not in brought)]

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
        return self.speak(Request(text, prompt, prompt_text, backend, seed, speed, seconds, language, check, settings))

    def batch(self, requests: Iterable[Request], together: bool | None = None) -> Iterator[Audio[Report] | Failure]:
        """Speak requests, answers in their order; one that cannot be spoken comes back as a Failure.

        Each gives the samples that it gives alone: bit for bit on a CPU, closely where a GPU speaks several side by side.

        Args:
            together: do so, some requests ahead of what is taken. None: on a GPU.
        """

        def answer(request: Request) -> Audio[Report] | Failure:
            try:
                return speaker.speak(request)
            except MynahError as error:
                return Failure(request, error)

        beside = together if together is not None else self.parts.device.type == "cuda"
        speaker = self.together() if beside and self.company is None else self
        yield from side_by_side(answer, requests, speaker.company) if beside and speaker.company else map(answer, requests)

    def encode_prompt(self, source: Any, prompt_text: str | None = None, language: str | None = None) -> EncodedPrompt:
        """Hear a prompt once, for many texts: the result goes wherever a prompt does.

        Args:
            source: as `tts.synthesize` takes it; None: the built-in voice.
        """
        is_name = isinstance(source, str) and source.startswith(VOICE)
        if prompt_text is not None and (source is None or is_name or isinstance(source, EncodedPrompt)):
            raise SettingsError("prompt_text says what is said in a recording; a voice that is known has no need of it")
        if isinstance(source, EncodedPrompt):
            return with_codes(source, self.parts.prompt_codec)
        if source is None or is_name:
            built_in = self.system.extra.get("voice") or next(iter(voice_names(self.folder)), "")
            name = source.removeprefix(VOICE) if is_name else built_in
            voice = load_voice(self.folder, name, self.parts.encoder, self.parts.front_end.table)
            return with_codes(voice, self.parts.prompt_codec)
        return self._prompts.encode(source, prompt_text, find_language(self.system, language))

    @torch.inference_mode()
    def speak(self, request: Request, progress: Callable[[int, int], None] | None = None) -> Audio[Report]:
        """Speak one request. progress(done, todo) is told of every line that is done.

        Raises InputError: something in the request cannot be used; the message says what, and what can.
        """
        # 1. what is asked
        clock = Clock()
        task = self._task(request, clock)
        # 2. line by line
        sentences: list[Sentence] = []
        sounds: list[Tensor] = []
        for number, (line, plan) in enumerate(zip(task.lines, task.plans, strict=True)):
            utterance = self._utterance(line, task.manner.seed, plan, task.manner)
            told, frames = say(self.parts, task.manner, number, line, utterance, clock)
            with clock("vocoder"):
                sounds.append(sound_of(self.parts, task.manner.backend, frames))  # [N]
            sentences.append(replace(told, seconds=len(sounds[-1]) / self.system.sample_rate))
            if progress is not None:
                progress(number + 1, len(task.plans))
        # 3. together
        whole = not isinstance(task.manner.backend, Streaming)  # of what may be a stream the same samples come out here
        samples = join(task.script, sounds, self.system.sample_rate, soften=whole)
        seconds = len(samples) / self.system.sample_rate
        report = self._report(task, sentences, seconds, clock.total(), clock)
        return Audio(samples.numpy(), self.system.sample_rate, report)

    def stream(
        self,
        text: str,
        prompt: Any = None,
        *,
        prompt_text: str | None = None,
        backend: str | None = None,
        seed: int = 0,
        speed: float = 1.0,
        seconds: float | None = None,
        language: str | None = None,
        check: bool = False,
        settings: Any = None,
    ) -> Stream:
        """Speak while the rest is still being made: an iterator of chunks of samples, float32 [N].

        Joined they are what `synthesize(…, check=False)` says, to 1e-5: nobody can listen and try again. Of a backend that
        makes a line at once (flow) it comes line by line, and what is too loud is cut off rather than made softer as a whole.

        Args:
            backend: None: one that streams, where the system has it. The others: as in `tts.synthesize`.
            check: let the recognizer listen to each line when it is out, and say so in the report; nothing is tried again.
        Raises (at once, not at the first chunk): as `synthesize`.
        """
        if backend is None:
            backend = next((name for name, part in self.parts.backends.items() if isinstance(part, Streaming)), "flow")
        clock = Clock()
        options = {"speed": speed, "seconds": seconds, "language": language, "check": check, "settings": settings}
        request = Request(text, prompt, prompt_text, backend, seed, **options)
        with torch.inference_mode():
            task = self._task(request, clock)
        return Stream(self._chunks(task, clock), self.system.sample_rate)

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
        torch.get_num_threads()  # as in `understand`
        clock = Clock()
        codec = self.parts.codec
        n = count_codebooks(codec, n_codebooks)
        with clock("read"):
            given, given_rate = read(audio)
            rate = self.system.sample_rate
            samples = resample(given, given_rate, rate).to(self.parts.device)
        copied = reconstruct(samples, self.parts.encoder, self.parts.vocoder, codec, n, clock).cpu()
        seconds, spent = len(copied) / rate, clock.total()
        report = CopyReport(
            n_codebooks=n,
            bits_per_second=bits_per_second(codec.emits, n) if codec is not None and n else None,
            seconds=seconds,
            spent_seconds=spent,
            real_time_factor=spent / seconds if seconds else 0.0,
            stages=dict(clock.spent),
            model=self.model,
        )
        return Audio(copied.numpy(), rate, report)

    @torch.inference_mode()
    def edit(
        self,
        recording: Any,
        text_before: str,
        text_after: str,
        *,
        backend: str = "flow",
        seed: int = 0,
        language: str | None = None,
        check: bool = True,
        settings: Any = None,
        progress: Callable[[int, int], None] = lambda done, todo: None,
    ) -> Audio[Report]:
        """Say anew what another text changes of a recording, in its own voice; elsewhere all samples stay, bit for bit.

        Args:
            recording: a path, an open binary file or (samples, rate); its rate is kept, several channels become their mean.
            text_before: all that is said in it. text_after: the same with words put in, left out or replaced.
            progress: is told, before each change, how many are made, of how many; what it raises ends the work.
            The others: as in `tts.synthesize`.
        Returns:
            Its `report.edits` tell which samples were replaced by which, cross-fades of 20 ms included.
        Raises:
            PromptError: the recording cannot be used. TextError: text_before is not what is said in it; no word of it stays;
            too little stays to go on from, or too much is new in one place. FitError: the backend cannot keep frames.
        """
        clock = Clock()
        request = Request(text_after, recording, None, backend, seed, language=language, check=check, settings=settings)
        manner, warnings = understand(request, self.parts, self.system, self.retries, self.rerank)
        edited = edit(self.parts, recording, text_before, text_after, manner, clock, progress)
        task = Task(request, [], [], manner, [*edited.warnings, *warnings])
        seconds = len(edited.samples) / edited.rate
        report = self._report(task, edited.sentences, seconds, clock.total(), clock)
        return Audio(edited.samples.numpy(), edited.rate, replace(report, edits=edited.edits))

    # -------------------------------------------------------------------------------------------------- the acts

    def _task(self, request: Request, clock: Clock) -> Task:
        """Understand a request. Raises InputError."""
        manner, warnings = understand(request, self.parts, self.system, self.retries, self.rerank)
        language, backend = manner.language, manner.backend
        with clock("text"):
            script, left_out = write_script(request.text, language, self.parts.front_end, request.speed)
        with clock("prompt"):
            encoded = self.encode_prompt(request.prompt, request.prompt_text, language)
            spoken = {name: moved(frames, self.parts.device) for name, frames in encoded.prompt.frames.items()}
            voice = replace(encoded.prompt, frames=spoken)
        with clock("plan"):
            rate = float(backend.emits.rate)
            plans = plan_script(script, voice, self.parts.duration, rate, request.speed, request.seconds)
        return Task(request, script, plans, replace(manner, voice=voice), [*left_out, *encoded.warnings, *warnings])

    def _report(self, task: Task, sentences: list[Sentence], seconds: float, spent: float, clock: Clock) -> Report:
        late = sum(sentence.seconds - sentence.planned_seconds for sentence in sentences)
        settings = task.manner.settings
        return Report(
            seed=task.request.seed,
            sentences=tuple(sentences),
            planned_seconds=seconds - late,
            seconds=seconds,
            spent_seconds=spent,
            real_time_factor=spent / seconds if seconds else 0.0,
            stages=dict(clock.spent),
            warnings=(*task.warnings, *filter(None, (sentence.complaint for sentence in sentences))),
            model=self.model,
            backend=task.request.backend,
            settings={f.name: getattr(settings, f.name) for f in fields(settings)},
            language=task.manner.language,
        )

    def _chunks(self, task: Task, clock: Clock) -> Generator[np.ndarray, None, Report]:
        """The samples of a task as they come, and at the end the report."""
        sentences: list[Sentence] = []
        manner, rate = task.manner, task.manner.backend.emits.rate

        def line(number: int, line: Line, plan: Plan) -> Iterator[Tensor]:
            seed = seed_of(manner.seed, number, 0)
            length, heard = 0, []
            for piece in sound(self.parts, manner.backend, self._utterance(line, seed, plan, manner), manner.settings, clock):
                length += len(piece)
                yield piece
                heard += [piece] if manner.listens else []
            planned = int(plan.frames(rate)) / float(rate)
            told = Sentence(line.text, seed, 1, planned, length / self.system.sample_rate)
            sentences.append(judged(told, self._listen(line, heard, clock)))

        lines = (line(number, *given) for number, given in enumerate(zip(task.lines, task.plans, strict=True)))
        first, N = None, 0
        for piece in lay(task.script, lines, self.system.sample_rate):
            first = first if first is not None else sum(clock.spent.values())
            N += len(piece)
            yield piece.clamp(-PEAK, PEAK).numpy()
        spent = sum(clock.spent.values())  # not the time between two chunks, which is the listener's
        return replace(self._report(task, sentences, N / self.system.sample_rate, spent, clock), first_audio_seconds=first)

    @torch.inference_mode()
    def _listen(self, line: Line, pieces: list[Tensor], clock: Clock) -> Check | None:
        """What the recognizer thinks of samples [N] that are out already; None: there are none, since nobody shall listen."""
        if not pieces:
            return None
        with clock("check"):
            mel = self.parts.encoder.encode(Wave.of(torch.cat(pieces), self.system.sample_rate))
            return listen(self.parts, moved(mel, self.parts.device), line.ids)

    def _utterance(self, line: Line, seed: int, plan: Plan, manner: Manner) -> Utterance:
        return Utterance(Tokens.of([line.ids], self.parts.front_end.table), torch.tensor([seed]), manner.voice, plan)
