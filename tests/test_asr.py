"""The recognizer: posteriors that padding does not touch, alignments that fill the clip, a check that notices."""

import pytest
import torch

from tts.asr.align import align, phones_of, read, viterbi, with_commas
from tts.asr.check import check, edits
from tts.asr.model import CTCRecognizer, RecognizerConfig
from tts.audio import MelRecipe
from tts.errors import FitError
from tts.frames import Frames
from tts.text.tokens import PHONES
from tts.train.bootstrap import frames_of_spans, words_of

TINY = RecognizerConfig(
    symbols=PHONES.recognizer_symbols, table=PHONES.identity, dim=16, layers=2, kernel=5, stem=8, dropout=0.0
)


def ids(*symbols: str) -> list[int]:
    return [PHONES.id(symbol) for symbol in symbols]


def spoken(*runs: tuple[str, int]) -> torch.Tensor:
    """Log-posteriors [T, V] of a clear voice: each symbol ("" is silence) for so many frames."""
    V = len(PHONES.recognizer_symbols)
    index = {phone: i for i, phone in enumerate(PHONES.recognizer_symbols)}
    labels = [index[symbol] if symbol else 0 for symbol, frames in runs for _ in range(frames)]
    logits = torch.zeros(len(labels), V)
    logits[torch.arange(len(labels)), torch.tensor(labels)] = 8.0
    return logits.log_softmax(-1)


CAT = ids(" ", "ð", "ə", " ", "k", "ˈæ", "t", ".")
CAT_SAID = spoken(("", 2), ("ð", 2), ("ə", 3), ("", 5), ("k", 2), ("æ", 4), ("", 1), ("t", 1), ("", 3))


@pytest.fixture
def recognizer() -> CTCRecognizer:
    torch.manual_seed(0)
    return CTCRecognizer(TINY).eval()


@pytest.mark.parametrize("T", [1, 2, 7])
def test_one_posterior_a_frame(recognizer: CTCRecognizer, T: int) -> None:
    frames = Frames(torch.randn(1, 80, T), torch.tensor([T]), recognizer.accepts)
    log_probs = recognizer.posteriors(frames)
    assert log_probs.data.shape == (1, len(PHONES.recognizer_symbols), T)
    assert torch.allclose(log_probs.data.exp().sum(1), torch.ones(1, T), atol=1e-5)


@pytest.mark.parametrize("short", [5, 6])
def test_a_padded_row_equals_the_row_alone(recognizer: CTCRecognizer, short: int) -> None:
    mel = torch.randn(2, 80, 11)
    together = recognizer(mel, torch.tensor([11, short]))[1, :short]
    alone = recognizer(mel[1:, :, :short], torch.tensor([short]))[0]
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_mel_of_another_flavour_is_refused(recognizer: CTCRecognizer) -> None:
    other = MelRecipe(scale="slaney").spec
    with pytest.raises(FitError, match="flavour"):
        recognizer.posteriors(Frames(torch.zeros(1, 80, 4), torch.tensor([4]), other))


def test_alignment_places_phones_and_gives_silences_to_boundaries() -> None:
    found = align(CAT_SAID, CAT)
    assert found is not None
    assert found.frames == [2, 2, 3, 5, 2, 5, 1, 3]  # the gap inside "cat" belongs to its vowel
    assert found.score > -0.1


def test_a_short_gap_between_words_belongs_to_the_phone_before_it() -> None:
    said = spoken(("ð", 2), ("ə", 3), ("", 2), ("k", 2), ("æ", 4), ("t", 1))
    found = align(said, CAT)
    assert found is not None
    assert found.frames == [0, 2, 5, 0, 2, 4, 1, 0]


def test_durations_sum_to_the_frames_whatever_the_posteriors() -> None:
    torch.manual_seed(0)
    for T in (8, 20, 33):
        found = align(torch.randn(T, len(PHONES.recognizer_symbols)).log_softmax(-1), CAT)
        assert found is not None
        assert sum(found.frames) == T
        assert min(found.frames) >= 0


def test_a_text_longer_than_the_sound_has_no_alignment() -> None:
    assert align(CAT_SAID[:4], CAT) is None
    assert align(CAT_SAID, ids(" ", ".")) is None


def test_viterbi_separates_a_doubled_phone() -> None:
    t = phones_of(ids("t"))[0]
    said = spoken(("t", 2), ("", 1), ("t", 3))
    found = viterbi(said, [t, t])
    assert found is not None
    assert found[0] == [(0, 2), (3, 6)]


def test_reading_writes_phones_and_longer_silences() -> None:
    heard = read(CAT_SAID)
    assert heard.tokens == ids(" ", "ð", "ə", "k", "æ", "t", ".")
    assert sum(heard.frames) == len(CAT_SAID)
    paused = read(spoken(("ð", 2), ("ə", 3), ("", 8), ("k", 2)))
    assert paused.tokens == ids(" ", "ð", "ə", " ", "k", ".")
    assert heard.confidence > 0.9


def test_reading_silence_gives_no_phones() -> None:
    heard = read(spoken(("", 9)))
    assert phones_of(heard.tokens) == []
    assert sum(heard.frames) == 9
    assert heard.confidence == 0.0


def test_a_check_passes_what_was_said() -> None:
    found = check(CAT_SAID, CAT)
    assert found.passed
    assert found.error_rate == 0.0
    assert found.asked == ("ð", "ə", "k", "æ", "t")


def test_a_check_names_what_was_left_out() -> None:
    found = check(spoken(("ð", 4), ("ə", 4)), CAT)
    assert found.missed == ("k", "æ", "t")
    assert not found.passed
    assert found.error_rate == pytest.approx(3 / 5)


def test_a_check_names_what_was_said_twice() -> None:
    cat = [("k", 3), ("æ", 3), ("t", 3)]
    found = check(spoken(("ð", 3), ("ə", 3), *cat, ("", 3), *cat), CAT)
    assert set(found.repeated) == {"k", "æ", "t"}
    assert not found.passed


def test_silence_fails_the_check() -> None:
    found = check(spoken(("", 30)), CAT)
    assert len(found.missed) == 5
    assert not found.passed


def test_an_edit_path_is_shortest() -> None:
    path = edits([1, 2, 3, 4], [1, 3, 5, 4])
    assert sum(not step.same for step in path) == 2
    assert edits([], []) == []


def test_long_silences_become_commas() -> None:
    assert with_commas(CAT, [9, 2, 3, 10, 2, 4, 1, 30], rate=50.0)[3] == PHONES.id(",")
    assert with_commas(CAT, [9, 2, 3, 9, 2, 4, 1, 30], rate=50.0) == CAT


def test_words_are_the_runs_between_boundaries() -> None:
    assert words_of(CAT) == [[1, 2], [4, 5, 6]]


def test_spans_become_frames_that_fill_the_clip() -> None:
    spans = {1: (0.04, 0.08), 2: (0.08, 0.14), 4: (0.24, 0.28), 5: (0.28, 0.36), 6: (0.36, 0.40)}
    assert frames_of_spans(8, spans, 24, 50.0) == [2, 2, 3, 5, 2, 4, 2, 4]
