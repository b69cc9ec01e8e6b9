"""Front ends: text to token ids, by espeak-ng's phones, by bytes or by characters.

espeak-ng and phonemizer are GPL-3.0; they are reached in this file only, and only when phones are asked for.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, groupby
from typing import Any

from tts.errors import LanguageError, MissingPackageError, TextError, nearest
from tts.text.markup import Pause, Pronunciation, segments
from tts.text.normalize import normalize
from tts.text.tokens import BOUNDARIES, PAD, PHONES, SymbolTable

# Commas, points and colons inside a word or a number are not boundaries.
_MARK = re.compile(r"\s*(?:[?!;—…]|[,.:](?=\s|$|[,.:?!;—…]))[\s,.:?!;—…]*")
_DIALECTS = {"en": "en-us", "fr": "fr-fr", "zh": "cmn", "pt-pt": "pt", "en-uk": "en-gb"}
# espeak-ng is one library with one global state: one caller at a time.
_ESPEAK = threading.Lock()


class PhoneFrontEnd:
    """Text to phones with stress and punctuation, in any language of espeak-ng (see tts/text/tokens.py for the form).

    May be used from several threads.
    """

    def __init__(self) -> None:
        self.symbols: SymbolTable = PHONES
        self.table: str = PHONES.identity
        self.languages: tuple[str, ...] = espeak_languages()

    def encode(self, text: str, language: str = "en-us") -> list[int | Pause]:
        """Ids and pauses of one sentence, which is normalised here; its inline marks are obeyed (see tts/text/markup.py).

        Each run of ids between pauses begins with a space and ends with a mark. Raises TextError where nothing can be
        pronounced or a mark is wrong, LanguageError.
        """
        return self._encode([text], language)[0]

    def encode_many(self, texts: Sequence[str], language: str = "en-us") -> list[list[int]]:
        """Ids of many sentences, quickly; pauses are left out. Raises as `encode`."""
        return [[i for i in row if not isinstance(i, Pause)] for row in self._encode(texts, language)]

    def _encode(self, texts: Sequence[str], language: str) -> list[list[int | Pause]]:
        language = espeak_language(language)
        english = language.startswith("en")
        # 1. cut at inline marks and at punctuation
        pieces: list[str] = []  # what espeak reads
        rows: list[list[_Piece | Pause]] = []
        for text in texts:
            row: list[_Piece | Pause] = []
            for part in segments(text):
                if isinstance(part, Pause):
                    row.append(part)
                elif isinstance(part, Pronunciation):
                    row.append(_Piece(words=[self.symbols.spell(word, english) for word in part.ipa.split()]))
                else:
                    self._cut(normalize(part, language), row, pieces)
            rows.append(row)
        # 2. one pass of espeak
        sounds = _espeak(pieces, language)
        for piece in chain.from_iterable(rows):
            if isinstance(piece, _Piece) and piece.sound is not None:
                piece.words = [self.symbols.spell(word, english) for word in sounds[piece.sound].split()]
        # 3. words and boundaries
        encoded = []
        for text, row in zip(texts, rows, strict=True):
            ids: list[int | Pause] = []
            for _, run in groupby(row, key=lambda piece: isinstance(piece, Pause)):
                parts = list(run)
                ids += [part for part in parts if isinstance(part, Pause)]
                ids += self._row([part for part in parts if isinstance(part, _Piece)])
            if all(isinstance(i, Pause) for i in ids):
                raise TextError(f"nothing in {text[:60]!r} can be pronounced in {language!r}; give words or numbers")
            encoded.append(ids)
        return encoded

    def _cut(self, said: str, row: list[_Piece | Pause], pieces: list[str]) -> None:
        """Add what stands between marks to `pieces`, and to `row` where it went."""
        start = 0
        for mark in [*_MARK.finditer(said), None]:
            text = said[start : mark.start() if mark else len(said)].strip()
            boundary = _strongest(mark[0]) if mark else " "
            if any(character.isalnum() for character in text):
                row.append(_Piece(sound=len(pieces), mark=boundary))
                pieces.append(text)
            elif row and isinstance(row[-1], _Piece) and mark:
                row[-1].mark = _strongest(row[-1].mark + boundary)
            start = mark.end() if mark else start

    def _row(self, pieces: list[_Piece]) -> list[int]:
        """Words with exactly one boundary between two, a space before and a punctuation mark after all; [] for no words."""
        space = self.symbols.id(" ")
        row: list[int] = []
        for piece in pieces:
            words = [word for word in piece.words if word]
            for word in words:
                row += [*([] if row and self.symbols.is_boundary(row[-1]) else [space]), *word]
            if words:
                row.append(self.symbols.id(piece.mark))
        if row and row[-1] == space:
            row[-1] = self.symbols.id(".")
        return row


@dataclass
class _Piece:
    """Words up to a mark: of espeak's sound number `sound`, or spelled already."""

    words: list[list[int]] = field(default_factory=list)
    sound: int | None = None
    mark: str = " "


class CharacterFrontEnd:
    """Text to its characters, lower case: what a system without phones reads. Needs no espeak."""

    languages: tuple[str, ...] = ("en-us",)

    def __init__(self, characters: str = "abcdefghijklmnopqrstuvwxyz'", languages: tuple[str, ...] = ("en-us",)) -> None:
        self.symbols = SymbolTable((PAD, *BOUNDARIES, *characters))
        self.table: str = self.symbols.identity
        self.languages = languages

    def encode(self, text: str, language: str = "en-us") -> list[int | Pause]:
        """Ids of the characters the table knows, and pauses. Raises TextError when none is a letter, LanguageError."""
        known = self.symbols.ids
        ids = _spelled(text, _listed(language, self.languages), lambda said: [known[c] for c in said.lower() if c in known])
        if all(isinstance(i, Pause) or self.symbols.is_boundary(i) for i in ids):
            letters = "".join(self.symbols.symbols[1 + len(BOUNDARIES) :])
            raise TextError(f"nothing in {text[:60]!r} can be pronounced; this front end reads {letters}")
        return ids


class ByteFrontEnd:
    """Text to the bytes of its UTF-8, each plus one (0 is the padding), in any language. Needs no espeak."""

    def __init__(self, languages: tuple[str, ...] = ("en-us",)) -> None:
        self.symbols = SymbolTable((PAD, *(f"<{byte:02x}>" for byte in range(256))))
        self.table: str = self.symbols.identity
        self.languages: tuple[str, ...] = languages

    def encode(self, text: str, language: str = "en-us") -> list[int | Pause]:
        """1 + each byte, and pauses. Raises TextError when no character is a letter or a digit, LanguageError."""
        ids = _spelled(text, _listed(language, self.languages), lambda said: [1 + byte for byte in said.encode()])
        if not any(character.isalnum() for part in segments(text) if not isinstance(part, Pause) for character in str(part)):
            raise TextError(f"nothing in {text[:60]!r} can be pronounced; give words or numbers")
        return ids


def _spelled(text: str, language: str, write: Callable[[str], list[int]]) -> list[int | Pause]:
    """A text by its letters: pronunciations cannot be obeyed, so their words are read as they are spelled."""
    ids: list[int | Pause] = []
    for paused, run in groupby(segments(text), key=lambda part: isinstance(part, Pause)):
        if paused:
            ids += run  # type: ignore[arg-type]
        else:
            ids += write(
                normalize("".join(part.word if isinstance(part, Pronunciation) else str(part) for part in run), language)
            )
    return ids


def espeak_language(name: str) -> str:
    """The name espeak-ng knows a language by ("en" is "en-us"). Raises LanguageError, naming near ones."""
    known = espeak_languages()
    wanted = name.strip().lower().replace("_", "-")
    wanted = _DIALECTS.get(wanted, wanted)
    by_lower = {language.lower(): language for language in known}
    if wanted not in by_lower:
        near = [language for language in known if language.split("-")[0] == wanted.split("-")[0]]
        hint = f" (near: {', '.join(near)})" if near else nearest(wanted, list(known))
        raise LanguageError(f"espeak-ng has no language {name!r}{hint}; it has {len(known)}, such as en-us, de, es, fr-fr, cmn")
    return by_lower[wanted]


@lru_cache(maxsize=1)
def espeak_languages() -> tuple[str, ...]:
    """Every language espeak-ng speaks, by its names for them."""
    with _ESPEAK:
        return tuple(sorted(_backend_class().supported_languages()))


def _espeak(pieces: list[str], language: str) -> list[str]:
    """Each piece as phones: "_" between two phones, " " between two words."""
    if not pieces:
        return []
    if language.startswith("en"):  # a capital A left alone by the normaliser is the letter, not the article
        pieces = [re.sub(r"\bA\b", "eigh", piece) for piece in pieces]
    from phonemizer.separator import Separator

    with _ESPEAK:
        sounds: list[str] = _backend(language).phonemize(pieces, separator=Separator(phone="_", word=" "), strip=True)
    assert len(sounds) == len(pieces), (len(sounds), len(pieces))
    return sounds


@lru_cache(maxsize=16)
def _backend(language: str) -> Any:
    quiet = logging.getLogger(__name__ + ".espeak")
    quiet.setLevel(logging.ERROR)
    settings = {"with_stress": True, "words_mismatch": "ignore", "language_switch": "remove-flags", "logger": quiet}
    return _backend_class()(language, **settings)


def _backend_class() -> Any:
    """phonemizer's espeak backend, pointed at the library that espeakng-loader ships."""
    try:
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
    except ImportError as error:
        raise MissingPackageError("phones need espeak-ng: pip install phonemizer espeakng-loader") from error
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    return EspeakBackend


def _listed(language: str, languages: tuple[str, ...]) -> str:
    language = "en-us" if language == "en" else language
    if language not in languages:
        raise LanguageError(f"language {language!r} is not one of {', '.join(languages)}{nearest(language, list(languages))}")
    return language


def _strongest(marks: str) -> str:
    """One boundary for a run of marks: the strongest of them ("?!" is "?", "..." is "…")."""
    if "..." in marks:
        return "…"
    return max((m for m in marks if m in BOUNDARIES), key=BOUNDARIES.index, default=" ")
