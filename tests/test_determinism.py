"""One seed gives one output: alone, in a batch, in another order, from several threads, bit for bit."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import RATE, speech

from tts import Audio, Request, Synthesizer
from tts.backends.flow.config import FlowConfig
from tts.backends.flow.model import FlowBackend
from tts.frames import Plan, Tokens, Utterance

BACKENDS = {"flow": {"steps": 2}, "ar": {"top_k": 8}, "masked": {"steps": [2, 1]}}  # and settings
TEXTS = ("One.", "Two and three.", "Now four. And five!", "A somewhat longer sentence than the others.")


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """Eight requests: texts of several lengths, two voices, three backends, seeds of their own."""
    voices, backends = [None, (speech(1.5, hz=180.0), RATE)], [*BACKENDS]
    chosen = [backends[i % 3] for i in range(8)]
    return [
        Request(TEXTS[i % 4], voices[i // 4], backend=name, seed=i, settings=BACKENDS[name]) for i, name in enumerate(chosen)
    ]


@pytest.fixture(scope="module")
def alone(tiny, requests) -> list[np.ndarray]:
    return [samples(tiny.speak(request)) for request in requests]


def samples(audio) -> np.ndarray:
    assert isinstance(audio, Audio)
    return audio.samples


def equal(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))


def test_a_batch_of_eight_says_what_each_says_alone(tiny, requests, alone):
    assert equal([samples(audio) for audio in tiny.batch(requests)], alone)


def test_another_order_says_the_same(tiny, requests, alone):
    assert equal([samples(audio) for audio in tiny.batch(requests[::-1])][::-1], alone)


def test_another_synthesizer_says_the_same(tiny_folder, requests, alone):
    assert equal([samples(Synthesizer.from_pretrained(tiny_folder).speak(requests[5]))], alone[5:6])


@pytest.mark.parametrize("intra_op", [1, 2])
def test_two_threads_at_once_say_what_one_says(tiny, requests, alone, intra_op):
    """The threads start after torch was told how many cores to use, which a new thread has to learn."""
    before = torch.get_num_threads()
    torch.set_num_threads(intra_op)
    said: dict[int, list[np.ndarray]] = {}

    def speak(thread: int) -> None:
        said[thread] = [samples(audio) for audio in tiny.batch(requests[thread::2])]

    try:
        expected = alone if intra_op == before else [samples(tiny.speak(request)) for request in requests]
        threads = [threading.Thread(target=speak, args=(thread,)) for thread in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        torch.set_num_threads(before)
    assert equal(said[0], expected[0::2]) and equal(said[1], expected[1::2])


def test_matrices_that_two_cores_share_do_not_care_which_thread_asks():
    """At 16 channels torch never splits an operation; here it does."""
    backend = FlowBackend(FlowConfig(20, "t", dim=128, depth=1, heads=2, text_dim=32, text_layers=1, zero_init=False)).eval()
    plan = Plan(torch.tensor([6.0], dtype=torch.float64))
    utterance = Utterance(Tokens.of([[1, 2, 3]], "t"), torch.tensor([5]), plan=plan)
    made: list[torch.Tensor] = []

    def make() -> None:
        made.append(backend.generate(utterance, {"steps": 1}).data)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        threads = [threading.Thread(target=make) for _ in range(3)]
        for thread in threads:
            thread.start()
        make()
        for thread in threads:
            thread.join()
    finally:
        torch.set_num_threads(before)
    assert len(made) == 4 and all(torch.equal(made[0], other) for other in made)


def test_another_seed_says_it_otherwise(tiny, requests, alone):
    for n in (0, 2):  # one of each backend
        assert not equal([samples(tiny.speak(replace(requests[n], seed=99)))], alone[n : n + 1])


def test_the_generators_of_torch_and_numpy_are_neither_used_nor_moved(tiny, requests, alone):
    torch.manual_seed(5)
    np.random.seed(5)
    state = torch.get_rng_state()
    assert equal([samples(tiny.speak(requests[0]))], alone[:1])
    assert torch.equal(torch.get_rng_state(), state)
