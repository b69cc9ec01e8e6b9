"""A request, looked at before any work, and understood: the task that it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tts.errors import SettingsError, TextError
from tts.frames import Plan, Prompt, Request
from tts.interfaces import Backend
from tts.script import Line, Script


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
    if not is_number(request.speed):
        raise SettingsError(f"speed must be a positive number, got {request.speed!r}")
    if request.seconds is not None and not is_number(request.seconds):
        raise SettingsError(f"seconds must be a positive number, got {request.seconds!r}")
    if request.seconds is not None and request.speed != 1.0:
        raise SettingsError(f"give speed or seconds, not both; got speed {request.speed:g} and {request.seconds:g} seconds")
    if not isinstance(request.prompt_text, str | None):
        raise TextError(f"prompt_text is what is said in the prompt, as a string; got {type(request.prompt_text).__name__}")
