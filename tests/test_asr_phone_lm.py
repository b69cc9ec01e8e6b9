"""The phone n-gram: it is a distribution, and a reading that knows it repairs what the posteriors leave open."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from tts.asr.align import phones_of, read
from tts.asr.phone_lm import EDGE, PhoneLm, beam, count_grams, read_with_lm
from tts.errors import CheckpointError, FitError
from tts.text.tokens import PHONES

SIZE = 4  # blank, and three phones
SENTENCES = [[1, 2, 3], [1, 2, 3], [1, 2], [3, 1, 2, 3]]


def test_after_any_history_the_phones_share_one() -> None:
    lm = count_grams(SENTENCES, SIZE, order=4)
    for history in itertools.product(range(SIZE), repeat=3):
        assert sum(math.exp(lm.log_prob(history, phone)) for phone in range(SIZE)) == pytest.approx(1, abs=0.01)


def test_witten_and_bells_numbers_by_hand() -> None:
    lm = count_grams([[1, 2], [1, 2], [1, 3]], SIZE, order=2)
    unigram = {0: 3, 1: 3, 2: 2, 3: 1}  # of 9; 4 kinds
    chance = {phone: (times + 4 / SIZE) / (9 + 4) for phone, times in unigram.items()}
    assert math.exp(lm.log_prob((1,), 2)) == pytest.approx((2 + 2 * chance[2]) / 5, rel=1e-3)
    assert math.exp(lm.log_prob((1,), 1)) == pytest.approx(2 * chance[1] / 5, rel=1e-3)
    assert lm.log_prob((EDGE,), 1) > lm.log_prob((2,), 1)


def test_it_is_the_same_from_a_file_and_refuses_other_symbols(tmp_path: Path) -> None:
    lm = count_grams(SENTENCES, SIZE, order=3)
    lm.save(tmp_path / "lm.safetensors")
    again = PhoneLm.load(tmp_path / "lm.safetensors", PHONES.identity)
    assert all(again.log_prob((a, b), c) == lm.log_prob((a, b), c) for a, b, c in itertools.product(range(SIZE), repeat=3))
    with pytest.raises(FitError, match="other symbols"):
        PhoneLm.load(tmp_path / "lm.safetensors", "another")
    (tmp_path / "broken").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        PhoneLm.load(tmp_path / "broken", PHONES.identity)


def test_a_wide_beam_finds_what_summing_over_every_path_finds() -> None:
    lm, weight, bonus, T = count_grams(SENTENCES, SIZE, order=3), 0.7, 0.3, 4
    for seed in range(5):
        log_probs = (2 * torch.randn(T, SIZE, generator=torch.Generator().manual_seed(seed))).log_softmax(-1).clamp(min=-5.9)
        total: dict[tuple[int, ...], float] = {}
        for path in itertools.product(range(SIZE), repeat=T):
            phones = tuple(p for p, _ in itertools.groupby(path) if p)
            total[phones] = total.get(phones, 0.0) + math.exp(sum(float(log_probs[t, p]) for t, p in enumerate(path)))

        def score(phones: tuple[int, ...], total: dict[tuple[int, ...], float] = total) -> float:
            row = (EDGE, EDGE, *phones, EDGE)
            known = sum(lm.log_prob(row[i - 2 : i], row[i]) for i in range(2, len(row)))
            return math.log(total[phones]) + weight * known + bonus * len(phones)

        assert tuple(beam(log_probs, lm, weight, bonus, width=1000)) == max(total, key=score)


def test_what_was_mumbled_is_read_as_what_usually_follows() -> None:
    names = PHONES.recognizer_symbols
    k, g, ae, t = (names.index(phone) for phone in ("k", "ɡ", "æ", "t"))
    lm = count_grams([[k, ae, t]] * 9 + [[g, t]], len(names))
    logits = torch.zeros(12, len(names))
    logits[:, 0] = 3.0
    logits[2:4, [k, g]] = torch.tensor([7.8, 8.0])  # hardly more ɡ than k
    logits[5:8, ae] = logits[8:10, t] = 9.0
    log_probs = logits.log_softmax(-1)
    assert phones_of(read(log_probs).tokens) == [g, ae, t]
    heard = read_with_lm(log_probs, lm)
    assert phones_of(heard.tokens) == [k, ae, t] and heard.phones == 3
    assert sum(heard.frames) == 12 and heard.frames[:2] == [2, 3]
    assert 0.5 < heard.confidence < read(log_probs).confidence


def test_silence_stays_silence() -> None:
    lm = count_grams([[1, 2]], len(PHONES.recognizer_symbols))
    quiet = torch.zeros(6, len(PHONES.recognizer_symbols))
    quiet[:, 0] = 12.0
    heard = read_with_lm(quiet.log_softmax(-1), lm)
    assert (heard.phones, heard.frames, heard.confidence) == (0, [6], 0.0)
