"""Several requests side by side: the same samples as one by one, full stacks, each one's own errors, and honest times."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import RATE, speech

from tts import Request, Synthesizer
from tts.frames import Frames, Utterance
from tts.result import Audio, Failure
from tts.together import Company, apart, side_by_side, stacked

TEXTS = ("One.", "Two and three.", "Four. Five and six, seven.", "Eight nine.", "Ten eleven twelve.")
FAST = {"flow": {"steps": 2}, "masked": {"steps": [2, 1]}, "ar": {}, "mixed": {"lead_seconds": 0.2}}


def requests(backend, **options):
    """Of unequal texts, seeds and prompts."""
    voices = [None, (speech(2.0), RATE), (speech(3.1, hz=190.0), RATE), None, (speech(2.6, hz=230.0), RATE)]
    rows = enumerate(zip(TEXTS, voices, strict=True))
    return [Request(text, voice, None, backend, seed, settings=FAST[backend], **options) for seed, (text, voice) in rows]


@pytest.fixture
def utterances(tiny, monkeypatch):
    """What the flow backend is asked for by `requests`, one row each."""
    seen, backend = [], tiny.parts.backends["flow"]
    generate = backend.generate

    def asked(utterance, settings):
        seen.append(utterance)
        return generate(utterance, settings)

    monkeypatch.setattr(backend, "generate", asked)
    list(tiny.batch(requests("flow", check=False)))
    monkeypatch.undo()
    return seen


@pytest.mark.parametrize("backend", FAST)
def test_each_says_what_it_says_alone_bit_for_bit(tiny, backend):
    tiny = tiny.trying(1, rerank=True)
    company, asked = tiny.together(), requests(backend)
    for alone, beside in zip(tiny.batch(asked), company.batch(asked, together=True), strict=True):
        assert np.array_equal(alone.samples, beside.samples)
        assert replace(alone.report, spent_seconds=0, stages={}, real_time_factor=0) == replace(
            beside.report, spent_seconds=0, stages={}, real_time_factor=0
        )
        assert beside.report.tries == 2 * len(beside.report.sentences)
    assert company.company.largest > 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("backend", ["flow", "masked"])
def test_on_a_gpu_each_says_closely_what_it_says_alone(tiny_folder, backend):
    gpu = Synthesizer.from_pretrained(tiny_folder, "cuda")
    asked = requests(backend) * 4
    for alone, beside in zip(gpu.batch(asked, together=False), gpu.batch(asked), strict=True):
        assert alone.samples.shape == beside.samples.shape and np.abs(alone.samples - beside.samples).max() < 1e-3


def test_whoever_cannot_be_spoken_fails_alone(tiny):
    asked = requests("masked")
    bad = [replace(asked[0], settings={"steps": 500}), replace(asked[1], settings={"steps": 500}), Request("")]
    answers = list(tiny.batch([bad[0], asked[2], bad[1], asked[3], bad[2]], together=True))
    assert [type(answer) for answer in answers] == [Failure, Audio, Failure, Audio, Failure]
    for answer, request in zip(answers[:3:2], bad, strict=False):
        with pytest.raises(type(answer.error)) as alone:
            tiny.speak(request)
        assert str(alone.value) == str(answer.error) and answer.request is request


def test_shares_of_the_time_add_up_to_no_more_than_has_passed(tiny):
    begun = time.perf_counter()
    reports = [audio.report for audio in tiny.batch(requests("flow") * 3, together=True)]
    passed = time.perf_counter() - begun
    shared = sum(report.stages[stage] for report in reports for stage in ("backend", "vocoder"))
    assert 0 < shared < passed
    assert all(sum(report.stages.values()) <= report.spent_seconds + 1e-6 for report in reports)


def test_rows_become_a_stack_and_rows_again(tiny, utterances):
    whole = stacked(utterances)
    assert isinstance(whole, Utterance) and len(whole.seeds) == len(utterances) > 5
    backend = tiny.parts.backends["flow"]
    for row, utterance in zip(apart(backend.generate(whole, None)), utterances, strict=True):
        alone = backend.generate(utterance, None)
        assert torch.equal(row.data, alone.data) and torch.equal(row.lengths, alone.lengths)


def test_sound_and_check_of_padded_rows_are_those_of_each_alone(tiny, utterances):
    """As on a GPU, where they are not done row after row."""
    parts, company = tiny.parts, Company(patience=5.0)
    backend = parts.backends["flow"]
    mels = [backend.generate(utterance, None) for utterance in utterances]
    everybody = threading.Barrier(len(mels))
    for part in (parts.vocoder.decode, parts.recognizer.posteriors):
        meet = company._framed("part", part, rows=False)

        def ask(mel, meet=meet):
            everybody.wait()
            return meet(mel)

        beside = list(side_by_side(ask, mels, company, threads=len(mels)))
        for row, mel in zip(beside, mels, strict=True):
            alone = part(mel)
            one, other = (x.data if isinstance(x, Frames) else x.samples for x in (row, alone))
            assert torch.allclose(one, other, atol=1e-4) and torch.equal(row.lengths, alone.lengths)
    assert company.largest > 1


def test_a_stack_holds_like_lengths_within_its_bound_and_waits_for_those_who_come():
    company, stacks = Company(frames=40, patience=30.0), []

    def act(values):
        stacks.append(sorted(values))
        return [-value for value in values]

    def ask(size):
        everybody.wait()
        return company._meet(("part",), act, size, size)

    sizes = [9, 8, 15, 10, 100, 14]
    everybody = threading.Barrier(len(sizes))
    assert list(side_by_side(ask, sizes, company, threads=len(sizes))) == [-size for size in sizes]
    assert len(stacks) < len(sizes) and company.largest >= 2
    assert sorted(size for stack in stacks for size in stack) == sorted(sizes), "each once"
    for stack in stacks:
        assert len(stack) == 1 or max(stack) * len(stack) <= 40
        assert max(stack).bit_length() == min(stack).bit_length()


def test_who_is_alone_waits_for_nobody_and_who_is_busy_elsewhere_keeps_nobody():
    company = Company(patience=0.05)

    def ask(value):
        return company._meet(("part",), lambda values: values, value, 1)

    begun = time.perf_counter()
    with company.seat():
        assert ask("a") == "a"
    assert ask("b") == "b"
    released = threading.Event()

    def busy():
        with company.seat():
            released.wait(30)

    other = threading.Thread(target=busy)
    other.start()
    with company.seat():
        assert ask("c") == "c"
    released.set()
    other.join()
    assert time.perf_counter() - begun < 25


def test_a_fault_reaches_everybody_who_asked_and_the_next_are_served():
    company, calls = Company(patience=5.0), []

    def act(values):
        calls.append(len(values))
        if "bad" in values:
            raise KeyError("a fault of ours")
        return values

    def ask(value):
        try:
            return company._meet(("part",), act, value, 1)
        except KeyError as error:
            return error

    answers = list(side_by_side(ask, ["a", "bad", "b"], company, threads=3))
    assert isinstance(answers[1], KeyError) and company._meet(("part",), act, "c", 1) == "c"


def test_a_stack_for_which_there_is_no_memory_is_made_one_by_one():
    company, calls, everybody = Company(patience=30.0), [], threading.Barrier(3)

    def act(values):
        calls.append(len(values))
        if len(values) > 1:
            raise torch.OutOfMemoryError("too many")
        return values

    def ask(value):
        everybody.wait()
        return company._meet(("part",), act, value, 1)

    assert list(side_by_side(ask, ["a", "b", "c"], company, threads=3)) == ["a", "b", "c"]
    assert max(calls) > 1 and calls.count(1) >= max(calls)


def test_a_batch_that_is_left_early_ends(tiny):
    answers = tiny.batch(iter(requests("flow") * 20), together=True)
    first = next(answers)
    answers.close()
    assert isinstance(first, Audio) and not [t for t in threading.enumerate() if t.name.startswith("mynah-together")]
