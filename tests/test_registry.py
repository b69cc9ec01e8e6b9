"""Parts are found by role and name, and by nothing else."""

import dataclasses

import pytest

from tts.errors import SettingsError
from tts.registry import PARTS, build, config_type, find

NAMES = [(role, name) for role, table in PARTS.items() for name in table]


@pytest.mark.parametrize(("role", "name"), NAMES)
def test_every_entry_names_a_class_whose_config_is_a_frozen_dataclass(role, name):
    kind = config_type(find(role, name))
    if role != "frontend":
        assert dataclasses.is_dataclass(kind)
        assert kind.__dataclass_params__.frozen


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match=r"vocoder 'vocoss' \(did you mean 'vocos'\?\); choose one of vocos"):
        find("vocoder", "vocoss")
    with pytest.raises(SettingsError, match="did you mean 'vocoder'"):
        find("vocodr", "vocos")


def test_a_part_is_built_from_plain_values():
    recognizer = build("recognizer", "ctc", {"dim": 16, "layers": 1, "symbols": ["<blank>", "a"]})
    assert recognizer.symbols == ("<blank>", "a")


def test_a_mistake_in_a_config_is_named():
    with pytest.raises(SettingsError, match=r"'layrs'.*'layers'"):
        build("recognizer", "ctc", {"layrs": 1})


def test_a_part_without_config_takes_none():
    assert build("frontend", "bytes").encode("a") == [1 + ord("a")]
    with pytest.raises(SettingsError, match="takes no config, got dim"):
        build("frontend", "bytes", {"dim": 1})
