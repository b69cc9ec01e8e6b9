"""Dates, years and times of day, in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from tts.text.numbers import Rule, cardinal, ordinal, year

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
DAYS = {"Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
        "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday"}  # fmt: skip
_SHORT = {name[:3]: name for name in MONTHS} | {"Sept": "September"} | {name: name for name in MONTHS}
_MONTH = "(?P<month>" + "|".join(sorted(_SHORT, key=len, reverse=True)) + r")\b\.?"
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>[12]\d{3})"
_END = r"(?![\w/:%]|[.,]\d| ?°)"

# Words that make a number of four digits a year, and words of plural form that do not make it a count.
_IN = (
    r"(?:(?:[Ii]n|[Ss]ince|[Uu]ntil|[Tt]ill|[Bb]y|[Ff]rom|[Dd]uring|[Cc]irca|[Yy]ear|[Bb]efore|[Aa]fter|[Oo]f|[Tt]he|and|to"
    r"|early|late|mid|[Ss]pring|[Ss]ummer|[Aa]utumn|[Ff]all|[Ww]inter))"
)
_UNIT_OR_COUNT = (
    r"(?: ?(?:km|m|cm|mm|kg|g|mg|lbs?|oz|ft|mi|mph|Hz|kHz|MHz|W|kW|V|MB|GB|ml|mL|L|rpm|kcal|cal|hrs?|mins?|ms)\b"
    r"| (?:people|men|women|million|billion)\b)"
)
_COUNTED = (
    r"(?: (?:people|men|women|children|feet|percent|more|miles"
    r"|(?!(?:was|is|as|has|its|this|his|thus|does|us|yes)\b)[a-z]{2,}[^\Wsiu]s)\b)"
)


def _spoken(day: str, month: str, years: str | None, day_first: bool = False) -> str:
    said = f"the {ordinal(int(day))} of {month}" if day_first else f"{month} {ordinal(int(day))}"
    return f"{said}, {year(int(years))}" if years else said


def _numeric(match: re.Match[str], day_first: bool) -> str:
    first, second, years = int(match["a"]), int(match["b"]), match["year"]
    if match["sep"] == ".":
        day_first = True
    if (first > 12) != (second > 12):
        day_first = first > 12
    day, month = (first, second) if day_first else (second, first)
    if not (1 <= day <= 31 and 1 <= month <= 12) or (len(years) == 2 and match["sep"] != "/"):
        return match[0]
    if len(years) == 2:
        years = ("20" if int(years) < 50 else "19") + years
    return _spoken(str(day), MONTHS[month - 1], years, day_first)


def _iso(match: re.Match[str]) -> str:
    month, day = int(match["m"]), int(match["day"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return _spoken(match["day"], MONTHS[month - 1], match["year"]) + (" at " if match["t"] else "")


def _month_day(match: re.Match[str]) -> str:
    said = f"{_SHORT[match['month']]} {ordinal(int(match['day']))}"
    if match["to"]:
        said += f" to {ordinal(int(match['to']))}"
    return said + (f", {year(int(match['year']))}" if match["year"] else "")


def _day_month(match: re.Match[str]) -> str:
    first = f"{ordinal(int(match['start']))} to " if match["start"] else ""
    said = f"{match['the'] or 'the '}{first}{ordinal(int(match['day']))} of {_SHORT[match['month']]}"
    return said + (f" {year(int(match['year']))}" if match["year"] else "")


def _time(match: re.Match[str]) -> str:
    hour, minute, second, half = int(match["hour"]), int(match["minute"] or 0), match["second"], match["half"]
    if half:
        tail = f" {half[0].upper()} M"
        # The point of "p.m." is also the point of the sentence where a sentence ends.
        if half.endswith(".") and re.match(r"\s*$|\s+[A-Z]", match.string[match.end() :]):
            tail += "."
        return f"{cardinal(hour)}{_minutes(minute)}{tail}"
    if second:
        parts = f"{cardinal(hour)}{_minutes(minute) or ' hundred'}"
        return f"{parts} and {cardinal(int(second))} second{'' if int(second) == 1 else 's'}"
    if minute == 0:
        return "midnight" if hour in (0, 24) else f"{cardinal(hour)} o'clock" if hour <= 12 else f"{cardinal(hour)} hundred"
    return cardinal(hour) + _minutes(minute)


def _minutes(minute: int) -> str:
    return "" if minute == 0 else f" oh {cardinal(minute)}" if minute < 10 else f" {cardinal(minute)}"


def _decade(match: re.Match[str]) -> str:
    n = int(match["n"] or match["m"])
    century, rest = divmod(n, 100)
    head = "" if n < 100 else "two thousand " if n == 2000 else f"{cardinal(century)} "
    if rest:
        return head + (f"{cardinal(rest)}s" if rest == 10 else cardinal(rest).removesuffix("y") + "ies")
    return "two thousands" if n == 2000 else head + "hundreds" if n >= 100 else match[0]


def _with_era(match: re.Match[str]) -> str:
    first, second, era = match[1], match[2], " ".join(c for c in match["era"] if c != ".")
    point = "." if match["era"].endswith(".") and re.match(r"\s*$|\s+[A-Z]", match.string[match.end() :]) else ""
    return f"{year(int(first))}{f' to {year(int(second))}' if second else ''} {era}{point}"


def _years(match: re.Match[str]) -> str:
    first, second = match["first"], match["second"]
    if len(second) == 2 and int(second) < 10:
        return f"{year(int(first))} to oh {cardinal(int(second))}"
    return f"{year(int(first))} to {year(int(second))}"


def _rule(pattern: str, say: Callable[[re.Match[str]], str]) -> Rule:
    return re.compile(pattern), say


_HALF = r"(?P<half>[AaPp](?:\. ?[Mm]\.|[Mm]\b))"
_MINUTE = r"(?P<minute>[0-5]\d)"
_ERA = r"(?P<era>B\.?C\.?E\.?|B\.?C\.?|C\.E\.|CE\b|A\.?D\.?)(?![\w])"

DATES: list[Rule] = [
    _rule(rf"{_MONTH} ?[-–] ?(?={'|'.join(_SHORT)})", lambda m: _SHORT[m["month"]] + " to "),
    _rule(rf"\b({'|'.join(DAYS)})\.? ?[-–] ?({'|'.join(DAYS)})\b(?:\.(?!\s*$))?", lambda m: f"{DAYS[m[1]]} to {DAYS[m[2]]}"),
    _rule(
        rf"\b({'|'.join(DAYS)})\b\.?(?=,? (?:{'|'.join(_SHORT)}|\d)|\. (?:night|morning|afternoon|evening))\.?",
        lambda m: DAYS[m[1]],
    ),
    _rule(rf"(?<![\w.-]){_YEAR}-(?P<m>\d\d)-(?P<day>\d\d)(?:(?P<t>[T ])(?=\d\d:)|(?![\w-]))", _iso),
    _rule(rf"\b{_MONTH} {_DAY}(?: ?[-–—] ?(?P<to>\d{{1,2}}))?{_END}(?:,? {_YEAR}{_END})?", _month_day),
    _rule(
        rf"(?P<the>\b[Tt]he )?(?<![\w.,/:$£€-])(?:(?P<start>\d{{1,2}}) ?[-–—] ?)?{_DAY} (?:of )?{_MONTH}(?:,? {_YEAR}{_END})?",
        _day_month,
    ),
    _rule(rf"\b{_MONTH},? {_YEAR}{_END}", lambda m: f"{_SHORT[m['month']]} {year(int(m['year']))}"),
    _rule(r"\b(Jan|Feb|Aug|Sept|Oct|Nov|Dec)\.(?= [a-z]|,)", lambda m: _SHORT[m[1]]),
]
TIMES: list[Rule] = [
    _rule(
        r"(?<![\w:.])(\d{1,2}(?::\d\d)?(?: ?[ap]\.?m\.?)?) ?[-–] ?(?=\d{1,2}(?::[0-5]\d| ?[aApP]\.?[mM]\b))",
        lambda m: m[1] + " to ",
    ),
    _rule(rf"(?<![\w:.])(?P<hour>[01]?\d)(?:[:.]{_MINUTE}(?P<second>(?!))?)? ?{_HALF}", _time),
    _rule(
        rf"(?<![\w:.])(?P<hour>[01]?\d|2[0-4]):{_MINUTE}(?::(?P<second>[0-5]\d))?(?P<half>(?!))?(?! ?o'clock)(?![\w:])", _time
    ),
]
YEARS: list[Rule] = [
    _rule(r"\b([Yy]ear) (\d{4})\b(?!,\d)", lambda m: f"{m[1]} {year(int(m[2]))}"),
    _rule(r"(?<![\w,.'])'(?P<n>\d0)'?s\b|\b(?P<m>(?:1\d|20)?\d0)'?s\b", _decade),
    _rule(r"(?<![\w'])'(\d\d)\b", lambda m: f"oh {cardinal(int(m[1]))}" if m[1][0] == "0" else cardinal(int(m[1]))),
    _rule(rf"(?<![\w.,-])(\d{{1,4}})(?: ?[-–—] ?(\d{{1,4}}))? ?{_ERA}", _with_era),
    _rule(r"\b(?P<era>A\.?D\.?) (?P<n>\d{1,4})\b", lambda m: f"A D {year(int(m['n']))}"),
    _rule(
        r"(?<![\w.,/$£€#-])(?P<first>1[1-9]\d\d|20\d\d) ?[-–—/] ?(?P<second>1[1-9]\d\d|20\d\d|\d\d)(?![\w%°]|[-,.]\d)", _years
    ),
    _rule(rf"\b({_IN}) (1\d{{3}}|20\d\d)(?![\w%°/^]|[-,.:]\d|{_UNIT_OR_COUNT})", lambda m: f"{m[1]} {year(int(m[2]))}"),
    _rule(
        rf"(?<![\w.,/$£€#:+])(?<!\d-)(?<! -)(?<!^-)(1[1-9]\d\d|20\d\d)(?![\w%°/^]|[-,.:]\d|{_COUNTED}|{_UNIT_OR_COUNT})",
        lambda m: year(int(m[1])),
    ),
]


def numeric_dates(day_first: bool) -> Rule:
    """3/4/2024: the third of April where `day_first`, else March fourth."""
    pattern = r"(?<![\w./-])(?P<a>\d{1,2})(?P<sep>[/.-])(?P<b>\d{1,2})(?P=sep)(?P<year>[12]\d{3}|\d\d)(?![\w/-]|\.\d)"
    return _rule(pattern, partial(_numeric, day_first=day_first))
