"""A person's own voices: made of recordings, listed, handed on and removed. Their files are described in tts/voices.py."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tts.errors import OutputError, PromptError, SettingsError, nearest
from tts.files import write_whole
from tts.pipeline import Synthesizer
from tts.prompts import EncodedPrompt, moved
from tts.recording import SECONDS, read
from tts.voices import VOICES, check_name, find_voice, read_voice, save_voice, user_folder, voice_names

PIECE = 300.0  # seconds; longer recordings are heard in pieces about so long
LARGEST = 16 * 2**20  # bytes of a voice's file that is imported


@dataclass(frozen=True)
class Source:
    """One recording that a voice was made of. used: whether the part that stays in context is from it."""

    file: str  # its name, without the folders above
    sha256: str
    seconds: float
    used: bool


@dataclass(frozen=True)
class Recording:
    """A sound file in memory, and what to call it."""

    name: str
    data: bytes

    @classmethod
    def of(cls, path: str | Path) -> Recording:
        """Raises PromptError, which names the path."""
        try:
            return cls(str(path), Path(path).read_bytes())
        except (OSError, ValueError):
            read(path)  # says what is wrong with it
            raise

    def open(self) -> io.BytesIO:
        """As a file, as often as it is read."""
        return _Named(self)


class _Named(io.BytesIO):
    def __init__(self, recording: Recording) -> None:
        super().__init__(recording.data)
        self.name = recording.name  # which messages use


def add_voice(
    synthesizer: Synthesizer,
    name: str,
    recordings: Sequence[str | Path | Recording],
    texts: Sequence[str] = (),
    consent: str = "",
    replace: bool = False,
) -> EncodedPrompt:
    """Make a voice of recordings of one speaker, and keep it in the user's folder.

    The clearest stretch of all of them, by the recognizer's posteriors, becomes what is in context while the voice speaks.

    Args:
        recordings: files of any length, by path or in memory. texts: what is said in each, where it is known; as many, or none.
        consent: the statement by which the speaker has agreed; it is kept in the file.
        replace: whether a voice of that name may be there already.
    Returns:
        The voice, with warnings on what will cost quality.
    Raises:
        SettingsError: the name is none, or taken, or there are not as many texts as recordings. PromptError: a recording cannot
        be used; the message names it. TextError, OutputError.
    """
    # 1. the name
    _check_free(synthesizer.folder, name, replace)
    if not recordings:
        raise PromptError("a voice is made of one recording or more, and none was given")
    if texts and len(texts) != len(recordings):
        raise SettingsError(f"give a text for each of the {len(recordings)} recordings, or none; got {len(texts)}")
    # 2. hear everything
    given = [one if isinstance(one, Recording) else Recording.of(one) for one in recordings]
    heard = [
        (clarity(synthesizer, voice), number, voice)
        for number, recording in enumerate(given)
        for voice in _hear(synthesizer, recording, texts[number] if texts else None)
    ]
    # 3. keep the clearest, and what was seen of the others
    _, best, voice = max(heard, key=lambda found: found[0])
    mels = torch.cat([voice.prompt.frames["mel"].data[0].float().cpu() for _, _, voice in heard], 1)  # [bands, all frames]
    sources = [
        Source(Path(one.name).name, hashlib.sha256(one.data).hexdigest(), round(_seconds(one), 2), number == best)
        for number, one in enumerate(given)
    ]
    about = {
        "name": name,
        "system": synthesizer.identity,
        "consent": consent,
        "seconds": f"{voice.seconds:.2f}",
        "text": texts[best] if texts else "",
        "sources": json.dumps([asdict(source) for source in sources], ensure_ascii=False),
    }
    save_voice(user_folder(), name, voice, about, torch.stack([mels.mean(1), mels.std(1, correction=0)]))
    return voice


@torch.inference_mode()
def clarity(synthesizer: Synthesizer, voice: EncodedPrompt) -> float:
    """How much clear speech is in a voice: the sum of the posteriors of all its frames that hold a phone."""
    mel = moved(voice.prompt.frames["mel"], synthesizer.parts.device)
    values, labels = synthesizer.parts.recognizer.posteriors(mel).data[0].float().max(0)  # [T]
    return float(values[labels > 0].exp().sum())


def import_voice(synthesizer: Synthesizer, file: Path, name: str | None = None, replace: bool = False) -> str:
    """Take in a voice that somebody exported, if the system can use it; gives its name (by default, that of the file).

    Raises:
        SettingsError: the name is none, or taken. PromptError: there is no such file. CheckpointError: it is no voice, or
        made for another system.
    """
    name = name if name is not None else file.stem
    _check_free(synthesizer.folder, name, replace)
    if not file.is_file():
        raise PromptError(f"{file} does not exist; give a file that `mynah voices export` wrote")
    if file.stat().st_size > LARGEST:
        raise PromptError(f"{file} has {file.stat().st_size / 2**20:.0f} MB; a voice has {LARGEST // 2**20} at the most")
    read_voice(file, synthesizer.parts.encoder, synthesizer.parts.front_end.table)
    folder = user_folder() / VOICES
    _make(folder)
    write_whole(folder / f"{name}.safetensors", file.read_bytes())
    return name


def export_voice(system: Path, name: str, out: Path) -> None:
    """Write a voice, the user's or the system's, to a file. Raises PromptError: there is none; OutputError."""
    write_whole(out, find_voice(system, name).read_bytes())


def remove_voice(name: str) -> None:
    """Forget one of the user's voices. Raises PromptError: there is none."""
    yours = voice_names(user_folder())
    if name not in yours:
        have = f"yours are {', '.join(yours)}" if yours else "you keep none"
        raise PromptError(f"there is no voice {name!r} of yours{nearest(name, yours)}; {have}")
    (user_folder() / VOICES / f"{name}.safetensors").unlink()


def sources_of(about: dict[str, str]) -> list[Source]:
    """The recordings named in a voice's metadata; of a file that tells none, or tells it badly, none."""
    try:
        return [Source(**source) for source in json.loads(about.get("sources", "[]"))]
    except (ValueError, TypeError):
        return []


def _check_free(system: Path, name: str, replace: bool) -> None:
    check_name(name)
    if name in voice_names(system):
        raise SettingsError(f"{system.name} brings a voice {name!r} itself; take another name")
    if name in voice_names(user_folder()) and not replace:
        raise SettingsError(f"you have a voice {name!r}; take another name, or say --replace")


def _hear(synthesizer: Synthesizer, recording: Recording, text: str | None) -> Iterator[EncodedPrompt]:
    """The voice in each piece of a recording that holds one. Raises PromptError: none does."""
    pieces = _pieces(recording) if text is None else [recording.open()]
    silent: PromptError | None = None
    found = False
    for piece in pieces:
        try:
            yield synthesizer.encode_prompt(piece, text)
            found = True
        except PromptError as error:
            silent = error
    if silent is not None and not found:
        raise silent


def _pieces(recording: Recording) -> list[Any]:
    """The recording as a file, or where it is longer than prompts may be, parts of it as (samples, rate)."""
    samples, rate = read(recording.open())
    if len(samples) <= SECONDS[1] * rate:
        return [recording.open()]
    return [(part, rate) for part in np.array_split(samples.numpy(), math.ceil(len(samples) / rate / PIECE))]


def _seconds(recording: Recording) -> float:
    samples, rate = read(recording.open())
    return len(samples) / rate


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}); set MYNAH_HOME to a folder you may write to") from error
