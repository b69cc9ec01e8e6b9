"""How codes are drawn from a model's scores: one validated object, read by every sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

from tts.errors import SettingsError

T = TypeVar("T")
Each: TypeAlias = T | tuple[T, ...]  # one for all codebooks, or one for each


@dataclass(frozen=True)
class Policy:
    """Applied in this order; see tts/sampling/reference.py for the exact law. The defaults draw from the model as it is.

    guidance: u + guidance * (c - u), 1 is unguided; mixed before anything else, see tts/decoding/guidance.py.
    repetition_penalty: logits of codes among a book's last `repetition_window` are divided by it where positive, multiplied
        where negative (Keskar et al. 2019, arXiv:1909.05858, section 4.1); 1 changes nothing.
    temperature: divides the logits; 0 takes the likeliest code.
    top_k: only the k likeliest codes; None: all.
    top_p: only the fewest likeliest codes that together reach this probability (Holtzman et al. 2019, arXiv:1904.09751).
    min_p: only codes at least this fraction as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082). Both cut the
        tail, by exclusive rules: give top_p or min_p, not both.
    """

    guidance: float = 1.0
    repetition_penalty: Each[float] = 1.0
    repetition_window: int = 16
    temperature: Each[float] = 1.0
    top_k: Each[int] | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        _check("guidance", self.guidance, float, lambda x: 0 <= x <= 20, "a number in 0..20")
        _check_each("repetition_penalty", self.repetition_penalty, float, lambda x: 1 <= x <= 10, "a number in 1..10")
        _check("repetition_window", self.repetition_window, int, lambda x: 1 <= x <= 1000, "a whole number in 1..1000")
        _check_each("temperature", self.temperature, float, lambda x: 0 <= x <= 10, "a number in 0..10, 0 for the likeliest")
        if self.top_k is not None:
            _check_each("top_k", self.top_k, int, lambda x: x >= 1, "a whole number of at least 1, or None for all codes")
        if self.top_p is not None:
            _check("top_p", self.top_p, float, lambda x: 0 < x <= 1, "a number above 0 and at most 1, or None")
        if self.min_p is not None:
            _check("min_p", self.min_p, float, lambda x: 0 <= x <= 1, "a number in 0..1, or None")
        if self.top_p is not None and self.min_p is not None:
            raise SettingsError(
                f"top_p and min_p exclude each other, got {self.top_p!r} and {self.min_p!r}; set one of them to None"
            )

    @cached_property
    def penalises(self) -> bool:
        """Whether the codes before matter."""
        penalty = self.repetition_penalty
        return any(p != 1 for p in (penalty if isinstance(penalty, tuple) else (penalty,)))

    def check_books(self, K: int) -> None:
        """Raise SettingsError where an option is given for each codebook, but not for K."""
        for name, value in self._by_book.items():
            if len(value) != K:
                raise SettingsError(f"{name} must be one value or {K}, one for each codebook; got {len(value)}: {value}")

    @cached_property
    def _by_book(self) -> dict[str, tuple[Any, ...]]:
        """The options that are given for each codebook."""
        every = {name: getattr(self, name) for name in ("repetition_penalty", "temperature", "top_k")}
        return {name: value for name, value in every.items() if isinstance(value, tuple)}

    def book(self, k: int) -> Policy:
        """What holds for codebook k alone."""

        def of(value: Any) -> Any:
            return value[k] if isinstance(value, tuple) else value

        penalty, temperature, top_k = of(self.repetition_penalty), of(self.temperature), of(self.top_k)
        return replace(self, repetition_penalty=penalty, temperature=temperature, top_k=top_k)


def _check_each(name: str, value: Any, kind: type, legal: Callable[[Any], bool], says: str) -> None:
    if value == ():
        raise SettingsError(f"{name} must be one value or one for each codebook, got none")
    for each in value if isinstance(value, tuple) else (value,):
        _check(name, each, kind, legal, says)


def _check(name: str, value: Any, kind: type, legal: Callable[[Any], bool], says: str) -> None:
    """NaN is in no range, and True is no number."""
    kinds = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds) or not legal(value):
        raise SettingsError(f"{name} must be {says}; got {value!r}")
