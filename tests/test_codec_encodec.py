"""The EnCodec adapter: the same codes and sound as two public implementations, and weights only from a file."""

import sys
from pathlib import Path

import pytest
import torch
from tts.codecs.encodec import EncodecCodec, EncodecConfig, EncodecDecoder

from tts.errors import CheckpointError, FitError, InputError, MissingPackageError, SettingsError
from tts.frames import Frames, Wave
from tts.interfaces import Codec, Vocoder

encodec = pytest.importorskip("encodec", reason="the adapted package: pip install encodec")
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file like the published one, with random weights that make every codebook matter."""
    torch.manual_seed(0)
    state = encodec.EncodecModel.encodec_model_24khz(pretrained=False).state_dict()
    for k in range(32):
        state[f"quantizer.vq.layers.{k}._codebook.embed"].normal_(std=0.1)
    path = tmp_path_factory.mktemp("weights") / "encodec_24khz.th"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def codec(weights) -> EncodecCodec:
    return EncodecCodec(EncodecConfig(weights, bandwidth=3.0))


@pytest.fixture(scope="module")
def decoder(weights) -> EncodecDecoder:
    return EncodecDecoder(EncodecConfig(weights))


def wave(*lengths: int, rate: int = 24_000) -> Wave:
    torch.manual_seed(1)
    return Wave(0.3 * torch.randn(len(lengths), max(lengths)), torch.tensor(lengths), rate)


def public_name(name: str) -> str:
    """Of a weight in package encodec, its name in transformers."""
    name = name.replace(".model.", ".layers.").replace("conv.conv.", "conv.").replace("convtr.convtr.", "conv.")
    name = name.replace("vq.layers", "layers").replace("_codebook", "codebook")
    name = name.replace("weight_g", "parametrizations.weight.original0")
    return name.replace("weight_v", "parametrizations.weight.original1")


@pytest.mark.parity
def test_codes_and_sound_are_those_of_transformers(weights, codec, decoder):
    transformers = pytest.importorskip("transformers", reason="the second oracle: pip install transformers")
    oracle = transformers.EncodecModel(transformers.EncodecConfig()).eval()
    oracle.load_state_dict({public_name(name): x for name, x in torch.load(weights, weights_only=True).items()})
    sound = wave(3000)
    codes = codec.encode(sound)
    with torch.no_grad():
        expected = oracle.encode(sound.samples[:, None], bandwidth=3.0).audio_codes  # [1, B, K, T]
        assert torch.equal(codes.data, expected[0])
        heard = oracle.decode(expected, [None]).audio_values[:, 0]
    made = decoder.decode(codec.embed(codes)).samples
    assert heard.std() > 1e-3
    torch.testing.assert_close(made, heard.clamp(-1, 1), atol=1e-4, rtol=0)


@pytest.mark.parity
def test_codes_and_sound_are_those_of_the_package(weights, codec, decoder):
    model = encodec.EncodecModel.encodec_model_24khz(pretrained=False)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval().set_target_bandwidth(3.0)
    sound = wave(2000)
    codes = codec.encode(sound)
    with torch.no_grad():
        expected = model.encode(sound.samples[:, None])
        assert torch.equal(codes.data, expected[0][0])
        torch.testing.assert_close(decoder.decode(codec.embed(codes)).samples, model.decode(expected)[:, 0].clamp(-1, 1))


def test_its_two_halves_are_a_codec_and_a_vocoder_that_fit(codec, decoder):
    assert isinstance(codec, Codec) and isinstance(decoder, Vocoder)
    assert codec.embeds == decoder.accepts
    assert codec.emits.width == 4 and codec.emits.sizes == (1024,) * 4 and codec.emits.rate == 75


def test_a_row_among_longer_ones_equals_the_row_alone(codec, decoder):
    sound = wave(1700, 500)
    codes = codec.encode(sound)
    assert codes.lengths.tolist() == [6, 2]
    alone = codec.encode(Wave(sound.samples[1:, :500], torch.tensor([500]), 24_000))
    assert torch.equal(codes.data[1:, :, :2], alone.data)
    together, single = decoder.decode(codec.embed(codes)), decoder.decode(codec.embed(alone))
    assert together.lengths.tolist() == [6 * 320, 2 * 320]
    torch.testing.assert_close(together.samples[1:, : 2 * 320], single.samples, atol=1e-6, rtol=0)


def test_no_frames_are_no_samples(decoder):
    nothing = Frames(torch.zeros(2, 128, 0), torch.zeros(2, dtype=torch.int64), decoder.accepts)
    assert decoder.decode(nothing).samples.shape == (2, 0)


def test_some_codebooks_are_the_sum_of_their_vectors(codec):
    codes = codec.encode(wave(900))
    for n in range(1, 5):
        expected = sum(codec.vectors(k)[codes.data[:, k]] for k in range(n)).transpose(1, 2)
        torch.testing.assert_close(codec.embed(codes, n).data, expected)
    assert torch.equal(codec.embed(codes).data, codec.embed(codes, 4).data)


def test_a_frame_hears_at_most_six_to_its_right(codec, decoder):
    latents = codec.embed(codec.encode(wave(320 * 12)))
    left, right = decoder.context
    assert left > 10**9 and right == 6
    changed = Frames(latents.data.clone(), latents.lengths, latents.spec)
    changed.data[:, :, 7:] += 1
    before, after = decoder.decode(latents).samples, decoder.decode(changed).samples
    torch.testing.assert_close(before[:, :320], after[:, :320], atol=0, rtol=0)
    changed.data[:, :, 6:] += 1
    assert not torch.equal(decoder.decode(changed).samples[:, :320], before[:, :320])


def test_weights_that_are_not_given_or_not_these_are_said_to_be_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"get https.*encodec_24khz.*as `weights`"):
        EncodecCodec()
    with pytest.raises(CheckpointError, match=r"missing\.th cannot be read \(No such file"):
        EncodecDecoder(EncodecConfig(tmp_path / "missing.th"))
    broken, other = tmp_path / "broken.th", tmp_path / "other.th"
    broken.write_bytes(b"PK\3\4 but no more")
    torch.save({"a": torch.zeros(1)}, other)
    empty = tmp_path / "empty.th"
    empty.touch()
    text = tmp_path / "text.th"
    text.write_text("a letter")
    for path in (broken, other, empty, text):
        with pytest.raises(CheckpointError, match="does not hold the weights of EnCodec's 24 kHz model"):
            EncodecCodec(EncodecConfig(path))


def test_a_missing_package_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "encodec", None)
    with pytest.raises(MissingPackageError, match="pip install encodec"):
        EncodecCodec()


def test_bad_input_is_refused(codec, decoder):
    with pytest.raises(SettingsError, match=r"1\.5, 3, 6, 12, 24 kbit/s, got 2"):
        EncodecConfig(bandwidth=2.0)
    with pytest.raises(FitError, match="takes 24000 Hz, got 16000"):
        codec.encode(wave(900, rate=16_000))
    with pytest.raises(InputError, match="at least one"):
        codec.encode(Wave(torch.zeros(1, 0), torch.tensor([0]), 24_000))
    codes = codec.encode(wave(900))
    for n in (0, 5):
        with pytest.raises(SettingsError, match=r"n_codebooks must be 1\.\.4"):
            codec.embed(codes, n)
    with pytest.raises(InputError, match=r"codebook 0 must be 0\.\.1023, got 1024"):
        codec.embed(Frames(torch.full_like(codes.data, 1024), codes.lengths, codes.spec))
    with pytest.raises(FitError, match="kind"):
        decoder.decode(codes)
