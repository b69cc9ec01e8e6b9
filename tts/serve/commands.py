"""What `mynah voices` and `mynah batch` take, and what they tell; the work is done elsewhere in this room."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tts.errors import SettingsError
from tts.serve.doctor import doctor
from tts.serve.page.command import demo
from tts.serve.server.command import serve

if TYPE_CHECKING:
    from tts.frames import Request
    from tts.serve.batch import Tally

errors = Console(stderr=True, highlight=False, soft_wrap=True)
voices = typer.Typer(help='Keep voices of your own, for --prompt voice:NAME and prompt="voice:NAME".', no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Letters, digits, - and _.")]
System = Annotated[str, typer.Option(help="A system that comes with the package, or the folder of a checkpoint.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Replace = Annotated[bool, typer.Option("--replace", help="Even where a voice of that name is there.")]


class Engine(StrEnum):
    """Who speaks a batch."""

    processes = "processes"
    ray = "ray"


def add_to(app: typer.Typer) -> None:
    """Put these commands beside those of an app."""
    app.add_typer(voices, name="voices")
    app.command()(batch)
    app.command()(demo)
    app.command()(doctor)
    app.command()(serve)


# ---------------------------------------------------------------------------------------------------------------- voices


@voices.command()
def add(
    name: Name,
    recordings: Annotated[list[Path], typer.Argument(help="Recordings of one speaker, of any length.")],
    text: Annotated[
        list[str] | None, typer.Option(help="What is said in each recording, if you know it; once for each, in order.")
    ] = None,
    consent: Annotated[str, typer.Option(help="The statement by which the speaker has agreed; it is kept in the file.")] = "",
    replace: Replace = False,
    system: System = "base-en",
    device: Device = "cpu",
) -> None:
    """Make a voice of recordings; the clearest part of them is what it speaks like."""
    from tts.pipeline import Synthesizer
    from tts.serve.voices import add_voice
    from tts.voices import check_name

    check_name(name)  # before the weights are loaded
    voice = add_voice(Synthesizer.from_pretrained(system, device), name, recordings, text or (), consent, replace)
    for warning in voice.warnings:
        errors.print(f"warning: {warning}", markup=False)
    if not consent:
        errors.print("warning: no consent is recorded; --consent keeps the speaker's statement with the voice", markup=False)
    typer.echo(f'voice:{name}: {voice.seconds:.1f} s of {len(recordings)} recordings; use it as --prompt "voice:{name}"')


@voices.command(name="list")
def list_voices(system: System = "base-en") -> None:
    """List the voices of the system, then yours."""
    from tts.serve.voices import sources_of
    from tts.voices import VOICES, about_voice, user_folder, voice_names
    from tts.weights import find

    table = Table("voice", "whose", "seconds", "recordings", "consent", "made for", box=None)
    brought = voice_names(find(system))
    for name in brought:
        table.add_row(name, system, "", "", "", "")
    for name in voice_names(user_folder()):
        about = about_voice(user_folder() / VOICES / f"{name}.safetensors")
        consent = "recorded" if about.get("consent") else "none recorded"
        whose = "yours" if name not in brought else f"yours, hidden by {system}'s"
        made_for = about.get("system", "").partition(" (")[0]
        table.add_row(name, whose, about.get("seconds", ""), str(len(sources_of(about))), consent, made_for)
    Console().print(table)


@voices.command()
def show(name: Name, system: System = "base-en") -> None:
    """Tell where a voice comes from: recordings, consent, and the system it was made for."""
    from tts.serve.voices import sources_of
    from tts.voices import about_voice, find_voice, voice_names
    from tts.weights import find

    path = find_voice(find(system), name)
    about = about_voice(path)
    typer.echo(f"{path}")
    if name in voice_names(find(system)):
        typer.echo(f"a voice of {system}; its model card tells where it comes from")
        return
    typer.echo(f"consent: {about.get('consent') or 'none recorded'}")
    for key in ("system", "seconds", "text"):
        if about.get(key):
            typer.echo(f"{key}: {about[key]}")
    for source in sources_of(about):
        used = ", used in context" if source.used else ""
        typer.echo(f"recording: {source.file}, {source.seconds} s, sha256 {source.sha256}{used}")


@voices.command()
def remove(name: Name) -> None:
    """Delete one of your voices."""
    from tts.serve.voices import remove_voice

    remove_voice(name)
    typer.echo(f"voice:{name} is removed")


@voices.command(name="export")
def export(
    name: Name, out: Annotated[Path, typer.Argument(help="A file, NAME.safetensors.")], system: System = "base-en"
) -> None:
    """Write a voice to a file, to be imported elsewhere."""
    from tts.serve.voices import export_voice
    from tts.weights import find

    export_voice(find(system), name, out)
    typer.echo(f"{out}: voice:{name}")


@voices.command(name="import")
def take_in(
    file: Annotated[Path, typer.Argument(help="What `mynah voices export` wrote.")],
    name: Annotated[str | None, typer.Option(help="What to call it; by default as the file.")] = None,
    replace: Replace = False,
    system: System = "base-en",
) -> None:
    """Take in an exported voice, if this system can speak in it."""
    from tts.pipeline import Synthesizer
    from tts.serve.voices import import_voice

    typer.echo(f"voice:{import_voice(Synthesizer.from_pretrained(system), file, name, replace)} is yours")


# ----------------------------------------------------------------------------------------------------------------- batch


def batch(
    manifest: Annotated[str, typer.Argument(help="JSONL, CSV, TSV or a Seed-TTS-eval list; docs/batch.md tells its columns.")],
    out: Annotated[str, typer.Option(help="A folder, or its URL, for the sounds, results.jsonl and errors.jsonl.")],
    prompt: Annotated[
        str | None, typer.Option(help="A recording, or voice:NAME, for rows that name none; the built-in voice, if not given.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core or GPU, if not given.")] = None,
    engine: Annotated[Engine, typer.Option(help="Processes of this machine, or actors of a Ray cluster.")] = Engine.processes,
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster's head, HOST:PORT; or auto.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of each worker; with another number the last bits may differ.")] = 1,
    backend: Annotated[str, typer.Option(help="The backend that speaks, for rows that name none.")] = "flow",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the backend, steps=8.")
    ] = None,
    seed: Annotated[int, typer.Option(help="An item's seed is made of this one and its id, unless its row has one.")] = 0,
    file_format: Annotated[str, typer.Option("--format", help="wav, flac, ogg, opus or mp3.")] = "wav",
    language: Annotated[str | None, typer.Option(help="As espeak names it, for rows that name none.")] = None,
    check: Annotated[bool, typer.Option(help="Let the recognizer listen, and try again what was not said.")] = True,
    system: System = "base-en",
    device: Device = "cpu",
) -> None:
    """Speak a manifest into a folder; the same command goes on with a batch that was stopped."""
    if address is not None and engine is not Engine.ray:
        raise SettingsError("--address is that of a Ray cluster; give --engine ray, too")
    from tts.frames import Request
    from tts.serve.batch import ERRORS, run_batch
    from tts.serve.jobs.cluster import Cluster
    from tts.serve.jobs.manifests import read_manifest, travelling
    from tts.serve.jobs.stores import store_at

    template = Request("", prompt, None, backend, seed, language=language, check=check, settings=settings_of(settings))
    check_before(system, template)
    jobs = read_manifest(manifest, template)
    if others := travelling(jobs):
        errors.print(f"columns that travel along: {', '.join(others)}", markup=False)
    columns = (BarColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn())
    bar = Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
    task = bar.add_task("speaking", total=None, told="loading")

    def tell(tally: Tally) -> None:
        taken = bar.tasks[0].elapsed or 0.0
        pace = f", {tally.seconds / taken:.1f} s of speech a second" if tally.seconds and taken else ""
        count = f"{tally.before + tally.spoken + tally.failed} of {tally.items}"
        bar.update(task, total=tally.letters, completed=tally.letters_done, told=count + pace)

    place = store_at(out)
    try:
        with bar:
            options: dict[str, Any] = {"workers": workers, "threads": threads, "device": device, "progress": tell}
            if engine is Engine.ray:
                options["engine"] = Cluster(address, workers)
            tally = run_batch(jobs, out, system=system, template=template, extension=f".{file_format}", **options)
    except KeyboardInterrupt:
        errors.print(f"mynah: stopped; what is done is in {place.where('')}, and the same command goes on", markup=False)
        sys.exit(130)
    before = f", {tally.before} were there" if tally.before else ""
    doubted = f", {tally.doubted} did not pass the check" if tally.doubted else ""
    failed = f", {tally.failed} failed, see {place.where(ERRORS)}" if tally.failed else ""
    typer.echo(f"{place.where('')}: {tally.spoken} spoken, {tally.seconds:.1f} s{before}{doubted}{failed}")
    if tally.failed:
        sys.exit(1)


def settings_of(given: list[str] | None) -> dict[str, Any] | None:
    """KEY=VALUE, values as YAML reads them. Raises SettingsError."""
    import yaml

    values = {}
    for key, value in map(pair, given or ()):
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SettingsError(f"{key} cannot be {value!r}; a number is written {key}=8, several {key}=[8,4]") from error
    return values or None


def check_before(system: str, request: Request) -> None:
    """Raise InputError or CheckpointError for what a system cannot be asked for, before its weights are loaded."""
    from tts.checkpoint import read_system
    from tts.request import check_asked
    from tts.weights import find

    check_asked(request, read_system(find(system)))


def pair(written: str) -> tuple[str, str]:
    """NAME=VALUE. Raises SettingsError."""
    key, sign, value = written.partition("=")
    if not sign:
        raise SettingsError(f"write NAME=VALUE, got {written!r}")
    return key, value
