"""Teacher speech: flite or festival says a line and tells which phones it said, and when.

    line ──► normalise ──► words ──► flite ──► sound,  d ay  m   ay  n  ax   (and the second at which each ends)
                             │                           │
                             └──► front end ──► ð ə    m ˈaɪ n ə ┴──► d ə  m ˈaɪ n ə      what was heard, spelled as ours

Where teacher and front end agree on a phone, the front end's symbol stands (it knows stress and finer shades than ARPAbet);
where they differ, the teacher's own, since that is what is heard. So every clip has exact phones on exact frames.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from tts.asr.check import edits
from tts.errors import MissingPackageError, PromptError, SettingsError, nearest
from tts.recording import load
from tts.text.tokens import ENGLISH_VOWELS, PHONES, SymbolTable
from tts.train.bootstrap import ARPABET, frames_of_spans

PACKAGES = {"flite": "flite", "festival": "festival festvox-kallpc16k"}  # program: the Debian packages with its voices
SILENT = {"pau", "h#", "#", "brth", "ssil", "sil"}
# The programs' phones that are spelled otherwise than pocketsphinx's, and ours where a program does not tell shades apart.
SAME = {"ax": "AH", "axr": "ER", "dx": "T", "el": "L", "em": "M", "en": "N", "nx": "N", "hv": "HH"}
OURS = {**ARPABET, "ɾ": "T"}
# A phone of the programs in our spelling, where the front end does not say it there.
OWN = {
    "aa": "ɑː", "ae": "æ", "ah": "ʌ", "ao": "ɔː", "aw": "aʊ", "ax": "ə", "axr": "ɚ", "ay": "aɪ", "eh": "ɛ", "er": "ɚ",
    "ey": "eɪ", "ih": "ɪ", "iy": "i", "ow": "oʊ", "oy": "ɔɪ", "uh": "ʊ", "uw": "uː", "b": "b", "ch": "tʃ", "d": "d",
    "dh": "ð", "dx": "ɾ", "el": "l", "em": "m", "en": "n", "f": "f", "g": "ɡ", "hh": "h", "hv": "h", "jh": "dʒ", "k": "k",
    "l": "l", "m": "m", "n": "n", "ng": "ŋ", "nx": "n", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t", "th": "θ", "v": "v",
    "w": "w", "y": "j", "z": "z", "zh": "ʒ",
}  # fmt: skip
Span = tuple[str, float, float]  # a phone, and the seconds at which it begins and ends


@dataclass(frozen=True)
class Said:
    """What a teacher said: samples [N] at `rate` Hz, and its phones in their order, silences left out."""

    samples: Tensor
    rate: int
    phones: tuple[Span, ...]

    def trimmed(self, margin: float) -> Said:
        """Without what lies more than `margin` seconds before its first phone or after its last."""
        start = max(0, round((self.phones[0][1] - margin) * self.rate))
        samples = self.samples[start : round((self.phones[-1][2] + margin) * self.rate)]
        shift = start / self.rate
        return replace(self, samples=samples, phones=tuple((phone, a - shift, b - shift) for phone, a, b in self.phones))


def voices_of(teacher: str) -> list[tuple[str, str]]:
    """(program, voice) for each voice of "flite:slt,rms" or "festival:kal_diphone".

    Raises:
        SettingsError: another form, another program, or a voice it does not have. MissingPackageError: it is not installed.
    """
    program, _, names = teacher.partition(":")
    if program not in PACKAGES or not names:
        raise SettingsError(f"a teacher is {' or '.join(PACKAGES)}, a colon and its voices (flite:slt,rms), got {teacher!r}")
    if shutil.which(program) is None:
        raise MissingPackageError(f"{program} is not installed: apt install {PACKAGES[program]}")
    if program == "flite":
        have = _run(["flite", "-lv"]).partition(":")[2].split()
    else:
        have = _run(["festival", "-b", "(print (voice.list))"]).strip("()\n ").split()
    for name in names.split(","):
        if name not in have:
            raise SettingsError(f"{program} has no voice {name!r}{nearest(name, have)}; it has {', '.join(sorted(have))}")
    return [(program, name) for name in names.split(",")]


def say(program: str, voice: str, words: str) -> Said:
    """A program says normalised words. Raises PromptError where it fails."""
    words = _plain(words)
    with tempfile.TemporaryDirectory() as folder:
        wav, labels = Path(folder) / "said.wav", Path(folder) / "said.lab"
        if program == "flite":
            told = _run(["flite", "-voice", voice, "-t", words, "-psdur", "-o", str(wav)])
            ends = [(phone, float(end)) for phone, end in re.findall(r"(\S+):([\d.]+)", told)]
        else:
            save = f'(utt.save.segs said "{labels}") (utt.save.wave said "{wav}" (quote riff))'
            _run(["festival", "-b", f'(begin (voice_{voice}) (set! said (SynthText "{words}")) {save})'])
            rows = [line.split() for line in labels.read_text("utf-8").splitlines()] if labels.is_file() else []
            ends = [(row[2], float(row[0])) for row in rows if len(row) == 3]
        if not wav.is_file():
            raise PromptError(f"{program} said nothing for {words[:60]!r}")
        samples, rate, _ = load(wav)
    starts = [0.0, *(end for _, end in ends)]
    phones = tuple((phone, start, end) for start, (phone, end) in zip(starts, ends, strict=False) if phone not in SILENT)
    if not phones or any(end < start or phone not in OWN for phone, start, end in phones):
        raise PromptError(f"{program} told no phones and times for {words[:60]!r}, or such as are not ARPAbet's")
    return Said(samples, rate, phones)


def _run(command: list[str]) -> str:
    """What a program prints. Raises PromptError where it fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired as error:
        raise PromptError(f"{command[0]} did not finish: {command[-1][:80]!r}") from error
    if done.returncode != 0:
        raise PromptError(f"{command[0]} failed on {command[-1][:80]!r}: {done.stderr.strip()[-200:]}")
    return done.stdout


def _plain(words: str) -> str:
    """ASCII, which is all these programs read, and nothing that would end a string of theirs."""
    words = words.replace("—", ", ").replace("…", ". ")
    return re.sub(r"[^\w\s,.?!;:'-]", "", unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode())


# ------------------------------------------------------------------------------------------------------- phones and frames


def spelled(phones: Sequence[Span], asked: Sequence[int], table: SymbolTable = PHONES) -> tuple[list[int], dict[int, Span]]:
    """What a teacher said in the symbols of our table.

    Args:
        phones: what was said, without silences. asked: the front end's tokens of the same words, boundaries included.
    Returns:
        tokens: the front end's where they agree, with its boundaries; elsewhere the teacher's phone, under the stress of the
        one it stands for; what was not said is left out. By position in them, phone and seconds (boundaries have none).
    """
    places = [p for p, token in enumerate(asked) if not table.is_boundary(token)]
    kinds = {kind: n for n, kind in enumerate(sorted({*OURS.values(), *map(_kind, OWN)}))}
    ours = [kinds.get(OURS.get(table.phone_of(asked[p]), ""), -1) for p in places]
    theirs = [kinds[_kind(phone)] for phone, _, _ in phones]
    tokens: list[int] = []
    spans: dict[int, Span] = {}
    passed = 0  # tokens of `asked` that are dealt with

    def take_boundaries(until: int) -> None:
        for token in asked[passed:until]:
            if table.is_boundary(token):
                if tokens and table.is_boundary(tokens[-1]):  # the word between them was not said
                    tokens.pop()
                tokens.append(token)

    for step in edits(ours, theirs):
        token = None
        if step.asked is not None:
            take_boundaries(places[step.asked])
            token, passed = asked[places[step.asked]], places[step.asked] + 1
        elif not tokens:
            take_boundaries(places[0] if places else len(asked))
            passed = places[0] if places else len(asked)
        if step.heard is None:
            continue
        span = phones[step.heard]
        spans[len(tokens)] = span
        tokens.append(token if step.same and token is not None else _own(span[0], token, table))
    take_boundaries(len(asked))
    return tokens, spans


def on_frames(phones: Sequence[Span], asked: Sequence[int], frames: int, rate: float) -> tuple[list[int], list[int]]:
    """`spelled` tokens, and how many of a clip's `frames`, at `rate` a second, each lasts; their sum is `frames`."""
    tokens, spans = spelled(phones, asked)
    return tokens, frames_of_spans(len(tokens), {p: (start, end) for p, (_, start, end) in spans.items()}, frames, rate)


def _kind(phone: str) -> str:
    return SAME.get(phone, phone.upper())


def _own(phone: str, asked: int | None, table: SymbolTable) -> int:
    """The id of a teacher's phone, with the stress of the token it stands for, where both are vowels."""
    symbol = OWN[phone]
    stress = table.symbols[asked][: -len(table.phone_of(asked))] if asked is not None else ""
    if stress and symbol == "ɚ":
        symbol = "ɜː"
    return table.id(stress + symbol if symbol in ENGLISH_VOWELS else symbol)


# ----------------------------------------------------------------------------------------------------------------- figures

_NAMES = ("Anna", "Mr. Lee", "Dr. Smith", "the shop", "our team", "the driver", "Mrs. Jones", "the museum", "her brother")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November")
_UNITS = ("km", "kg", "cm", "mm", "mph", "lbs", "GB", "MHz", "ft", "ml", "km/h", "°C", "°F")
_FIGURES = (
    "{name} paid ${money} for {small} tickets.",
    "It costs €{money}, or £{few}.{cents} in London.",
    "On {month} {day}, {year}, {name} moved to {large} Main Street.",
    "The train leaves at {hour}:{minute} a.m. and arrives at {hour2}:{minute} p.m.",
    "In {year}, {percent}% of {large} people said yes.",
    "{name} ran {few}.{digit} {unit}, then another {small} {unit}.",
    "Room {small}, seats {few} to {small}, at {hour} o'clock.",
    "Call 555-{four} before {month} {ordinal}.",
    "Chapter {few}, page {large}: {name} was born in {year}.",
    "The {ordinal} of {month} was {few}/16 of an inch warmer, at {small}°.",
    "{name} sold {large} books between {year} and {year2}.",
    "Version {few}.{digit}.{few} weighs {small} {unit}, not {large}.",
    "We need {few}-{small} people, i.e. about {percent}%.",
    "The {decade}s began {small} years before {year}.",
    "{big} copies, ${few} million, {ordinal} place.",
    "Add {few} + {small}, and take away {hour}.",
)


def number_sentences(count: int, seed: int) -> list[str]:
    """Lines full of numbers, dates, times, money and units, written as figures; the same for the same seed."""
    draw = random.Random(f"number sentences {seed}")
    lines = []
    for _ in range(count):
        day = draw.randrange(1, 31)
        ending = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
        values = {
            "name": draw.choice(_NAMES),
            "month": draw.choice(_MONTHS),
            "unit": draw.choice(_UNITS),
            "day": day,
            "ordinal": f"{day}{ending}",
            "year": draw.randrange(1700, 2030),
            "year2": draw.randrange(2030, 2100),
            "decade": draw.randrange(180, 202) * 10,
            "hour": draw.randrange(1, 13),
            "hour2": draw.randrange(1, 13),
            "minute": f"{draw.randrange(60):02d}",
            "digit": draw.randrange(10),
            "few": draw.randrange(2, 10),
            "small": draw.randrange(10, 100),
            "cents": f"{draw.randrange(1, 100):02d}",
            "four": f"{draw.randrange(10_000):04d}",
            "large": draw.randrange(100, 10_000),
            "big": f"{draw.randrange(1_000, 10_000_000):,}",
            "money": f"{draw.randrange(1, 2000):,}.{draw.randrange(1, 100):02d}",
            "percent": draw.choice((draw.randrange(1, 100), f"{draw.randrange(1, 100)}.{draw.randrange(10)}")),
        }
        line = draw.choice(_FIGURES).format(**values)
        lines.append(line[0].upper() + line[1:])
    return lines
