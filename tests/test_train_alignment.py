"""Aligning a corpus, and what its alignment says of how long phones typically last."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tts.asr.align import phones_of
from tts.frames import FrameSpec
from tts.text.tokens import PHONES
from tts.train.alignment import CLOSING_SECONDS, align_corpus, typical_durations
from tts.train.data import KNOWN, UNALIGNED, Corpus, CorpusWriter, Item, save_alignment

BANDS = len(PHONES.recognizer_symbols)


def ids(*symbols: str) -> tuple[int, ...]:
    return tuple(PHONES.id(symbol) for symbol in symbols)


CAT = ids(" ", "ð", "ə", " ", "k", "ˈæ", "t", ".")


@dataclass
class Clip:
    """frames: of each of CAT's tokens, as spoken; known: the tokens that the manifest lists."""

    frames: list[int] = field(default_factory=lambda: [2, 2, 3, 5, 2, 5, 2, 3])
    known: tuple[int, ...] = CAT
    weight: float = 1.0

    @property
    def mel(self) -> Tensor:
        """[BANDS, T]: the band of what is said is loud, the first band in silence."""
        labels = torch.repeat_interleave(torch.tensor([PHONES.to_recognizer[t] for t in CAT]), torch.tensor(self.frames))
        return nn.functional.one_hot(labels, BANDS).T * 8.0


class Hears(nn.Module):
    """A recognizer that hears what the mel says."""

    accepts = FrameSpec("mel", BANDS, Fraction(50))

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        assert not self.training
        return mel.transpose(1, 2).log_softmax(-1)


def write(folder: Path, clips: list[Clip]) -> Path:
    with CorpusWriter(folder, {"symbols": list(PHONES.symbols), "table": PHONES.identity, "mel": "toy"}) as writer:
        for i, clip in enumerate(clips):
            T = sum(clip.frames)
            writer.add(Item(f"{i}", "ann", "toy", "F", "en-us", T / 50, "", T, 0, clip.known, clip.weight), clip.mel)
    return folder


def test_every_item_is_aligned_where_its_phones_lie_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    clips = [Clip([9, 4, 3, 5, 2, 5, 2, 9]), Clip(), Clip([0, 2, 3, 4, 2, 5, 2, 0])]
    counts = align_corpus(Hears(), write(tmp_path / "c", clips))  # type: ignore[arg-type]
    corpus = Corpus(tmp_path / "c")
    for i, clip in enumerate(clips):
        assert corpus.token_frames(i).tolist() == clip.frames
        assert corpus.tokens(i).tolist() == list(CAT)
        assert -0.1 < corpus.score(i) <= 0
    assert (counts["items"], counts["aligned"]) == (3, 3)
    assert -0.1 < counts["mean score"] <= 0


def test_a_long_silence_between_words_becomes_a_comma(tmp_path: Path) -> None:
    align_corpus(Hears(), write(tmp_path / "c", [Clip([2, 2, 3, 10, 2, 5, 2, 3])]))  # type: ignore[arg-type]
    assert Corpus(tmp_path / "c").tokens(0).tolist() == list(ids(" ", "ð", "ə", ",", "k", "ˈæ", "t", "."))


def test_an_item_without_text_gets_the_phones_that_are_heard(tmp_path: Path) -> None:
    align_corpus(Hears(), write(tmp_path / "c", [Clip(known=())]))  # type: ignore[arg-type]
    corpus = Corpus(tmp_path / "c")
    assert phones_of(corpus.tokens(0).tolist()) == phones_of(CAT)
    assert int(corpus.token_frames(0).sum()) == corpus.item(0).frames
    assert -0.1 < corpus.score(0) <= 0


def test_an_item_too_short_for_its_text_is_not_aligned(tmp_path: Path) -> None:
    clips = [Clip(known=CAT * 9), Clip()]
    counts = align_corpus(Hears(), write(tmp_path / "c", clips))  # type: ignore[arg-type]
    corpus = Corpus(tmp_path / "c")
    assert len(corpus.tokens(0)) == len(corpus.token_frames(0)) == 0
    assert corpus.score(0) == UNALIGNED
    assert counts["aligned"] == 1 and counts["mean score"] > -0.1


def aligned(folder: Path, clips: list[Clip], scores: list[float] | None = None) -> Path:
    """The clips with the alignment that they were made by."""
    write(folder, clips)
    save_alignment(folder, [CAT for _ in clips], [clip.frames for clip in clips], scores or [-0.5] * len(clips))
    return folder


def seconds(folder: Path, symbol: str) -> float:
    return typical_durations(folder, min_score=-1.0).seconds[PHONES.id(symbol)]


def test_a_typical_length_is_the_mean_over_the_corpus_in_seconds(tmp_path: Path) -> None:
    folder = aligned(tmp_path / "c", [Clip()] * 8 + [Clip([2, 4, 3, 5, 2, 5, 2, 3])] * 8)
    assert seconds(folder, "ð") == pytest.approx((2 + 4) / 2 / 50)
    assert seconds(folder, "ˈæ") == pytest.approx(5 / 50)
    assert seconds(folder, " ") == pytest.approx(5 / 50)  # inside; not the opening silence


def test_silence_around_a_clip_is_not_the_sentences(tmp_path: Path) -> None:
    short, long = aligned(tmp_path / "a", [Clip()] * 10), aligned(tmp_path / "b", [Clip([90, 2, 3, 5, 2, 5, 2, 90])] * 10)
    assert typical_durations(short, -1.0) == typical_durations(long, -1.0)
    assert seconds(long, ".") == CLOSING_SECONDS


def test_an_item_counts_by_its_weight(tmp_path: Path) -> None:
    slow = Clip([2, 8, 3, 5, 2, 5, 2, 3], weight=3.0)
    folder = aligned(tmp_path / "c", [Clip()] * 10 + [slow] * 10)
    assert seconds(folder, "ð") == pytest.approx((2 + 3 * 8) / 4 / 50)


def test_badly_aligned_items_and_those_without_text_do_not_count(tmp_path: Path) -> None:
    wrong = [2, 40, 3, 5, 2, 5, 2, 3]
    clips = [Clip()] * 10 + [Clip(wrong)] * 10 + [Clip(wrong, known=())] * 10
    folder = aligned(tmp_path / "c", clips, [-0.5] * 10 + [-1.5] * 10 + [-0.5] * 10)
    assert seconds(folder, "ð") == pytest.approx(2 / 50)


def test_a_rare_phone_takes_the_mean_of_all_phones(tmp_path: Path) -> None:
    folder = aligned(tmp_path / "c", [Clip()] * 10)
    assert seconds(folder, "z") == pytest.approx((2 + 3 + 2 + 5 + 2) / 5 / 50)
    few = aligned(tmp_path / "few", [Clip()] * 9)
    assert seconds(few, "ð") == seconds(few, "ˈæ")


def test_the_rule_knows_which_symbols_are_silent_and_which_are_pauses(tmp_path: Path) -> None:
    config = typical_durations(aligned(tmp_path / "c", [Clip()] * 10), -1.0)
    assert config.table == PHONES.identity and len(config.seconds) == len(PHONES)
    assert {PHONES.symbols[i] for i in config.boundaries} == set(" ,;:—….!?")
    assert set(config.boundaries) - set(config.pauses) == set(ids(" "))
    assert min(config.seconds) >= 0 and config.seconds[0] == 0


def test_what_a_teacher_told_stays_as_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", [Clip(), Clip()])
    told = [9, 1, 1, 1, 1, 1, 1, 9]
    save_alignment(folder, [CAT, CAT], [told, told], [KNOWN, -0.5])
    align_corpus(Hears(), folder)  # type: ignore[arg-type]
    corpus = Corpus(folder)
    assert corpus.token_frames(0).tolist() == told and corpus.score(0) == KNOWN
    assert corpus.token_frames(1).tolist() == Clip().frames
