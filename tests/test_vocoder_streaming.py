"""Decoding a stream: chunks of any sizes, joined, are the sound of all frames at once, edges and interior."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from tts.vocoders.hifigan import HifiGan, HifiGanConfig
from tts.vocoders.istft import Vocos, VocosConfig
from tts.vocoders.streaming import decode_stream

from tts.audio import MelRecipe
from tts.errors import FitError, ShapeError
from tts.frames import Frames, FrameSpec, Wave
from tts.interfaces import Vocoder

# Context and hop as in the defaults, width as small as can be; smaller where Griffin-Lim follows, which is context too.
SMALL = MelRecipe(sample_rate=800, n_fft=32, win_length=32, hop=8, bands=4, high=400.0)
REAL = {
    "vocos": lambda: Vocos(VocosConfig(dim=8, intermediate=8)),
    "vocos-center": lambda: Vocos(VocosConfig(dim=8, intermediate=8, padding="center")),
    "vocos-refined": lambda: Vocos(VocosConfig(mel=SMALL, dim=8, intermediate=8, layers=2, n_fft=32, refine=2)),
    "hifigan": lambda: HifiGan(HifiGanConfig(channels=16)),
}


class Sum:
    """A toy whose every sample is a weighted sum of all frames of its context, and whose edges are heard."""

    sample_rate, hop = 20, 2
    accepts = FrameSpec("latents", 3, Fraction(10), flavour="toy")

    def __init__(self, left: int, right: int) -> None:
        self.context = (left, right)
        self.weight = 1 + torch.rand(self.hop, 3, left + 1 + right, generator=torch.Generator().manual_seed(0)).double()

    def decode(self, frames: Frames) -> Wave:
        B, _, T = frames.data.shape
        padded = F.pad(frames.data, self.context, value=10.0)  # [B, 3, left + T + right]
        samples = F.conv1d(padded, self.weight).transpose(1, 2).reshape(B, -1) if T else frames.data.new_zeros(B, 0)  # [B, N]
        return Wave(samples, frames.lengths * self.hop, self.sample_rate)


def frames(vocoder: Vocoder, data: Tensor) -> Frames:
    return Frames(data, torch.full((len(data),), data.shape[-1]), vocoder.accepts)


def chunks(vocoder: Vocoder, data: Tensor, sizes: list[int]) -> Iterator[Frames]:
    return (frames(vocoder, part) for part in data.split(sizes, dim=-1))


def check(vocoder: Vocoder, data: Tensor, sizes: list[int], expected: Tensor | None = None) -> None:
    """Chunks of these sizes, joined, are the sound of all frames at once; no piece is empty."""
    expected = vocoder.decode(frames(vocoder, data)).samples if expected is None else expected
    waves = list(decode_stream(vocoder, chunks(vocoder, data, sizes)))
    for wave in waves:
        assert wave.samples.shape[1] > 0
        assert wave.lengths.tolist() == [wave.samples.shape[1]] * len(data)
    said = torch.cat([data.new_zeros(len(data), 0), *(wave.samples for wave in waves)], dim=1)
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=0)


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(0, 7), st.integers(0, 7), st.integers(1, 2))
@settings(max_examples=100, deadline=None)
def test_chunks_joined_are_the_sound_of_all_frames_at_once(sizes, left, right, B):
    data = torch.randn(B, 3, sum(sizes), generator=torch.Generator().manual_seed(1)).double()
    if sizes:
        check(Sum(left, right), data, sizes)


def test_a_context_that_is_declared_too_small_is_heard():
    """So that the tests of this file can fail: the toy needs every frame of its context."""
    data = torch.randn(1, 3, 20).double()
    for left, right in [(2, 4), (3, 3)]:
        vocoder = Sum(3, 4)
        expected = vocoder.decode(frames(vocoder, data)).samples
        vocoder.decode = Sum(3, 4).decode
        vocoder.context = (left, right)
        with pytest.raises(AssertionError, match="not close"):
            check(vocoder, data, [5] * 4, expected)


@pytest.fixture(scope="module", params=REAL)
def real(request) -> tuple[Vocoder, Tensor, Tensor]:
    """A vocoder, 80 frames and their sound."""
    torch.manual_seed(0)
    vocoder = REAL[request.param]().eval()
    for layer in vocoder.modules():  # every path is heard, and none saturates
        if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d, nn.Linear)):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
            nn.init.normal_(layer.bias, std=0.1)
    data = torch.randn(2, vocoder.accepts.width, 80)
    samples = vocoder.decode(frames(vocoder, data)).samples
    assert 0.02 < samples.std() < 0.9, samples.std()
    return vocoder, data, samples


@given(cuts=st.lists(st.integers(0, 80), max_size=6))
@settings(max_examples=6, deadline=None, derandomize=True)
def test_real_vocoders_say_in_chunks_what_they_say_at_once(real, cuts):
    vocoder, data, samples = real
    ends = [*sorted(cuts), 80]
    check(vocoder, data, [end - start for start, end in zip([0, *ends], ends, strict=False)], samples)


@pytest.mark.parametrize("sizes", [[1] * 32, [2, 1], [1], [20, 20]])
def test_short_streams_and_single_frames_too(real, sizes):
    vocoder, data, _ = real
    check(vocoder, data[..., : sum(sizes)], sizes)


@pytest.mark.parametrize("sizes", [[], [0], [0, 0]])
def test_an_empty_stream_says_nothing(real, sizes):
    vocoder, data, _ = real
    assert list(decode_stream(vocoder, (frames(vocoder, data[..., :size]) for size in sizes))) == []


def test_sound_is_behind_the_frames_by_the_right_context_alone():
    vocoder, come, said = Sum(4, 3), 0, 0

    def slowly() -> Iterator[Frames]:
        nonlocal come
        for _ in range(20):
            assert said == max(0, come - 3) * 2  # nothing more is taken before all that could be said has been
            come += 1
            yield frames(vocoder, torch.randn(1, 3, 1).double())

    for wave in decode_stream(vocoder, slowly()):
        said += wave.samples.shape[1]
    assert said == 40


def test_two_streams_of_one_vocoder_do_not_mix(real):
    vocoder, data, samples = real
    one, other = (decode_stream(vocoder, chunks(vocoder, rows, [30, 45, 5])) for rows in data.split(1))
    pieces = [(a.samples, b.samples) for a, b in zip(one, other, strict=True)]
    both = torch.cat([torch.cat(pair) for pair in pieces], dim=1)
    torch.testing.assert_close(both, samples, atol=1e-5, rtol=0)


def test_chunks_that_do_not_fit_are_refused():
    vocoder = Sum(1, 1)
    good, other = frames(vocoder, torch.zeros(1, 3, 4).double()), replace(Sum.accepts, flavour="other")
    with pytest.raises(FitError, match="other"):
        list(decode_stream(vocoder, [good, Frames(good.data, good.lengths, other)]))
    with pytest.raises(ShapeError, match=r"one length, 4 frames, got \[4, 3\]"):
        list(decode_stream(vocoder, [Frames(torch.zeros(2, 3, 4), torch.tensor([4, 3]), vocoder.accepts)]))
    with pytest.raises(ShapeError, match="the first, 1, got 2"):
        list(decode_stream(vocoder, [good, frames(vocoder, torch.zeros(2, 3, 4))]))
