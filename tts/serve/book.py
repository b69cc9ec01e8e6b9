"""A text read aloud into one file of any length, beside its place and passage by passage, so that it may be stopped anywhere.

    .OUT.samples.part     16-bit samples, as they are made
    .OUT.journal.part     of what they are made, then a line for each passage: its last sample, its words and their times
    OUT                   there when all is said: the samples in their container, moved into place whole

A passage's samples are written before its line. What lies beyond the last whole line was cut off, and is made again; a
journal of another text, voice, option or system counts for nothing.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np

from tts import __version__
from tts.audio import FORMATS
from tts.errors import OutputError, SettingsError
from tts.files import check_writable
from tts.frames import Request
from tts.narration import Narration, Passage, narrate
from tts.serve.captions import write_json, write_srt

if TYPE_CHECKING:
    from tts.pipeline import Synthesizer

BLOCK = 1 << 16  # samples that are encoded at a time
MOST_WAV = 2**32 - 2**20  # bytes; more than that the head of a wav cannot say
ENDLESS = 0xFFFF_FFFF  # the length of a wav that is still being made


@dataclass(frozen=True)
class Told:
    """How far a reading is. doubted: passages that failed their check. warnings: of the last passage, or at first of all."""

    passages: int
    letters: int
    seconds: float
    doubted: int
    of_passages: int
    of_letters: int
    before: int = 0  # passages that an earlier run has said
    letters_before: int = 0
    seconds_before: float = 0.0
    warnings: tuple[str, ...] = ()


Tell = Callable[[Told], None]


def read_aloud(
    synthesizer: Synthesizer,
    request: Request,
    out: str | Path,
    times: str | Path | None = None,
    srt: str | Path | None = None,
    progress: Tell = lambda told: None,
) -> Told:
    """Speak a text of any length into a file. What an earlier run of the same reading has said is not said again.

    The bytes of a wav or flac depend on the request and the system, not on where the reading was stopped.

    Args:
        times: a JSON file for the times of sentences and words. srt: a file for subtitles.
        progress: told at the beginning, and after each passage.
    Raises:
        InputError: the request or a path cannot be used.
    """
    out, times, srt = Path(out), *(Path(path) if path is not None else None for path in (times, srt))
    check_paths(out, times, srt)
    narration = narrate(synthesizer, request)
    head = {"mynah": __version__, "identity": narration.identity}
    with _reported(out), _parts(out) as (samples, journal):
        # 1. what is said already
        told = _resumed(samples, journal, head, narration)
        progress(told)
        # 2. the rest
        for passage in narration:
            samples.write(_pcm(passage))
            samples.flush()
            journal.write(_line(passage))
            journal.flush()
            told = _after(told, passage, narration.sample_rate)
            progress(told)
        # 3. into place, the sound last
        if times is not None:
            about = {**narration.provenance, "file": out.name, "sample_rate": narration.sample_rate, "seconds": told.seconds}
            with _whole(times) as part, open(part, "w", encoding="utf-8") as file:
                write_json(file, about, _passages(journal))
        if srt is not None:
            with _whole(srt) as part, open(part, "w", encoding="utf-8") as file:
                write_srt(file, _passages(journal))
        with _whole(out) as part:
            _encode(samples, part, out, narration)
    return told


def stream_aloud(synthesizer: Synthesizer, request: Request, sink: BinaryIO, progress: Tell = lambda told: None) -> Told:
    """Speak a text of any length to an open file, a pipe for instance: a wav that does not say how long it is.

    Raises InputError, OutputError: nobody reads it any more.
    """
    narration = narrate(synthesizer, request)
    told = Told(0, 0, 0.0, 0, narration.passages, narration.letters, warnings=narration.warnings)
    rate = narration.sample_rate
    head = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", ENDLESS, b"WAVEfmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", ENDLESS)
    progress(told)
    try:
        sink.write(head)
        for passage in narration:
            sink.write(_pcm(passage))
            sink.flush()
            told = _after(told, passage, rate)
            progress(told)
    except OSError as error:
        raise OutputError(f"the sound cannot be written ({error.strerror}) after {told.seconds:.1f} s of it") from error
    return told


def check_paths(out: Path, times: Path | None, srt: Path | None) -> None:
    """Raise OutputError or SettingsError now, rather than after the work."""
    if out.suffix.lower() not in FORMATS:
        raise OutputError(f"{out} must end in one of {', '.join(FORMATS)}, got {out.suffix or 'no extension'!r}")
    given = [path for path in (out, times, srt) if path is not None]
    if len({path.absolute() for path in given}) < len(given):
        raise SettingsError(f"sound, times and subtitles go to different files, got {', '.join(map(str, given))}")
    for path in given:
        check_writable(path)


# ----------------------------------------------------------------------------------------------------------- the journal


def _resumed(samples: IO[bytes], journal: IO[bytes], head: dict[str, Any], narration: Narration) -> Told:
    """Cut both files after the last passage that is whole in both, and let the narration go on from there."""
    told = Told(0, 0, 0.0, 0, narration.passages, narration.letters, warnings=narration.warnings)
    there = os.fstat(samples.fileno()).st_size // 2
    place, end = 0, 0  # bytes of the journal, samples
    journal.seek(0)
    if (first := journal.readline()) and _parsed(first) == head:
        place = len(first)
        for line in journal:
            passage = _parsed(line)
            if passage is None or passage["ends"] > there:
                break
            place, end = place + len(line), passage["ends"]
            doubted = told.doubted + any(sentence["passed"] is False for sentence in passage["sentences"])
            told = replace(told, passages=told.passages + 1, letters=passage["letters"], doubted=doubted)
    elif first:
        told = replace(told, warnings=(*told.warnings, "What was made of another text or with other options is made anew."))
    journal.truncate(place)
    samples.truncate(2 * end)
    if not place:
        journal.write(json.dumps(head).encode() + b"\n")
    narration.begin(told.passages, end)
    seconds = end / narration.sample_rate
    return replace(told, seconds=seconds, before=told.passages, letters_before=told.letters, seconds_before=seconds)


def _line(passage: Passage) -> bytes:
    told = {name: getattr(passage, name) for name in ("number", "text", "letters", "aligned", "warnings")}
    told["ends"] = passage.begins + len(passage.samples)
    told["start"], told["end"] = round(passage.start, 3), round(passage.end, 3)
    told["words"] = [(word.text, round(word.start, 3), round(word.end, 3)) for word in passage.words]
    told["sentences"] = [asdict(sentence) for sentence in passage.sentences]
    return json.dumps(told, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line of the journal; None for one that was cut off."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None  # type: ignore[no-any-return]
    except ValueError:
        return None


def _passages(journal: IO[bytes]) -> Iterator[dict[str, Any]]:
    journal.seek(0)
    journal.readline()
    yield from map(json.loads, journal)


def _after(told: Told, passage: Passage, rate: int) -> Told:
    return replace(
        told,
        passages=passage.number + 1,
        letters=passage.letters,
        seconds=(passage.begins + len(passage.samples)) / rate,
        doubted=told.doubted + any(sentence.passed is False for sentence in passage.sentences),
        warnings=passage.warnings,
    )


# ------------------------------------------------------------------------------------------------------------- the files


def _pcm(passage: Passage) -> bytes:
    """16-bit samples, as tts/audio.py rounds them."""
    return np.rint(passage.samples * np.float32(32768.0)).clip(-32768, 32767).astype("<i2").tobytes()


def _encode(samples: IO[bytes], part: Path, out: Path, narration: Narration) -> None:
    """The samples in a container, block by block. Raises OutputError."""
    import soundfile

    container, subtype = FORMATS[out.suffix.lower()]
    if container == "WAV" and os.fstat(samples.fileno()).st_size > MOST_WAV:
        raise OutputError(
            f"{out} would be longer than a wav can be; give the same command with --out {out.with_suffix('.flac')}"
        )
    samples.seek(0)
    try:
        with soundfile.SoundFile(part, "w", narration.sample_rate, 1, subtype, format=container) as sound:
            sound.comment = json.dumps(narration.provenance, sort_keys=True, default=str)
            while block := samples.read(2 * BLOCK):
                sound.write(np.frombuffer(block, "<i2"))
    except soundfile.LibsndfileError as error:
        raise OutputError(f"{out} cannot be written ({error.error_string}); the same command goes on when it can") from error


@contextmanager
def _parts(out: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Samples and journal beside a file, nobody else's while this lasts; gone when all went well. Raises OutputError."""
    paths = [out.with_name(f".{out.name}.{kind}.part") for kind in ("samples", "journal")]
    with ExitStack() as stack:
        samples, journal = (stack.enter_context(open(path, "a+b")) for path in paths)
        busy = OutputError(f"another reading is writing {out}; wait for it, or give another file")
        try:
            import fcntl

            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not paths[1].exists() or paths[1].stat().st_ino != os.fstat(journal.fileno()).st_ino:
                raise busy  # it was just finished by another one
        except ImportError:  # Windows: two readings of one file are not noticed
            pass
        except BlockingIOError:
            raise busy from None
        yield samples, journal
    for path in paths:
        path.unlink(missing_ok=True)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path beside another one, moved there at the end; always the same, so what a killed run left is overwritten."""
    part = path.with_name(f".{path.name}.part")
    yield part
    os.replace(part, path)


@contextmanager
def _reported(out: Path) -> Iterator[None]:
    """Raise OutputError where a file cannot be written after all."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}); the same command goes on when it can") from error
