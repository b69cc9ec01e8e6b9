"""The optional packages that metrics stand on: imported when used, and named with their versions in every report."""

from __future__ import annotations

import importlib
import platform
from importlib import metadata
from types import ModuleType

from tts.errors import MissingPackageError

DISTRIBUTIONS = (
    *("mynah-tts", "torch", "torchaudio", "numpy", "librosa", "soundfile", "phonemizer", "espeakng-loader", "num2words"),
    *("jiwer", "pocketsphinx", "Resemblyzer", "speechmos", "onnxruntime", "pesq", "pystoi"),
)


def optional(name: str) -> ModuleType:
    """The module `name`. Raises MissingPackageError, saying what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        hint = "pip install 'mynah-tts[eval]'"
        raise MissingPackageError(f"{name.partition('.')[0]} is needed for this metric ({error}); {hint}") from error


def versions() -> dict[str, str]:
    """The version of everything a figure depends on; "absent" where a package is not installed."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
