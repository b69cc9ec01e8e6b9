"""Written text to the words people say: "Dr. Lee paid $3.50 in 1905." is "Doctor Lee paid three dollars and fifty cents …"."""

from __future__ import annotations

import re
import unicodedata

from tts.text import dates, numbers, units, words
from tts.text.clean import clean
from tts.text.numbers import Rule

_SIGNS = {
    "&": " and ", "@": " at ", "=": " equals ", "+": " plus ", "<": " less than ", ">": " greater than ",
    "±": " plus or minus ", "×": " times ", "÷": " divided by ", "≈": " approximately ", "≤": " less than or equal to ",
    "≥": " greater than or equal to ", "≠": " is not equal to ", "√": " square root of ", "∞": " infinity ",
    "°": " degrees ", "§": " section ", "→": " to ", "%": " percent ", "$": " dollars ", "€": " euros ", "£": " pounds ",
    "#": " hash ", "~": " ", "*": " ", "_": " ", "|": ", ", "\\": " ", "/": " ", "^": " ", "`": "", '"': "",
    "(": ", ", ")": ", ", "[": ", ", "]": ", ", "{": ", ", "}": ", ",
}  # fmt: skip
_SIGN = re.compile("|".join(re.escape(sign) for sign in _SIGNS))
_ELIDED = r"(?:em|tis|twas|til|cause|round|bout|n)\b"


def normalize(text: str, language: str = "en-us") -> str:
    """The text as it is said, in words and the marks , . ? ! ; : — ….  Never fails, whatever the input.

    English has every rule. In other languages only unicode is cleaned, and numbers are put in words where num2words knows how.
    """
    if not language.startswith("en"):
        return _other(clean(text, english=False), language)
    text = clean(text)
    capitals = _all_capitals(text)
    if capitals:
        text = words.lower_capitals(text)
    text = _article(text)
    for pattern, say in (*_FIRST, dates.numeric_dates(day_first=language.startswith("en-gb")), *_THEN):
        text = pattern.sub(say, text)
    text = _tidy(text)
    return re.sub(r"[^\W\d_]{2,}(?:'[^\W\d_]+)?", lambda m: m[0].lower(), text) if capitals else text


# The order matters: each rule takes what it is sure of, and leaves the rest to those below.
_FIRST: list[Rule] = [
    *words.ADDRESSES,
    (
        re.compile(r"(?<!\d)\s+-{1,3}\s+|\s+-{1,3}\s+(?!\d)|\s*-{2,}\s*|\s+–\s+|\s*—\s*|(?<=[^\W\d])–(?=[^\W\d])"),
        lambda m: " — ",
    ),
]
_THEN: list[Rule] = [
    *numbers.PHONES_AND_VERSIONS,
    *dates.DATES,
    *dates.TIMES,
    *numbers.MONEY,
    *numbers.SIGNS,
    *words.ROMAN,
    *dates.YEARS,
    *numbers.FRACTIONS,
    # what is still joined by a dash is a range
    (re.compile(r"(?<![\w-])((?:\d+,)*\d+(?:\.\d+)?)([%°]?[CF]?) ?[-–] ?(?=\.?\d)(?!\d+-\d)"), lambda m: f"{m[1]}{m[2]} to "),
    *units.RULES,
    *words.ABBREVIATIONS,
    (re.compile(r"~ ?(?=\d)"), lambda m: "about "),
    *words.INITIALISMS,
    *numbers.NUMBERS,
]


def _all_capitals(text: str) -> bool:
    """Whether a text of several words is in capitals throughout; "NASA" or "U S A" alone is not."""
    found = re.findall(r"[^\W\d_]{2,}", text)
    return len(found) > 1 and text.isupper() and any(word in words.SHORT or not words.is_initialism(word) for word in found)


def _article(text: str) -> str:
    """The article "A" in lower case, so that a capital A left alone is the letter ("vitamin A")."""
    text = re.sub(r"(?:(?<=^)|(?<=[.!?:;—…] )|(?<=[\"'(]))A(?= (?!or\b|and\b|is\b|to\b)[\w$£€\"'(]{2,})", "a", text)
    return re.sub(r"(?<=[A-Z][a-z] |[a-z][a-z] )A(?= [A-Z][a-z])", "a", text)


def _tidy(text: str) -> str:
    """Signs in words, one mark where several met, no stray quotes, one space between words."""
    text = re.sub(r"^[\s(\[{\"]+|[\s)\]}\"]+$", "", text)
    text = re.sub(r"\.{3,}|\. \. \.", "…", text)
    text = _SIGN.sub(lambda m: _SIGNS[m[0]], text)
    text = text.replace("–", "-")
    text = re.sub(rf"(?<!\w)'(?!{_ELIDED})|(?<![\w])'(?=\W|$)|(?<=[^\w])'(?=\s|$)", "", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=[^\W_])'(?=[\s,.!?;:—…]|$)(?<!s')(?<!n')(?<!o')(?<!in')", "", text)
    text = re.sub(r"(?<!\w)-+|-+(?!\w)", " ", text)
    text = "".join(c if c.isalnum() or c in " ,.?!;:—…'-" or unicodedata.category(c)[0] == "M" else " " for c in text)
    text = re.sub(r"\s+(?=[,.?!;:…])", "", text)
    text = re.sub(r",(?:\s*,)+", ",", text)
    text = re.sub(r",\s*(?=[.?!;:—…])|(?<=[.?!;:—…])\s*,", "", text)
    text = re.sub(r"(?<=[,;:?!…])(?=[^\W\d_])", " ", text)
    return " ".join(text.split())


def _other(text: str, language: str) -> str:
    from num2words import CONVERTER_CLASSES, num2words

    code = language.split("-")[0]
    if code not in CONVERTER_CLASSES:
        return text

    def say(match: re.Match[str]) -> str:
        digits = match[0]
        if len(digits) > numbers.LONGEST:
            return " ".join(digits)
        try:
            return str(num2words(int(digits), lang=code))
        except (NotImplementedError, OverflowError, KeyError, IndexError, TypeError, ValueError):  # its coverage is uneven
            return digits

    return re.sub(r"(?<![.,\d])\d+(?![.,]?\d)", say, text)
