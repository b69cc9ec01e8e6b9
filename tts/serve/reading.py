"""What `mynah say --file` tells while a text is read aloud; the work is done in book.py."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tts.errors import SettingsError, TextError
from tts.frames import Request
from tts.serve.book import Told, check_paths, read_aloud, stream_aloud
from tts.text.chunk import speaks
from tts.text.paragraphs import MOST, decode

errors = Console(stderr=True, highlight=False, soft_wrap=True)
STANDARD = Path("-")


def read_file(file: Path) -> str:
    """The text in a file; - is standard input. Raises TextError."""
    name = "standard input" if file == STANDARD else str(file)
    try:
        if file == STANDARD:
            data = sys.stdin.buffer.read(MOST + 1)
        else:
            with open(file, "rb") as opened:
                data = opened.read(MOST + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise TextError(f"{name} cannot be read ({reason}); give a file with plain text in UTF-8") from error
    text = decode(data, name)
    if not speaks(text):
        raise TextError(f"{name} {'is empty' if not data.strip() else 'holds nothing to say'}; give words or numbers")
    return text


def read_book(request: Request, out: Path, times: Path | None, srt: Path | None, system: str, device: str) -> None:
    """Read a long text aloud into a file, or with - to standard output, and tell how far it is. Ends with 130 after Ctrl-C."""
    if out == STANDARD and (times or srt):
        raise SettingsError("--times and --srt are written beside a file; give --out a file, too")
    if out != STANDARD:
        check_paths(out, times, srt)  # before the weights are loaded
    from tts.pipeline import Synthesizer

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn())
    bar = Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
    task = bar.add_task("loading", total=None, told="")

    def tell(told: Told) -> None:
        for warning in told.warnings:
            errors.print(f"warning: {warning}", markup=False)
        if told.passages == told.before:
            bar.reset(task, total=told.of_letters - told.letters_before, description="speaking")
        taken = bar.tasks[0].elapsed or 0.0
        made = told.seconds - told.seconds_before
        pace = f", {made / taken:.1f} s of speech a second" if made and taken else ""
        count = f"{told.passages} of {told.of_passages} sentences, {told.seconds / 60:.1f} min{pace}"
        bar.update(task, completed=told.letters - told.letters_before, told=count)

    try:
        with bar:
            synthesizer = Synthesizer.from_pretrained(system, device)
            if out == STANDARD:
                told = stream_aloud(synthesizer, request, sys.stdout.buffer, tell)
            else:
                told = read_aloud(synthesizer, request, out, times, srt, tell)
    except KeyboardInterrupt:
        kept = "" if out == STANDARD else "; what is said is kept beside it, and the same command goes on"
        errors.print(f"mynah: {out} is not finished{kept}", markup=False)
        sys.exit(130)
    before = f", {told.before} of {told.of_passages} sentences were there" if told.before else ""
    doubted = f", {told.doubted} did not pass the check" if told.doubted else ""
    typer.echo(f"{out}: {told.seconds:.2f} s{before}{doubted}", err=out == STANDARD)
