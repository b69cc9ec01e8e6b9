"""Runs of phones and words are found where they are missing or said twice, and nowhere else; the hard list is what it says."""

import pytest
import torch

from tts.asr.align import phones_of
from tts.eval.hard import hard_items
from tts.eval.report import wilson
from tts.eval.runs import free_of_runs, runs
from tts.eval.wer import lost_words
from tts.text.tokens import PHONES

SYMBOLS = PHONES.recognizer_symbols


def posteriors(heard: str, faint: str = "") -> torch.Tensor:
    """[T, V] log-posteriors in which these phones are heard, a frame each with a blank between; `faint` ones might be there."""
    labels = [label for phone in heard.split() for label in (SYMBOLS.index(phone), 0)] + [0, 0]
    scores = torch.full((len(labels), len(SYMBOLS)), -9.0)
    scores[torch.arange(len(labels)), torch.tensor(labels)] = 0.0
    for phone in faint.split():
        scores[:, SYMBOLS.index(phone)] = scores[:, SYMBOLS.index(phone)].clamp(min=-2.0)
    return scores


def found(asked: str, heard: str, faint: str = "") -> tuple[int, int]:
    return runs(posteriors(heard, faint), phones_of([PHONES.id(phone) for phone in asked.split()]))


@pytest.mark.parametrize(
    ("asked", "heard", "expected"),
    [
        ("ð ə k æ t s æ t", "ð ə k æ t s æ t", (0, 0)),
        ("ð ə k æ t s s æ t", "ð ə s æ t", (4, 0)),
        ("ð ə k æ t s æ t", "ð ə k s t", (1, 0)),  # two left out, far apart
        ("ð ə m æ t", "ð ə m æ t ð ə m æ p", (0, 5)),  # once more, with one phone otherwise
        ("s ð ə m æ t", "s ð ə m æ t ə m æ t", (0, 4)),
        ("k æ t", "k æ t b uː f l", (0, 0)),  # added, but like nothing beside it
        ("v ɛ ɹ i v ɛ ɹ i v ɛ ɹ i", "v ɛ ɹ i v ɛ ɹ i v ɛ ɹ i", (0, 0)),  # asked for
        ("v ɛ ɹ i v ɛ ɹ i v ɛ ɹ i", "v ɛ ɹ i v ɛ ɹ i", (4, 0)),
        ("v ɛ ɹ i v ɛ ɹ i", "v ɛ ɹ i v ɛ ɹ i v ɛ ɹ i", (0, 4)),
    ],
)
def test_the_longest_runs_are_found(asked: str, heard: str, expected: tuple[int, int]) -> None:
    assert found(asked, heard) == expected


def test_what_is_faintly_there_is_not_missing() -> None:
    assert found("ð ə k æ t s s æ t", "ð ə s æ t", faint="k æ t") == (1, 0)


def test_a_sound_too_short_for_its_text_lacks_what_was_not_heard() -> None:
    assert found("ð ə k æ t s æ t ð ə", "s æ") == (5, 0)


def test_a_short_word_is_lost_when_all_of_it_is() -> None:
    assert not free_of_runs(2, 0, asked=2) and free_of_runs(1, 0, asked=2) and free_of_runs(1, 0, asked=1)
    assert free_of_runs(3, 3, asked=9) and not free_of_runs(4, 0, asked=9) and not free_of_runs(0, 4, asked=9)


def test_words_are_lost_three_in_a_row() -> None:
    pytest.importorskip("jiwer")
    assert lost_words("one two three four five", "one five") == 3
    assert lost_words("one two three four five", "one four five") == 0
    assert lost_words("one two three four five", "") == 5 and lost_words("one", "") == 0


def test_wilson_bounds_a_share_even_at_its_ends() -> None:
    middle, all_of_them = wilson(81, 263), wilson(33, 33)
    assert middle is not None and all_of_them is not None and wilson(0, 0) is None
    assert (middle.low, middle.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))  # Newcombe 1998
    assert all_of_them.high == 1.0 and all_of_them.low == pytest.approx(33 / (33 + 1.96**2))


def test_the_hard_list_has_200_texts_in_six_kinds() -> None:
    items = hard_items()
    counts = {kind: sum(item.id.startswith(f"{kind}-") for item in items) for kind in ("numbers", "times", "words", "repeats")}
    assert len({item.text for item in items}) == len({item.id for item in items}) == 200
    assert counts == {"numbers": 34, "times": 33, "words": 33, "repeats": 33}
    assert all(len(item.text.split()) == 60 for item in items if item.id.startswith("long-"))
    assert all(any(c.isdigit() or c == "." for c in item.text) for item in items if item.id.startswith("numbers-"))


def test_the_hard_list_is_spoken_by_each_voice_in_turn(tmp_path) -> None:
    from tts.eval.protocols import Item

    voices = [Item("a", "", tmp_path / "a.wav", "A.", speaker="a"), Item("b", "", tmp_path / "b.wav", speaker="b")]
    items = hard_items(voices)
    assert [item.speaker for item in items[:3]] == ["a", "b", "a"] and items[2].prompt_text == "A."
    assert hard_items()[0].prompt is None
