"""A text of any length, read aloud for the web page: the sound, subtitles, and when each sentence and word is said."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path

from tts.errors import TextError
from tts.frames import Request
from tts.pipeline import Synthesizer
from tts.recording import read
from tts.serve.book import Told, read_aloud
from tts.serve.page.pictures import picture
from tts.serve.page.studio import Shown, progressing, watched
from tts.serve.page.told import warned
from tts.text.paragraphs import MOST, decode

LONGEST = 300_000  # letters that are read on a page, some hours of speech
DRAWN = 1200.0  # seconds of which a picture is drawn


def text_of(written: str, file: str | None) -> str:
    """The text of a field, or of an uploaded file; not of both. Raises TextError."""
    if file and (written or "").strip():
        raise TextError("there are a text and a file; empty one of them")
    if file:
        with open(file, "rb") as opened:
            written = decode(opened.read(MOST + 1), Path(file).name)
    if len(written or "") > LONGEST:
        raise TextError(f"the text has {len(written)} letters, and {LONGEST} are read here; any length by `mynah say --file`")
    return written or ""


def read_text(synthesizer: Synthesizer, request: Request, extension: str, folder: Path) -> Generator[Shown]:
    """Read a text aloud, sentence by sentence, in memory that does not grow with it. Raises InputError."""
    place = Path(tempfile.mkdtemp(dir=folder))
    sound, srt, times = (place / f"mynah-{request.seed}{end}" for end in (extension, ".srt", ".json"))
    warnings: dict[str, None] = {}

    def shown(told: Told) -> Shown:
        warnings.update(dict.fromkeys(told.warnings))
        said = f"{told.passages} of {told.of_passages} sentences, {_clock(told.seconds)} of speech so far …"
        return Shown(progressing(said, told.letters / max(1, told.of_letters)))

    with closing(watched(partial(read_aloud, synthesizer, request, sound, times, srt), shown)) as work:
        told = yield from work
    doubted = f"; {told.doubted} of them may not be said as written" if told.doubted else ", and all was heard as written"
    words = (
        f"<p class='mynah-{'bad' if told.doubted else 'good'}'>{told.passages} sentences, {_clock(told.seconds)}{doubted}.</p>"
        f"{warned(list(warnings)[:20])}"
    )
    drawn = ""
    if told.seconds <= DRAWN:
        samples, rate = read(sound)
        drawn = picture(samples.numpy(), rate)
    yield Shown(f'<div class="mynah-told">{words}</div>', sound, drawn, others=(srt, times))


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
