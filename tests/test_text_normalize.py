"""What is written and what is said: each case of normalize_cases.tsv was checked by hand."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.text.clean import clean
from tts.text.lexicon import SAID, SHORT, SPELLED
from tts.text.normalize import normalize
from tts.text.numbers import cardinal, ordinal, year
from tts.text.words import is_initialism, roman

LINES = Path(__file__).with_name("normalize_cases.tsv").read_text(encoding="utf-8").splitlines()
PLAIN = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "mother", "sings")
CASES = [tuple(line.split("\t")) for line in LINES if line and not line.startswith("# ")]


@pytest.mark.parametrize(("written", "said"), CASES, ids=[written for written, _ in CASES])
def test_it_is_said_as_a_careful_reader_says_it(written: str, said: str) -> None:
    assert normalize(written) == said


def test_there_are_more_than_250_cases_and_none_twice() -> None:
    assert len(CASES) > 250
    assert len({written for written, _ in CASES}) == len(CASES)


def test_nothing_said_has_digits_or_signs_left() -> None:
    assert not [said for _, said in CASES if set(said) - set(",.?!;:—…'- ") and any(c in "0123456789$€£%&@#/" for c in said)]


# "A4 paper" is said "A four paper"; read again, its letter could be the article.
def test_what_is_said_is_said_the_same_way_when_read_again() -> None:
    once = [said for _, said in CASES if not said.startswith("A ")]
    assert [normalize(said) for said in once] == once


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_unicode_goes_in(text: str) -> None:
    assert isinstance(normalize(text), str)


@given(st.text(alphabet="0123456789.,:/-–+$€%° aAmMpPkg'\"#&()^xX\n", max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_jumble_of_numbers_and_signs_comes_out_without_digits(text: str) -> None:
    assert not any(c.isdigit() for c in normalize(text))


@given(st.lists(st.sampled_from(PLAIN), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_plain_words_are_left_alone(words: list[str]) -> None:
    text = " ".join(words)
    assert normalize(text) == text
    assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("soft\u00adhyphen", "softhyphen"),
        ("zero\u200bwidth\u200d \ufeffjoiners", "zerowidth joiners"),
        ("cafe\u0301", "café"),
        ("z\u0334\u0321alg\u0335o", "zalgo"),
        ("bell\x07 and\x00 null", "bell and null"),
        ("\ud800 lone surrogate", "lone surrogate"),
        ("12\u202f000", "12,000"),
        ("１２３", "123"),
        ("٤٢", "42"),
        ("“a” ‘b’", "\"a\" 'b'"),
        ("π and Москва", "π and"),
        ("tabs\tand\nlines", "tabs and lines"),
    ],
)
def test_unicode_is_made_plain(written: str, plain: str) -> None:
    assert clean(written) == plain


def test_other_languages_keep_their_marks_and_get_their_own_numbers() -> None:
    assert normalize("Ich habe 21 Katzen.", "de") == "Ich habe einundzwanzig Katzen."
    assert normalize("J'ai 3 chats.", "fr-fr") == "J'ai trois chats."
    assert normalize("हिन्दी", "hi") == "हिन्दी"
    assert normalize("12 xyz", "xx") == "12 xyz"


def test_the_day_comes_first_in_british_dates() -> None:
    assert normalize("3/4/2024", "en-us") == "March fourth, twenty twenty-four"
    assert normalize("3/4/2024", "en-gb") == "the third of April, twenty twenty-four"


def test_numbers_have_no_and_and_no_comma() -> None:
    assert cardinal(1_234_567) == "one million two hundred thirty-four thousand five hundred sixty-seven"
    assert ordinal(112) == "one hundred twelfth"
    assert [year(n) for n in (1066, 1900, 2000, 2009, 2010)] == [
        "ten sixty-six", "nineteen hundred", "two thousand", "two thousand nine", "twenty ten",
    ]  # fmt: skip


def test_roman_numerals_count() -> None:
    assert [roman(n) for n in ("I", "IV", "IX", "XIV", "XL", "XCIX", "CCC")] == [1, 4, 9, 14, 40, 99, 300]


def test_lists_of_initialisms_do_not_contradict_each_other() -> None:
    assert not set(SPELLED) & set(SAID)
    assert all(not is_initialism(word) for word in SHORT)
    assert all(is_initialism(word) for word in SPELLED if word not in SHORT)


def test_a_long_text_is_quick() -> None:
    import time

    start = time.process_time()
    normalize("On 3 May 1999, Dr. Lee paid $3.50 for 2 kg of rice at 5 p.m. " * 100)
    assert time.process_time() - start < 2.0
