"""The duration rules: a plan in seconds that follows the prompt, is never zero and always sums up."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from tts.duration.rules import SHORTEST, PromptRate, Ratio, Rule, RuleConfig, lasting, paced
from tts.errors import FitError
from tts.frames import Plan, Prompt, Tokens

SPACE, STOP, SHORT, LONG = 1, 2, 3, 4
CONFIG = RuleConfig("toy", (0.0, 0.05, 0.1, 0.1, 0.2), boundaries=(0, SPACE, STOP), pauses=(STOP,), final=1.0)
SENTENCE = [SPACE, SHORT, LONG, SHORT, SPACE, LONG, SHORT, STOP]  # 0.9 s: five phones that take 0.7 s
BOTH = pytest.mark.parametrize("kind", [PromptRate, Ratio])


def tokens(*rows: list[int]) -> Tokens:
    return Tokens.of(rows, "toy")


def prompt(ids: list[int], seconds: float, token_frames: list[int] | None = None) -> Prompt:
    lasts = None if token_frames is None else torch.tensor([token_frames])
    return Prompt({}, tokens(ids), torch.tensor([seconds]), lasts)


def seconds(rule: Rule, ids: list[int], voice: Prompt | None) -> float:
    return float(rule.plan(tokens(ids), voice).seconds)


def test_the_ratio_rule_is_the_formula_of_maskgct() -> None:
    """Seconds of the prompt times phones to say over phones of the prompt."""
    voice = prompt([SPACE, SHORT, SHORT, LONG, STOP], seconds=0.6)
    assert seconds(Ratio(CONFIG), SENTENCE, voice) == pytest.approx(0.6 * 5 / 3)


@BOTH
def test_a_voice_that_takes_longer_for_the_same_words_takes_longer_for_all(kind: type[Rule]) -> None:
    fast, slow = (seconds(kind(CONFIG), [*SENTENCE, *SENTENCE], prompt(SENTENCE, s)) for s in (0.8, 1.2))
    assert slow / fast == pytest.approx(1.2 / 0.8)


def test_prompt_rate_weighs_phones_by_their_typical_lengths() -> None:
    long_phones, short_phones = (prompt([SPACE, *[phone] * 6, STOP], 1.0125) for phone in (LONG, SHORT))
    assert seconds(PromptRate(CONFIG), SENTENCE, long_phones) == pytest.approx(0.9 * 0.75)  # usually 1.35 s
    assert seconds(PromptRate(CONFIG), SENTENCE, short_phones) == pytest.approx(0.9 * 1.35)  # usually 0.75 s


def test_silences_of_an_aligned_prompt_do_not_make_a_slow_voice() -> None:
    usual = prompt(SENTENCE, 2.0, [3, 5, 10, 5, 60, 10, 5, 2])  # 50 frames a second; 1.2 s of silence inside
    assert float(PromptRate(CONFIG).rate(tokens(SENTENCE), usual)) == pytest.approx(1.0)
    assert float(PromptRate(CONFIG).rate(tokens(SENTENCE), prompt(SENTENCE, 2.0))) == CONFIG.slowest


@BOTH
@pytest.mark.parametrize(("lasted", "rate"), [(90.0, CONFIG.slowest), (0.01, CONFIG.fastest)])
def test_no_prompt_is_slower_or_faster_than_people_are(kind: type[Rule], lasted: float, rate: float) -> None:
    assert seconds(kind(CONFIG), SENTENCE, prompt(SENTENCE, lasted)) == pytest.approx(0.9 * rate)


@BOTH
@pytest.mark.parametrize("voice", [None, prompt([], 3.0), prompt([SPACE, STOP], 3.0, [100, 50])])
def test_a_prompt_without_phones_speaks_as_is_typical(kind: type[Rule], voice: Prompt | None) -> None:
    assert seconds(kind(CONFIG), SENTENCE, voice) == pytest.approx(0.9)


@BOTH
@pytest.mark.parametrize("ids", [[SHORT], [SPACE, STOP], [0], [SPACE, SHORT, STOP]])
def test_short_texts_get_their_floor_and_nothing_is_zero(kind: type[Rule], ids: list[int]) -> None:
    for voice in (None, prompt(SENTENCE, 0.5), prompt([], 0.5)):
        plan = kind(CONFIG).plan(tokens(ids), voice)
        assert float(plan.seconds) == pytest.approx(CONFIG.floor)
        assert int(plan.frames(Fraction(50))) > 0


@BOTH
def test_token_seconds_sum_to_the_seconds_and_token_frames_to_the_frames(kind: type[Rule]) -> None:
    two = Prompt({}, tokens(SENTENCE, SENTENCE), torch.tensor([0.8, 1.2]))
    plan = kind(CONFIG).plan(tokens(SENTENCE * 3, [SPACE, LONG, SHORT, LONG, STOP]), two)
    assert plan.token_seconds is not None
    torch.testing.assert_close(plan.token_seconds.sum(1), plan.seconds)
    assert not plan.token_seconds[1, 5:].any()  # padding lasts no time
    for rate in (Fraction(50), Fraction(24_000, 256), Fraction(7, 3)):
        assert torch.equal(plan.token_frames(rate).sum(1), plan.frames(rate))
        assert bool((plan.token_frames(rate) >= 0).all())


@BOTH
def test_a_row_is_planned_in_company_as_alone(kind: type[Rule]) -> None:
    rule, voices = kind(CONFIG), Prompt({}, tokens(SENTENCE, [SPACE, LONG, LONG, STOP]), torch.tensor([1.0, 0.6]))
    together = rule.plan(tokens(SENTENCE, [LONG, SHORT, LONG]), voices)
    alone = rule.plan(tokens([LONG, SHORT, LONG]), prompt([SPACE, LONG, LONG, STOP], 0.6))
    assert together.token_seconds is not None and alone.token_seconds is not None
    torch.testing.assert_close(together.seconds[1:], alone.seconds)
    torch.testing.assert_close(together.token_seconds[1:, :3], alone.token_seconds)


def test_phones_before_a_pause_are_drawn_out_and_no_others() -> None:
    drawn = PromptRate(RuleConfig("toy", CONFIG.seconds, CONFIG.boundaries, CONFIG.pauses, final=1.5, final_phones=2))
    usual = PromptRate(CONFIG).expected(tokens(SENTENCE, [SHORT]))
    factors = [[1, 1, 1, 1, 1, 1.5, 1.5, 1], [1] * 8]
    torch.testing.assert_close(drawn.expected(tokens(SENTENCE, [SHORT])), usual * torch.tensor(factors).double())


def test_tokens_of_another_table_are_refused() -> None:
    for kind in (PromptRate, Ratio):
        with pytest.raises(FitError, match="table toy, the tokens are of other"):
            kind(CONFIG).plan(Tokens.of([SENTENCE], "other"), None)
    with pytest.raises(FitError, match="table"):
        PromptRate(CONFIG).plan(tokens(SENTENCE), Prompt({}, Tokens.of([SENTENCE], "other"), torch.ones(1)))


def test_twice_the_speed_is_half_the_time_for_every_token() -> None:
    plan = PromptRate(CONFIG).plan(tokens(SENTENCE), None)
    twice = paced(plan, 2.0)
    assert plan.token_seconds is not None and twice.token_seconds is not None
    torch.testing.assert_close(twice.seconds, plan.seconds / 2)
    torch.testing.assert_close(twice.token_seconds, plan.token_seconds / 2)
    assert float(paced(plan, 1000.0).seconds) == SHORTEST


def test_absolute_seconds_are_exact() -> None:
    plan = lasting(PromptRate(CONFIG).plan(tokens(SENTENCE), None), torch.tensor([2.345], dtype=torch.float64))
    assert plan.token_seconds is not None
    assert plan.seconds.tolist() == [2.345]
    assert float(plan.token_seconds.sum()) == pytest.approx(2.345)
    assert lasting(Plan(torch.ones(1)), plan.seconds).token_seconds is None


def test_a_rule_without_a_rate_is_no_rule() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Rule(CONFIG)  # type: ignore[abstract]
