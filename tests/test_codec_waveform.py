"""The codec over waveforms: exact lengths, padding that is not heard, an honest context, and codes that add up."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from tts.codecs.choice import QUANTIZERS, make_quantizer, quantizer_dim
from tts.codecs.quantizers import FSQConfig, GroupedFSQConfig, ScalarConfig
from tts.codecs.rvq import RVQConfig
from tts.codecs.waveform import WaveCodec, WaveCodecConfig, WaveDecoder

from tts.errors import FitError, InputError, SettingsError
from tts.frames import Frames, Wave
from tts.interfaces import Codec, Vocoder

HOP = 30
TINY = WaveCodecConfig(
    sample_rate=600,
    strides=(2, 3, 5),
    channels=4,
    decoder_channels=4,
    units=1,
    rvq=RVQConfig(dim=16, codebooks=2, size=8, code_dim=4, warmup=2, dropout=0.0),
    gfsq=GroupedFSQConfig(levels=(3, 2), groups=2),
    fsq=FSQConfig(levels=(3, 2)),
    scalar=ScalarConfig(steps=2, dim=3),
)
KINDS = [replace(TINY, quantizer=name) for name in QUANTIZERS] + [replace(TINY, activation="snake")]


def tiny(config: WaveCodecConfig = TINY) -> tuple[WaveCodec, WaveDecoder]:
    """Both halves with weights large enough that every path is heard."""
    torch.manual_seed(0)
    codec, decoder = WaveCodec(config).eval(), WaveDecoder(config).eval()
    for half in (codec, decoder):
        for parameter in half.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return codec, decoder


def wave(*lengths: int) -> Wave:
    torch.manual_seed(1)
    return Wave(torch.randn(len(lengths), max(lengths)), torch.tensor(lengths), 600)


@pytest.mark.parametrize("config", KINDS, ids=lambda c: f"{c.quantizer} {c.activation}")
def test_its_halves_are_a_codec_and_a_vocoder_that_fit(config):
    codec, decoder = tiny(config)
    assert isinstance(codec, Codec) and isinstance(decoder, Vocoder)
    assert codec.embeds == decoder.accepts
    sizes = make_quantizer(config).sizes
    assert (codec.emits.width, codec.emits.sizes, codec.emits.rate) == (len(sizes), sizes, Fraction(20))
    assert quantizer_dim(config) == codec.quantizer.dim == decoder.accepts.width
    codes = codec.encode(wave(95))
    assert codes.data.shape == (1, len(sizes), 4) and (codes.data >= 0).all()
    assert (codes.data < torch.tensor(sizes)[:, None]).all()
    assert len(codes.data.unique()) > 1
    assert decoder.decode(codec.embed(codes)).samples.shape == (1, 4 * HOP)


@pytest.mark.parametrize("config", [TINY, replace(TINY, activation="snake")])
def test_a_row_among_longer_ones_equals_the_row_alone(config):
    codec, decoder = tiny(config)
    sound = wave(200, 61, 1)
    together = codec.encode(sound)
    heard = decoder.decode(codec.embed(together))
    assert together.lengths.tolist() == [7, 3, 1] and heard.lengths.tolist() == [210, 90, 30]
    for b, (N, T) in enumerate(zip((200, 61, 1), (7, 3, 1), strict=True)):
        alone = codec.encode(Wave(sound.samples[b : b + 1, :N], torch.tensor([N]), 600))
        assert torch.equal(together.data[b : b + 1, :, :T], alone.data)
        made = decoder.decode(codec.embed(alone)).samples[0]
        torch.testing.assert_close(heard.samples[b, : T * HOP], made, atol=1e-5, rtol=5e-4)
        assert not heard.samples[b, T * HOP :].any()


def test_a_row_in_training_equals_the_row_alone():
    codec, decoder = tiny()
    sound = wave(200, 61)
    together = codec(sound.samples, sound.lengths)
    alone = codec(sound.samples[1:, :61])
    assert torch.equal(together.codes[1:, :, :3], alone.codes)
    torch.testing.assert_close(together.vectors[1:, :, :3], alone.vectors, atol=1e-5, rtol=5e-4)
    torch.testing.assert_close(together.first[1:, :, :3], alone.first, atol=1e-5, rtol=5e-4)
    latents = codec.embed(Frames(alone.codes, torch.tensor([3]), codec.emits)).data
    torch.testing.assert_close(alone.vectors, latents, atol=1e-5, rtol=5e-4)
    heard = decoder(together.vectors, torch.tensor([7, 3]))
    torch.testing.assert_close(heard[1:, :90], decoder(alone.vectors), atol=1e-5, rtol=5e-4)


def test_what_fills_up_a_row_is_not_heard():
    codec, decoder = tiny()
    sound = wave(100, 61)
    codes = codec.encode(sound)
    sound.samples[1, 61:] = 7.0
    assert torch.equal(codec.encode(sound).data, codes.data)
    latents = codec.embed(codes)
    filled = latents.data.clone()
    filled[1, :, 3:] = 7.0
    again = decoder.decode(Frames(filled, latents.lengths, latents.spec))
    assert torch.equal(again.samples, decoder.decode(latents).samples)


@pytest.mark.parametrize("strides", [(2, 3, 5), (4, 2), (5,)])
@pytest.mark.parametrize("units", [0, 2])
def test_the_context_of_a_frame_is_exactly_the_declared_one(strides, units):
    config = replace(TINY, strides=strides, units=units, dilations=(1, 2))
    _, decoder = tiny(config)
    T = 61
    latents = torch.zeros(1, decoder.accepts.width, T, requires_grad=True)
    frame = decoder(latents)[:, 30 * config.hop : 31 * config.hop]
    (gradient,) = torch.autograd.grad(frame.square().sum(), latents)
    seen = gradient.abs().sum((0, 1)).nonzero()[:, 0]
    assert (30 - int(seen.min()), int(seen.max()) - 30) == decoder.context


def test_chunks_decoded_with_their_context_equal_the_whole():
    _, decoder = tiny()
    left, right = decoder.context
    T = 40
    latents = Frames(torch.randn(1, 16, T), torch.tensor([T]), decoder.accepts)
    whole = decoder.decode(latents).samples
    for start in range(0, T, 7):
        first, last = max(0, start - left), min(T, start + 7 + right)
        part = decoder.decode(Frames(latents.data[:, :, first:last], torch.tensor([last - first]), latents.spec)).samples
        end = min(start + 7, T)
        chunk = part[:, (start - first) * HOP : (end - first) * HOP]
        torch.testing.assert_close(chunk, whole[:, start * HOP : end * HOP], atol=1e-5, rtol=0)


def test_some_codebooks_are_the_sum_of_their_vectors():
    codec, _ = tiny()
    codes = codec.encode(wave(100))
    for n in (1, 2):
        expected = sum(codec.vectors(k)[codes.data[:, k]] for k in range(n)).transpose(1, 2)
        torch.testing.assert_close(codec.embed(codes, n).data, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(codec.embed(codes).data, codec.embed(codes, 2).data)


def test_every_weight_of_both_halves_learns():
    codec, decoder = tiny()
    codec.train()
    for _ in range(2):  # the warm-up, in which the books are started
        codec(wave(300, 250).samples)
    quantized = codec(wave(300, 250).samples, n_codebooks=torch.tensor([2, 1]))
    loss = decoder(quantized.vectors).square().sum() + sum(quantized.losses.values())
    loss.backward()
    for half in (codec, decoder):
        for name, parameter in half.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_no_frames_are_no_samples():
    _, decoder = tiny()
    assert decoder.decode(Frames(torch.zeros(2, 16, 0), torch.zeros(2, dtype=torch.int64), decoder.accepts)).samples.shape == (
        2,
        0,
    )


def test_bad_input_is_refused():
    codec, decoder = tiny()
    with pytest.raises(FitError, match="takes 600 Hz, got 16000"):
        codec.encode(Wave(torch.zeros(1, 9), torch.tensor([9]), 16_000))
    with pytest.raises(InputError, match="at least one"):
        codec.encode(Wave(torch.zeros(1, 0), torch.tensor([0]), 600))
    codes = codec.encode(wave(100))
    for n in (0, 3, -1):
        with pytest.raises(SettingsError, match=rf"n_codebooks must be 1\.\.2, got {n}"):
            codec.embed(codes, n)
    for spec in (replace(codec.emits, rate=Fraction(25)), replace(codec.emits, sizes=(9, 9))):
        with pytest.raises(FitError, match="this stream of codes does not fit the codec"):
            codec.embed(Frames(codes.data, codes.lengths, spec))
    with pytest.raises(FitError, match="width: 3 against 2"):
        codec.embed(Frames(torch.zeros(1, 3, 2, dtype=torch.int64), torch.tensor([2]), replace(codec.emits, width=3)))
    for code in (8, -1):
        with pytest.raises(InputError, match=rf"codebook 0 must be 0\.\.7, got {code}"):
            codec.embed(Frames(torch.full_like(codes.data, code), codes.lengths, codes.spec))
    with pytest.raises(FitError, match="fit the vocoder"):
        decoder.decode(codes)


@pytest.mark.parametrize(
    "wrong", [{"activation": "relu"}, {"strides": ()}, {"strides": (2, 1)}, {"kernel": 4}, {"quantizer": "vq"}]
)
def test_an_impossible_config_is_refused(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        WaveCodecConfig(**wrong)


def test_the_default_makes_fifty_frames_of_sixteen_kilohertz():
    config = WaveCodecConfig()
    assert (config.hop, config.latents.rate) == (320, 50)
