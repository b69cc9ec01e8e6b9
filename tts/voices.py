"""Voices in files: those that a checkpoint brings, and those that a person keeps in a folder of their own.

One safetensors file a voice:

    mel           [bands, T] float16     what is in context while the voice speaks
    tokens        [L] int64              its phones
    token_frames  [L] int64              on how many frames each of them lies; their sum is T
    statistics    [2, bands] float32     mean and deviation of the mel over all recordings; only of a person's voices
    metadata      table, mel             of which symbols and which mel recipe; and, of a person's voices, where they come from

Codes are not kept: they belong to one codec, and are made of the mel whenever a voice is loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tts.errors import CheckpointError, FitError, OutputError, PromptError, SettingsError, nearest
from tts.files import write_whole
from tts.frames import Frames
from tts.interfaces import Encoder
from tts.prompts import EncodedPrompt, one_row
from tts.text.tokens import PHONES

VOICE = "voice:"  # a prompt that begins with this names a voice
VOICES = "voices"  # the folder of a checkpoint, or of a person, that holds them
LEGAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
LONGEST = 60.0  # seconds of a voice in a file; an encoder keeps far less


def user_folder() -> Path:
    """What a person keeps: $MYNAH_HOME, or mynah/ among the user's data ($XDG_DATA_HOME, ~/.local/share)."""
    if home := os.environ.get("MYNAH_HOME"):
        return Path(home)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "mynah"


def check_name(name: str) -> str:
    """The name, if it may be one of a person's voices. Raises SettingsError."""
    if LEGAL.fullmatch(name) is None:
        raise SettingsError(
            f"a voice cannot be called {name!r}; take 1 to 64 letters (a to z), digits, - and _, a letter or digit first"
        )
    return name


def voice_names(folder: Path) -> list[str]:
    """The voices in a checkpoint, or in `user_folder()`."""
    return sorted(path.stem for path in (folder / VOICES).glob("*.safetensors") if not path.name.startswith("."))


def find_voice(folder: Path, name: str) -> Path:
    """The file of a voice: a checkpoint's, or else a person's. Raises PromptError, naming what is near."""
    mine = user_folder()
    for place in (folder, mine):
        if name in voice_names(place):
            return place / VOICES / f"{name}.safetensors"
    theirs, yours = voice_names(folder), voice_names(mine)
    have = f"it has {', '.join(theirs)}" if theirs else "it has none; give a recording"
    own = f"; yours are {', '.join(yours)}" if yours else ""
    raise PromptError(f"{folder.name} has no voice {name!r}{nearest(name, [*theirs, *yours])}; {have}{own}")


def save_voice(
    folder: str | Path,
    name: str,
    voice: EncodedPrompt,
    about: Mapping[str, str] | None = None,
    statistics: Tensor | None = None,
) -> Path:
    """Put a voice into the folder of a checkpoint or a person, for `prompt="voice:NAME"`. Raises OutputError.

    about: where it comes from, for the file's metadata. statistics: [2, bands].
    """
    from safetensors.torch import save

    prompt, mel = voice.prompt, voice.prompt.frames["mel"]
    assert prompt.token_frames is not None
    tensors = {
        "mel": mel.data[0].half().cpu().contiguous(),
        "tokens": prompt.tokens.ids[0].contiguous(),
        "token_frames": prompt.token_frames[0].contiguous(),
    }
    if statistics is not None:
        tensors["statistics"] = statistics.float().cpu().contiguous()
    path = Path(folder) / VOICES / f"{name}.safetensors"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path.parent} cannot be made ({error.strerror}); set MYNAH_HOME to a folder you may write to"
        ) from error
    write_whole(path, save(tensors, {**(about or {}), "table": prompt.tokens.table, "mel": mel.spec.flavour}))
    return path


def load_voice(folder: Path, name: str, encoder: Encoder, table: str) -> EncodedPrompt:
    """A voice of a checkpoint, or one that a person keeps. Raises PromptError for an unknown name; else as `read_voice`."""
    return read_voice(find_voice(folder, name), encoder, table)


def read_voice(path: Path, encoder: Encoder, table: str) -> EncodedPrompt:
    """A voice from a file. Raises CheckpointError: it is broken; FitError: it was made for another mel or symbol table."""
    from safetensors import SafetensorError, safe_open

    remedy = "get the checkpoint, or import the voice, again"
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            mel, tokens, frames = (file.get_tensor(key) for key in ("mel", "tokens", "token_frames"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as a voice ({error}); {remedy}") from error
    if about.get("table") != table or about.get("mel") != encoder.emits.flavour:
        maker = f" ({about['system']})" if "system" in about else ""
        raise FitError(
            f"{path} was made for another system{maker}: its mel or its symbols differ from this one's; make it "
            "again of its recordings: `mynah voices add NAME RECORDING… --replace --system SYSTEM`"
        )
    if fault := _fault(mel, tokens, frames, encoder, table):
        raise CheckpointError(f"{path} is no voice: {fault}; {remedy}")
    spoken = Frames(mel.float()[None], torch.tensor([mel.shape[1]]), encoder.emits)
    return EncodedPrompt(*one_row(spoken, tokens.tolist(), frames.tolist(), table))


def about_voice(path: Path) -> dict[str, str]:
    """The metadata of a voice's file. Raises CheckpointError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as a voice ({error})") from error


def _fault(mel: Tensor, tokens: Tensor, frames: Tensor, encoder: Encoder, table: str) -> str:
    """What is wrong in a file that anybody may have made, or ""."""
    spec = encoder.emits
    if mel.dim() != 2 or not mel.is_floating_point() or mel.shape[0] != spec.width or not mel.isfinite().all():
        return f"its mel is not {spec.width} finite bands"
    if not 0 < mel.shape[1] <= LONGEST * float(spec.rate):
        return f"it lasts {mel.shape[1] / float(spec.rate):.1f} seconds, and {LONGEST:g} are the most"
    if tokens.dim() != 1 or tokens.shape != frames.shape or {tokens.dtype, frames.dtype} != {torch.int64}:
        return "its tokens and their frames are not two rows of whole numbers"
    if bool((tokens < 0).any()) or (table == PHONES.identity and bool((tokens >= len(PHONES)).any())):
        return "it has tokens that are no symbols"
    if bool((frames < 0).any() | (frames > mel.shape[1]).any()) or int(frames.sum()) != mel.shape[1]:
        return f"{int(frames.sum())} frames of tokens lie over {mel.shape[1]} of mel"
    return ""
