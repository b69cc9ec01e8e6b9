"""One backend leads, another says the rest, a judge is asked: what each contributes, and what is refused."""

from dataclasses import replace

import pytest
import torch

from tts.errors import FitError, SettingsError
from tts.frames import Frames, Plan, Tokens, Utterance
from tts.mixing import MixedBackend, MixedConfig, MixedSettings, one

TEXT = "the cat sat on the mat"


@pytest.fixture(scope="module")
def asked(tiny) -> Utterance:
    """Two rows of unequal length, in the built-in voice and without."""
    parts = tiny.parts
    ids = [
        [i for i in parts.front_end.encode(text, "en-us") if isinstance(i, int)] for text in (TEXT, "the cat sat on the mat")
    ]
    tokens = Tokens.of(ids, parts.front_end.table)
    each = 0.12 * (torch.arange(tokens.ids.shape[1]) < tokens.lengths[:, None]).double()
    return Utterance(tokens, torch.tensor([3, 4]), plan=Plan(each.sum(1), each))


@pytest.fixture
def mixed(tiny) -> MixedBackend:
    return tiny.parts.backends["mixed"]


def test_the_lead_says_the_first_seconds_and_the_rest_goes_on_from_there(tiny, mixed, asked):
    made = mixed.generate(asked, {"lead_seconds": 0.4})
    row, n = one(asked, 0), 10
    T = int(made.lengths[0])
    led = tiny.parts.backends["ar"].generate(row)
    assert torch.equal(made.data[0, :, :n], led.data[0, :, :n]) and T == int(led.lengths[0]) > n
    assert not torch.equal(made.data[0, :, n:T], led.data[0, :, n:T])
    keep = torch.arange(T)[None] < n
    rest = tiny.parts.backends["masked"].generate(replace(row, context=led, keep=keep))
    assert torch.equal(made.data[0, :, :T], rest.data[0])


def test_a_row_in_company_is_the_row_alone(mixed, asked):
    together = mixed.generate(asked, {"lead_seconds": 0.2, "weight": 0.5})
    for b in range(2):
        alone = mixed.generate(one(asked, b), {"lead_seconds": 0.2, "weight": 0.5})
        assert torch.equal(together.data[b, :, : int(alone.lengths[0])], alone.data[0])
    assert mixed.generate(replace(asked, seeds=asked.seeds[:0], tokens=Tokens.of([], asked.tokens.table))).data.shape == (
        0,
        8,
        0,
    )


def test_nothing_led_and_nothing_judged_is_the_rest_alone_and_all_led_is_the_lead(tiny, mixed, asked):
    row = one(asked, 1)
    assert torch.equal(mixed.generate(row, MixedSettings(0.0)).data, tiny.parts.backends["masked"].generate(row).data)
    assert torch.equal(mixed.generate(row, MixedSettings(60.0)).data, tiny.parts.backends["ar"].generate(row).data)


def test_the_lead_may_say_the_first_books_and_the_rest_those_after_them(tiny, mixed, asked):
    row = one(asked, 1)
    made = mixed.generate(row, {"lead_seconds": 0, "lead_books": 1})
    led = tiny.parts.backends["ar"].generate(row)
    assert torch.equal(made.data[:, :1], led.data[:, :1]) and not torch.equal(made.data[:, 1:], led.data[:, 1:])
    pheme = tiny.parts.backends["masked"].generate(replace(row, context=led), {"given_books": 1})
    assert torch.equal(made.data, pheme.data)
    assert torch.equal(mixed.generate(row, {"lead_seconds": 0, "lead_books": 8}).data, led.data)
    begun = mixed.generate(row, {"lead_seconds": 0.4, "lead_books": 1, "rest": {"steps": [2, 1]}})
    assert torch.equal(begun.data[:, :, :10], led.data[:, :, :10]) and torch.equal(begun.data[:, 0], led.data[:, 0])


def test_a_lead_that_ends_before_its_plan_is_refused(mixed, asked):
    leading = {"lead_seconds": 60.0, "lead": {"pointer": "model", "slack": (0.1, 1.0)}}
    with pytest.raises(FitError, match="pointer=plan"):
        mixed.generate(one(asked, 1), leading)


@pytest.mark.parametrize("judge", ["lead", "recognizer"])
def test_a_judge_has_its_say(mixed, asked, judge):
    said = [mixed.generate(one(asked, 1), MixedSettings(0.0, weight, judge)).data for weight in (0.0, 0.5, 1.0)]
    assert not torch.equal(said[0], said[1]) and not torch.equal(said[1], said[2])


def test_the_recognizer_judges_the_phone_that_a_frame_is_to_say(tiny, mixed, asked):
    row = one(asked, 1)
    T = int(row.plan.frames(mixed.emits.rate)[0])
    codes = torch.randint(0, 16, (1, 8, T))
    own = torch.full((1, T), -7.0)
    heard = mixed._judge("recognizer", row)(2, codes.index_fill(1, torch.arange(3, 8), 16), own)
    mel = tiny.parts.codec.embed(Frames(codes, torch.tensor([T]), mixed.emits), 3)
    posteriors = tiny.parts.recognizer.posteriors(mel).data[0]
    first = posteriors[tiny.parts.recognizer.symbols.index("ð"), 6:12].view(3, 2).mean(1)  # after a space; 120 ms each
    assert torch.allclose(heard[0, 3:6], first)
    assert (heard == -7).any() and (heard != -7).any()  # spaces are no phones


def test_it_speaks_and_is_cut_to_the_frame(tiny):
    audio = tiny.synthesize(TEXT, backend="mixed", seconds=1.2, check=False)
    assert audio.seconds == pytest.approx(1.2, abs=0.021)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": 1.5},
        {"judge": "leed"},
        {"lead_seconds": -1},
        {"lead_seconds": float("nan")},
        {"lead_books": -1},
        {"lead_seconds": 0, "lead_books": 9},
    ],
)
def test_impossible_settings_are_refused(mixed, asked, wrong):
    with pytest.raises(SettingsError):
        mixed.generate(asked, wrong)


def test_settings_of_its_parts_are_theirs(mixed, asked):
    with pytest.raises(SettingsError):
        mixed.generate(asked, {"rest": {"steps": 0}})
    with pytest.raises(SettingsError):
        mixed.generate(asked, {"lead": {"top_k": 0}})
    with pytest.raises(SettingsError, match="schedule"):  # also where the lead says it all
        mixed.generate(asked, {"lead_seconds": 60.0, "rest": {"schedule": "foo"}})


def test_what_cannot_be_is_a_sentence(tiny, mixed, asked):
    row = one(asked, 1)
    kept = replace(row, context=mixed.generate(row), keep=torch.ones(1, 3).bool())
    with pytest.raises(FitError, match="lead_seconds=0"):
        mixed.generate(kept)
    for config in (MixedConfig(lead="flow"), MixedConfig(rest="ar"), MixedConfig(lead="nobody")):
        with pytest.raises(FitError):
            MixedBackend(config).join(tiny.parts)
