"""Words that are not written as they are said: abbreviations, initialisms, Roman numerals, addresses of the net."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from tts.text.lexicon import CODAS, COUNTED, INNER, LAST, ONSETS, OPENERS, PARTS, REGNAL, SAID, SHORT, SPECIAL, SPELLED, TITLES
from tts.text.numbers import Rule, cardinal, digits, ordinal

_ROMAN = re.compile(r"(?=[IVXLC])C{0,3}(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
_NUMERAL = rf"(?![ILC]\b)(?P<roman>{_ROMAN.pattern})(?!\w|\.[A-Z]|'(?:m|ll|d|ve|re)\b)"
_VOWELS = "AEIOUY"


def letters(word: str) -> str:
    """ "FBI" as "F B I"."""
    return " ".join(word)


def pronounceable(word: str) -> bool:
    """Whether a word of capitals can be said as a word: it has a vowel, and begins and ends as English words do."""
    head = re.match(rf"[^{_VOWELS}]*", word)
    tail = re.search(rf"[^{_VOWELS}]*$", word)
    assert head is not None and tail is not None
    endings = ("", *CODAS)
    return head[0] != word and head[0] in ("", *ONSETS) and (tail[0] in endings or tail[0].removesuffix("S") in endings)


def is_initialism(word: str) -> bool:
    """Whether capitals are said letter by letter: "FBI" is, "NASA" and "STOP" are not."""
    if word in SAID or word in SHORT:
        return False
    return word in SPELLED or len(word) <= 3 or not pronounceable(word)


def lower_capitals(text: str) -> str:
    """A text in capitals as names are written, so that the other rules can read it.

    "HENRY VIII MET THE FBI" is "Henry VIII Met The FBI".
    """

    def word(match: re.Match[str]) -> str:
        w = match[0]
        roman = _ROMAN.fullmatch(w) and w not in ("MIX", "LIV")
        spelled = w in SPELLED and w not in ("WHO", "US", "LA", "ID", "IRA", "ADA", "AR", "SEC")
        short = w.capitalize() in (*TITLES, *LAST) or w.lower() in (*INNER, *COUNTED) or len(w) > 5 or "'" in w
        said = pronounceable(w) or (len(w) > 3 and pronounceable(w.rstrip("BCDFGHJKLMNPQRSTVWXZ")))
        return w if len(w) == 1 or roman or spelled or not (short or said) else w.capitalize()

    return re.sub(r"(?:[^\W\d_]|'(?=[^\W\d_]))+", word, text)


def _spell(match: re.Match[str]) -> str:
    word, tail = match["word"], match["tail"] or ""
    if word in SPECIAL:
        said = SPECIAL[word]
    elif is_initialism(word):
        said = letters(word)
    else:
        return (word.capitalize() if word in SAID else word.lower()) + tail
    return said + ("'s" if tail else "")


def _point(match: re.Match[str]) -> str:
    return "." if match["ends"] is not None and match[0].endswith(".") else ""


def _dotted(match: re.Match[str]) -> str:
    """ "U.S." as "U S", with the point of the sentence where one ends."""
    return letters(match[1].replace(".", "").upper()) + _point(match)


def _address(match: re.Match[str]) -> str:
    text = re.sub(r"^(?:https?|ftp)://", "", match["address"], flags=re.IGNORECASE).rstrip("/")
    names = {".": "dot", "/": "slash", "@": "at", "-": "dash", "_": "underscore", ":": "colon", "?": "question mark",
             "=": "equals", "&": "and", "#": "hash", "%": "percent", "~": "tilde", "+": "plus"}  # fmt: skip
    said = []
    for piece in re.findall(r"[A-Za-z]+|\d+|.", text):
        if piece.isdigit():
            said.append(cardinal(int(piece)) if len(piece) < 3 and piece[0] != "0" else digits(piece))
        elif piece in names:
            said.append(names[piece])
        elif piece.isalpha():
            # Endings that are spelled: "dot U K"; others are words: "dot com".
            upper = piece.upper()
            spelled = (
                len(piece) == 1
                or (len(piece) < 5 and not pronounceable(upper))
                or not re.search(f"[{_VOWELS}]", upper)
                or (len(piece) == 2 and said[-1:] == ["dot"] and upper not in ("CO", *SHORT))
            )
            said.append(letters(upper) if spelled else piece.lower())
    return " ".join(said)


def roman(numeral: str) -> int:
    """XIV is 14."""
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}[c] for c in numeral]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))


def _after_name(match: re.Match[str]) -> str:
    return f"{match['name']} the {ordinal(roman(match['roman']))}"


def _after_part(match: re.Match[str]) -> str:
    return f"{match['name']} {cardinal(roman(match['roman']))}"


def _rule(pattern: str, say: Callable[[re.Match[str]], str], flags: int = 0) -> Rule:
    return re.compile(pattern, flags), say


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


ADDRESSES: list[Rule] = [
    _rule(r"(?P<address>[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+)", _address),
    _rule(r"(?P<address>\b(?:https?://|ftp://|www\.)[^\s<>\"',]*[\w/])", _address, re.IGNORECASE),
    _rule(
        r"(?<![\w@.])(?P<address>(?:[a-z0-9-]{1,63}\.){1,5}(?:com|org|net|edu|gov|io|co\.uk|ai|info|uk|de|fr|eu)(?:/[\w./?=&%#~+-]*[\w/])?)(?!\w)",
        _address,
        re.IGNORECASE,
    ),
    _rule(r"(?<!\w)@(?=\w)", lambda m: "at "),
    _rule(r"(?<![\w&])#(?=[A-Za-z])", lambda m: "hashtag "),
]
# The numeral I is also a pronoun: only where no sentence with "I" could go on.
_ONLY_I = r"(?P<roman>I)(?=\s*$|[.,;:!?)]| (?:of|was|and|is|ended|began|started|broke|ruled|reigned|died|became|in|the)\b|'s)"
ROMAN: list[Rule] = [
    *(_rule(rf"\b(?P<name>{_any(REGNAL)}) {numeral}", _after_name) for numeral in (_NUMERAL, _ONLY_I)),
    *(_rule(rf"\b(?P<name>{_any(PARTS)}) {numeral}", _after_part) for numeral in (_NUMERAL, _ONLY_I)),
    _rule(rf"\b{_NUMERAL}(?= [Cc]entur(?:y|ies)\b)", lambda m: ordinal(roman(m["roman"]))),
    _rule(r"\b(?P<name>[A-Z][a-z]+) (?P<roman>II|III|IV|VI|VII|VIII|IX|XI|XII|XIII|XIV|XV|XVI)(?!\w)", _after_part),
]
_OPENER = rf"(?:{_any(OPENERS)})\b"
_MAY_END = rf"(?P<ends>(?=\s*$|\s+{_OPENER}))?"
ABBREVIATIONS: list[Rule] = [
    _rule(r"\b[Nn]os?\.? ?(?=#?\d)", lambda m: "numbers " if "s" in m[0] else "number "),
    _rule(rf"\bSt\.? (?=[A-Z])(?!{_OPENER})", lambda m: "Saint "),
    _rule(rf"\bDr\. (?=[A-Z])(?!{_OPENER})", lambda m: "Doctor "),
    _rule(r"\bDr (?=[A-Z])", lambda m: "Doctor "),
    _rule(r"\b(Mr|Mrs|Ms|Messrs)\.(?!\s*$)", lambda m: TITLES[m[1]]),
    _rule(rf"\b({_any(TITLES)})\.(?= ?[A-Z\"'(])", lambda m: TITLES[m[1]]),
    _rule(r"\b(Mr|Mrs|Ms)\b(?= [A-Z])", lambda m: TITLES[m[1]]),
    _rule(r"\bvs\b\.?", lambda m: "versus"),
    _rule(rf"\b({_any(COUNTED)})\. ?(?=#?\d)", lambda m: COUNTED[m[1].lower()] + " ", re.IGNORECASE),
    _rule(
        rf"(?<![\w.])({_any([*INNER, *map(str.capitalize, INNER)])})\.(?=[\s,:;)])(?!\s*$|\s+{_OPENER})",
        lambda m: INNER[m[1].lower()],
    ),
    _rule(rf"\b({_any(LAST)})\.{_MAY_END}", lambda m: LAST[m[1]] + _point(m)),
    _rule(r"(?<!\w)(w/o|w/|b/c)(?=\s)", lambda m: SPECIAL[m[1]]),
    _rule(r"&c\.", lambda m: "et cetera"),
    _rule(rf"\bPh\. ?D\.?(?P<s>'?s)?{_MAY_END}", lambda m: "P H D" + "'s" * bool(m["s"]) + _point(m)),
]
_IT = "department|support|team|staff|manager|specialist|systems?|industry|sector|professionals?|consultants?|security"
INITIALISMS: list[Rule] = [
    _rule(rf"(?<![\w.])((?:[A-Z]\.){{2,}}|[ap]\.m\.)(?!\w){_MAY_END}", _dotted),
    _rule(rf"(?<![\w.])([A-Z])\.(?= ?[A-Z][\w.'])(?! {_OPENER})", lambda m: m[1] + " "),
    _rule(r"(?<![\w.])([A-Z])\.(?= [a-z])", lambda m: m[1]),  # E. coli
    _rule(rf"\bIT(?= (?:{_IT})\b)", lambda m: "I T"),
    _rule(r"\b(?P<one>[A-Z]+)&(?P<two>[A-Z]+)\b", lambda m: f"{letters(m['one'])} and {letters(m['two'])}"),
    _rule(r"\b(?P<word>PhD|MSc|BSc)(?P<tail>'?s)?\b", _spell),
    _rule(r"\b(?P<word>[A-Z]{2,})(?P<tail>'?s)?(?![a-z])", _spell),
]
