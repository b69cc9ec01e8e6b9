"""Texts of any length cut to pieces: paragraphs, headings, silences, and files that are no text."""

import time

import pytest

from tts.errors import TextError
from tts.text.paragraphs import (
    CLAUSE,
    ELLIPSIS,
    HEADING,
    LONGEST,
    NOTHING,
    PARAGRAPH,
    SCENE,
    SENTENCE,
    Piece,
    decode,
    paragraphs,
    split,
)

BOOK = """CHAPTER ONE

It was late... She sat
in her "old chair."

“Stop!” he said. Dr. Lee had a well-
known bird.

* * *

# Part 2
The end.
"""
PIECES = [
    Piece("CHAPTER ONE", HEADING),
    Piece("It was late...", ELLIPSIS),
    Piece('She sat in her "old chair."', PARAGRAPH),
    Piece("“Stop!” he said.", SENTENCE),
    Piece("Dr. Lee had a well-known bird.", SCENE),
    Piece("Part 2", HEADING),
    Piece("The end.", 0.0),
]


def test_a_book_becomes_sentences_and_silences():
    assert split(BOOK) == PIECES


@pytest.mark.parametrize("line_end", ["\r\n", "\r", "\u2028", "\x0b"])
def test_other_line_ends_mean_the_same(line_end):
    assert split(BOOK.replace("\n", line_end)) == PIECES


def test_pages_bullets_and_indents_begin_paragraphs():
    assert [text for text, _ in paragraphs("one,\ntwo\fthree\n  four\nfive\n- six\n- seven")] == [
        "one, two",
        "three",
        "four five",
        "six",
        "seven",
    ]


def test_lines_that_are_longer_than_a_page_are_paragraphs():
    long = "A sentence of many words that goes on and on. " * 4
    assert [text for text, _ in paragraphs(f"{long}\n{long}")] == [long.strip()] * 2
    assert len(list(paragraphs("short lines\n" * 30))) == 1


def test_a_long_sentence_is_cut_at_its_marks_and_its_pieces_hang_together():
    clause = "and so the river went on through the valley, "
    pieces = split(clause * 10 + "to the sea. Then it stopped.")
    assert [piece.gap for piece in pieces[:-2]] == [CLAUSE] * (len(pieces) - 2) and pieces[-2].gap == SENTENCE
    words = split("word " * 200)
    assert [piece.gap for piece in words] == [NOTHING] * (len(words) - 1) + [0.0]
    assert max(len(piece.text) for piece in pieces + words) <= 220


def test_pauses_stay_where_they_are_and_replace_the_silence():
    pieces = split("[pause:1]\n\nOne.\n\n[pause:2]\n\nTwo. [pause:0.5] Three.")
    assert pieces == [Piece("[pause:1] One. [pause:2]", 0.0), Piece("Two.", 0.0), Piece("[pause:0.5] Three.", 0.0)]


def test_what_begins_with_no_word_is_no_piece():
    assert split("***\n\n?!\n\nOne.") == [Piece("One.", 0.0)]
    for text in ("", "\n\n", "***\n\n—", "[pause:1]", "\x00\x01"):
        with pytest.raises(TextError, match="nothing to say"):
            split(text)


@pytest.mark.parametrize("sample", ["word ", "It was late. ", "a", "1 ", "[", " ", "a - ", "a,"])
def test_one_long_line_is_cut_in_time(sample):
    n = 100_000 // len(sample)
    before = time.process_time()
    pieces = split(sample * n + "a.")
    assert time.process_time() - before < 5  # and for ten times as much, ten times as long
    assert all(len(piece.text) <= LONGEST or "[" in piece.text for piece in pieces)
    assert sum(piece.text.count("a") for piece in pieces) == sample.count("a") * n + 1


def test_pronunciations_are_not_torn_but_have_an_end():
    text = "1 " * 300 + "[a b](/" + "æ" * 100 + "/) " + "2 " * 300
    assert sum("[a b](/" + "æ" * 100 + "/)" in piece.text for piece in split(text)) == 1
    with pytest.raises(TextError, match="a pronunciation has at most"):
        split("[a](/" + "æ" * 2000 + "/)")


# ------------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_is_read_with_and_without_its_mark(encoding):
    assert decode("Café — 5 €\r\n".encode(encoding)) == "Café — 5 €\r\n"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("Café".encode("latin-1"), "x is not UTF-8 text (at byte 3)"),
        ("abc".encode("utf-16")[:-1], "x is not UTF-16 text (at byte 6)"),
        ("abc".encode("utf-16-le"), "zero bytes"),
        (b"PK\x03\x04\x14\x00\x00\x00", "x is a zipped document, like .docx"),
        (b"%PDF-1.4\n%\xe2\xe3", "x is a PDF, not text"),
        (bytes(range(1, 32)) * 9, "control characters"),
        (b"a" * 20_000_001, "20.0 MB; at most 20 MB are read"),
    ],
)
def test_what_is_no_text_is_refused_in_a_sentence(data, says):
    with pytest.raises(TextError) as told:
        decode(data, "x")
    assert says in str(told.value)
