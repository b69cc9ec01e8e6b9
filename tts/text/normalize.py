"""Written text to spoken words."""

from __future__ import annotations

import unicodedata


def normalize(text: str, language: str = "en-us") -> str:
    """The text as it is said, in letters and punctuation. Never fails, whatever the input."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'")
    return text.lower() if text.isupper() else text
