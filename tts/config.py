"""Configs: frozen dataclasses from YAML, overrides, mappings and JSON; an unknown key or a wrong type is an error.

OmegaConf reads the YAML, the overrides and the references between values; `from_mapping` checks them against the dataclass with
nothing but the standard library, so that a config resolved on one machine is used, and checked alike, on another that has no
more than torch. Not OmegaConf's own structured check: it knows neither Fraction nor Mapping, and loses the place in a tuple.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from fractions import Fraction
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from tts.errors import MissingPackageError, SettingsError, nearest

T = TypeVar("T")
WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", Path: "a path", Fraction: "a fraction"}
MANY = {float: ("numbers", "0.5", "1"), int: ("whole numbers", "8", "4"), str: ("texts", "a", "b")}  # with examples


def load_config(
    cls: type[T], source: str | PathLike[str] | Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> T:
    """Values of a YAML file or a mapping over the defaults of `cls`, and `a.b=c` overrides over both.

    Args:
        cls: a frozen dataclass whose defaults are the defaults; nested dataclasses are nested mappings.
        source: path of a YAML file, a mapping, or None for the defaults alone. `${a.b}` is the value given for a.b.
            A path that ends in .json (see `to_json`) needs no OmegaConf, as long as there are no overrides.
        overrides: such as "model.dim=64" or "languages=[en-us,fr-fr]".
    Raises:
        SettingsError: an unknown key (with the nearest legal one), a wrong type, a missing value, or a file that is not YAML.
        MissingPackageError: OmegaConf is not installed.
    """
    if isinstance(source, (str, PathLike)) and Path(source).suffix == ".json" and not overrides:
        return from_mapping(cls, _read_json(Path(source)))
    try:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError
    except ImportError as error:
        raise MissingPackageError("reading a YAML config needs OmegaConf; run `pip install omegaconf`") from error
    name = source if isinstance(source, (str, PathLike)) else cls.__name__
    for override in overrides:
        if "=" not in override:
            raise SettingsError(f"an override is written key=value, got {override!r}")
    try:
        given = OmegaConf.load(Path(source)) if isinstance(source, (str, PathLike)) else OmegaConf.create(dict(source or {}))
        if not OmegaConf.is_dict(given):
            raise SettingsError(f"{name} must hold keys and values, got a list")
        merged = OmegaConf.merge(given, OmegaConf.from_dotlist(list(overrides)))
        values = cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))
    except OmegaConfBaseException as error:
        raise SettingsError(f"{name}: {str(error).splitlines()[0]}") from error
    except FileNotFoundError as error:
        raise SettingsError(f"{name} does not exist; give a YAML file") from error
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name} cannot be read as YAML: {' '.join(str(error).split())}") from error
    return from_mapping(cls, values)


def from_mapping(cls: type[T], mapping: Mapping[str, Any], place: str = "") -> T:
    """A mapping of plain values (of JSON, YAML or a person) to the frozen dataclass `cls`, nested ones included.

    Lists become tuples, text becomes Path or Fraction, a whole number is a float, and nothing is empty text, wherever a field
    says so.
    `place` is where the mapping lies in a greater one, for messages. Raises SettingsError.
    """
    if not isinstance(mapping, Mapping):
        raise SettingsError(f"{place.rstrip('.') or cls.__name__} must be a mapping of names to values, got {mapping!r}")
    kinds = _kinds(cast(Any, cls))
    own = {f.name: f for f in fields(cast(Any, cls)) if f.init}
    for key in mapping:
        if key not in own:
            hint = nearest(str(key), list(own))
            raise SettingsError(f"unknown key '{place}{key}'{hint}; {cls.__name__} takes {', '.join(own)}")
    missing = [n for n, f in own.items() if n not in mapping and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise SettingsError(f"{cls.__name__} needs a value for {place}{missing[0]}")
    return cls(**{key: _convert(kinds[key], value, f"{place}{key}") for key, value in mapping.items()})


def settle(config: Any) -> None:
    """Give each field of a frozen dataclass that was made in Python the type it says, as `from_mapping` does. Raises
    SettingsError; for the beginning of a `__post_init__`."""
    kinds = _kinds(cast(Any, type(config)))
    for f in fields(config):
        object.__setattr__(config, f.name, _convert(kinds[f.name], getattr(config, f.name), f.name))


@cache
def _kinds(cls: type) -> dict[str, Any]:
    """Types of fields by name; settings are made with every request, and to read annotations takes longer than all else."""
    return get_type_hints(cls)


def to_mapping(config: Any) -> dict[str, Any]:
    """A config as plain values that JSON and YAML can hold; `from_mapping` is the inverse."""
    return {f.name: _plain(getattr(config, f.name)) for f in fields(config) if f.init}


def to_json(config: Any) -> str:
    """A config as JSON, for machines without OmegaConf: `from_mapping(cls, json.loads(text))` reads it."""
    return json.dumps(to_mapping(config), indent=2, ensure_ascii=False) + "\n"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"{path} does not exist; give a JSON file") from error
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not JSON
        raise SettingsError(f"{path} cannot be read as JSON: {error}") from error


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, (Path, Fraction)) else value


def _convert(kind: Any, value: Any, place: str) -> Any:
    """`value` as the annotated type `kind`, or SettingsError."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or (origin is Literal and value in inner) or (kind is type(None) and value is None):
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        options = [option for option in inner if option is not type(None)]
        for option in options:
            try:
                return _convert(option, value, place)
            except SettingsError:
                if len(options) == 1 or _is_like(option, value):
                    raise
    if is_dataclass(kind):
        return value if isinstance(value, cast(type, kind)) else from_mapping(cast(type, kind), value, f"{place}.")
    if origin is tuple and isinstance(value, (list, tuple)):
        each = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        if len(each) == len(value):
            return tuple(_convert(k, v, f"{place}[{i}]") for i, (k, v) in enumerate(zip(each, value, strict=True)))
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: _convert(inner[1], item, f"{place}.{key}") for key, item in value.items()}
    if kind in (Path, Fraction) and isinstance(value, (str, int, kind)):
        try:
            return kind(value)
        except (TypeError, ValueError, ZeroDivisionError):
            pass
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    if kind is str and value is None:  # `name=` on a command line, `name:` in YAML
        return ""
    says = _says(kind, place)
    got = "nothing" if value is None else repr(value)
    raise SettingsError(f"{place} must be {says}{';' if ',' in says else ','} got {got}")


def _is_like(kind: Any, value: Any) -> bool:
    """Whether a value is several values as that kind is, so that what is wrong with it is within."""
    several = get_origin(kind) is tuple and isinstance(value, (list, tuple))
    return several or ((is_dataclass(kind) or get_origin(kind) in (dict, Mapping)) and isinstance(value, Mapping))


def _says(kind: Any, place: str) -> str:
    """An annotated type in the words of a person, with an example where it is several values."""
    origin, inner = get_origin(kind), [option for option in get_args(kind) if option is not type(None)]
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (dict, Mapping):
        return f"names with values, each {_says(inner[1], place)}"
    if origin is tuple:
        words, *examples = MANY.get(inner[0], ("values", "a", "b"))
        count = f"{len(inner)} " if inner[1:] != [...] else ""
        return f"{count}{words}, for instance {place}=[{','.join(examples[: len(inner)])}]"
    if origin not in (Union, types.UnionType):
        return WORDS.get(kind, getattr(kind, "__name__", str(kind)))
    if len(inner) == 2 and get_origin(inner[1]) is tuple and inner[0] in MANY:  # one for all, or one for each
        words, *examples = MANY[inner[0]]
        return f"{WORDS[inner[0]]} or several, for instance {place}={examples[0]} or {place}=[{','.join(examples)}]"
    return " or ".join(_says(option, place) for option in inner)
