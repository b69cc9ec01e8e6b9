"""What travels between the parts keeps its shape, its sum and its meaning."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.errors import FitError, ShapeError
from tts.frames import Frames, FrameSpec, Plan, Tokens, Wave, check_fit, frame_mask
from tts.interfaces import samples_per_frame

MEL = FrameSpec("mel", 3, Fraction(50), flavour="a")


def test_frames_refuse_another_width_or_the_wrong_number_of_lengths():
    Frames(torch.zeros(2, 3, 0), torch.tensor([0, 0]), MEL)
    with pytest.raises(ShapeError, match=r"\[B, 3, T\], got \(2, 4, 5\)"):
        Frames(torch.zeros(2, 4, 5), torch.tensor([5, 5]), MEL)
    with pytest.raises(ShapeError, match=r"\[2\], got \(1,\)"):
        Frames(torch.zeros(2, 3, 5), torch.tensor([5]), MEL)


def test_a_wave_of_one_recording_is_a_batch_of_one():
    wave = Wave.of(torch.zeros(7), 16_000)
    assert (wave.samples.shape, wave.lengths.tolist()) == ((1, 7), [7])
    with pytest.raises(ShapeError):
        Wave(torch.zeros(7), torch.tensor([7]), 16_000)


def test_tokens_are_padded_with_zero_and_may_be_empty():
    tokens = Tokens.of([[1, 2, 3], [], [4]], "t")
    assert tokens.ids.tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]]
    assert tokens.lengths.tolist() == [3, 0, 1]
    assert Tokens.of([], "t").ids.shape == (0, 0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 0.3), min_size=1, max_size=12), st.sampled_from([Fraction(50), Fraction(25), Fraction(24_000, 256)])
)
def test_frames_of_tokens_sum_to_the_frames_of_the_plan(durations, rate):
    durations[0] += 0.1
    seconds = torch.tensor([durations], dtype=torch.float64)
    plan = Plan(seconds.sum(1), seconds)
    frames = plan.token_frames(rate)
    assert frames.sum(1).tolist() == plan.frames(rate).tolist()
    assert (frames >= 0).all()
    if all(lasts == 0 or lasts >= 1 / rate for lasts in durations):  # else neighbours give up frames to the short ones
        assert ((frames[0] / float(rate) - seconds[0]).abs() <= 1 / float(rate) + 1e-9).all()


def test_a_plan_has_at_least_one_frame_and_says_when_it_knows_no_tokens():
    assert Plan(torch.tensor([0.0, 0.001])).frames(Fraction(50)).tolist() == [1, 1]
    with pytest.raises(FitError, match="no durations of tokens"):
        Plan(torch.tensor([1.0])).token_frames(Fraction(50))


@given(st.lists(st.sampled_from([0.0, 0.004, 0.012, 0.03, 0.2]), min_size=1, max_size=12), st.sampled_from([25, 50]))
def test_no_token_that_takes_time_is_passed_over_where_there_are_frames_for_all(lasts, rate):
    each = torch.tensor([lasts], dtype=torch.float64)
    plan = Plan(each.sum(1), each)
    frames = plan.token_frames(Fraction(rate))
    total, said = int(plan.frames(Fraction(rate))), each > 0
    assert int(frames.sum()) == total and (frames >= 0).all()
    if total >= int(said.sum()):
        assert (frames[said] >= 1).all()
    rounded = torch.diff((each.cumsum(1) * rate).round().long(), dim=1, prepend=torch.zeros(1, 1).long())
    if (rounded[said] >= 1).all() and int(rounded.sum()) == total:
        assert torch.equal(frames, rounded), "and nothing moves where nothing need be"


@pytest.mark.parametrize(
    ("field", "value"), [("kind", "latents"), ("width", 4), ("rate", Fraction(25)), ("sizes", (2,)), ("flavour", "b")]
)
def test_specs_fit_only_when_every_field_is_equal(field, value):
    check_fit("flow", MEL, "vocos", MEL)
    with pytest.raises(FitError, match=f"flow does not fit vocos: {field}: "):
        check_fit("flow", MEL, "vocos", replace(MEL, **{field: value}))


def test_a_mask_is_true_where_a_frame_is_real():
    assert frame_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]
    assert frame_mask(torch.tensor([0]), 0).shape == (1, 0)


def test_a_frame_is_a_whole_number_of_samples_or_refused():
    assert samples_per_frame(16_000, Fraction(50)) == 320
    with pytest.raises(ValueError, match="not a whole number"):
        samples_per_frame(22_050, Fraction(100, 3))
