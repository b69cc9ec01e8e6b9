"""Configs are frozen dataclasses: what a file, an override or a mapping says, or a sentence on what is wrong with it."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, field, make_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import pytest

from tts.config import from_mapping, load_config, to_json, to_mapping
from tts.errors import SettingsError


@dataclass(frozen=True)
class Inner:
    dim: int = 16
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    rate: float = 0.5
    name: str = "a"
    limit: int | None = None
    folder: Path = Path("data")
    range: tuple[float, float] = (0.0, 1.0)
    kind: Literal["x", "y"] = "x"


@dataclass(frozen=True)
class Timed:
    frames: Fraction
    weights: dict[str, float] = field(default_factory=dict)


def test_no_source_gives_the_defaults():
    assert load_config(Outer) == from_mapping(Outer, {}) == Outer()


def test_a_file_goes_over_the_defaults_and_overrides_over_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("inner: {dim: 8, sizes: [3, 4, 5]}\nrate: 1e-4\nlimit: ${inner.dim}\n")
    config = load_config(Outer, path, ["inner.dim=32", "kind=y"])
    assert config == Outer(Inner(32, (3, 4, 5)), rate=1e-4, limit=32, kind="y")
    with pytest.raises(FrozenInstanceError):
        config.rate = 1.0


def test_mapping_and_json_bring_every_type_back(tmp_path):
    config = Outer(Inner(3, ()), 2.0, "ä", 7, Path("/x/y"), (1.0, 2.5), "y")
    assert from_mapping(Outer, to_mapping(config)) == config == load_config(Outer, to_mapping(config))
    assert from_mapping(Outer, json.loads(to_json(config))) == config
    path = tmp_path / "c.json"
    path.write_text(to_json(config))
    assert load_config(Outer, path) == config == load_config(Outer, path, ["rate=2.0"])
    path.write_text("{")
    with pytest.raises(SettingsError, match="as JSON"):
        load_config(Outer, path)
    timed = Timed(Fraction(100, 3), {"a": 1.0})
    assert from_mapping(Timed, json.loads(to_json(timed))) == timed


@pytest.mark.parametrize("read", [load_config, from_mapping])
@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"inner": {"dimm": 1}}, ["inner.dimm", "'dim'"]),
        ({"nane": "b"}, ["nane", "'name'"]),
        ({"inner": {"dim": "many"}}, ["inner.dim", "many"]),
        ({"inner": {"dim": 1.5}}, ["inner.dim", "1.5"]),
        ({"inner": {"dim": None}}, ["inner.dim", "nothing"]),
        ({"inner": 3}, ["3"]),
        ({"rate": "fast"}, ["rate", "fast"]),
        ({"range": [1.0, "b"]}, ["range", "b"]),
        ({"kind": "z"}, ["kind", "z"]),
    ],
)
def test_a_mistake_is_named_with_its_place(read, mapping, said):
    with pytest.raises(SettingsError) as caught:
        read(Outer, mapping)
    assert all(part in str(caught.value) for part in said), str(caught.value)


def test_a_wrong_type_is_named_in_plain_words():
    for kind, words in ((float, "a number"), (int, "a whole number"), (bool, "true or false"), (float | None, "a number")):
        holder = make_dataclass("Holder", [("x", kind, 1)], frozen=True)
        with pytest.raises(SettingsError, match=f"x must be {words}, got 'abc'"):
            from_mapping(holder, {"x": "abc"})


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (int | tuple[int, ...] | None, "abc", "x must be a whole number or several, for instance x=8 or x=[8,4]; got 'abc'"),
        (int | tuple[int, ...] | None, [8, "b"], "x[1] must be a whole number, got 'b'"),
        (float | tuple[float, ...], {}, "x must be a number or several, for instance x=0.5 or x=[0.5,1]; got {}"),
        (tuple[float, float], [1], "x must be 2 numbers, for instance x=[0.5,1]; got [1]"),
        (tuple[int, ...], "abc", "x must be whole numbers, for instance x=[8,4]; got 'abc'"),
        (tuple[str, ...], 1, "x must be texts, for instance x=[a,b]; got 1"),
        (dict[str, float], 1, "x must be names with values, each a number; got 1"),
        (Literal["p", "q"] | None, "r", "x must be 'p' or 'q', got 'r'"),
        (Path, 1.5, "x must be a path, got 1.5"),
        (Fraction, "1/0", "x must be a fraction, got '1/0'"),
        (Inner | None, {"dim": "many"}, "x.dim must be a whole number, got 'many'"),
        (int, None, "x must be a whole number, got nothing"),
    ],
)
def test_a_wrong_value_is_answered_in_words_with_an_example_where_several_are_meant(kind, value, says):
    holder = make_dataclass("Holder", [("x", kind, None)], frozen=True)
    with pytest.raises(SettingsError) as caught:
        from_mapping(holder, {"x": value})
    assert str(caught.value) == says


def test_nothing_is_empty_text_where_text_is_wanted_and_none_where_it_may_be_left_out():
    assert from_mapping(Outer, {"name": None, "limit": None}) == Outer(name="", limit=None)
    assert load_config(Outer, None, ["name="]).name == ""


def test_a_mistaken_override_is_named_with_its_place():
    with pytest.raises(SettingsError, match=r"inner\.dimm.*'dim'"):
        load_config(Outer, None, ["inner.dimm=3"])
    with pytest.raises(SettingsError, match="key=value"):
        load_config(Outer, None, ["inner.dim"])


def test_a_missing_value_is_named():
    with pytest.raises(SettingsError, match="frames"):
        from_mapping(Timed, {})


def test_a_reference_to_nothing_is_named():
    with pytest.raises(SettingsError, match="nothing"):
        load_config(Outer, {"limit": "${nothing}"})


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [1", "\0", None])
def test_a_file_that_is_no_config_is_refused(tmp_path, content):
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=r"c\.yaml"):
        load_config(Outer, path)


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_config_that_is_not_there_is_told_so(tmp_path, suffix):
    with pytest.raises(SettingsError, match=rf"c\.{suffix} does not exist; give a {suffix.upper()} file$"):
        load_config(Outer, tmp_path / f"c.{suffix}")


def test_from_mapping_works_without_omegaconf():
    program = (
        "import sys; sys.modules['omegaconf'] = sys.modules['yaml'] = None\n"
        "from tts.config import from_mapping, load_config, to_json\n"
        "from tts.errors import MissingPackageError\n"
        "from tts.audio import MelRecipe\n"
        "assert from_mapping(MelRecipe, {'bands': 3}).bands == 3\n"
        "try: load_config(MelRecipe)\n"
        "except MissingPackageError as error: assert 'pip install omegaconf' in str(error)\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_made_in_python_is_held_to_its_types_too():
    from tts.backends.masked.config import MaskedSettings
    from tts.mixing import MixedSettings

    assert MaskedSettings(steps=[8, 4]).steps == (8, 4)
    for cls, wrong in (
        (MaskedSettings, {"schedule": None, "noise": None, "span": "3", "anneal": 3, "tempered": "x", "last_guidance": "x"}),
        (MixedSettings, {"lead_seconds": "x", "weight": None, "judge": 3, "lead_books": 1.5}),
    ):
        for name, value in wrong.items():
            with pytest.raises(SettingsError):
                cls(**{name: value})
