"""A request, looked at before any work, and understood: the task that it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tts import registry
from tts.checkpoint import System
from tts.config import from_mapping
from tts.errors import LanguageError, SettingsError, TextError, nearest
from tts.frames import Plan, Prompt, Request
from tts.interfaces import Backend
from tts.parts import Parts
from tts.script import Line, Script, check_speed
from tts.text.phonemes import espeak_language


@dataclass(frozen=True)
class Manner:
    """How the lines of one request are spoken. listens: whether the recognizer checks them. retries: further tries of a line
    that fails; rerank: make all of them, and keep the best."""

    voice: Prompt | None
    backend: Backend
    settings: Any
    seed: int
    language: str
    listens: bool
    retries: int = 0
    rerank: bool = False


@dataclass(frozen=True)
class Task:
    """What is said, how long each line of it takes, how it is spoken, and what is to be warned of."""

    request: Request
    script: Script
    plans: list[Plan]
    manner: Manner
    warnings: list[str]

    @property
    def lines(self) -> list[Line]:
        return [part for part in self.script if isinstance(part, Line)]


def understand(request: Request, parts: Parts, system: System, retries: int, rerank: bool) -> tuple[Manner, list[str]]:
    """How a request is to be spoken, in a voice yet to be heard, and what to warn of. Raises SettingsError, LanguageError."""
    torch.get_num_threads()  # without it a new thread may not know of an earlier `torch.set_num_threads`
    check_request(request)
    language = find_language(system, request.language)
    backend, settings = find_backend(parts, system, request)
    listens = request.check and language in system.extra.get("recognizer_languages", system.languages)
    unheard = f"Nobody listened to what was said, since the recognizer does not know {language!r}."
    manner = Manner(None, backend, settings, request.seed, language, listens, retries, rerank)
    return manner, [unheard] if request.check and not listens else []


def find_backend(parts: Parts, system: System, request: Request) -> tuple[Backend, Any]:
    """The backend that a request names, and its settings. Raises SettingsError."""
    settings = _settings({name: backend.settings_type for name, backend in parts.backends.items()}, system, request)
    return parts.backends[request.backend], settings


def _settings(types: Mapping[str, type], system: System, request: Request) -> Any:
    """types: of the settings of each backend. Raises SettingsError."""
    if request.backend not in types:
        names = list(types)
        raise SettingsError(
            f"unknown backend {request.backend!r}{nearest(request.backend, names)}; {system.name} has {', '.join(names)}"
        )
    wanted, settings = types[request.backend], request.settings
    return settings if isinstance(settings, wanted) else from_mapping(wanted, settings if settings is not None else {})


def find_language(system: System, name: str | None) -> str:
    """The language in the checkpoint's words; None: its first. Raises LanguageError."""
    if name is None:
        return system.languages[0]
    if name in system.languages:
        return name
    known = espeak_language(name)
    if known not in system.languages:
        raise LanguageError(f"{system.name} does not speak {name!r}; it speaks {', '.join(system.languages)}")
    return known


def check_asked(request: Request, system: System) -> None:
    """Raise SettingsError, LanguageError, TextError for what a system cannot be asked for; no weights are needed to know it."""
    check_request(request)
    backends = ((*role.partition(".")[::2], part.type) for role, part in system.parts.items())
    found: dict[str, Any] = {name or kind: registry.find(role, kind) for role, name, kind in backends if role == "backend"}
    _settings({name: cls.settings_type for name, cls in found.items()}, system, request)
    find_language(system, request.language)


def check_request(request: Request) -> None:
    """Raise SettingsError for a name, a seed, a speed or seconds that are none; TextError for a prompt's text that is none."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")

    if not isinstance(request, Request):
        raise SettingsError(f"a request is a tts.Request, got {type(request).__name__}")
    if not isinstance(request.backend, str) or not isinstance(request.language, str | None):
        raise SettingsError(f"backend and language are names, got {request.backend!r} and {request.language!r}")
    if isinstance(request.seed, bool) or not isinstance(request.seed, int) or not 0 <= request.seed < 2**63:
        raise SettingsError(f"seed must be a whole number in 0..2**63-1, got {request.seed!r}")
    check_speed(request.speed)
    if request.seconds is not None and not is_number(request.seconds):
        raise SettingsError(f"seconds must be a positive number, got {request.seconds!r}")
    if request.seconds is not None and request.speed != 1.0:
        raise SettingsError(f"give speed or seconds, not both; got speed {request.speed:g} and {request.seconds:g} seconds")
    if not isinstance(request.prompt_text, str | None):
        raise TextError(f"prompt_text is what is said in the prompt, as a string; got {type(request.prompt_text).__name__}")
