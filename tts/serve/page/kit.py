"""What the tabs of the web page share: choices of voices and backends, a place for the outcome, errors as sentences."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

from tts.errors import MynahError
from tts.serve.page.cabinet import Cabinet
from tts.serve.page.studio import BUILT_IN, RECORDING, Shown, Studio, plain

# What the makers of acoustic models call theirs, and what a person can expect of it.
KINDS = {
    "flow": "flow matching, the clearest words",
    "ar": "a language model, heard while it is made",
    "masked": "masked codes, all at once in a few passes",
    "mixed": "one backend begins, another goes on",
}
SPEAKING = {"concurrency_id": "speaking", "concurrency_limit": 1}  # one at a time; others wait their turn
LONG = {"concurrency_id": "long", "concurrency_limit": 1}  # so that a batch does not keep a sentence waiting
EMPTY = '<div class="mynah-empty">What is said appears here: the sound, its picture,<br>and what the recognizer heard.</div>'
PLAY = "name => { window.mynah.play(name); }"
STOP = "() => { window.mynah.stop(); }"
ENDED = "(...told) => window.mynah.ended(told.slice(0, {}))"
AWAKE = "() => { window.mynah.awake = true; }"
SILENT = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}  # events that only change the form


class Kit:
    """Gradio, and what is behind the page. folder: for what is made. Every tab is filled by a function that takes it."""

    def __init__(self, gr: Any, studio: Studio, cabinet: Cabinet, folder: Path) -> None:
        self.gr, self.studio, self.cabinet, self.folder = gr, studio, cabinet, folder
        self.choices: list[tuple[Any, bool]] = []  # dropdowns of voices, and whether a recording is among what they offer
        self.own: list[Any] = []  # a table and a dropdown of the kept voices, where they are shown
        self.changing: list[
            tuple[Any, Callable[..., Iterator[str]], Any, Any]
        ] = []  # event, act, inputs, where its sentence goes

    def follow(self, blocks: Any) -> None:
        """Show the voices that are there to each visitor who comes, and after each act that changes them."""
        followers = [*(box for box, _ in self.choices), *self.own]
        loaded = blocks.load(self.fresh, None, followers, show_progress="hidden", api_visibility="private")
        loaded.then(None, js=AWAKE, api_visibility="private")
        for event, act, inputs, told in self.changing:
            self.on(event, self._and_fresh(act), inputs, [told, *followers], about=told)

    def fresh(self) -> list[Any]:
        """What the components that show voices shall show now."""
        gr, choices = self.gr, self.studio.voices()
        boxes = [gr.update(choices=choices if recording else choices[:-1]) for _, recording in self.choices]
        return [*boxes, *([self.cabinet.table(), gr.update(choices=self.cabinet.names(), value=None)] if self.own else [])]

    def _and_fresh(self, act: Callable[..., Iterator[str]]) -> Callable[..., Iterator[Any]]:
        @wraps(act)
        def both(*form: Any) -> Iterator[Any]:
            for sentence in act(*form):
                yield [sentence, *self.fresh()]

        return both

    def picker(self) -> tuple[Any, Any, Any]:
        """A voice to choose, a recording, and its words; giving a recording chooses it."""
        gr = self.gr
        voice = gr.Dropdown(self.studio.voices(), value=BUILT_IN, label="Voice")
        recording = gr.Audio(
            sources=["microphone", "upload"],
            type="filepath",
            label="A recording of somebody who has agreed; 3 to 12 seconds are best",
            buttons=[],
            editable=False,
            visible=False,
        )
        words = gr.Textbox(label="What is said in it, if you know", visible=False, max_lines=3)
        self.choices.append((voice, True))
        voice.change(
            lambda chosen: [gr.update(visible=chosen == RECORDING)] * 2,
            voice,
            [recording, words],
            **SILENT,
        )
        return voice, recording, words

    def backend(self) -> Any:
        names = self.studio.backends
        choices = [(f"{name} · {KINDS[name]}" if name in KINDS else name, name) for name in names]
        return self.gr.Dropdown(choices, value="flow" if "flow" in names else names[0], label="Backend", min_width=160)

    def steps(self, backend: Any) -> Any:
        gr, studio = self.gr, self.studio
        own = studio.steps(backend.value)
        steps = gr.Number(
            own or 0,
            label="Steps",
            info="0: its own choice.",
            precision=0,
            minimum=0,
            min_width=110,
            visible=own is not None,
        )

        def follow(name: str) -> Any:
            own = studio.steps(name)
            return gr.update(value=own or 0, visible=own is not None)

        backend.change(
            follow,
            backend,
            steps,
            **SILENT,
        )
        return steps

    def outcome(self, stream: bool = True, empty: str = EMPTY) -> list[Any]:
        """Where a sound is shown: player, picture, words, and, hidden, the name of a stream."""
        gr = self.gr
        player = {"waveform_options": gr.WaveformOptions(show_recording_waveform=False), "buttons": ["download"]}
        sound = gr.Audio(label="Speech", interactive=False, autoplay=stream, type="filepath", visible=False, **player)
        parts = [sound, gr.HTML(), gr.HTML(empty)]
        if stream:
            name = gr.Textbox(visible="hidden", elem_classes="mynah-hidden")
            name.change(None, name, None, js=PLAY, api_visibility="private")
            parts.append(name)
        return parts

    def put(self, shown: Shown, play: bool = True) -> list[Any]:
        streamed = shown.file is not None and shown.report is not None and shown.report.first_audio_seconds is not None
        value = str(shown.file) if shown.file is not None else None
        sound = self.gr.update(value=value, visible=value is not None, autoplay=play and not streamed)
        return [sound, shown.picture, shown.told, shown.stream]

    def on(
        self,
        event: Callable[..., Any],
        act: Callable[..., Iterator[Any]],
        inputs: Any,
        outputs: Any,
        about: Any = None,
        line: dict[str, Any] = SPEAKING,
    ) -> Any:
        """Do an act at an event; what it raises becomes a sentence on the page."""
        gr = self.gr

        @wraps(act)
        def guarded(*form: Any) -> Iterator[Any]:
            try:
                yield from act(*form)
            except MynahError as error:
                sentence = plain(str(error), self.folder)
                raise gr.Error(escape(sentence[:1].upper() + sentence[1:] + "."), 20, print_exception=False) from None

        shown_on = about if about is not None else outputs[2] if isinstance(outputs, list) else outputs
        return event(
            guarded, inputs, outputs, show_progress="minimal", show_progress_on=shown_on, api_visibility="private", **line
        )

    def stops(self, button: Any, runs: list[Any], told: list[Any]) -> None:
        """Let a button end what runs. That it has ended is said in those components that tell how far it is, by what comes
        after all that it had still to say."""
        button.click(None, cancels=runs, js=STOP, queue=False, api_visibility="private")
        for run in runs:
            run.then(None, told, told, js=ENDED.format(len(told)), api_visibility="private")

    def place(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))
