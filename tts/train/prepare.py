"""Recordings with their texts become a corpus of feature shards (`mynah prepare`).

manifest.tsv │ metadata.csv + wavs/ │ lines of text and a teacher ──► clips
clips ──► load, 16 kHz mono, trim, loudness, (voices) ─► mel, samples ─┐
texts ──► normalise ──► phones ────────────────────────────────────────┴──► shards (tts/train/data.py)
                          teacher: the phones it said ──► exact frames ──► alignment
"""

from __future__ import annotations

import csv
import functools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from tts.audio import MARGIN, MelRecipe, level, log_mel, resample, trim
from tts.errors import InputError, PromptError, SettingsError, TextError
from tts.recording import load
from tts.text.normalize import normalize
from tts.text.phonemes import PhoneFrontEnd
from tts.train.data import KNOWN, UNALIGNED, Corpus, CorpusWriter, Item, save_alignment, save_manifest
from tts.train.teacher import Span, number_sentences, on_frames, say, voices_of
from tts.train.voices import Change, changed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareConfig:
    """What happens between a recording and a shard."""

    mel: MelRecipe = field(default_factory=MelRecipe)
    language: str = "en-us"  # where the manifest has no column "language"
    audio: bool = True  # keep the samples beside the mel (a vocoder needs them)
    perturb: tuple[float, ...] = ()  # extra copies at these speeds; pitch and formants move along, as a new speaker
    changes: tuple[Change, ...] = ()  # extra copies in changed voices, as new speakers: [{pitch: 1.15, formant: 1.1}]
    weights: Mapping[str, float] = field(default_factory=dict)  # by corpus; 1.0 where none is given
    pace: tuple[float, float] = (3.0, 30.0)  # characters a second; what lies outside does not say its text
    trim: bool = True  # silence at both ends, but for a margin
    number_lines: int = 0  # lines full of figures that a teacher says besides
    workers: int = 2  # processes
    shard_bytes: int = 60_000_000

    def __post_init__(self) -> None:
        names = [change.name for change in self.changes]
        if "" in names or len(set(names)) < len(names):
            raise SettingsError(f"changes must be voices that differ from the recording's and each other, got {self.changes}")


@dataclass(frozen=True)
class Clip:
    """One recording to be: a file, or what a teacher shall say. sex: "F", "M" or ""."""

    id: str
    corpus: str
    speaker: str
    sex: str
    language: str
    text: str
    path: Path | None = None
    teacher: tuple[str, str] | None = None  # program, voice


@dataclass(frozen=True)
class Copy:
    """A clip or a perturbed copy: samples [N], mel [bands, T], and where its phones lie, if a teacher told."""

    suffix: str  # of its id and its speaker
    samples: np.ndarray
    mel: np.ndarray
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """What came of it. skipped: the clip's id and the reason."""

    items: int
    seconds: float
    skipped: tuple[tuple[str, str], ...]


def prepare(source: str | Path, out: str | Path, config: PrepareConfig = PrepareConfig(), teacher: str = "") -> Prepared:
    """Write a corpus of shards to the folder `out`, which appears only when it is whole.

    Args:
        source: a TSV manifest (columns path, text; and if known corpus, speaker, sex, language; paths relative to the TSV),
            an LJSpeech-shaped folder (metadata.csv: id|text|normalised, wavs/), or, with a teacher, lines of text.
        teacher: "flite:slt,rms,awb,kal16" or "festival:kal_diphone": every voice says every line, in normalised words. The
            clips' tokens are the phones that it said, and alignment.safetensors has their exact frames (tts/train/teacher.py).
    Returns:
        counts, and the clips that were left out: unreadable, unpronounceable, or at a pace that cannot be their text.
    Raises:
        InputError: there is nothing to prepare, or the manifest cannot be understood.
        MissingPackageError: the teacher is not installed.
    """
    clips = read_clips(Path(source), config.language, teacher, config.number_lines)
    if not clips:
        raise InputError(f"{source} lists no clips; give a TSV with columns path and text, or a folder with metadata.csv")
    if twice := [name for name, times in Counter(clip.id for clip in clips).items() if times > 1]:
        raise InputError(f"{source} lists {twice[0]!r} more than once; every clip needs a path of its own")
    front = PhoneFrontEnd()
    tokens, skipped = _phones(front, {clip.id: (clip.text, clip.language) for clip in clips})
    items: list[Item] = []
    lasts: list[list[int]] = []  # frames of each token
    with CorpusWriter(out, _tables(front, config.mel), config.shard_bytes) as writer:
        for clip, result in zip(clips, _measured(clips, config), strict=True):
            if isinstance(result, str):
                skipped.append((clip.id, result))
                continue
            for copy in result:
                said, frames = list(tokens.get(clip.id, ())), list[int]()
                if copy.spans and said:
                    said, frames = on_frames(copy.spans, said, copy.mel.shape[1], float(config.mel.spec.rate))
                item = _item(clip, copy, tuple(said), config)
                if reason := _wrong_pace(item, config.pace):
                    skipped.append((item.id, reason))
                    continue
                writer.add(item, torch.from_numpy(copy.mel), torch.from_numpy(copy.samples) if config.audio else None)
                items.append(item)
                lasts.append(frames)
        if not items:
            raise InputError(f"no clip of {source} could be read; the first: {skipped[0][0]}: {skipped[0][1]}")
    if teacher:
        known = [list(item.tokens) if frames else [] for item, frames in zip(items, lasts, strict=True)]
        save_alignment(out, known, lasts, [KNOWN if frames else UNALIGNED for frames in lasts])
    for name, reason in skipped:
        log.warning("left out %s: %s", name, reason)
    seconds = sum(item.seconds for item in items)
    log.info("%d items, %.2f h, %d left out: %s", len(items), seconds / 3600, len(skipped), out)
    return Prepared(len(items), seconds, tuple(skipped))


def phonemise(folder: str | Path) -> list[tuple[str, str]]:
    """Spell the texts of a prepared corpus anew, in place; returns ids and reasons of those that cannot be.

    An alignment of the old tokens is removed: it would not fit the new ones.
    """
    corpus = Corpus(folder, audio=False)
    front = PhoneFrontEnd()
    tokens, failed = _phones(front, {item.id: (item.text, item.language) for item in corpus.items})
    (corpus.folder / "alignment.safetensors").unlink(missing_ok=True)
    tables = {**corpus.tables, "symbols": list(front.symbols.symbols), "table": front.table}
    save_manifest(corpus.folder, [replace(item, tokens=tokens.get(item.id, ())) for item in corpus.items], tables)
    return failed


# ------------------------------------------------------------------------------------------------- what there is to read


def read_clips(source: Path, language: str, teacher: str = "", number_lines: int = 0) -> list[Clip]:
    """The clips of a manifest, a folder or a text file, in their order. Raises InputError; with a teacher as `voices_of`."""
    if teacher:
        return list(_teacher_clips(source, language, teacher, number_lines))
    if number_lines:
        raise SettingsError("number_lines are said by a teacher; give one, as flite:slt")
    metadata = source / "metadata.csv"
    if metadata.is_file():
        return list(_ljspeech_clips(metadata, language))
    if not source.is_file():
        raise InputError(f"{source} is neither a TSV file nor a folder with metadata.csv")
    return list(_tsv_clips(source, language))


def _tsv_clips(path: Path, language: str) -> Iterator[Clip]:
    with _opened(path) as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = {"path", "text"} - set(rows.fieldnames or ())
        if missing:
            raise InputError(f"{path} has no column {' and '.join(sorted(missing))}; its first line names {rows.fieldnames}")
        for number, row in enumerate(rows, 2):
            if row["path"] is None or row["text"] is None:
                raise InputError(f"{path}:{number} has fewer fields than the first line names columns")
            yield Clip(
                id=str(Path(row["path"]).with_suffix("")),
                corpus=row.get("corpus") or path.parent.name,
                speaker=row.get("speaker") or "",
                sex=row.get("sex") or "",
                language=row.get("language") or language,
                text=_sentence_case(row["text"]),
                path=path.parent / row["path"],
            )


def _ljspeech_clips(path: Path, language: str) -> Iterator[Clip]:
    name = path.parent.name
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip("\r\n").split("|")
            if len(fields) not in (2, 3):
                raise InputError(f"{path}:{number} must be id|text or id|text|normalised, got {line.strip()[:60]!r}")
            wav = path.parent / "wavs" / f"{fields[0]}.wav"
            yield Clip(fields[0], name, name, "", language, _sentence_case(fields[-1]), wav)


def _teacher_clips(path: Path, language: str, teacher: str, number_lines: int) -> Iterator[Clip]:
    voices = voices_of(teacher)
    if not language.startswith("en"):
        raise SettingsError(f"teachers speak English, got language {language!r}")
    with _opened(path) as file:
        lines = [_sentence_case(line.strip()) for line in file if line.strip()]
    for number, line in enumerate([*lines, *number_sentences(number_lines, seed=0)], 1):
        words = normalize(line, language)  # so that text and sound agree, however the teacher would read figures
        for program, voice in voices:
            name = f"{program}-{voice}"
            yield Clip(f"{name}-{number:05d}", f"teacher-{program}", name, "", language, words, teacher=(program, voice))


def _opened(path: Path) -> TextIO:
    try:
        return StringIO(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from error


def _sentence_case(text: str) -> str:
    """Text in capitals throughout was never meant to be spelled out."""
    return text.strip().lower() if text.isupper() else text.strip()


# ------------------------------------------------------------------------------------------------------- from clip to item


def _measured(clips: Sequence[Clip], config: PrepareConfig) -> Iterator[list[Copy] | str]:
    """What `_measure` says of each clip, in order, with a progress bar."""
    from rich.progress import track

    work = functools.partial(_measure, config=config)
    if config.workers < 2:
        yield from track(map(work, clips), "preparing", len(clips))
        return
    # spawned, not forked: torch's threads do not survive a fork
    with ProcessPoolExecutor(config.workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        yield from track(pool.map(work, clips, chunksize=16), "preparing", len(clips))


def _measure(clip: Clip, config: PrepareConfig) -> list[Copy] | str:
    """A clip and its perturbed copies, or the reason why it cannot be used."""
    rate = config.mel.sample_rate
    spans: tuple[Span, ...] = ()
    try:
        if clip.teacher is not None:
            said = say(*clip.teacher, clip.text)
            said = said.trimmed(MARGIN) if config.trim else said
            recording, given, spans = said.samples, said.rate, said.phones
        else:
            assert clip.path is not None, clip
            recording, given, _ = load(clip.path)
    except PromptError as error:
        return str(error)
    copies = []
    for suffix, samples, speed in _perturbed(recording, given, config):
        samples = level(trim(samples, rate) if config.trim and not spans else samples, rate)
        mel = log_mel(samples[None], config.mel)[0]
        moved = tuple((phone, start / speed, end / speed) for phone, start, end in spans)
        copies.append(Copy(suffix, samples.float().numpy(), mel.numpy(), moved))
    return copies


def _perturbed(recording: torch.Tensor, given: int, config: PrepareConfig) -> Iterator[tuple[str, torch.Tensor, float]]:
    """A recording of `given` Hz and its copies: (suffix of the speaker, samples [N] at the mel's rate, speed)."""
    rate = config.mel.sample_rate
    plain = resample(recording, given, rate)
    yield "", plain, 1.0
    for speed in config.perturb:
        # played faster, then sampled as before: speed, pitch and formants move together (Ko et al. 2015)
        yield f"@{speed:g}", resample(recording, round(given * speed), rate), speed
    for change in config.changes:
        yield f"@{change.name}", changed(plain, rate, change), change.speed


def _item(clip: Clip, copy: Copy, tokens: tuple[int, ...], config: PrepareConfig) -> Item:
    N = len(copy.samples)
    return Item(
        id=clip.id + copy.suffix,
        speaker=clip.speaker + copy.suffix,
        corpus=clip.corpus,
        sex=clip.sex,
        language=clip.language,
        seconds=round(N / config.mel.sample_rate, 4),
        text=clip.text if tokens else "",
        frames=copy.mel.shape[1],
        samples=N,
        tokens=tokens,
        weight=config.weights.get(clip.corpus, 1.0),
    )


def _wrong_pace(item: Item, pace: tuple[float, float]) -> str:
    """Why a text cannot be what is said, or ""."""
    measured = len(item.text) / item.seconds
    if not item.text or pace[0] <= measured <= pace[1]:
        return ""
    return f"{measured:.1f} characters a second, outside {pace[0]:g} to {pace[1]:g}"


# ------------------------------------------------------------------------------------------------------------------ phones


def _phones(
    front: PhoneFrontEnd, texts: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, tuple[int, ...]], list[tuple[str, str]]]:
    """Tokens by id of {id: (text, language)}, and why some have none; an empty text has none for no reason."""
    tokens: dict[str, tuple[int, ...]] = {}
    failed: list[tuple[str, str]] = []
    for language in sorted({language for text, language in texts.values() if text}):
        ids = [id for id, (text, other) in texts.items() if text and other == language]  # noqa: A001
        try:
            rows = front.encode_many([texts[id][0] for id in ids], language)  # noqa: A001
            tokens.update(zip(ids, map(tuple, rows), strict=True))
        except TextError:  # one of them: find it
            for name in ids:
                try:
                    tokens[name] = tuple(front.encode_many([texts[name][0]], language)[0])
                except TextError as error:
                    failed.append((name, f"kept without its text: {error}"))
    return tokens, failed


def _tables(front: PhoneFrontEnd, mel: MelRecipe) -> dict[str, object]:
    return {"symbols": list(front.symbols.symbols), "table": front.table, "mel": mel.spec.flavour, "mel_recipe": asdict(mel)}
