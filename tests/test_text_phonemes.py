"""Symbols, phones, pronunciations and pauses: what a text becomes."""

import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.errors import LanguageError, TextError
from tts.interfaces import FrontEnd
from tts.text.markup import Pause, Pronunciation, segments
from tts.text.phonemes import ByteFrontEnd, CharacterFrontEnd, PhoneFrontEnd, espeak_language
from tts.text.tokens import BLANK, BOUNDARIES, PAD, PHONES, SymbolTable


@pytest.fixture(scope="module")
def phones() -> PhoneFrontEnd:
    return PhoneFrontEnd()


def read(front: PhoneFrontEnd, text: str, language: str = "en-us") -> list[str | Pause]:
    return [i if isinstance(i, Pause) else PHONES.symbols[i] for i in front.encode(text, language)]


# the table


def test_the_table_is_the_one_that_weights_were_trained_with() -> None:
    assert PHONES.identity == "f6e975e91d80f486"
    assert PHONES.symbols[:10] == (PAD, *BOUNDARIES)


def test_symbols_are_unique_and_ids_go_back_and_forth() -> None:
    assert len(set(PHONES.symbols)) == len(PHONES)
    assert all(PHONES.id(symbol) == i for i, symbol in enumerate(PHONES.symbols))


def test_tables_of_other_symbols_have_another_identity() -> None:
    assert SymbolTable(("a", "b")).identity != SymbolTable(("b", "a")).identity != SymbolTable(("a", "b", "c")).identity


def test_stress_free_symbols_are_their_own_and_stressed_ones_point_to_them() -> None:
    assert PHONES.stress_free[PHONES.id("ˈæ")] == PHONES.stress_free[PHONES.id("ˌæ")] == PHONES.id("æ")
    assert all(PHONES.stress_free[i] == i for i in PHONES.stress_free)
    assert PHONES.phone_of(PHONES.id("ˌoʊ")) == "oʊ"


def test_the_recognizer_hears_phones_without_stress_and_nothing_at_boundaries() -> None:
    symbols, index = PHONES.recognizer_symbols, PHONES.to_recognizer
    assert symbols[0] == BLANK
    assert symbols[index[PHONES.id("ˈɛ")]] == "ɛ"
    assert index[PHONES.id(" ")] == index[PHONES.id(".")] == index[0] == 0
    assert index[PHONES.id("ʁ")] == -1
    assert sorted(set(index)) == list(range(-1, len(symbols)))


@pytest.mark.parametrize(
    ("ipa", "spelled"),
    [
        ("fəˈnɛtɪk", "f ə n ˈɛ t ɪ k"),
        ("ˈɔːɹ", "ˈɔː ɹ"),
        ("ˈfaɪɚ", "f ˈaɪ ɚ"),
        ("ˈæpəl", "ˈæ p ə l"),
        ("bˈʌʔn̩", "b ˈʌ ʔ ə n"),
        ("tʃɜːtʃ", "tʃ ɜː tʃ"),
        ("t_ʃ", "t ʃ"),
        ("t͡ʃ", "tʃ"),
        ("gʊd", "ɡ ʊ d"),
        ("rɛd", "ɹ ɛ d"),
    ],
)
def test_ipa_is_read_with_the_longest_symbol_first(ipa: str, spelled: str) -> None:
    assert [PHONES.symbols[i] for i in PHONES.spell(ipa)] == spelled.split()


def test_unknown_characters_are_dropped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert PHONES.spell("a字b", english=False) == [PHONES.id("a"), PHONES.id("b")]
    assert "字" in caplog.text


# sentences


def test_a_sentence_begins_with_a_space_and_ends_with_a_mark(phones: PhoneFrontEnd) -> None:
    assert read(phones, "The cat") == [" ", "ð", "ə", " ", "k", "ˈæ", "t", "."]
    assert read(phones, "Is it?")[-1] == "?"
    assert read(phones, "...well!")[0] == " "


def test_one_boundary_stands_between_words_the_strongest_mark_there(phones: PhoneFrontEnd) -> None:
    line = PHONES.write(phones.encode_many(["Hello, world... How (are) you?! I: fine; so — yes"])[0])
    assert [c for c in line if c in BOUNDARIES and c != " "] == list(",…,,?:;—.")
    for text in ("a , b", "a ,. b", "wait -- what", "x (y), z"):
        row = phones.encode_many([text])[0]
        flags = [PHONES.is_boundary(i) for i in row]
        assert not any(a and b for a, b in pairwise(flags))


def test_every_phone_of_english_text_is_known_to_the_recognizer(phones: PhoneFrontEnd) -> None:
    text = "The quick brown fox's loch measured chutzpah; button, bottle, fire, poor, azure, garage, Bach and Nguyen, rhythm."
    assert -1 not in {PHONES.to_recognizer[i] for i in phones.encode_many([text])[0]}


def test_many_texts_are_encoded_as_one_by_one(phones: PhoneFrontEnd) -> None:
    texts = ["Hello there.", "NUMBER TEN", "It costs $5, or 3.5 euros!", "yes"]
    assert phones.encode_many(texts) == [phones.encode(text) for text in texts]
    assert phones.encode_many([]) == []


def test_text_is_normalised_on_the_way(phones: PhoneFrontEnd) -> None:
    assert phones.encode("Dr. Lee paid $5.") == phones.encode("Doctor Lee paid five dollars.")


def test_the_letter_a_is_not_the_article(phones: PhoneFrontEnd) -> None:
    assert read(phones, "vitamin A")[-2] == "ˈeɪ"
    assert read(phones, "API")[1] == "ˈeɪ"
    assert read(phones, "A dog")[1] == "ɐ"


@pytest.mark.parametrize(
    ("language", "text"), [("de", "Guten Tag"), ("fr-fr", "Bonjour"), ("cmn", "你好"), ("es", "¿Qué tal?"), ("hi", "नमस्ते")]
)
def test_any_language_of_espeak_is_spoken(phones: PhoneFrontEnd, language: str, text: str) -> None:
    row = read(phones, text, language)
    assert language in phones.languages
    assert len(row) > 4 and row[0] == " "


def test_languages_go_by_common_names_and_unknown_ones_are_named_with_near_ones(phones: PhoneFrontEnd) -> None:
    assert espeak_language("en") == espeak_language("EN_US") == "en-us"
    assert espeak_language("fr") == "fr-fr"
    with pytest.raises(LanguageError, match="en-gb"):
        phones.encode("hi", "en-au")
    with pytest.raises(LanguageError):
        phones.encode("hi", "klingon")


@pytest.mark.parametrize("text", ["", "  ", "😀", "?!…", "\x00\x1b", "\u200b"])
def test_what_cannot_be_pronounced_is_refused(phones: PhoneFrontEnd, text: str) -> None:
    for front in (phones, CharacterFrontEnd(), ByteFrontEnd()):
        with pytest.raises(TextError):
            front.encode(text, "en-us")


@given(st.text(max_size=30))
@settings(max_examples=40, deadline=None)
def test_any_unicode_is_encoded_or_refused(text: str) -> None:
    try:
        row = PhoneFrontEnd().encode(text)
    except TextError:
        return
    assert all(isinstance(i, Pause) or 0 < i < len(PHONES) for i in row)


def test_several_threads_hear_the_same_phones(phones: PhoneFrontEnd) -> None:
    texts = [f"number {n} is here" for n in range(8)]
    alone = [phones.encode(text) for text in texts]
    together: dict[str, list[int | Pause]] = {}
    threads = [threading.Thread(target=lambda t=text: together.update({t: phones.encode(t)})) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[text] for text in texts] == alone


# inline marks


def test_a_text_is_cut_at_its_marks() -> None:
    parts = segments("Say [tomato](/təˈmɑːtoʊ/) now. [pause:0.5] Good [dog].")
    assert parts == ["Say ", Pronunciation("tomato", "təˈmɑːtoʊ"), " now. ", Pause(0.5), " Good [dog]."]


@pytest.mark.parametrize(
    "mark", ["[pause:0]", "[pause:-1]", "[pause:31]", "[pause:nan]", "[pause:inf]", "[pause:]", "[pause:soon]", "[a](//)"]
)
def test_a_wrong_mark_is_refused(mark: str) -> None:
    with pytest.raises(TextError):
        segments(f"Hello {mark} there")


def test_a_pronunciation_is_said_as_it_is_written(phones: PhoneFrontEnd) -> None:
    row = read(phones, "Hello, [tomato](/təˈmɑːtoʊ/), bye")
    start = row.index(",")
    assert row[start : start + 9] == [",", "t", "ə", "m", "ˈɑː", "t", "oʊ", ",", "b"]


def test_runs_between_pauses_are_whole_sentences(phones: PhoneFrontEnd) -> None:
    row = read(phones, "[pause:1] Wait [pause:0.5] here! [pause:2]")
    at = [i for i, item in enumerate(row) if isinstance(item, Pause)]
    assert [row[i] for i in at] == [Pause(1.0), Pause(0.5), Pause(2.0)]
    assert at[0] == 0 and at[-1] == len(row) - 1
    assert row[1] == row[at[1] + 1] == " "
    assert row[at[1] - 1] == "." and row[at[2] - 1] == "!"


def test_pauses_alone_say_nothing(phones: PhoneFrontEnd) -> None:
    with pytest.raises(TextError):
        phones.encode("[pause:1]")


# the front ends without phones


def test_characters_and_bytes_are_front_ends_too(phones: PhoneFrontEnd) -> None:
    for front in (phones, CharacterFrontEnd(), ByteFrontEnd()):
        assert isinstance(front, FrontEnd)
        assert front.encode("Hi 5") == front.encode("Hi five")
    characters = CharacterFrontEnd()
    assert "".join(characters.symbols.symbols[i] for i in characters.encode("Hi 5!")) == "hi five!"
    assert bytes(i - 1 for i in ByteFrontEnd().encode("né")) == "né".encode()
    assert characters.encode("a [pause:1] [b](/x/)") == [characters.symbols.id("a"), Pause(1.0), characters.symbols.id("b")]
    with pytest.raises(LanguageError):
        characters.encode("hi", "de")
