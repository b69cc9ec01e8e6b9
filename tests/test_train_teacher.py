"""Teacher speech: what was said is spelled in our phones on its frames; flite and festival say words and tell their phones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tts.errors import MissingPackageError, SettingsError
from tts.text.normalize import normalize
from tts.text.tokens import PHONES
from tts.train.data import Corpus
from tts.train.prepare import PrepareConfig, prepare, read_clips
from tts.train.teacher import OWN, Said, Span, number_sentences, on_frames, say, spelled, voices_of

PROGRAMS = {"flite": "slt", "festival": "kal_diphone"}
needs = [
    pytest.param(
        *pair, marks=pytest.mark.skipif(shutil.which(pair[0]) is None, reason=f"{pair[0]} is not installed"), id=pair[0]
    )
    for pair in PROGRAMS.items()
]
THE_CAT = [PHONES.id(symbol) for symbol in (" ", "ð", "ə", " ", "k", "ˈæ", "t", ".")]


def said(phones: str, seconds: float = 0.1, start: float = 0.1) -> list[Span]:
    """Phones of equal length after a silence."""
    return [(phone, start + k * seconds, start + (k + 1) * seconds) for k, phone in enumerate(phones.split())]


def test_where_both_agree_the_front_ends_symbols_lie_on_the_teachers_times() -> None:
    assert on_frames(said("dh ax k ae t"), THE_CAT, 40, 50.0) == (THE_CAT, [5, 5, 5, 0, 5, 5, 5, 10])


def test_a_silence_between_words_belongs_to_their_boundary() -> None:
    phones = [*said("dh ax"), *said("k ae t", start=0.5)]
    assert on_frames(phones, THE_CAT, 40, 50.0) == (THE_CAT, [5, 5, 5, 10, 5, 5, 5, 0])


@pytest.mark.parametrize(
    ("phones", "heard"),
    [
        ("dh iy k ae t", "ð_i k_ˈæ_t."),  # another pronunciation
        ("dh ax k er t", "ð_ə k_ˈɜː_t."),  # the stress stays on its vowel
        ("dh ax k ae", "ð_ə k_ˈæ."),  # left out
        ("dh ax k ae t s", "ð_ə k_ˈæ_t_s."),  # added at the end,
        ("y dh ax k ae t", "j_ð_ə k_ˈæ_t."),  # at the beginning
        ("dh ax l k ae t", "ð_ə_l k_ˈæ_t."),  # and between words
        ("k ae t", "k_ˈæ_t."),  # a word left out leaves one boundary
    ],
)
def test_where_they_differ_the_tokens_are_what_is_heard(phones: str, heard: str) -> None:
    tokens, spans = spelled(said(phones), THE_CAT)
    assert PHONES.write(tokens) == heard and tokens[0] == PHONES.id(" ")
    assert [span[0] for _, span in sorted(spans.items())] == phones.split()
    assert sum(on_frames(said(phones), THE_CAT, 41, 50.0)[1]) == 41


def test_every_phone_of_the_teachers_has_a_symbol_of_ours() -> None:
    assert {PHONES.to_recognizer[PHONES.id(symbol)] > 0 for symbol in OWN.values()} == {True}


def test_trimming_moves_the_phones_with_the_sound() -> None:
    short = Said(torch.arange(1000.0), 1000, (("k", 0.3, 0.4), ("t", 0.4, 0.5))).trimmed(0.1)
    assert (short.samples[0], len(short.samples)) == (200.0, 400)
    assert [(a, b) for _, a, b in short.phones] == [pytest.approx((0.1, 0.2)), pytest.approx((0.2, 0.3))]


def test_number_sentences_are_figures_that_the_normaliser_says() -> None:
    lines = number_sentences(60, seed=1)
    assert lines == number_sentences(60, seed=1) != number_sentences(60, seed=2)
    assert all(any(c.isdigit() for c in line) and not any(c.isdigit() for c in normalize(line)) for line in lines)
    assert len(set(lines)) > 50 and any("$" in line for line in lines)


def test_a_teacher_that_is_not_there_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for wrong in ("parrot:polly", "flite", "flite:"):
        with pytest.raises(SettingsError, match="a teacher is"):
            voices_of(wrong)
    (tmp_path / "lines.txt").write_text("Hello.\n")
    with pytest.raises(SettingsError, match="said by a teacher"):
        read_clips(tmp_path, "en-us", number_lines=3)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingPackageError, match="apt install flite"):
        voices_of("flite:slt")
    with pytest.raises(MissingPackageError, match="apt install festival festvox-kallpc16k"):
        voices_of("festival:kal_diphone")


@pytest.mark.parametrize(("program", "voice"), needs)
def test_a_program_says_words_and_tells_its_phones(program: str, voice: str) -> None:
    reading = ["w", "eh", "l", "dh", "ax", "t", "iy"]
    assert voices_of(f"{program}:{voice}") == [(program, voice)]
    with pytest.raises(SettingsError, match="has no voice 'polly'; it has"):
        voices_of(f"{program}:polly")
    heard = say(program, voice, 'Well — "the" té')
    assert [phone for phone, _, _ in heard.phones] == reading
    assert len(heard.samples) / heard.rate == pytest.approx(heard.phones[-1][2], abs=0.6)
    quiet = heard.samples[: int(0.7 * heard.phones[0][1] * heard.rate)]
    loud = heard.samples[int(heard.phones[1][1] * heard.rate) : int(heard.phones[1][2] * heard.rate)]
    assert 20 * quiet.square().mean() < loud.square().mean()


@pytest.mark.parametrize(("program", "voice"), needs)
def test_teacher_clips_come_aligned_at_every_speed(program: str, voice: str, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("THE CAT SAT IN 2 MATS.\n")
    config = PrepareConfig(workers=1, perturb=(0.8,), number_lines=1)
    prepare(tmp_path / "lines.txt", tmp_path / "out", config, teacher=f"{program}:{voice}")
    corpus = Corpus(tmp_path / "out")
    assert [item.id for item in corpus.items] == [f"{program}-{voice}-0000{n}{at}" for n in (1, 2) for at in ("", "@0.8")]
    assert corpus.item(0).text == "the cat sat in two mats." and corpus.item(0).corpus == f"teacher-{program}"
    assert PHONES.write(list(corpus.item(0).tokens)) == "ð_ə k_ˈæ_t s_ˈæ_t ɪ_n t_ˈuː m_ˈæ_t_s."
    for i, item in enumerate(corpus.items):
        assert corpus.tokens(i).tolist() == list(item.tokens) and corpus.score(i) == 0.0
        assert int(corpus.token_frames(i).sum()) == item.frames and not any(c.isdigit() for c in item.text)
    slower = corpus.token_frames(1).sum() / corpus.token_frames(0).sum()
    assert float(slower) == pytest.approx(1.25, abs=0.03)
    # the hiss of "s" lies where it was told
    mel, frames, symbols = corpus.mel(0), corpus.token_frames(0), [PHONES.symbols[t] for t in corpus.tokens(0)]
    at = symbols.index("s")
    start, end = int(frames[:at].sum()), int(frames[: at + 1].sum())
    assert mel[60:, start:end].mean() > mel[60:].mean() + 1
