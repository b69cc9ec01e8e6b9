"""The symbol table: every phone, stress and punctuation mark a text can become, each with its id.

    [" ", "ð", "ə", " ", "k", "ˈæ", "t", "."]      "The cat."

Boundaries stand between words, one at a time, so that silence always has a token to live in. Stress belongs to the vowel:
"æ", "ˈæ" and "ˌæ" are three symbols of one phone.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property

log = logging.getLogger(__name__)

PAD = "<pad>"
BLANK = "<blank>"
STRESSES = ("ˈ", "ˌ")
# From weakest to strongest: where several marks meet, the strongest is kept.
BOUNDARIES = (" ", ",", ";", ":", "—", "…", ".", "!", "?")


def _each(symbols: str) -> tuple[str, ...]:
    return tuple(symbols.split())


ENGLISH_VOWELS = _each("ə ɚ ɐ ᵻ i iː ɪ ɛ æ ʌ ɑː ɔ ɔː ʊ uː ɜː eɪ aɪ ɔɪ aʊ oʊ")
ENGLISH_CONSONANTS = _each("p b t d k ɡ tʃ dʒ f v θ ð s z ʃ ʒ h m n ŋ l ɹ j w ɾ ʔ")
# Letters and diacritics of the IPA that English lacks, so that any language espeak speaks can be written.
OTHER_VOWELS = _each("a e o u y ø œ ɶ ɒ ɑ ɜ ɝ ɘ ɵ ɤ ɯ ɨ ʉ ɞ ʏ")
OTHER_SYMBOLS = _each("c q x r ʀ ʁ ɽ ɻ ɺ ɸ β ç ʝ ɣ χ ħ ʕ ʜ ʢ ʡ ɦ ɬ ɮ ɭ ʎ ʟ ɫ ɱ ɲ ɳ ɴ ʋ ɰ ʍ ɥ ʂ ʐ ɕ ʑ ɧ ʈ ɖ ɟ ɢ ʙ ⱱ ɓ ɗ ʄ ɠ ʛ")
MODIFIERS = _each("ː ˑ ʰ ʲ ʷ ˠ ˤ ʼ ˞ ʱ ⁿ ˡ") + _each("̩ ̃ ̪ ̥ ̬ ̯ ̈ ̞ ̝ ̊ ̚ ̤ ̰ ̆") + tuple("˥˦˧˨˩12345678")

# Other spellings of English sounds, as espeak's rarer voices and people write them, in the phones of the table.
ENGLISH_SPELLINGS = {
    "n̩": ("ə", "n"),
    "l̩": ("ə", "l"),
    "m̩": ("ə", "m"),
    "ɝ": ("ɜː",),
    "ɜ": ("ɜː",),
    "ɑ": ("ɑː",),
    "ɒ": ("ɑː",),
    "u": ("uː",),
    "o": ("oʊ",),
    "oː": ("oʊ",),
    "əʊ": ("oʊ",),
    "e": ("ɛ",),
    "eː": ("eɪ",),
    "eə": ("ɛ", "ə"),
    "a": ("æ",),
    "aː": ("ɑː",),
    "y": ("uː",),
    "ɨ": ("ᵻ",),
    "r": ("ɹ",),
    "ɫ": ("l",),
    "ʍ": ("w",),
    "x": ("k",),
    "ç": ("h",),
    "ʧ": ("tʃ",),
    "ʤ": ("dʒ",),
}
# Two codepoints for one letter, whatever the language.
SAME_LETTER = str.maketrans({"g": "ɡ", "'": "ˈ", "ʻ": "ʼ", ":": "ː", "͡": None, "͜": None, "‿": None, "-": None, ".": None})


@dataclass(frozen=True)
class SymbolTable:
    """Symbols and their ids. `symbols[0]` is the padding, `phones` the unstressed phones a recognizer learns."""

    symbols: tuple[str, ...]
    phones: tuple[str, ...] = ()

    @cached_property
    def identity(self) -> str:
        """16 hexadecimal digits that differ when any symbol or their order differs."""
        return hashlib.sha256("\n".join(self.symbols).encode()).hexdigest()[:16]

    @cached_property
    def ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    def id(self, symbol: str) -> int:
        return self.ids[symbol]

    def is_boundary(self, token: int) -> bool:
        """Whether a token is a space or a punctuation mark: the places where silence may be."""
        return self.symbols[token] in BOUNDARIES

    def phone_of(self, token: int) -> str:
        """The symbol without its stress: "ˈæ" gives "æ", a boundary gives itself."""
        symbol = self.symbols[token]
        return symbol[1:] if symbol[:1] in STRESSES and len(symbol) > 1 else symbol

    @cached_property
    def stress_free(self) -> tuple[int, ...]:
        """For each id, the id of its unstressed symbol."""
        return tuple(self.ids[self.phone_of(i)] for i in range(len(self.symbols)))

    @cached_property
    def recognizer_symbols(self) -> tuple[str, ...]:
        """What a CTC recognizer of this table emits: the blank, then the unstressed English phones."""
        return (BLANK, *self.phones)

    @cached_property
    def to_recognizer(self) -> tuple[int, ...]:
        """For each id its index in `recognizer_symbols`; 0 (blank) for padding and boundaries, -1 for phones it lacks."""
        index = {phone: i for i, phone in enumerate(self.recognizer_symbols)}
        silent = {PAD, *BOUNDARIES}
        return tuple(0 if s in silent else index.get(self.phone_of(i), -1) for i, s in enumerate(self.symbols))

    @cached_property
    def _longest(self) -> int:
        return max(len(symbol) for symbol in (*self.phones, *ENGLISH_SPELLINGS))

    def spell(self, ipa: str, english: bool = True) -> list[int]:
        """IPA of one word to ids, the longest symbol first; "_" keeps two letters from being read as one symbol.

        A stress mark goes to the next vowel. Characters the table does not know are dropped, with a warning in the log.
        """
        ipa = ipa.translate(SAME_LETTER)
        ids: list[int] = []
        stress, start = "", 0
        while start < len(ipa):
            if ipa[start] in STRESSES:
                stress, start = ipa[start], start + 1
                continue
            if ipa[start] == "_":
                start += 1
                continue
            for end in range(min(len(ipa), start + self._longest), start, -1):
                unit = ipa[start:end]
                spelled = ENGLISH_SPELLINGS.get(unit) if english else None
                if spelled is None and unit in self.ids and unit not in BOUNDARIES:
                    spelled = (unit,)
                if spelled is not None:
                    break
            else:
                log.warning("the phone %r is not in the table and is left out", ipa[start])
                spelled, end = (), start + 1
            for symbol in spelled:
                if stress and stress + symbol in self.ids:
                    symbol, stress = stress + symbol, ""
                ids.append(self.ids[symbol])
            start = end
        return ids

    def write(self, ids: list[int]) -> str:
        """Ids as one readable line: "ð_ə k_ˈæ_t."."""
        line = ""
        for i in ids:
            symbol = self.symbols[i]
            line += symbol if self.is_boundary(i) or not line or line[-1] in BOUNDARIES else "_" + symbol
        return line.strip()


def _phones() -> SymbolTable:
    def with_stress(vowels: tuple[str, ...]) -> list[str]:
        return [stress + vowel for vowel in vowels for stress in ("", *STRESSES)]

    symbols = [PAD, *BOUNDARIES, *with_stress(ENGLISH_VOWELS), *ENGLISH_CONSONANTS]
    symbols += [*with_stress(OTHER_VOWELS), *OTHER_SYMBOLS, *MODIFIERS]
    return SymbolTable(tuple(symbols), phones=ENGLISH_VOWELS + ENGLISH_CONSONANTS)


PHONES = _phones()
