"""A policy that cannot be is refused with a sentence."""

import math

import pytest

from tts.config import from_mapping, to_mapping
from tts.errors import SettingsError
from tts.sampling.policy import Policy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 0),
        ("top_k", -1),
        ("top_k", 2.5),
        ("top_k", True),
        ("top_k", (5, 0)),
        ("top_k", ()),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", (1.0, math.nan)),
        ("temperature", "warm"),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("min_p", math.nan),
        ("repetition_penalty", 0.9),
        ("repetition_penalty", math.nan),
        ("repetition_window", 0),
        ("guidance", -1.0),
        ("guidance", math.nan),
    ],
)
def test_a_value_out_of_its_range_is_refused_with_the_range(name, value):
    with pytest.raises(SettingsError, match=rf"^{name} must be "):
        Policy(**{name: value})


def test_options_that_exclude_each_other_are_refused_together():
    with pytest.raises(SettingsError, match="top_p and min_p exclude each other"):
        Policy(top_p=0.9, min_p=0.1)


def test_a_policy_is_plain_values_and_back():
    policy = Policy(temperature=(1.0, 0.5), top_k=(20, 10), min_p=0.05)
    assert from_mapping(Policy, to_mapping(policy)) == policy
    assert from_mapping(Policy, {"temperature": [1, 0], "top_k": 3}) == Policy(temperature=(1.0, 0.0), top_k=3)


def test_a_book_of_it_is_the_policy_of_that_book():
    policy = Policy(temperature=(1.0, 0.5), top_k=9, repetition_penalty=(1.0, 2.0))
    assert policy.book(1) == Policy(temperature=0.5, top_k=9, repetition_penalty=2.0)
    assert policy.penalises
    assert not policy.book(0).penalises
