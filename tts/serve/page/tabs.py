"""The tabs in which something is spoken: Speak, Compare and Edit. The work is done in studio.py."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import closing
from html import escape
from typing import Any

from tts.serve.page.kit import KINDS, SILENT, Kit
from tts.serve.page.studio import Shown, whole

EXAMPLES = (
    "I have never said this before, and you hear me say it.",
    "The train leaves at 9:45 and costs $12.50.",
    "A [mynah](/mˈaɪnə/) is a bird. [pause:0.5] It talks.",
)
SENTENCE = "The cat sat on the mat and looked at me for a while."
CHANGED = "The cat sat on the sofa and looked at me for a while."


def speak_tab(kit: Kit) -> None:
    gr, studio = kit.gr, kit.studio
    with gr.Row(equal_height=False):
        with gr.Column(scale=5):
            text = gr.Textbox(
                EXAMPLES[0], label="Text", lines=4, max_lines=14, autofocus=True, placeholder="What shall be said?"
            )
            voice, recording, words = kit.picker()
            with gr.Accordion("How it is said", open=False):
                backend = kit.backend()
                speed = gr.Slider(0.5, 2, 1, step=0.05, label="Speed", info="1 is the voice's own pace.")
                with gr.Row():
                    seed = gr.Number(0, label="Seed", info="Another is another take.", precision=0, minimum=0, min_width=110)
                    steps = kit.steps(backend)
                live = gr.Checkbox(
                    True,
                    label="Play it while it is made",
                    info="By a backend that can. It is listened to afterwards, and not tried again.",
                    visible=any(map(studio.streaming, studio.backends)),
                )
            with gr.Row():
                go = gr.Button("Speak", variant="primary", elem_classes="mynah-go", scale=3)
                again = gr.Button("Another take", scale=2, min_width=125)
                stop = gr.Button("Stop", scale=1, min_width=75)
            gr.Examples(
                [[example] for example in EXAMPLES],
                [text],
                label="Or one of these, which need no recording",
                cache_examples=False,
            )
        with gr.Column(scale=6):
            out = kit.outcome()
    asked = [text, voice, recording, words, backend, speed, seed, steps, live]

    def act(*form: Any) -> Iterator[Any]:
        with closing(studio.speak(studio.request(*form[:-1]), kit.folder, form[-1])) as shown:
            yield from map(kit.put, shown)

    def next_seed(seed: float | None) -> int:
        return whole("the seed", seed or 0) + 1

    runs = [kit.on(go.click, act, asked, out)]
    taken = again.click(next_seed, seed, seed, **SILENT)
    runs.append(kit.on(taken.then, act, asked, out))
    kit.stops(stop, runs, [out[2]])


def compare_tab(kit: Kit) -> None:
    gr, studio = kit.gr, kit.studio
    with gr.Row(equal_height=False):
        with gr.Column(scale=6):
            text = gr.Textbox(EXAMPLES[0], label="Text", lines=3, max_lines=8)
            with gr.Row():
                go = gr.Button("Speak with all of them", variant="primary", elem_classes="mynah-go", scale=4)
                stop = gr.Button("Stop", scale=1, min_width=75)
        with gr.Column(scale=5):
            voice, recording, words = kit.picker()
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    table = gr.HTML()
    out: list[Any] = []
    with gr.Row(equal_height=False):
        for name in studio.backends:
            with gr.Column(min_width=300):
                gr.HTML(f"<h3 class='mynah-name'>{escape(name)} <small>{KINDS.get(name, '')}</small></h3>")
                out += kit.outcome(stream=False, empty="")

    def act(text: str, voice: str, recording: str | None, words: str, seed: float) -> Iterator[Any]:
        request = studio.request(text, voice, recording, words, seed=seed)
        with closing(studio.compare(request, kit.folder)) as all_shown:
            for shown in all_shown:
                rows = [kit.put(shown.get(name, Shown("")), play=False)[:3] for name in studio.backends]
                yield [compared(shown), *(cell for row in rows for cell in row)]

    run = kit.on(go.click, act, [text, voice, recording, words, seed], [table, *out], about=table)
    kit.stops(stop, [run], out[2::3])


def edit_tab(kit: Kit) -> None:
    gr, studio = kit.gr, kit.studio
    with gr.Row(equal_height=False):
        with gr.Column(scale=5):
            recording = gr.Audio(
                sources=["microphone", "upload"], type="filepath", label="A recording", buttons=[], editable=False
            )
            example = gr.Button("I have none: take a sentence of the built-in voice", size="sm")
            before = gr.Textbox(label="What is said in it", info="All of its words, and no others.", lines=2)
            after = gr.Textbox(label="What it shall say", info="Put words in, leave words out, replace some.", lines=2)
            changes = gr.HTML()
            with gr.Accordion("How it is said", open=False):
                backend = kit.backend()
                seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            with gr.Row():
                go = gr.Button("Change it", variant="primary", elem_classes="mynah-go", scale=4)
                stop = gr.Button("Stop", scale=1, min_width=75)
        with gr.Column(scale=6):
            out = kit.outcome(stream=False)

    def take() -> Iterator[Any]:
        yield str(studio.example(SENTENCE, kit.place())), SENTENCE, CHANGED

    def act(recording: str | None, before: str, after: str, backend: str, seed: float | None) -> Iterator[Any]:
        with closing(studio.edit(recording, before, after, backend, seed, kit.folder)) as shown:
            yield from (kit.put(one)[:3] for one in shown)

    kit.on(example.click, take, None, [recording, before, after], about=before)
    gr.on(
        [before.change, after.change],
        changed,
        [before, after],
        changes,
        trigger_mode="always_last",
        **SILENT,
    )
    kit.stops(stop, [kit.on(go.click, act, [recording, before, after, backend, seed], out)], out[2:])


def compared(shown: dict[str, Shown]) -> str:
    """A row for each backend, in HTML: how long its speech is, how long it took, what the check says."""
    rows = []
    for name, one in shown.items():
        if one.report is None:
            continue
        report = one.report
        verdict = (
            "all heard" if not report.missed and not report.repeated else f"{len(report.missed + report.repeated)} sounds amiss"
        )
        cells = (
            name,
            f"{report.seconds:.2f} s",
            f"{report.spent_seconds:.2f} s",
            f"{1 / max(report.real_time_factor, 1e-9):.2g} ×",
            str(report.tries),
            verdict if report.checked else "not listened to",
        )
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{word}</th>" for word in ("Backend", "Speech", "Made in", "Real time", "Tries", "The check"))
    return f"<table class='mynah-table'><tr>{head}</tr>{''.join(rows)}</table>" if rows else ""


def changed(before: str, after: str) -> str:
    """Two texts as one, in HTML: words that go struck out, words that come set off."""
    old, new = re.findall(r"\S+", before or ""), re.findall(r"\S+", after or "")
    if not old or not new:
        return ""
    parts = []
    for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(escape(" ".join(old[i1:i2])))
            continue
        gone, come = escape(" ".join(old[i1:i2])), escape(" ".join(new[j1:j2]))
        parts += [f"<del>{gone}</del>"] * bool(gone) + [f"<ins>{come}</ins>"] * bool(come)
    return f"<p class='mynah-changes'>{' '.join(parts)}</p>"
