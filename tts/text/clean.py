"""Unicode to the plain characters that the other rules of normalisation read."""

from __future__ import annotations

import logging
import re
import unicodedata

log = logging.getLogger(__name__)

# Written before NFKC, which would tear them apart ("1½" to "11⁄2") or hide what they mean.
_EARLY = {
    **dict.fromkeys("’‘‛ʼ′‵´`＇", "'"),
    **dict.fromkeys("“”„‟«»″‶❝❞〝〞＂", '"'),
    **dict.fromkeys("‐‑‒⁃﹣－", "-"),
    **dict.fromkeys("―⸺⸻︱", "—"),
    **dict.fromkeys("、，،﹐‚", ","),
    **dict.fromkeys("。．｡।॥۔", "."),
    **dict.fromkeys("？؟⸮", "?"),
    **dict.fromkeys("！", "!"),
    **dict.fromkeys("；؛", ";"),
    **dict.fromkeys("：︰", ":"),
    "−": "-",
    "…": "...",
    "⋯": "...",
    "‹": "'",
    "›": "'",
    "²": "^2",
    "³": "^3",
    "™": "",
    "®": "",
    "©": "",
    "№": "No. ",
    "¿": "",
    "¡": "",
    "•": ", ",
    "·": " ",
    "∙": " ",
    "⁄": "/",
    "∕": "/",
}
_THOUSANDS = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")  # 12 000 with a space that does not break
_RAISED = re.compile(r"(?:(?<=\d)|(?<=\b[A-Za-z]))[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")  # an exponent; elsewhere a note
_DROPPED = {"Cf", "Cs", "Co", "Cn", "So", "Sk"}
_KEPT = set("°^`")


def clean(text: str, english: bool = True) -> str:
    """Compatible forms made one, quotes and dashes plain, invisible characters and pictures dropped, digits 0-9, one space.

    In English, combining marks that do not belong to a letter are dropped, and letters neither Latin nor Greek, with a
    warning in the log: an English reader cannot say them.
    """
    text = _THOUSANDS.sub(",", text)
    text = _RAISED.sub(lambda m: "^" + unicodedata.normalize("NFKC", m[0]).replace("−", "-"), text)
    text = "".join(_vulgar(c) or _EARLY.get(c, c) for c in text)
    out = []
    foreign = ""
    for c in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(c)
        if c in _EARLY:
            out.append(_EARLY[c])
        elif category == "Nd":
            out.append(str(unicodedata.digit(c)))
        elif category in ("Cc", "Zs", "Zl", "Zp"):
            out.append(" ")
        elif (category in _DROPPED and c not in _KEPT) or (english and category in ("Mn", "Me", "Mc")):
            # A picture ends a word; a soft hyphen or a joiner does not.
            out.append(" " if category == "So" else "")
        elif english and _foreign(c):
            foreign += c
            out.append(" ")
        else:
            out.append(c)
    if foreign:
        log.warning("an English text is read without the letters %r of another script", foreign[:40])
    return " ".join("".join(out).split())


def unreadable(text: str) -> str:
    """The letters of a text, in its order, that an English reader cannot say and `clean` leaves out."""
    return "".join(c for c in unicodedata.normalize("NFKC", text) if _foreign(c))


def _foreign(c: str) -> bool:
    return c.isalpha() and not c.isascii() and not unicodedata.name(c, "").startswith(("LATIN", "GREEK"))


def _vulgar(c: str) -> str:
    """ "½" as " 1/2", anything else as ""."""
    if unicodedata.decomposition(c).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", c).replace("⁄", "/") + " "
    return ""
