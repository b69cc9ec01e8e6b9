"""Numbers as they are said: the words, then the rules that find amounts of money, units, phones, ranges and fractions."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]

LONGEST = 15  # digits; a longer number is read digit by digit
NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?!\d)"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "US$": ("US dollar", "US dollars", "cent", "cents"),
    "C$": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "A$": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "Rs": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "", ""),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₿": ("bitcoin", "bitcoins", "", ""),
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"),
}
CURRENCIES |= {"USD": CURRENCIES["US$"], "EUR": CURRENCIES["€"], "GBP": CURRENCIES["£"], "JPY": CURRENCIES["¥"]}
CURRENCIES |= {"CAD": CURRENCIES["C$"], "AUD": CURRENCIES["A$"], "INR": CURRENCIES["₹"]}
_CURRENCY = "|".join(re.escape(name) for name in sorted(CURRENCIES, key=len, reverse=True))
_MAGNITUDES = {
    "k": "thousand",
    "m": "million",
    "mm": "million",
    "mn": "million",
    "b": "billion",
    "bn": "billion",
    "t": "trillion",
}
_MAGNITUDE = r"(?:[ -]?(?P<magnitude>hundred|thousand|million|billion|trillion)\b|(?P<letter>[kKmMbBtT]|mm|mn|bn)\b)?"


@lru_cache(maxsize=4096)
def cardinal(n: int) -> str:
    """121 is "one hundred twenty-one"."""
    from num2words import num2words

    return str(num2words(n)).replace(" and ", " ").replace(",", "")


@lru_cache(maxsize=4096)
def ordinal(n: int) -> str:
    """121 is "one hundred twenty-first"."""
    from num2words import num2words

    return str(num2words(n, to="ordinal")).replace(" and ", " ").replace(",", "")


def year(n: int) -> str:
    """1905 is "nineteen oh five", 2005 "two thousand five", 2024 "twenty twenty-four", 476 "four seventy-six"."""
    century, rest = divmod(n, 100)
    if n < 100 or n > 9999 or (century % 10 == 0 and rest < 10):
        return cardinal(n)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def digits(text: str) -> str:
    """Each digit by its name; anything else is left out."""
    return " ".join(DIGITS[int(c)] for c in text if c in "0123456789")


def number(text: str) -> str:
    """A number as written, "1,234.50" or ".5" or "007"."""
    whole, point, decimals = text.replace(",", "").partition(".")
    if len(whole) > LONGEST or (len(whole) > 1 and whole.startswith("0")):
        said = digits(whole)
    else:
        said = cardinal(int(whole)) if whole else ""
    return f"{said} point {digits(decimals)}".strip() if point and decimals else said


def fraction(over: int, under: int) -> str:
    """3, 4 is "three quarters"."""
    names = {2: ("half", "halves"), 4: ("quarter", "quarters")}
    one, many = names.get(under, (ordinal(under), ordinal(under) + "s"))
    return f"{cardinal(over)} {one if over == 1 else many}"


def money(amount: str, currency: str, magnitude: str = "", single: bool = False) -> str:
    """ "3.50", "$" is "three dollars and fifty cents"; `single`: as before a noun, "a three dollar and fifty cent toll"."""
    one, many, small_one, small_many = CURRENCIES[currency]
    whole, _, cents = amount.replace(",", "").partition(".")
    if magnitude:
        return f"{number(amount)} {magnitude} {one if single else many}"
    if len(cents) != 2 or not small_one:
        return f"{number(amount)} {one if single or amount == '1' else many}"
    parts = []
    if int(whole or "0") or not int(cents):
        parts.append(f"{number(whole or '0')} {one if single or int(whole or '0') == 1 else many}")
    if int(cents):
        parts.append(f"{cardinal(int(cents))} {small_one if single or int(cents) == 1 else small_many}")
    return " and ".join(parts)


def _money(match: re.Match[str]) -> str:
    part = match.groupdict()
    magnitude = part["magnitude"] or _MAGNITUDES.get((part["letter"] or "").lower(), "")
    article = part.get("article") or ""
    said = money(part.get("to") or part["amount"], part["currency"], magnitude, single=bool(article))
    if part.get("to"):
        said = f"{number(part['amount'])} to {said}"
    minus = "minus " if part.get("minus") else ""
    return f"{article}{minus}{said}"


def _phone(match: re.Match[str]) -> str:
    groups = re.findall(r"\d+", match[0])
    said = [digits(group) if group != "800" else "eight hundred" for group in groups]
    return ("plus " if match[0].startswith("+") else "") + ", ".join(said)


def _dotted(match: re.Match[str]) -> str:
    groups = match[0].split(".")
    if len(groups) == 4 and all(int(group) < 256 for group in groups if len(group) < 4) and max(map(len, groups)) > 1:
        return " dot ".join(digits(group) for group in groups)  # an IP address
    return " point ".join(number(group) for group in groups)  # a version


def _fraction(match: re.Match[str]) -> str:
    whole, over, under = match["whole"], int(match["over"]), int(match["under"])
    if (over, under) in ((24, 7), (9, 11), (50, 50)) and not whole:
        return f"{cardinal(over)} {cardinal(under)}"
    if not 0 < over < under or not 2 <= under <= 100:
        said = f"{cardinal(over)} {'out of' if over == under else 'over'} {cardinal(under)}" if len(match[0]) < 12 else match[0]
        return f"{number(whole)} {said}" if whole else said
    said = fraction(over, under)
    if whole and over == 1 and under in (2, 4):
        said = "a " + said.split(" ")[1]
    return f"{number(whole)} and {said}" if whole else said


def _power(match: re.Match[str]) -> str:
    named = {"2": "squared", "3": "cubed"}
    return (
        match[1]
        + " "
        + named.get(match[2], f"to the power of {'minus ' * match[2].startswith('-')}{number(match[2].lstrip('-'))}")
    )


def _ordinal(match: re.Match[str]) -> str:
    plain = match[1].replace(",", "")
    return ordinal(int(plain)) if len(plain) <= LONGEST else digits(plain)


def _side(text: str) -> str:
    """One side of "1920x1080", as screens are called."""
    return year(int(text)) if len(text) == 4 else number(text)


def _remaining(match: re.Match[str]) -> str:
    """A number that no other rule has read, kept apart from letters beside it."""
    text, before, after = match.string, match.start() - 1, match.end()
    left = " " if before >= 0 and text[before].isalpha() else ""
    right = " " if after < len(text) and text[after].isalpha() else ""
    code = left and len(match[0]) == 4 and match[0].isdigit()  # flight BA2490
    return left + (year(int(match[0])) if code else number(match[0])) + right


def _rule(pattern: str, say: Callable[[re.Match[str]], str]) -> Rule:
    return re.compile(pattern), say


_AMOUNT = rf"(?P<amount>{NUMBER})"
# Before dates and times, since they would take some of these for theirs.
PHONES_AND_VERSIONS: list[Rule] = [
    _rule(r"(?<![\w.])\+\d{1,3}(?:[ -.]?\(?\d{1,4}\)?){2,5}(?!\w)", _phone),
    _rule(r"(?<![\w.-])(?:1[-. ])?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-.]\d{4}(?![\w-])", _phone),
    _rule(r"(?<![\w.-])\d{3}-\d{4}(?![\w-])", _phone),
    _rule(r"(?<![\w.-])0\d{2,4} \d{3,4} ?\d{3,4}(?![\w-])", _phone),
    _rule(r"(?<![\w.-])\d{1,5}(?:-\d{1,7}){3,}(?![\w-])", _phone),  # an ISBN
    _rule(r"(?<![\w.-])\d{4}(?:[ -]\d{4}){3}(?![\w-])", _phone),  # a card
    _rule(r"(?<=\b[Cc]all )\d{3}\b|(?<=\b[Dd]ial )\d{3}\b", lambda m: digits(m[0])),
    _rule(r"(?<![\w.])\d{1,5}(?:\.\d{1,5}){2,5}(?!\w|\.\d)", _dotted),
    _rule(r"\b[vV](?:\. ?| )?(?=\d+\.\d)", lambda m: "version "),
    _rule(r"(?<=\bversion )(\d+(?:\.\d+){2,})", _dotted),
]
MONEY: list[Rule] = [
    _rule(r"(?<=[€£])(\d+),(?=\d\d(?!\d))|(?<![\w.,])(\d+),(?=\d\d ?[€£])", lambda m: (m[1] or m[2]) + "."),
    _rule(
        rf"(?P<article>\b[Aa]n? )?(?P<minus>(?<!\w)-)?(?P<currency>{_CURRENCY}) ?{_AMOUNT}"
        rf"(?: ?[-–—] ?(?:{_CURRENCY})?(?P<to>{NUMBER}))?{_MAGNITUDE}",
        _money,
    ),
    _rule(rf"(?<![\w.]){_AMOUNT}{_MAGNITUDE} ?(?P<currency>{_CURRENCY})(?!\w)", _money),
    _rule(r"(?<![\w.])(\d+) ?¢", lambda m: f"{cardinal(int(m[1]))} cent{'' if m[1] == '1' else 's'}"),
]
_EACH = "hour|hr|day|week|month|mo|year|yr|night|person|minute|second|lb|kg|gallon|share|ticket"
SIGNS: list[Rule] = [
    _rule(r"\b([A-Z])-(\d{1,3})s\b", lambda m: f"{m[1]} {cardinal(int(m[2]))}s".replace("ys", "ies")),
    _rule(r"(?<=\d) - (?=[\d.]+ ?=)", lambda m: " minus "),
    _rule(r"(?<![\w)])(?<!\d )-(?=\.?\d)", lambda m: "minus "),
    _rule(r"(?<![\w)])(?<!\d )\+(?=\.?\d)", lambda m: "plus "),
    _rule(rf"(?:(?<=\d)|(?<=dollars)|(?<=euros)|(?<=pounds)|(?<=cents)|(?<=[a-z]s)) ?/ ?(?=(?:{_EACH})\b)", lambda m: " per "),
]
FRACTIONS: list[Rule] = [
    _rule(
        r"(?<![\w./])(\d+\.\d+|\d(?=/10 (?:people|[a-z]+s\b)))/(\d+)(?![\w/]|\.\d)",
        lambda m: f"{number(m[1])} out of {number(m[2])}",
    ),
    _rule(r"(?<![\w./])(?:(?P<whole>\d{1,4})(?: |-))?(?P<over>\d{1,3})/(?P<under>\d{1,4})(?![\w/]|\.\d)", _fraction),
]
NUMBERS: list[Rule] = [
    _rule(rf"(?<![\w.])({NUMBER}) ?× ?(?=10\^-?\d)", lambda m: number(m[1]) + " times "),
    _rule(r"\b(\w+)\^(-?\d+)\b", _power),
    _rule(r"(?<![\w.])(\d+)(?: ?[xX] ?|×)(\d+)(?![\w.])", lambda m: f"{_side(m[1])} by {_side(m[2])}"),
    _rule(r"(?<=\d)[xX](?= ?\d)", lambda m: " by "),
    _rule(r"(?<=\d)[xX]\b", lambda m: " times"),
    _rule(rf"(?<![\w.])({NUMBER})(?:M|mn)\b", lambda m: number(m[1]) + " million"),
    _rule(rf"(?<![\w.])({NUMBER})bn\b", lambda m: number(m[1]) + " billion"),
    _rule(r"\b([CF])#(?!\w)", lambda m: m[1] + " sharp"),
    _rule(r"\b(\d{3,4})[pi]\b", lambda m: _side(m[1]) + " P"),
    _rule(r"(?<!\w)#(?=\d)", lambda m: "number "),
    _rule(r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", _ordinal),
    _rule(rf"(?<![\w.])({NUMBER}) ?%-(?=[a-z])", lambda m: number(m[1]) + "-percent-"),
    _rule(rf"({NUMBER}) ?%", lambda m: number(m[1]) + " percent"),
    _rule(r"(?<=\d)\+(?!\w)", lambda m: " plus"),
    _rule(r"(?<=\d) ?: ?(?=\d)", lambda m: " to "),
    _rule(r"(?<![\w-])([A-Za-z]+)-(?=\d)", lambda m: m[1] + " "),
    _rule(NUMBER, _remaining),
]
