"""The voices that the web page keeps, hands out and takes in, each with the statement by which its speaker has agreed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tts.errors import PromptError, SettingsError
from tts.pipeline import Synthesizer
from tts.serve.page.told import warned
from tts.serve.voices import add_voice, export_voice, import_voice, remove_voice, sources_of
from tts.voices import VOICES, about_voice, check_name, user_folder, voice_names


@dataclass(frozen=True)
class Cabinet:
    """The voices of this machine's user. open: whether those who come may look after them, or only use them."""

    synthesizer: Synthesizer
    open: bool = True

    def names(self) -> list[str]:
        """Names of the voices that are kept on this machine."""
        return voice_names(user_folder())

    def keep(self, name: str, recordings: Sequence[str], words: str, consent: str, instead: bool) -> str:
        """Keep a voice; gives a sentence (HTML). Raises SettingsError, PromptError, TextError, OutputError."""
        self._check_open()
        name, consent = check_name((name or "").strip()), (consent or "").strip()
        if not consent:
            raise SettingsError("write the statement by which the speaker has agreed; it is kept with the voice")
        if name in self.names() and not instead:
            raise SettingsError(f"a voice {name!r} is there; take another name, or tick that it is replaced")
        texts = [words.strip()] if words and words.strip() else []
        voice = add_voice(self.synthesizer, name, recordings, texts, consent, instead)
        return f"<p class='mynah-good'>{escape(name)} is kept: {voice.seconds:.1f} s in context.</p>{warned(voice.warnings)}"

    def remove(self, name: str | None) -> str:
        """Forget a voice. Raises SettingsError, PromptError."""
        self._check_open()
        remove_voice(name or "")
        return f"<p class='mynah-good'>{escape(name or '')} is removed.</p>"

    def hand_out(self, name: str | None, folder: Path) -> Path:
        """A kept voice as a file. Raises SettingsError, PromptError."""
        self._check_open()
        if not name:
            raise PromptError("choose one of the kept voices first")
        place = Path(tempfile.mkdtemp(dir=folder)) / f"{name}.safetensors"
        export_voice(self.synthesizer.folder, name, place)
        return place

    def take_in(self, file: str | None) -> str:
        """Keep a voice that was handed out elsewhere. Raises SettingsError, PromptError, CheckpointError."""
        self._check_open()
        if not file:
            raise PromptError("choose a file that was downloaded here, or written by `mynah voices export`")
        name = import_voice(self.synthesizer, Path(file))
        return f"<p class='mynah-good'>{escape(name)} is kept.</p>"

    def table(self) -> str:
        """The kept voices in HTML: seconds, consent, recordings."""
        rows = []
        for name in self.names():
            about = about_voice(user_folder() / VOICES / f"{name}.safetensors")
            files = ", ".join(source.file for source in sources_of(about))
            cells = (name, f"{about.get('seconds', '?')} s", about.get("consent") or "none recorded", files or "not told")
            rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
        if not rows:
            return "<p class='mynah-note'>No voice is kept yet.</p>"
        head = "<tr><th>Voice</th><th>In context</th><th>Consent</th><th>Recordings</th></tr>"
        return f"<table class='mynah-table'>{head}{''.join(rows)}</table>"

    def _check_open(self) -> None:
        if not self.open:
            raise SettingsError("voices are kept by whoever runs this page: `mynah voices add`, or start it with a password")
