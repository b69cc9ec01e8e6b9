"""A narration: passages that join to the whole, in one loudness, with the times of their words, alike wherever it was begun."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import RATE, speech

from tts import Request
from tts.asr.words import Said, shown, word_times, written_words
from tts.audio import LOUDNESS, PEAK, level, loudness
from tts.errors import SettingsError, TextError
from tts.narration import narrate, steady
from tts.sampling.philox import derive
from tts.text.markup import Pause
from tts.text.phonemes import PhoneFrontEnd
from tts.text.tokens import PHONES

TEXT = "CHAPTER ONE\n\nOne and two. Three, [pause:0.5] four...\n\nA [mynah](/mˈaɪnə/) says five."
FAST = Request(TEXT, settings={"steps": 1}, check=False)


@pytest.fixture(scope="module")
def front_end():
    return PhoneFrontEnd()


def joined(passages):
    return np.concatenate([passage.samples for passage in passages])


# --------------------------------------------------------------------------------------------------------------- passages


def test_passages_follow_each_other_with_the_pauses_of_their_marks(tiny):
    narration = narrate(tiny, FAST)
    passages = list(narration)
    assert [p.text for p in passages] == ["CHAPTER ONE", "One and two.", "Three, four...", "A mynah says five."]
    assert len(passages) == narration.passages and passages[-1].letters == narration.letters
    ends = np.cumsum([len(p.samples) for p in passages])
    assert [p.begins for p in passages] == [0, *ends[:-1]]
    assert all(p.samples.dtype == np.float32 and np.abs(p.samples).max() <= PEAK for p in passages)
    silent = [len(p.samples) - 1 - np.flatnonzero(p.samples)[-1] for p in passages]
    assert np.allclose(np.array(silent) / RATE, [0.8, 0.25, 0.6, 0.0], atol=0.002)
    assert len(passages[2].sentences) == 2 and len(passages[0].sentences) == 1


def test_a_pause_that_is_asked_for_lasts_to_the_sample_and_replaces_the_gap(tiny):
    text = "One. [pause:0.5] Two. [pause:2] \n\n Three."
    a, b, c = narrate(tiny, replace(FAST, text=text))
    whole = joined((a, b, c))
    for passage, seconds in ((b, 0.5), (c, 2.0)):
        before = int(np.flatnonzero(whole[: passage.begins])[-1])
        spoken = np.flatnonzero(whole[before + 1 :])[0]
        assert spoken == pytest.approx(seconds * RATE, abs=2)


def test_the_pauses_between_sentences_follow_the_speed(tiny):
    slow, fast = (next(narrate(tiny, replace(FAST, text="One. Two.", speed=speed))) for speed in (0.5, 2.0))
    silent = [len(p.samples) - 1 - np.flatnonzero(p.samples)[-1] for p in (slow, fast)]
    assert silent == pytest.approx([0.5 * RATE, 0.125 * RATE], abs=2)


def test_ends_are_faded_so_that_nothing_clicks(tiny):
    passages = list(narrate(tiny, FAST))
    loudest = np.abs(joined(passages)).max()
    for passage in passages:
        spoken = np.flatnonzero(passage.samples)
        edges = passage.samples[[spoken[0], spoken[-1]]]
        assert np.abs(edges).max() < 0.02 * loudest


def test_the_same_seed_gives_the_same_samples_wherever_it_is_begun(tiny):
    whole = list(narrate(tiny, replace(FAST, check=True)))
    for first in range(1, len(whole)):
        narration = narrate(tiny, replace(FAST, check=True))
        narration.begin(first, whole[first].begins)
        for again, before in zip(narration, whole[first:], strict=True):
            assert np.array_equal(again.samples, before.samples)
            assert replace(again, samples=0, spent_seconds=0) == replace(before, samples=0, spent_seconds=0)


def test_each_passage_is_what_its_sentence_is_alone_but_for_its_level(tiny):
    request = replace(FAST, text="One and two. And three. And four.", seed=5, check=True)
    for number, passage in enumerate(narrate(tiny, request)):
        seed = derive(5, number) if number else 5
        alone = tiny.speak(replace(request, text=passage.text, seed=seed))
        n = len(alone.samples)
        scale = float(np.dot(passage.samples[:n], alone.samples) / np.dot(alone.samples, alone.samples))
        assert np.allclose(passage.samples[:n], scale * alone.samples, atol=1e-5)
        assert passage.sentences == alone.report.sentences


def test_its_identity_tells_every_option_apart(tiny, recording):
    others = [
        {},
        {"text": TEXT + " More."},
        {"seed": 1},
        {"speed": 1.1},
        {"check": True},
        {"settings": {"steps": 2}},
        {"prompt": str(recording)},
        {"text": TEXT.replace("two. ", "two.\n\n")},
    ]
    found = [narrate(tiny, replace(FAST, **other)).identity for other in others]
    assert len(set(found)) == len(found) and found[0] == narrate(tiny, FAST).identity


def test_nothing_is_kept_of_what_was_said(tiny):
    narration = narrate(tiny, replace(FAST, text="One. " * 20))
    kept = []
    for _ in narration:
        held = [value for value in vars(narration).values() if isinstance(value, torch.Tensor | np.ndarray)]
        kept.append(sum(value.size for value in held))
    assert len(kept) == 20 and set(kept) == {0}


def test_what_cannot_be_used_is_refused_before_the_first_passage(tiny):
    for text in ("", " \n\n ", "* * *", "[pause:1]", None):
        with pytest.raises(TextError):
            narrate(tiny, replace(FAST, text=text))
    with pytest.raises(TextError, match="a pause lasts"):
        narrate(tiny, replace(FAST, text="One. " * 50 + "[pause:100]"))
    with pytest.raises(SettingsError, match="give a speed"):
        narrate(tiny, replace(FAST, seconds=3.0))
    with pytest.raises(SettingsError, match="did you mean 'steps'"):
        narrate(tiny, replace(FAST, settings={"stepz": 1}))


def test_a_sentence_that_cannot_be_said_is_left_out_with_a_warning(tiny):
    one, none, two = narrate(tiny, replace(FAST, text="One.\n\nпривет мир.\n\nTwo."))
    assert len(none.samples) == 0 and not none.sentences and "left out" in none.warnings[0]
    assert two.begins == len(one.samples) and not one.warnings
    with pytest.raises(TextError):
        narrate(tiny, replace(FAST, text="привет мир."))


# ---------------------------------------------------------------------------------------------------------------- loudness


def test_every_line_is_brought_to_one_loudness():
    buzz = level(torch.from_numpy(speech(2.0)), RATE)
    for gain in (0.6, 1.0, 1.7):
        assert loudness(steady(gain * buzz, RATE), RATE) == pytest.approx(LOUDNESS, abs=0.1)


def test_a_line_is_changed_by_six_decibels_at_most_and_never_beyond_the_peak():
    buzz = torch.from_numpy(speech(2.0))
    soft = 0.05 * buzz
    assert torch.allclose(steady(soft, RATE), soft * 10 ** (6 / 20))
    pulses = torch.zeros(RATE)
    pulses[::1000] = 0.9
    assert float(steady(pulses, RATE).abs().max()) <= PEAK + 1e-6
    assert torch.equal(steady(torch.zeros(100), RATE), torch.zeros(100)) and len(steady(torch.zeros(0), RATE)) == 0


# ------------------------------------------------------------------------------------------------------------------- words


def said_evenly(front_end, text):
    """Each token lasts a tenth of a second, and what a pause asks for beside."""
    t, said = 0.0, []
    for token in front_end.encode(text):
        if isinstance(token, Pause):
            t += token.seconds
        else:
            said.append(Said(token, t, t + 0.1))
            t += 0.1
    return said


def phones_within(said, word):
    inside = [s.token for s in said if s.start >= word.start - 1e-6 and s.end <= word.end + 1e-6]
    return "".join(PHONES.phone_of(token) for token in inside)


def test_written_words_find_their_phones(front_end):
    text = "Dr. Lee paid $3.50 — for a [mynah bird](/mˈaɪnə bɜːd/), [pause:1] in the cage of NASA."
    said = said_evenly(front_end, text)
    words = word_times(text, said, front_end.encode)
    found = {word.text: phones_within(said, word) for word in words}
    assert list(found) == ["Dr.", "Lee", "paid", "$3.50 —", "for", "a", "mynah bird,", "in", "the", "cage", "of", "NASA."]
    assert found["Dr."] == "dɑːktɚ" and found["$3.50 —"].startswith("θɹiː dɑːlɚz") and found["mynah bird,"] == "maɪnə bɜːd"
    assert found["cage"] == "keɪdʒ" and found["of"] == "ʌv" and found["NASA."] == "næsɐ"
    assert all(a.start < a.end <= b.start + 1e-6 for a, b in pairwise(words))
    assert words[7].start - words[6].end == pytest.approx(1.0 + 0.2)  # the mark before the pause, and the space after it


def test_words_without_a_sound_of_their_own_share_their_neighbours(front_end):
    said = said_evenly(front_end, "One two.")
    words = word_times("One xyzzy ☃ two.", said, lambda word: [] if "xyzzy" in word else front_end.encode(word))
    assert [word.text for word in words] == ["One", "xyzzy ☃", "two."]
    assert words[0].end == pytest.approx(words[1].start) and words[1].end <= words[2].start and words[1].end > words[1].start


def test_marks_are_not_words():
    assert written_words("— So, [pause:1] a [b c](/biː/) – d !") == ["— So,", "a", "[b c](/biː/) –", "d !"]
    assert shown("a [pause:1] [b c](/biː/).") == "a b c."


def test_times_of_words_lie_in_their_passage_and_in_order(tiny):
    for request in (FAST, replace(FAST, check=True)):
        for passage in narrate(tiny, request):
            begins, ends = passage.begins / RATE, (passage.begins + len(passage.samples)) / RATE
            times = [t for word in passage.words for t in (word.start, word.end)]
            assert times == sorted(times) and begins <= times[0] and times[-1] <= ends + 1e-6
            assert (passage.start, passage.end) == (times[0], times[-1])
            assert " ".join(word.text for word in passage.words) == passage.text


def test_a_language_that_the_recognizer_does_not_know_has_planned_times(tiny):
    system = replace(tiny.system, extra={**tiny.system.extra, "recognizer_languages": []})
    deaf = tiny.trying(0)
    deaf.system = system
    passage = next(narrate(deaf, replace(FAST, text="One and two.")))
    assert not passage.aligned and [word.text for word in passage.words] == ["One", "and", "two."]
    # typically a boundary lasts 50 ms and a phone 80, times the pace of the voice: a space, w ʌ n, a space …
    assert passage.words[0].end / passage.words[0].start == pytest.approx((0.05 + 3 * 0.08) / 0.05, rel=0.01)
