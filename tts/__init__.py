"""Mynah: zero-shot text-to-speech. `synthesize(text, prompt)` speaks a text in the voice of a recording."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a bare clone the rooms codecs/, vocoders/ and configs/ lie beside this package, not inside it; a wheel holds them inside.
_beside = Path(__file__).resolve().parent.parent
if (_beside / "codecs" / "__init__.py").is_file():
    __path__.append(str(_beside))

__version__ = "0.7.0"

if TYPE_CHECKING:
    from tts.api import stream, synthesize
    from tts.errors import MynahError
    from tts.frames import Request
    from tts.pipeline import Synthesizer
    from tts.prompts import EncodedPrompt
    from tts.result import Audio, Failure, Report

__all__ = ["Audio", "EncodedPrompt", "Failure", "MynahError", "Report", "Request", "Synthesizer", "stream", "synthesize"]

# Looked up when they are first used, so that `import tts` takes no time.
_HOMES = {
    "Audio": "tts.result",
    "EncodedPrompt": "tts.prompts",
    "Failure": "tts.result",
    "MynahError": "tts.errors",
    "Report": "tts.result",
    "Request": "tts.frames",
    "Synthesizer": "tts.pipeline",
    "stream": "tts.api",
    "synthesize": "tts.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tts' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
