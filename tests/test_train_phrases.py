"""Clips cut at their pauses: what a phrase holds, what is left out, and that a merge keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.errors import SettingsError
from tts.text.tokens import PHONES
from tts.train.data import Corpus, CorpusWriter, Item, save_alignment
from tts.train.merge import merge
from tts.train.phrases import cut, phrases

RATE = 50.0


def ids(*symbols: str) -> list[int]:
    return [PHONES.id(symbol) for symbol in symbols]


#          · ·  k  æ  t  ·····  ð  ə  k  æ  t ·······
TOKENS = ids(" ", "k", "ˈæ", "t", ",", "ð", "ə", " ", "k", "ˈæ", "t", ".")
FRAMES = [2, 4, 6, 3, 14, 3, 2, 0, 4, 6, 3, 7]


def write(folder: Path, frames: list[int] = FRAMES, score: float = -0.5, aligned: bool = True) -> Path:
    """One clip, whose mel says the number of each frame."""
    T = sum(frames)
    recipe = {"sample_rate": 16000, "hop": 320}
    tables = {"symbols": list(PHONES.symbols), "table": PHONES.identity, "mel": "toy", "mel_recipe": recipe}
    with CorpusWriter(folder, tables) as writer:
        item = Item("a", "ann", "toy", "F", "en-us", T / RATE, "cat, the cat", T, 0, tuple(TOKENS))
        writer.add(item, torch.arange(T).float().expand(4, T))
    if aligned:
        save_alignment(folder, [TOKENS], [frames], [score])
    return folder


def test_a_phrase_is_what_stands_between_two_pauses_with_some_of_their_silence():
    cat, the_cat = phrases(TOKENS, FRAMES, RATE)
    assert (cat.tokens, cat.frames) == (ids(" ", "k", "ˈæ", "t", "."), [2, 4, 6, 3, 5])
    assert (cat.start, cat.end) == (0, 20)
    assert (the_cat.tokens, the_cat.frames) == (ids(" ", "ð", "ə", " ", "k", "ˈæ", "t", "."), [5, 3, 2, 0, 4, 6, 3, 5])
    assert (the_cat.start, the_cat.end) == (24, 52)


def test_a_question_stays_one():
    tokens = [*TOKENS[:-1], *ids("?")]
    assert list(phrases(tokens, FRAMES, RATE))[-1].tokens[-1] == PHONES.id("?")


def test_clips_without_a_pause_and_phrases_that_last_long_or_say_too_little_are_left_out():
    assert list(phrases(TOKENS, [2, 4, 6, 3, 9, 3, 2, 0, 4, 6, 3, 7], RATE)) == []
    assert len(list(phrases(TOKENS, [2, 4, 126, 3, 14, 3, 2, 0, 4, 6, 3, 7], RATE))) == 1
    assert list(phrases(ids(" ", "k", ",", "t", "."), [2, 4, 14, 4, 2], RATE)) == []


@given(st.lists(st.integers(0, 40), min_size=len(TOKENS), max_size=len(TOKENS)))
def test_phrases_lie_within_the_clip_one_after_another_and_last_what_their_tokens_last(frames):
    before = 0
    for phrase in phrases(TOKENS, frames, RATE):
        assert len(phrase.tokens) == len(phrase.frames)
        assert sum(phrase.frames) == phrase.end - phrase.start
        assert before <= phrase.end <= sum(frames)
        begin = phrase.start + phrase.frames[0]  # of its first phone
        assert begin in [sum(frames[:n]) for n in range(len(frames))]
        before = phrase.end - phrase.frames[-1]


def test_a_cut_corpus_holds_the_frames_of_its_phrases_and_survives_a_merge(tmp_path: Path):
    whole = write(tmp_path / "whole")
    assert cut(whole, tmp_path / "cut") == 2
    merge([whole, tmp_path / "cut"], tmp_path / "both", {"toy-phrases": 3.0})
    both = Corpus(tmp_path / "both", audio=False)
    assert [item.id for item in both.items] == ["a", "a~0", "a~1"]
    assert [item.weight for item in both.items] == [1.0, 3.0, 3.0]
    assert {item.speaker for item in both.items} == {"ann"}
    assert both.mel(2)[0].tolist() == list(range(24, 52))
    assert both.token_frames(2).sum() == both.item(2).frames and both.score(2) == pytest.approx(-0.5)


def test_what_is_not_aligned_or_badly_so_is_not_cut(tmp_path: Path):
    with pytest.raises(SettingsError, match="not aligned yet"):
        cut(write(tmp_path / "raw", aligned=False), tmp_path / "out")
    with pytest.raises(SettingsError, match="no clip with a pause"):
        cut(write(tmp_path / "bad", score=-2.0), tmp_path / "out")
    assert not (tmp_path / "out").exists()
