"""Mynah: zero-shot text-to-speech. `synthesize(text, prompt)` speaks a text in the voice of a recording."""

from pathlib import Path

# In a bare clone the rooms codecs/, vocoders/ and configs/ lie beside this package, not inside it; a wheel holds them inside.
_beside = Path(__file__).resolve().parent.parent
if (_beside / "codecs" / "__init__.py").is_file():
    __path__.append(str(_beside))

__version__ = "0.1.0"
