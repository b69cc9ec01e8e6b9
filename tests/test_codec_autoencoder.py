"""The codec over mels: rows apart, frames near, codes that decode in any number, and a door that refuses what it must."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from tts.codecs.autoencoder import MelCodec, MelCodecConfig
from tts.codecs.quantizers import GroupedFSQConfig, ScalarConfig
from tts.codecs.rvq import RVQConfig

from tts.audio import MelEncoder, MelRecipe
from tts.errors import FitError, InputError, SettingsError
from tts.frames import Frames, Wave, check_fit
from tts.interfaces import Codec
from tts.registry import build

SMALL = MelCodecConfig(
    dim=16,
    hidden=24,
    mel_mean=-1.0,
    mel_std=2.0,
    encoder_layers=(1, 1),
    decoder_layers=(1, 1),
    rvq=RVQConfig(dim=12, codebooks=2, size=16, code_dim=4, warmup=2),
    gfsq=GroupedFSQConfig(groups=2),
    scalar=ScalarConfig(dim=3),
)
VARIANTS = {
    "rvq": SMALL,
    "rvq at 50 Hz": replace(SMALL, stride=1),
    "averaged rvq, stride 3": replace(SMALL, stride=3, rvq=replace(SMALL.rvq, codes="ema")),
    "gfsq": replace(SMALL, quantizer="gfsq"),
    "fsq": replace(SMALL, quantizer="fsq"),
    "scalar": replace(SMALL, quantizer="scalar"),
}


def made(name: str = "rvq") -> MelCodec:
    """With every weight large enough to matter."""
    torch.manual_seed(0)
    codec = MelCodec(VARIANTS[name]).eval()
    with torch.no_grad():
        for name, p in codec.named_parameters():
            if name.endswith("scale"):
                p.fill_(1.0)
            elif p.dim() == 1 and "norm" not in name:
                p.normal_(std=0.2)
    return codec


def mel(*lengths: int, seed: int = 0) -> Frames:
    data = torch.randn(len(lengths), 80, max(lengths), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Frames(data, torch.tensor(lengths), MelRecipe().spec)


def drawn(codec: MelCodec, T: int) -> Frames:
    sizes = torch.tensor(codec.emits.sizes)[:, None]
    data = (torch.rand(1, len(sizes), T, generator=torch.Generator().manual_seed(0)) * sizes).long()
    return Frames(data, torch.tensor([T]), codec.emits)


@pytest.mark.parametrize("name", VARIANTS)
def test_lengths_follow_the_stride(name):
    codec = made(name)
    stride = codec.stride
    assert isinstance(codec, Codec)
    for T in (1, 2, 5, 12):
        codes = codec.encode_frames(mel(T))
        assert codes.lengths.tolist() == [math.ceil(T / stride)] == [codes.data.shape[-1]]
        assert codes.spec.rate == Fraction(50, stride)
        back = codec.embed(codes)
        assert back.lengths.tolist() == [stride * math.ceil(T / stride)] == [back.data.shape[-1]]
        check_fit("the codec's mel", back.spec, "a vocoder of the same mel", MelRecipe().spec)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_padded_row_equals_the_row_alone(name):
    codec = made(name)
    rows = mel(11, 4, 7)
    rows.data[1, :, 4:] = 1e3
    together = codec.encode_frames(rows)
    restored = codec.embed(together)
    for b, T in enumerate((11, 4, 7)):
        alone = codec.encode_frames(Frames(rows.data[b : b + 1, :, :T], torch.tensor([T]), rows.spec))
        n = int(alone.lengths)
        assert torch.equal(together.data[b, :, :n], alone.data[0])
        assert (together.data[b, :, n:] == 0).all()
        torch.testing.assert_close(restored.data[b, :, : codec.stride * n], codec.embed(alone).data[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_training_hears_what_encoding_and_embedding_make(name):
    codec = made(name)
    frames = mel(11, 6)
    out, quantized = codec(frames.data, frames.lengths)
    codes = codec.encode_frames(frames)
    for b, T in enumerate((11, 6)):
        n = int(codes.lengths[b])
        assert torch.equal(quantized.codes[b, :, :n], codes.data[b, :, :n])
        torch.testing.assert_close(out[b, :, :T], codec.embed(codes).data[b, :, :T], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["rvq", "rvq at 50 Hz", "averaged rvq, stride 3"])
def test_a_code_changes_the_mel_within_its_context_and_up_to_its_edge(name):
    codec = made(name)
    T, t = 31, 15
    codes = drawn(codec, T)
    changed = codes.data.clone()
    changed[:, :, t] = (changed[:, :, t] + 1) % torch.tensor(codec.emits.sizes)
    moved = (codec.embed(Frames(changed, codes.lengths, codes.spec)).data - codec.embed(codes).data).abs().amax((0, 1)) > 0
    left, right = codec.context
    own = range(t * codec.stride, (t + 1) * codec.stride)
    touched = moved.nonzero()[:, 0]
    assert int(touched.min()) >= own[0] - right
    assert int(touched.max()) <= own[-1] + left
    # whole codes are declared, so up to one of them may be spare
    assert int(touched.min()) - (own[0] - right) < codec.stride
    assert (own[-1] + left) - int(touched.max()) < codec.stride


def test_chunks_with_context_join_to_the_offline_mel():
    codec = made()
    codes = drawn(codec, 40)
    whole = codec.embed(codes).data
    stride, (left, right) = codec.stride, codec.context
    before, after = left // stride, right // stride
    for start in range(0, 40, 8):
        low, high = max(0, start - before), min(40, start + 8 + after)
        chunk = codec.embed(Frames(codes.data[..., low:high], torch.tensor([high - low]), codes.spec)).data
        joined = chunk[..., (start - low) * stride :][..., : 8 * stride]
        torch.testing.assert_close(joined, whole[..., start * stride : (start + 8) * stride], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_any_number_of_codebooks_decodes(name):
    codec = made(name)
    codes = codec.encode_frames(mel(6))
    K = codec.emits.width
    mels = [codec.embed(codes, n).data for n in range(1, K + 1)]
    assert torch.equal(mels[-1], codec.embed(codes).data)
    assert all(torch.isfinite(m).all() for m in mels)
    for n in range(1, K + 1):
        total = sum(codec.vectors(k)[codes.data[:, k]] for k in range(n))
        torch.testing.assert_close(codec.restore(total.transpose(1, 2), codes.lengths), mels[n - 1], atol=1e-4, rtol=1e-4)


def test_a_recognition_loss_teaches_the_encoder_and_codebook_0_and_nothing_else():
    codec = made().train()
    frames = mel(24, 24)
    for _ in range(3):  # beyond the warmup of the books
        _, quantized = codec(frames.data, frames.lengths)
    codec.zero_grad()
    quantized.first.square().sum().backward()
    reached = {name.split(".")[0] for name, p in codec.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {"take", "fine_encoder", "down", "encoder", "encoder_norm", "enter", "quantizer"}
    assert {name for name, p in codec.quantizer.named_parameters() if p.grad is not None} == {
        f"books.0.{name}" for name in ("codes", "enter.weight", "enter.bias", "leave.weight", "leave.bias")
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_a_few_steps_of_training_lower_the_error(name):
    torch.manual_seed(0)
    codec = MelCodec(VARIANTS[name])
    frames = mel(12, 12, 9)
    frames.data[:] = frames.data[..., :1] + 0.1 * frames.data  # a colour for each row
    optimizer = torch.optim.Adam(codec.parameters(), lr=1e-2)
    errors = []
    for _ in range(15):
        out, quantized = codec(frames.data, frames.lengths, torch.full((3,), codec.emits.width))
        error = (out - frames.data)[:2].abs().mean()
        optimizer.zero_grad()
        (error + sum(quantized.losses.values())).backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert sum(errors[-3:]) < 0.7 * sum(errors[:3])


def test_a_wave_is_coded_as_its_mel():
    codec = made()
    wave = Wave(torch.randn(2, 3333, generator=torch.Generator().manual_seed(0)) / 4, torch.tensor([3333, 1600]), 16_000)
    codes = codec.encode(wave)
    assert codes.lengths.tolist() == [6, 3]
    assert torch.equal(codes.data, codec.encode_frames(MelEncoder().encode(wave)).data)


def test_under_autocast_the_mel_stays_float32():
    codec = made().train()
    frames = mel(10)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            out, quantized = codec(frames.data, frames.lengths)
        (out.sum() + sum(quantized.losses.values())).backward()
        assert out.dtype == torch.float32
    assert quantized.vectors.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in codec.parameters() if p.grad is not None)


@pytest.mark.parametrize("n", [0, -1, 9, 1.5, "four", True])
def test_a_number_of_codebooks_out_of_range_lists_the_legal_ones(n):
    codec = MelCodec(replace(SMALL, rvq=replace(SMALL.rvq, codebooks=8, warmup=8)))
    codes = drawn(codec, 3)
    with pytest.raises(SettingsError, match=rf"n_codebooks must be 1\.\.8, got {n!r}"):
        codec.embed(codes, n)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rvq": replace(SMALL.rvq, codebooks=1)}, "width: 1 against 2"),
        ({"rvq": replace(SMALL.rvq, size=8)}, "sizes"),
        ({"stride": 1}, "rate: 50 against 25"),
        ({"mel": MelRecipe(floor=1e-4)}, "flavour"),
    ],
)
def test_codes_of_another_codec_are_refused_by_what_differs(changes, word):
    other = MelCodec(replace(SMALL, **changes))
    with pytest.raises(FitError, match=word):
        made().embed(drawn(other, 3))


def test_what_cannot_be_coded_is_refused():
    codec = made()
    codes = drawn(codec, 3)
    for wrong in (16, -1):
        data = codes.data.clone()
        data[0, 1, 2] = wrong
        with pytest.raises(InputError, match=rf"codebook 1 must be 0\.\.15, got {wrong}"):
            codec.embed(Frames(data, codes.lengths, codes.spec))
        assert codec.embed(Frames(data, torch.tensor([2]), codes.spec)).lengths.tolist() == [4]  # beyond the end it is nothing
    with pytest.raises(InputError, match=r"whole numbers, got torch\.float32"):
        codec.embed(Frames(codes.data.float(), codes.lengths, codes.spec))
    empty = torch.tensor([0])
    with pytest.raises(InputError, match="at least one"):
        codec.embed(Frames(codes.data[..., :0], empty, codes.spec))
    with pytest.raises(InputError, match="at least one"):
        codec.encode_frames(Frames(torch.zeros(1, 80, 0), empty, codec.accepts))
    with pytest.raises(InputError, match="at least one"):
        codec.encode(Wave(torch.zeros(1, 0), empty, 16_000))
    with pytest.raises(FitError, match="24000 Hz"):
        codec.encode(Wave.of(torch.zeros(2400), 24_000))
    with pytest.raises(FitError, match="flavour"):
        codec.encode_frames(Frames(torch.zeros(1, 80, 3), torch.tensor([3]), MelRecipe(floor=1e-4).spec))


def test_a_config_is_made_from_plain_values_and_mistakes_are_named():
    codec = build("codec", "mel", {"dim": 16, "hidden": 16, "quantizer": "gfsq", "gfsq": {"groups": 4}})
    assert codec.emits.sizes == (1000,) * 4
    with pytest.raises(SettingsError, match="rvq, gfsq, fsq, scalar, got 'vq'"):
        MelCodecConfig(quantizer="vq")
    with pytest.raises(SettingsError, match="stride"):
        MelCodecConfig(stride=0)


def test_the_default_codec_is_two_kilobits_and_small():
    codec = MelCodec()
    assert codec.emits.rate * len(codec.emits.sizes) * 10 == 2000
    assert set(codec.emits.sizes) == {1024}
    assert 4e6 < sum(p.numel() for p in codec.parameters()) < 5.5e6
