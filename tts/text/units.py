"""Units of measure after a number, in words."""

from __future__ import annotations

import re

from tts.text.numbers import NUMBER, Rule, number

# written: (one, many)
UNITS: dict[str, tuple[str, str]] = {
    **{short: (name, name + "s") for short, name in {
        "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "nm": "nanometer", "µm": "micrometer",
        "mi": "mile", "yd": "yard", "yds": "yard", "kg": "kilogram", "kgs": "kilogram", "g": "gram", "mg": "milligram",
        "µg": "microgram", "mcg": "microgram", "lb": "pound", "lbs": "pound", "oz": "ounce", "t": "ton", "L": "liter",
        "l": "liter", "mL": "milliliter", "ml": "milliliter", "cl": "centiliter", "gal": "gallon", "qt": "quart",
        "tsp": "teaspoon", "tbsp": "tablespoon", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte",
        "TB": "terabyte", "PB": "petabyte", "Kb": "kilobit", "Mb": "megabit", "Gb": "gigabit", "W": "watt",
        "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt", "V": "volt", "kV": "kilovolt", "mV": "millivolt",
        "mA": "milliamp", "mAh": "milliamp hour", "Wh": "watt hour", "kWh": "kilowatt hour", "MWh": "megawatt hour",
        "kcal": "kilocalorie", "cal": "calorie", "kJ": "kilojoule", "J": "joule", "kPa": "kilopascal",
        "hPa": "hectopascal", "dB": "decibel", "s": "second", "sec": "second", "secs": "second", "ms": "millisecond",
        "ns": "nanosecond", "µs": "microsecond", "min": "minute", "mins": "minute", "h": "hour", "hr": "hour",
        "hrs": "hour", "yr": "year", "yrs": "year", "ha": "hectare", "px": "pixel", "Ω": "ohm",
    }.items()},
    "Hz": ("hertz", "hertz"), "kHz": ("kilohertz", "kilohertz"), "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"), "ft": ("foot", "feet"), "in": ("inch", "inches"), "psi": ("P S I", "P S I"),
    "mph": ("mile per hour", "miles per hour"), "kph": ("kilometer per hour", "kilometers per hour"),
    "kmh": ("kilometer per hour", "kilometers per hour"), "fps": ("frame per second", "frames per second"),
    "rpm": ("revolution per minute", "revolutions per minute"), "bpm": ("beat per minute", "beats per minute"),
    "kbps": ("kilobit per second", "kilobits per second"), "Mbps": ("megabit per second", "megabits per second"),
    "Gbps": ("gigabit per second", "gigabits per second"), "ppm": ("part per million", "parts per million"),
    "mpg": ("mile per gallon", "miles per gallon"), "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"), "°": ("degree", "degrees"), "‰": ("per mille", "per mille"),
}  # fmt: skip
UNITS["μm"], UNITS["μg"], UNITS["μs"] = UNITS["µm"], UNITS["µg"], UNITS["µs"]  # NFKC writes the Greek letter
_PER = {"h": "hour", "hr": "hour", "s": "second", "sec": "second", "min": "minute", "day": "day", "week": "week", "d": "day",
        "month": "month", "year": "year", "yr": "year", "dL": "deciliter", "person": "person", "hour": "hour"}  # fmt: skip

_POWERS = {"2": "square ", "sq": "square ", "3": "cubic ", "cu": "cubic "}
_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True) if unit != "in")
_WIDE = r"(?= ?(?:x|by|tall|wide|long|high|deep|thick|screen|monitor|display|pipe|TV|tablet|laptop|nails?|records?)\b)"


def _unit(match: re.Match[str]) -> str:
    one, many = UNITS[match["unit"]]
    article, amount, join = match["article"] or "", match["amount"], match["join"]
    power = _POWERS.get(match["power"] or (match["area"] or "")[:2], "")
    single = amount == "1" or join == "-" or bool(article)
    said = f"{article}{number(amount)}{'-' if join == '-' else ' '}{power}{one if single else many}"
    if match["per"]:
        under, _, power = match["per"].partition("^")
        if under in _PER:
            said += f" per {_PER[under]}{' squared' if power else ''}"
        else:
            said += f" per {_POWERS.get(power, '')}{UNITS[under][0]}"
    return said


def _feet(match: re.Match[str]) -> str:
    return f"{number(match[1])} {'foot' if match[1] == '1' else 'feet'}"


def _inches(match: re.Match[str]) -> str:
    return f"{match[1] or ''}{number(match[2])} {'inch' if match[1] or match[2] == '1' else 'inches'}"


_PER_UNIT = "|".join(re.escape(unit) for unit in sorted({*UNITS, *_PER}, key=len, reverse=True) if unit != "in")
_BARE = rf"(?<![\w.])({NUMBER})"
RULES: list[Rule] = [
    (re.compile(rf"{_BARE}' ?(\d{{1,2}}(?:\.\d+)?)(?:\"|'')"), lambda m: f"{_feet(m)} {number(m[2])}"),
    (re.compile(rf"(\b[Aa]n? )?{_BARE}\"{_WIDE}"), _inches),
    (re.compile(rf"{_BARE}'{_WIDE}"), _feet),
    (re.compile(rf"(\b[Aa]n? )?{_BARE}(?:in\b(?!\.)| ?in\.)(?! ?\d)"), _inches),
    (
        re.compile(
            rf"(?P<article>\b[Aa]n? )?(?<![\w.])(?P<amount>{NUMBER})(?P<join>[ -]?)(?P<area>(?:sq|cu)\.? )?"
            rf"(?P<unit>(?:(?<=\d)(?!s\b))?(?:{_UNIT}))(?:\^(?P<power>[23]))?(?![\w^'])"
            rf"(?:/(?P<per>(?:{_PER_UNIT})(?:\^[23])?)(?!\w))?(?:\.(?= [a-z]))?"
        ),
        _unit,
    ),
]
