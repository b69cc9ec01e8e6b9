"""The voices a server speaks in: the system's, those in the user's folder, and some that it forgets after a while.

A client names voices and never a path. What it uploads is looked at in memory, and only what becomes a voice is written, by
tts/serve/voices.py, under a name that can be no path.
"""

from __future__ import annotations

import io
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from tts.errors import PromptError
from tts.pipeline import Synthesizer
from tts.prompts import EncodedPrompt
from tts.recording import RATES
from tts.serve.server.guard import Limits, Refusal
from tts.serve.voices import Recording, add_voice, remove_voice
from tts.voices import VOICE, VOICES, about_voice, check_name, find_voice, user_folder, voice_names

DEFAULT = "default"  # the system's own choice
KEPT = 64  # voices from files that stay in memory
CHANNELS = 2  # of an upload
MAGIC = {b"RIFF": "wav", b"RF64": "wav", b"fLaC": "flac", b"OggS": "ogg or opus", b"ID3": "mp3"}


@dataclass(frozen=True)
class Shelved:
    """One voice. kind: "built-in", "kept" or "temporary". created: seconds since 1970, 0 where it came with the system."""

    id: str
    kind: str
    created: int = 0
    seconds: float | None = None  # of speech in context
    consent: bool | None = None  # whether a statement is recorded; None: it came with the system
    expires: int | None = None  # seconds since 1970
    warnings: tuple[str, ...] = ()


class Shelf:
    """May be used from several threads."""

    def __init__(self, synthesizer: Synthesizer, limits: Limits) -> None:
        self.synthesizer, self.limits = synthesizer, limits
        self._lock = threading.Lock()
        self._lent: OrderedDict[str, tuple[Shelved, EncodedPrompt]] = OrderedDict()
        self._known: OrderedDict[tuple[Path, int, int], EncodedPrompt] = OrderedDict()

    def all(self) -> list[Shelved]:
        """Every voice, but no temporary one: these are known to who has made them."""
        brought = voice_names(self.synthesizer.folder)
        built_in = [Shelved(DEFAULT, "built-in"), *(Shelved(name, "built-in") for name in brought)]
        return [*built_in, *(self._kept(name) for name in voice_names(user_folder()) if name not in brought)]

    def find(self, name: str) -> Shelved:
        """What is known of a voice. Raises Refusal."""
        if name == DEFAULT or name in voice_names(self.synthesizer.folder):
            return Shelved(name, "built-in")
        with self._lock:
            self._forget()
            if name in self._lent:
                return self._lent[name][0]
        if name in voice_names(user_folder()):
            return self._kept(name)
        raise Refusal(404, f"there is no voice {name[:64]!r}; /v1/voices lists those there are", "voice_not_found", "voice")

    def voice(self, name: str) -> EncodedPrompt:
        """A voice to speak in. Raises Refusal; CheckpointError: its file is broken, or of another system."""
        if name == DEFAULT:
            return self.synthesizer.encode_prompt(None)
        with self._lock:
            if name in self._lent:
                return self._lent[name][1]
        try:
            path = find_voice(self.synthesizer.folder, name)
            stat = path.stat()
        except (PromptError, OSError):
            self.find(name)
            raise
        key = (path, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        voice = self.synthesizer.encode_prompt(f"{VOICE}{name}")
        with self._lock:
            self._known[key] = voice
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return voice

    def check_free(self, name: str) -> None:
        """Raise Refusal or SettingsError where a voice cannot be kept under a name."""
        check_name(name)
        if name == DEFAULT or name in self.synthesizer.voices:
            raise Refusal(
                409, f"there is a voice {name!r} already; take another name, or delete it first", "name_taken", "name"
            )
        if len(voice_names(user_folder())) >= self.limits.voices:
            raise Refusal(409, f"{self.limits.voices} voices are kept, and no more may be; delete one", "too_many_voices")

    def keep(self, name: str, data: bytes, text: str | None, consent: str) -> Shelved:
        """Make a voice of a recording, for good. Raises Refusal, InputError."""
        self.check_free(name)
        check_recording(data, self.limits)
        recording = Recording("the upload", data)
        voice = add_voice(self.synthesizer, name, [recording], [text] if text else (), consent)
        return Shelved(name, "kept", int(time.time()), round(voice.seconds, 2), bool(consent), warnings=voice.warnings)

    def lend(self, data: bytes, text: str | None, consent: str) -> Shelved:
        """Make a voice that is forgotten after a while, or when too many others came. Raises Refusal, PromptError."""
        check_recording(data, self.limits)
        voice = self.synthesizer.encode_prompt(Recording("the upload", data).open(), text or None)
        now = int(time.time())
        expires = now + round(self.limits.keeps)
        name = f"temporary-{secrets.token_hex(12)}"
        told = Shelved(name, "temporary", now, round(voice.seconds, 2), bool(consent), expires, voice.warnings)
        with self._lock:
            self._forget()
            self._lent[name] = told, voice
            while len(self._lent) > self.limits.temporary:
                self._lent.popitem(last=False)
        return told

    def remove(self, name: str) -> None:
        """Forget a voice. Raises Refusal: there is none, or it came with the system."""
        told = self.find(name)
        if told.kind == "built-in":
            raise Refusal(403, f"the voice {name!r} came with the system and stays", "built_in_voice", "voice")
        with self._lock:
            if self._lent.pop(name, None) is not None:
                return
        remove_voice(name)

    def _kept(self, name: str) -> Shelved:
        path = user_folder() / VOICES / f"{name}.safetensors"
        try:
            about = about_voice(path)
            seconds = float(about["seconds"]) if "seconds" in about else None
            return Shelved(name, "kept", int(path.stat().st_mtime), seconds, bool(about.get("consent")))
        except (OSError, ValueError):
            return Shelved(name, "kept", warnings=("its file cannot be read",))

    def _forget(self) -> None:
        """Drop what has expired; the lock is held."""
        now = time.time()
        for name in [name for name, (told, _) in self._lent.items() if told.expires is not None and told.expires <= now]:
            del self._lent[name]


def check_recording(data: bytes, limits: Limits) -> None:
    """Raise Refusal where an upload is no sound file, or more sound than it may be; reads it a second at a time.

    A file says what it likes about its length, and a flac of silence may be a thousand times as long as its bytes.
    """
    import soundfile

    known = any(data.startswith(magic) for magic in MAGIC) or (len(data) > 1 and data[0] == 0xFF and data[1] >= 0xE0)
    if not known:
        raise Refusal(415, "the upload is no wav, flac, ogg, opus or mp3", "unsupported_media_type", "audio_sample")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            rate, channels = sound.samplerate, sound.channels
            if channels > CHANNELS or not RATES[0] <= rate <= RATES[1]:
                accepted = f"{CHANNELS} channels and {RATES[0]} to {RATES[1]} Hz are accepted"
                raise Refusal(
                    400, f"the upload has {channels} channels at {rate} Hz; {accepted}", "invalid_audio", "audio_sample"
                )
            count = 0
            while n := len(sound.read(rate, dtype="float32", always_2d=True)):
                count += n
                if count > limits.seconds * rate:
                    most = f"longer than {limits.seconds:g} seconds; 3 to 12 seconds of clear speech are best"
                    raise Refusal(413, f"the upload is {most}", "audio_too_long", "audio_sample")
    except soundfile.LibsndfileError as error:
        why = f"the upload is broken, or no sound file ({error.error_string})"
        raise Refusal(400, f"{why}; give wav, flac, ogg, opus or mp3", "invalid_audio", "audio_sample") from error
