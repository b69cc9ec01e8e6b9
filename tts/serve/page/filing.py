"""The tabs that take in and hand out files: Long text, Voices and Batch. The work is done in the files of their names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from tts.audio import FORMATS
from tts.frames import Request
from tts.serve.page.kit import LONG, Kit
from tts.serve.page.longtext import read_text, text_of
from tts.serve.page.studio import BUILT_IN, whole
from tts.serve.page.uploads import read_upload, speak_upload

DROP = {"height": 150, "elem_classes": "mynah-drop"}

ABOUT = """<div class="mynah-about"><p>A manifest is a CSV or TSV file with a column <code>text</code>, JSONL, or a
Seed-TTS-eval list. Beside the text, a row may name</p><ul><li><code>id</code>: what its sound is called,</li>
<li><code>voice</code>: a voice that is kept here,</li><li><code>prompt</code>: a recording that is uploaded with the
manifest,</li><li><code>seed</code>, <code>speed</code>, <code>seconds</code>, <code>backend</code>, <code>settings.steps</code>
…</li></ul><p>No other file of this machine is read. What cannot be spoken is reported, and the rest goes on.</p></div>"""


STORY = """The mynah sat on the gate and said nothing at all.

"It talks," the farmer told everybody. "It only waits for somebody who listens." [pause:0.6] So they listened.
"""


def long_tab(kit: Kit) -> None:
    gr, studio = kit.gr, kit.studio
    with gr.Row(equal_height=False):
        with gr.Column(scale=5):
            text = gr.Textbox(STORY, label="Text", info="Of any length; empty lines are longer pauses.", lines=10, max_lines=24)
            file = gr.File(label="Or a file with plain text", file_types=[".txt", ".md"], **DROP)
            voice, recording, words = kit.picker()
            with gr.Accordion("How it is said", open=False):
                backend = kit.backend()
                speed = gr.Slider(0.5, 2, 1, step=0.05, label="Speed", info="1 is the voice's own pace.")
                with gr.Row():
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90)
                    kind = gr.Dropdown([name[1:] for name in FORMATS], value="flac", label="Format", min_width=90)
            with gr.Row():
                go = gr.Button("Read it aloud", variant="primary", elem_classes="mynah-go", scale=4)
                stop = gr.Button("Stop", scale=1, min_width=75)
        with gr.Column(scale=6):
            out = kit.outcome(stream=False)
            with gr.Row():
                srt = gr.DownloadButton("Subtitles, SRT", visible=False)
                times = gr.DownloadButton("Times of all words, JSON", visible=False)

    def act(text: str, file: str | None, *form: Any) -> Iterator[Any]:
        *form_of_request, kind = form
        request = studio.request(text_of(text, file), *form_of_request)
        with closing(read_text(studio.synthesizer, request, f".{kind}", kit.folder)) as shown:
            for one in shown:
                others = one.others or (None, None)
                downloads = [gr.update(value=other and str(other), visible=other is not None) for other in others]
                yield [*kit.put(one, play=False)[:3], *downloads]

    form = [text, file, voice, recording, words, backend, speed, seed, kind]
    kit.stops(stop, [kit.on(go.click, act, form, [*out, srt, times], line=LONG)], out[2:])


def voices_tab(kit: Kit) -> None:
    gr, cabinet = kit.gr, kit.cabinet
    names = cabinet.names()
    with gr.Row(equal_height=False):
        with gr.Column(scale=5):
            name = gr.Textbox(label="Name", info="Letters, digits, - and _.", max_lines=1)
            files = gr.File(
                file_count="multiple",
                label="Recordings of this one speaker",
                file_types=["audio"],
                height=150,
                elem_classes="mynah-drop",
            )
            spoken = gr.Audio(sources=["microphone"], type="filepath", label="Or record now", buttons=[], editable=False)
            words = gr.Textbox(label="What is said in it", info="If it is one recording, and you know it.", lines=2)
            consent = gr.Textbox(
                label="Consent",
                info="The speaker's statement; it is kept with the voice.",
                placeholder="I agree that my voice is used for … Ann Lee, 2 May 2026",
                lines=2,
            )
            instead = gr.Checkbox(False, label="Replace a voice of this name")
            keep = gr.Button("Keep this voice", variant="primary", elem_classes="mynah-go")
        with gr.Column(scale=6):
            told = gr.HTML()
            table = gr.HTML(cabinet.table())
            chosen = gr.Dropdown(names, label="A kept voice", value=None)
            with gr.Row():
                give = gr.DownloadButton("Download it", interactive=False)
                remove = gr.Button("Remove it")
            brought = gr.File(label="Take in a voice from a file", file_types=[".safetensors"], **DROP)
    kit.own += [table, chosen]

    def adding(name: str, files: list[str] | None, spoken: str | None, *rest: Any) -> Iterator[str]:
        yield cabinet.keep(name, [*(files or []), *([spoken] if spoken else [])], *rest)

    def removing(name: str | None) -> Iterator[str]:
        yield cabinet.remove(name)

    def taking(file: str | None) -> Iterator[str]:
        yield cabinet.take_in(file)

    def giving(name: str | None) -> Iterator[Any]:
        yield gr.update(value=str(cabinet.hand_out(name, kit.folder)) if name else None, interactive=bool(name))

    kit.changing += [
        (keep.click, adding, [name, files, spoken, words, consent, instead], told),
        (remove.click, removing, chosen, told),
        (brought.upload, taking, brought, told),
    ]
    kit.on(chosen.change, giving, chosen, give)


def batch_tab(kit: Kit) -> None:
    gr, studio = kit.gr, kit.studio
    with gr.Row(equal_height=False):
        with gr.Column(scale=5):
            manifest = gr.File(label="A manifest", **DROP)
            recordings = gr.File(label="The recordings that it names as prompts", file_count="multiple", **DROP)
            voice = gr.Dropdown(studio.voices()[:-1], value=BUILT_IN, label="Voice of rows that name none")
            kit.choices.append((voice, False))
            backend = kit.backend()
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90)
                kind = gr.Dropdown([name[1:] for name in FORMATS], value="wav", label="Format", min_width=90)
            with gr.Row():
                go = gr.Button("Speak them all", variant="primary", elem_classes="mynah-go", scale=4)
                stop = gr.Button("Stop", scale=1, min_width=75)
        with gr.Column(scale=6):
            zipped = gr.DownloadButton("Download the zip", visible=False)
            told = gr.HTML(ABOUT)

    def act(
        manifest: str | None, recordings: list[str] | None, voice: str, backend: str, seed: float, kind: str
    ) -> Iterator[Any]:
        prompt = None if voice == BUILT_IN else voice
        template = Request("", prompt, None, backend, whole("the seed", seed or 0))
        jobs = read_upload(manifest, recordings or [], template)
        system = str(studio.synthesizer.folder)
        with closing(speak_upload(studio.synthesizer, system, jobs, template, f".{kind}", kit.folder)) as shown:
            for one in shown:
                file = str(one.file) if one.file is not None else None
                yield one.told, gr.update(value=file, visible=file is not None)

    run = kit.on(go.click, act, [manifest, recordings, voice, backend, seed, kind], [told, zipped], about=told, line=LONG)
    kit.stops(stop, [run], [told])
