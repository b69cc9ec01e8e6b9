"""The command line: mynah say, edit, reconstruct, voices, batch, eval, and what trains. An error is a sentence, exit code 2."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from tts import __version__
from tts.errors import MynahError, OutputError, SettingsError, TextError
from tts.serve.commands import add_to, check_before, pair, settings_of

# What takes long to import is imported inside the commands, so that --help is there at once.
app = typer.Typer(
    help="Zero-shot text-to-speech: a text and a few seconds of a voice in, speech in that voice out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

System = Annotated[str, typer.Option(help="A system that comes with the package, or the folder of a checkpoint.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the backend, steps=8.")]
Seed = Annotated[int, typer.Option(help="Another seed says the same in another way.")]
Backend = Annotated[str, typer.Option(help="The backend that speaks.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
PhonesOf = Annotated[
    Path | None, typer.Option(help="A prepared corpus; which phones follow which in its texts helps to read what has none.")
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values over those of the config.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `mynah`. Exits with 2 where what was asked cannot be done."""
    try:
        app(arguments, prog_name="mynah")
    except MynahError as error:
        errors.print(f"mynah: {error}", markup=False)
        sys.exit(2)


@app.command()
def say(
    text: Annotated[str | None, typer.Argument(help="What to say; - reads it from standard input.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A recording of the voice, or voice:NAME; several are joined.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the sound goes: .wav, .flac, .ogg, .opus or .mp3.")] = Path("out.wav"),
    file: Annotated[Path | None, typer.Option(help="A text of any length instead; a reading that was stopped goes on.")] = None,
    times: Annotated[Path | None, typer.Option(help="With --file: when each sentence and word is said, as JSON.")] = None,
    srt: Annotated[Path | None, typer.Option(help="With --file: subtitles.")] = None,
    prompt_text: Annotated[str | None, typer.Option(help="What is said in the recording, if you know it.")] = None,
    seed: Seed = 0,
    speed: Annotated[float, typer.Option(help="0.2 to 5 times the pace of the voice.")] = 1.0,
    seconds: Annotated[float | None, typer.Option(help="How long it shall take, instead of a speed.")] = None,
    backend: Backend = "flow",
    language: Annotated[str | None, typer.Option(help="As espeak names it, such as en-gb.")] = None,
    check: Annotated[bool, typer.Option(help="Let the recognizer listen, and try again what was not said.")] = True,
    settings: Settings = None,
    system: System = "base-en",
    device: Device = "cpu",
) -> None:
    """Speak a text in the voice of a recording, or with --file a whole book of it (docs/long-text.md)."""
    if (text is None) == (file is None):
        raise SettingsError("give a text, or --file with a file that holds one")
    if file is None and (times or srt):
        raise SettingsError("--times and --srt go with --file")
    if file is None:
        _check_writable(out)
    chosen = settings_of(settings)
    from tts.serve.reading import read_book, read_file

    said = read_file(file) if file is not None else _standard_input() if text == "-" else str(text)
    from tts.frames import Request
    from tts.pipeline import Synthesizer

    voice = prompt[0] if prompt and len(prompt) == 1 else prompt
    request = Request(said, voice, prompt_text, backend, seed, speed, seconds, language, check, chosen)
    check_before(system, request)
    if file is not None:
        read_book(request, out, times, srt, system, device)
        return
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("loading", total=None)
        synthesizer = Synthesizer.from_pretrained(system, device)
        bar.update(task, description="speaking")
        audio = synthesizer.speak(request, lambda done, todo: bar.update(task, completed=done, total=todo))
    path = audio.save(out)
    for warning in audio.report.warnings:
        errors.print(f"[yellow]warning:[/] {_plain(warning)}")
    report = audio.report
    typer.echo(f"{path}: {report.seconds:.2f} s, made in {report.spent_seconds:.2f} s (RTF {report.real_time_factor:.2f})")


@app.command()
def reconstruct(
    recording: Annotated[str, typer.Argument(help="A sound file of any length.")],
    out: Annotated[Path, typer.Argument(help="Where the copy goes: .wav, .flac, .ogg, .opus or .mp3.")],
    n_codebooks: Annotated[
        int | None, typer.Option(help="How many of the codec's codebooks; all, if not given. 0: the vocoder alone.")
    ] = None,
    system: System = "base-en",
    device: Device = "cpu",
) -> None:
    """Copy a recording through codec and vocoder: what the best of backends could sound like."""
    _check_writable(out)
    from tts.pipeline import Synthesizer

    audio = Synthesizer.from_pretrained(system, device).reconstruct(recording, n_codebooks)
    path, report = audio.save(out), audio.report
    bits = report.bits_per_second
    books = "1 codebook" if report.n_codebooks == 1 else f"{report.n_codebooks} codebooks"
    through = "vocoder alone" if bits is None else f"{books}, {bits / 1000:.2f} kbit/s"
    took = f"{report.seconds:.2f} s, made in {report.spent_seconds:.2f} s (RTF {report.real_time_factor:.3f})"
    typer.echo(f"{path}: {took}, {through}")


@app.command()
def edit(
    recording: Annotated[str, typer.Argument(help="A sound file in which somebody speaks.")],
    out: Annotated[Path, typer.Argument(help="Where the edited copy goes: .wav or .flac keep its other samples, in 16 bits.")],
    before: Annotated[str, typer.Option(help="All that is said in the recording.")],
    after: Annotated[str, typer.Option(help="The same, with words put in, left out or replaced.")],
    seed: Seed = 0,
    backend: Backend = "flow",
    language: Annotated[str | None, typer.Option(help="As espeak names it, such as en-gb.")] = None,
    check: Annotated[bool, typer.Option(help="Let the recognizer listen, and try again what was not said.")] = True,
    settings: Settings = None,
    system: System = "base-en",
    device: Device = "cpu",
) -> None:
    """Change words of a recording, in its own voice; the rest of it stays as it is."""
    _check_writable(out)
    chosen = settings_of(settings)
    from tts.frames import Request
    from tts.pipeline import Synthesizer

    check_before(system, Request(after, backend=backend, seed=seed, language=language, settings=chosen))
    synthesizer = Synthesizer.from_pretrained(system, device)
    audio = synthesizer.edit(
        recording, before, after, backend=backend, seed=seed, language=language, check=check, settings=chosen
    )
    path, report = audio.save(out), audio.report
    warnings = list(report.warnings)
    if path.suffix.lower() not in (".wav", ".flac"):
        warnings.append(f"{path.suffix} changes all samples a little; .wav and .flac keep those that were not edited")
    for warning in warnings:
        errors.print(f"[yellow]warning:[/] {_plain(warning)}")
    rate = audio.sample_rate
    new = ", ".join(f"{edit.new[0] / rate:.2f} to {edit.new[1] / rate:.2f} s" for edit in report.edits)
    typer.echo(f"{path}: {report.seconds:.2f} s, new {new or 'nothing'}, made in {report.spent_seconds:.2f} s")


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="A TSV manifest, an LJSpeech-shaped folder, or with --teacher lines of text.")],
    out: Annotated[Path, typer.Argument(help="The folder of shards to be written.")],
    overrides: Overrides = None,
    teacher: Annotated[str, typer.Option(help="flite:slt,rms or festival:kal_diphone says the lines.")] = "",
) -> None:
    """Turn recordings and their texts into a corpus of shards to train on."""
    from tts.config import load_config
    from tts.train.prepare import PrepareConfig
    from tts.train.prepare import prepare as make

    _log()
    made = make(source, out, load_config(PrepareConfig, None, overrides or ()), teacher)
    typer.echo(f"{out}: {made.items} items, {made.seconds / 3600:.2f} hours, {len(made.skipped)} left out")


@app.command()
def align(
    corpus: Annotated[Path, typer.Argument(help="A prepared corpus.")],
    recognizer: Annotated[
        str, typer.Option(help="A system, by name or folder, or the folder of a recognizer's training run.")
    ] = "base-en",
    bootstrap: Annotated[bool, typer.Option("--bootstrap", help="By pocketsphinx: for a first recognizer.")] = False,
    phone_lm: PhonesOf = None,
    pictures: Annotated[Path | None, typer.Option(help="A folder for pictures of the worst clips, and of others.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many pictures of each.")] = 12,
) -> None:
    """Find out where each phone of a corpus lies, and write it beside the shards."""
    if bootstrap and (phone_lm or pictures):
        raise SettingsError("--bootstrap hears nothing of its own, so it goes without --phone-lm and --pictures")
    if pictures is not None:
        _make_folder(pictures)
    if bootstrap:
        from tts.train.bootstrap import bootstrap_corpus

        typer.echo(f"{corpus}: aligned {bootstrap_corpus(corpus)}")
        return
    from tts.train.alignment import align_corpus, clips_to_see, count_phones
    from tts.train.assemble import find_part

    ears = find_part("recognizer", "ctc", recognizer)
    found = align_corpus(ears, corpus, phone_lm=count_phones(phone_lm) if phone_lm is not None else None)
    typer.echo(f"{corpus}: {', '.join(f'{name} {value:.4g}' for name, value in found.items())}")
    if pictures is not None:
        from tts.eval.alignments import plot_alignment

        for name, clip in clips_to_see(ears, corpus, count):
            plot_alignment(pictures / name, **clip)


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    folders: Annotated[list[Path], typer.Argument(help="Prepared corpora.")],
    weight: Annotated[
        list[str] | None, typer.Option(metavar="CORPUS=REPEATS", help="In an epoch; CORPUS* is for copies at other speeds.")
    ] = None,
) -> None:
    """Make one corpus of several, for a training."""
    from tts.train.merge import merge as join

    repeats = {name: float(value) for name, value in map(pair, weight or ())}
    typer.echo(f"{out}: {join(folders, out, repeats)} items")


@app.command()
def cut(
    corpus: Annotated[Path, typer.Argument(help="A prepared and aligned corpus.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    min_score: Annotated[float, typer.Option(help="Clips whose alignment scores less are left out.")] = -1.5,
) -> None:
    """Cut clips at their pauses, so that a backend learns short texts; then merge."""
    from tts.train.phrases import cut as make

    typer.echo(f"{out}: {make(corpus, out, min_score)} phrases")


@app.command()
def train(
    what: Annotated[
        str, typer.Argument(help="asr, duration, codec, waveform-codec, vocoder, speaker, backend, ar, masked or filter.")
    ],
    config: Annotated[Path | None, typer.Argument(help="A YAML file with loop, recipe, train, valid and out.")] = None,
    overrides: Overrides = None,
) -> None:
    """Train a part on prepared corpora; a run that was stopped goes on."""
    from tts.train.run import train as run

    _log()
    typer.echo(run(what, config, overrides or ()))


@app.command()
def assemble(
    config: Annotated[Path, typer.Argument(help="A YAML file that lists the parts of the system.")],
    folder: Annotated[Path, typer.Argument(help="The checkpoint to be written.")],
    runs: Annotated[list[str], typer.Argument(metavar="PART=RUN", help="Folders of training runs, recognizer=runs/asr …")],
    durations: Annotated[
        Path | None, typer.Option(help="An aligned corpus; its phones' lengths become the duration rule's.")
    ] = None,
    phone_lm: PhonesOf = None,
) -> None:
    """Make a system that speaks of trained parts."""
    from tts.checkpoint import System as SystemConfig
    from tts.config import load_config
    from tts.train.alignment import count_phones, typical_durations
    from tts.train.assemble import assemble as make

    lengths = typical_durations(durations, min_score=-3.0) if durations is not None else None
    grams = count_phones(phone_lm) if phone_lm is not None else None
    system = make(folder, load_config(SystemConfig, config), dict(map(pair, runs)), lengths, phone_lm=grams)
    typer.echo(f"{folder}: {system.name} {system.version}, {', '.join(system.parts)}")


@app.command(name="eval")
def evaluate(
    out: Annotated[Path, typer.Option(help="A folder for the sounds, the report and the plots.")],
    protocol: Annotated[
        list[Path] | None, typer.Option(help="A Seed-TTS-eval list or a TSV; of several a pooled report, too.")
    ] = None,
    system: System = "base-en",
    backend: Backend = "flow",
    seed: Seed = 0,
    settings: Settings = None,
    tries: Annotated[
        list[int] | None,
        typer.Option(help="A row with at most so many tries of a sentence; 1 is unchecked. 1 and 2, if not given."),
    ] = None,
    rerank: Annotated[
        list[int] | None, typer.Option(help="A row with so many tries of every sentence, of which the best is kept.")
    ] = None,
    hard: Annotated[bool, typer.Option("--hard", help="Speak the hard list, in the voices of the protocol, if given.")] = False,
    pages: Annotated[int, typer.Option(help="Listening pages of so many of the worst items.")] = 0,
    copies: Annotated[bool, typer.Option("--copies", help="Copy the recordings, by vocoder and codec; speak nothing.")] = False,
    n_codebooks: Annotated[
        list[int] | None, typer.Option(help="With --copies: how many codebooks, a row each; 0 is the vocoder alone.")
    ] = None,
    prompt_snr: Annotated[
        float | None, typer.Option(help="Veil the prompts by noise so many dB below them; SIM is against the clean ones.")
    ] = None,
    edits: Annotated[
        int, typer.Option(help="Replace a word in each of so many recordings; measure it beside plain synthesis.")
    ] = 0,
    durations: Annotated[
        list[str] | None,
        typer.Option(help="Only plan, by system, prompt-rate, ratio or KIND=RUN, and compare with recordings."),
    ] = None,
) -> None:
    """Speak a protocol with the check off and on, or copy it, and measure words, phones, voices, quality and speed."""
    chosen = settings_of(settings)
    from tts.frames import Request

    check_before(system, Request("", backend=backend, seed=seed, settings=chosen))
    if durations:
        _compare_durations(protocol or [], out, system, durations, seed)
        return
    from tts.eval.command import evaluate as run

    asked = (protocol or (), out, system, backend, seed, chosen, tries or (), rerank or (), hard, pages, copies, n_codebooks)
    for drawn in run(*asked, prompt_snr, edits):
        Console().print(drawn)


@app.command()
def version() -> None:
    """Say which Mynah this is, and which systems come with it."""
    from tts.weights import embedded

    typer.echo(f"mynah-tts {__version__}, systems: {', '.join(embedded()) or 'none'}")


add_to(app)


def _compare_durations(protocols: list[Path], out: Path, system: str, names: list[str], seed: int) -> None:
    from tts.eval.durations import compare_durations, duration_table
    from tts.eval.protocols import read_protocol
    from tts.pipeline import Synthesizer
    from tts.train.duration import find_durations

    if not protocols:
        raise SettingsError("say what to plan: --protocol FILE")
    synthesizer = Synthesizer.from_pretrained(system)
    items = [item for protocol in protocols for item in read_protocol(protocol)]
    predictors = find_durations(names, synthesizer.parts.duration)
    Console().print(duration_table(compare_durations(items, synthesizer, predictors, out, seed)))


def _check_writable(out: Path) -> None:
    """Raise OutputError now, rather than after the work."""
    from tts.audio import FORMATS
    from tts.files import check_writable

    if out.suffix.lower() not in FORMATS:
        raise OutputError(f"{out} must end in one of {', '.join(FORMATS)}, got {out.suffix or 'no extension'!r}")
    check_writable(out)


def _make_folder(out: Path) -> None:
    """Raise OutputError now, rather than after the work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made ({error.strerror}); give a folder you may write to") from error


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise TextError(f"standard input is not UTF-8 text ({error})") from error


def _plain(sentence: str) -> str:
    """A sentence in which rich sees no markup."""
    from rich.markup import escape

    return escape(sentence)


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")


if __name__ == "__main__":
    main()
