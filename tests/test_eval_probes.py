"""Probes of codes find what is there to be found: nothing in noise, everything in a copy."""

import itertools
import math

import pytest
import torch

from tts.errors import InputError
from tts.eval.probes import (
    UNKNOWN,
    LanguageProbeConfig,
    PhoneProbeConfig,
    Spoken,
    best_path,
    label,
    language_probe,
    perplexity,
    phone_probe,
    stack,
)

PHONES = PhoneProbeConfig(width=16, steps=60, rows=8, crop=24, lr=2e-2)
CODES = LanguageProbeConfig(width=16, steps=60, rows=8, seconds=2.0, lr=2e-2)
RATE = 10.0  # Hz


def speech(clips: int, seed: int, S: int = 2, phones: int = 5) -> list[torch.Tensor]:
    """Labels [T, S] of clips in which every phone, silence too, lasts three to five frames of S labels."""
    draw = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(clips):
        said = torch.randint(phones, (8,), generator=draw)
        out.append(said.repeat_interleave(torch.randint(3, 6, (8,), generator=draw))[:, None].expand(-1, S))
    return out


def codes(clips: int, T: int, sizes: tuple[int, ...], seed: int) -> list[torch.Tensor]:
    """Independent uniform codes, [K, T] a clip."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.stack([torch.randint(V, (T,), generator=draw) for V in sizes]) for _ in range(clips)]


# ------------------------------------------------------------------------------------------------------ perplexity


def test_codes_used_alike_have_the_perplexity_of_their_number_and_a_single_one_has_one():
    rows = torch.stack([torch.arange(12) % 4, torch.zeros(12, dtype=torch.int64), torch.arange(12) % 2])
    torch.testing.assert_close(perplexity(rows, (4, 4, 19)), torch.tensor([4.0, 1.0, 2.0], dtype=torch.float64))


def test_a_rare_code_raises_perplexity_by_little():
    row = torch.tensor([[0] * 9 + [1]])
    expected = math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert perplexity(row, (2,)).item() == pytest.approx(expected)


def test_perplexity_of_nothing_is_refused():
    with pytest.raises(InputError, match="at least one frame"):
        perplexity(torch.zeros(2, 0, dtype=torch.int64), (4, 4))


# ---------------------------------------------------------------------------------------------------------- phones


def test_stacked_frames_and_labels_keep_their_order_and_what_lacks_is_not_counted():
    mel = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert stack(mel, 2).T.tolist() == [[1, 2, 4, 5], [3, 3, 6, 6]]
    assert label(torch.tensor([7, 8, 9]), 2).tolist() == [[7, 8], [9, UNKNOWN]]
    assert stack(mel, 1).equal(mel)


def test_phones_are_read_from_codes_that_copy_them_and_from_floats_alike():
    train, valid = speech(20, 0), speech(5, 1)
    by_code = phone_probe(*([Spoken(x[:, 0], x) for x in clips] for clips in (train, valid)), 5, 5, PHONES)
    assert by_code.frames < 0.01
    assert by_code.phones < 0.01
    eye = torch.eye(5)
    by_float = phone_probe(*([Spoken(eye[x[:, 0]].T, x) for x in clips] for clips in (train, valid)), 5, 5, PHONES)
    assert by_float.frames < 0.01


def test_no_phone_is_read_from_codes_that_say_nothing():
    train, valid = speech(20, 0), speech(20, 1)
    found = phone_probe(*([Spoken(torch.zeros_like(x[:, 0]), x) for x in clips] for clips in (train, valid)), 3, 5, PHONES)
    assert 0.7 < found.frames < 0.9  # one of five phones is right by chance
    assert found.phones > 0.7


def test_two_phones_of_one_code_are_told_apart_by_place_within_it():
    said = torch.tensor([[1, 2], [3, 4], [0, 0]]).repeat(10, 1)  # codes 0, 1, 2, each of two labels
    clip = Spoken(torch.arange(3).repeat(10), said)
    assert phone_probe([clip], [clip], 3, 5, PHONES).frames == 0


def test_unknown_labels_teach_nothing_and_count_nowhere():
    train = [Spoken(x[:, 0], x) for x in speech(20, 0)]
    unknown = [Spoken(clip.frames, torch.full_like(clip.phones, UNKNOWN)) for clip in train]
    lied = [Spoken(clip.frames, torch.where(clip.frames[:, None] == 3, UNKNOWN, clip.phones)) for clip in train]
    assert phone_probe(lied, lied + unknown, 5, 5, PHONES).frames < 0.01


def test_a_path_is_the_best_of_all_paths():
    draw = torch.Generator().manual_seed(0)
    for T in (0, 1, 4):
        scores, moves = torch.randn(T, 3, generator=draw), torch.randn(3, 3, generator=draw)

        def worth(path, scores=scores, moves=moves):
            steps = sum(float(moves[a, b]) for a, b in itertools.pairwise(path))
            return steps + sum(float(scores[t, label]) for t, label in enumerate(path))

        assert tuple(best_path(scores, moves).tolist()) == max(itertools.product(range(3), repeat=T), key=worth)


# ----------------------------------------------------------------------------------------------------------- codes


def test_independent_uniform_codes_cost_the_nominal_bits():
    sizes = (8, 4)
    found = language_probe(codes(40, 50, sizes, 0), codes(10, 50, sizes, 1), sizes, RATE, CODES)
    assert found.nominal == 50.0
    assert found.bits == pytest.approx((30.0, 20.0), rel=0.03)
    assert found.share == pytest.approx(1, abs=0.03)


def test_a_cycle_of_codes_costs_next_to_nothing():
    clips = [((torch.arange(50) + shift) % 8)[None].expand(2, -1) for shift in range(8)]
    found = language_probe(clips, clips, (8, 8), RATE, CODES)
    assert found.bits[0] < 0.1 * 30  # only the first frame of a clip is not known beforehand
    assert found.bits[1] < 0.02 * 30  # it equals the codebook before it, from the first frame on


def test_a_codebook_is_foretold_by_the_codebooks_before_it_and_never_by_those_after():
    sizes = (4, 4, 4)

    def related(clips):
        return [torch.stack([a, b, (a + b) % 4]) for a, b in (clip.unbind() for clip in clips)]

    train, valid = (related(codes(clips, 50, (4, 4), clips)) for clips in (200, 10))
    found = language_probe(train, valid, sizes, RATE, LanguageProbeConfig(width=16, steps=120, rows=16, seconds=2.0, lr=2e-2))
    assert found.bits[:2] == pytest.approx((20.0, 20.0), rel=0.05)
    assert found.bits[2] < 2


def test_many_small_codebooks_of_unlike_sizes_are_foretold_too():
    sizes = (19,) * 20 + (3,)
    constant = [torch.arange(21)[:, None].expand(-1, 30) % 3] * 2
    assert language_probe(constant, constant, sizes, RATE, CODES).share < 0.02


def test_a_probe_says_the_same_twice_and_leaves_the_generator_of_torch_alone():
    sizes = (8, 4)
    train, valid = codes(4, 20, sizes, 0), codes(2, 20, sizes, 1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = language_probe(train, valid, sizes, RATE, CODES)
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(6)
    assert language_probe(train, valid, sizes, RATE, CODES) == first
    clips = [Spoken(x[0], x[1][:, None]) for x in train]
    assert phone_probe(clips, clips, 8, 4, PHONES) == phone_probe(clips, clips, 8, 4, PHONES)


def test_a_probe_of_nothing_is_refused():
    some, none = codes(1, 5, (4,), 0), codes(1, 0, (4,), 0)
    for train, valid in ((none, some), (some, none), ([], some)):
        with pytest.raises(InputError, match="clips with frames"):
            language_probe(train, valid, (4,), RATE, CODES)
        with pytest.raises(InputError, match="clips with frames"):
            phone_probe([Spoken(x[0], x.T) for x in train], [Spoken(x[0], x.T) for x in valid], 4, 4, PHONES)


def test_a_clip_without_frames_among_others_is_passed_over():
    some, none = codes(3, 20, (4,), 0), codes(1, 0, (4,), 0)
    with_it = language_probe(some, some + none, (4,), RATE, CODES)
    assert with_it == language_probe(some, some, (4,), RATE, CODES)
    spoken = [Spoken(x[0], x.T) for x in some + none]
    assert phone_probe(spoken, spoken, 4, 4, PHONES).frames < 0.01
