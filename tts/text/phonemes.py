"""Front ends: text to token ids, by espeak-ng's phones, by bytes or by characters.

espeak-ng and phonemizer are GPL-3.0; they are reached in this file only, and only when phones are asked for.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tts.errors import LanguageError, MissingPackageError, TextError, nearest
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

    def encode(self, text: str, language: str = "en-us") -> list[Any]:
        """Ids and pauses of one sentence. Raises TextError where nothing can be pronounced, LanguageError."""
        ids: list[Any] = list(self.encode_many([text], language)[0])
        return ids

    def encode_many(self, texts: Sequence[str], language: str = "en-us") -> list[list[int]]:
        """Ids of many sentences, quickly. Raises as `encode`."""
        language = espeak_language(language)
        # 1. cut at punctuation
        pieces: list[str] = []
        cuts: list[list[tuple[int, str]]] = []  # for each text: (index into pieces, the mark that follows)
        for text in texts:
            said, cut, start = normalize(text, language), [], 0
            for mark in [*_MARK.finditer(said), None]:
                piece = said[start : mark.start() if mark else len(said)].strip()
                if any(character.isalnum() for character in piece):
                    cut.append((len(pieces), _strongest(mark[0]) if mark else " "))
                    pieces.append(piece)
                start = mark.end() if mark else start
            cuts.append(cut)
        # 2. one pass of espeak
        sounds = _espeak(pieces, language)
        # 3. words and boundaries
        english = language.startswith("en")
        rows = []
        for cut in cuts:
            spelled = [([self.symbols.spell(word, english) for word in sounds[i].split()], mark) for i, mark in cut]
            rows.append(self._row(spelled))
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise TextError(f"nothing in {text[:60]!r} can be pronounced in {language!r}; give words or numbers")
        return rows

    def _row(self, pieces: list[tuple[list[list[int]], str]]) -> list[int]:
        """Words with exactly one boundary between two, a space before and a punctuation mark after all; [] for no words."""
        row: list[int] = []
        for words, mark in pieces:
            for word in filter(None, words):
                row += [*([] if row and self.symbols.is_boundary(row[-1]) else [self.symbols.id(" ")]), *word]
            if any(words):
                row.append(self.symbols.id(mark))
        if row and row[-1] == self.symbols.id(" "):
            row[-1] = self.symbols.id(".")
        return row


class CharacterFrontEnd:
    """Text to its characters, lower case: what a system without phones reads. Needs no espeak."""

    languages: tuple[str, ...] = ("en-us",)

    def __init__(self, characters: str = "abcdefghijklmnopqrstuvwxyz'", languages: tuple[str, ...] = ("en-us",)) -> None:
        self.symbols = SymbolTable((PAD, *BOUNDARIES, *characters))
        self.table: str = self.symbols.identity
        self.languages = languages

    def encode(self, text: str, language: str = "en-us") -> list[Any]:
        """Ids of the characters the table knows. Raises TextError when none is a letter."""
        row = [self.symbols.ids[c] for c in normalize(text, _listed(language, self.languages)).lower() if c in self.symbols.ids]
        if all(self.symbols.is_boundary(i) for i in row):
            raise TextError(
                f"nothing in {text[:60]!r} can be pronounced; this front end reads {''.join(self.symbols.symbols[10:])}"
            )
        return row


class ByteFrontEnd:
    """Text to the bytes of its UTF-8, each plus one (0 is the padding), in any language. Needs no espeak."""

    def __init__(self, languages: tuple[str, ...] = ("en-us",)) -> None:
        self.symbols = SymbolTable((PAD, *(f"<{byte:02x}>" for byte in range(256))))
        self.table: str = self.symbols.identity
        self.languages: tuple[str, ...] = languages

    def encode(self, text: str, language: str = "en-us") -> list[Any]:
        """1 + each byte. Raises TextError when no character is a letter or a digit."""
        said = normalize(text, _listed(language, self.languages))
        if not any(character.isalnum() for character in said):
            raise TextError(f"nothing in {text[:60]!r} can be pronounced; give words or numbers")
        return [1 + byte for byte in said.encode()]


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
