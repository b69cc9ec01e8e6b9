"""Long texts are cut into sentences that can be spoken, and nothing is lost or torn."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.errors import TextError
from tts.text.chunk import _inside, chunk


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Lee paid $3.50. She left.", ["Dr. Lee paid $3.50.", "She left."]),
        ("He left at 6 a.m. We stayed.", ["He left at 6 a.m.", "We stayed."]),
        ("At 6 a.m. John rose.", ["At 6 a.m. John rose."]),
        ("The U.S. Army came. He is in the U.S. He stays.", ["The U.S. Army came.", "He is in the U.S.", "He stays."]),
        ("J. K. Rowling met George W. Bush.", ["J. K. Rowling met George W. Bush."]),
        ("See fig. 3 and No. 5. Then go.", ["See fig. 3 and No. 5.", "Then go."]),
        (
            "Cats, dogs, etc. are here. Also mice, etc. They sleep.",
            ["Cats, dogs, etc. are here.", "Also mice, etc.", "They sleep."],
        ),
        ("She lives on Main St. in St. Paul.", ["She lives on Main St. in St. Paul."]),
        ('"Stop!" he said. "Why?" she asked.', ['"Stop!" he said.', '"Why?" she asked.']),
        ("Visit www.example.com. Write to a.b@c.org.", ["Visit www.example.com.", "Write to a.b@c.org."]),
        ("Wait... What?! Yes…", ["Wait...", "What?!", "Yes…"]),
        ("A heading\n\nA paragraph\nin two lines.", ["A heading", "A paragraph in two lines."]),
        ("你好。再见！", ["你好。", "再见！"]),
        ("Hello. 😀 World. 😀", ["Hello.", "😀 World. 😀"]),
        ("... Well.", ["... Well."]),
        ("Say [tomato](/təˈmɑː.toʊ/). Good.", ["Say [tomato](/təˈmɑː.toʊ/).", "Good."]),
        ("Hello. [pause:1.5] World. [pause:2]", ["Hello.", "[pause:1.5] World. [pause:2]"]),
        ("no end", ["no end"]),
    ],
)
def test_sentences_end_where_people_end_them(text: str, chunks: list[str]) -> None:
    assert chunk(text) == chunks


def test_a_long_sentence_is_cut_at_its_strongest_inner_mark() -> None:
    text = "We came early in the day, and it rained all the time; they came late, and the sun was shining."
    assert chunk(text, 60) == [
        "We came early in the day, and it rained all the time;",
        "they came late, and the sun was shining.",
    ]
    assert chunk("first of all the words, then some others here", 30) == ["first of all the words,", "then some others here"]
    assert chunk("one two three four five six", 14) == ["one two three", "four five six"]


@pytest.mark.parametrize(
    "whole", ["1,234,567.89", "March 15, 2024", "Dr. Livingstone", "555-123-4567", "5 kilometers", "[so](/ˈs oʊ/)"]
)
@pytest.mark.parametrize("most", [20, 25, 31])
def test_numbers_dates_and_pronunciations_are_never_torn(whole: str, most: int) -> None:
    text = f"a word, {whole}, and " * 6
    assert sum(piece.count(whole) for piece in chunk(text, most)) == 6


def test_a_script_without_spaces_is_cut_all_the_same() -> None:
    pieces = chunk("字" * 1000, 220)
    assert max(map(len, pieces)) <= 220
    assert "".join(pieces) == "字" * 1000


@pytest.mark.parametrize("text", ["", "  \n ", "😀", "?!", "[pause:1]", "\x00\x07"])
def test_a_text_without_words_is_refused(text: str) -> None:
    with pytest.raises(TextError):
        chunk(text)


words = st.sampled_from(
    ["Mr. Smith", "3.5", "$1,000.50", "hello", "world", "etc.", "e.g.", "U.S.", "No. 5", "(yes)", '"so', 'it"', "a;", "b,", "—",
     "end.", "What?", "now!", "...", "[pause:0.5]", "[read](/ɹˈɛd/)", "5 p.m.", "Henry VIII", "\n\n", "😀", "naïve", "5-10"]
)  # fmt: skip


@given(st.lists(words, min_size=1, max_size=40), st.integers(20, 220))
@settings(max_examples=80, deadline=None)
def test_all_words_are_kept_and_no_chunk_is_empty_or_too_long(parts: list[str], most: int) -> None:
    text = " ".join(parts)
    if not re.search(r"\w", text.replace("[pause:0.5]", "")):
        return
    pieces = chunk(text, most)
    assert " ".join(pieces).split() == text.split()
    assert all(any(c.isalnum() for c in piece.replace("[pause:0.5]", "")) for piece in pieces)
    # What cannot be said alone (marks, pauses) is hung on to a neighbour, beyond the limit if need be; so is what stays whole.
    for piece in pieces:
        bare = re.sub(r"\[pause:0\.5\]", "", piece).strip()
        spaces = [i for i, sign in enumerate(bare[:most]) if sign == " " and not _inside(bare)[i]]
        assert len(re.sub(r"[^\w\s]", "", bare)) <= most or not spaces, piece


def test_what_is_longer_than_allowed_is_cut_at_a_space_and_not_before_its_mark() -> None:
    text = "— $1,000.50 3.5 $1,000.50 What? 5-10 5 p.m. $1,000.50 a; it 5-10"
    assert " ".join(chunk(text, 22)).split() == text.split()
    assert max(map(len, chunk("字" * 100, 22))) <= 22


@given(st.text(max_size=80))
@settings(max_examples=50, deadline=None)
def test_any_text_is_cut_without_loss_or_refused(text: str) -> None:
    try:
        pieces = chunk(text, 20)
    except TextError:
        return
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece.strip() for piece in pieces)
