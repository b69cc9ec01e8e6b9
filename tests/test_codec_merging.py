"""Codec merging: a group of frames shares a code, the other books code what that leaves, and rows do not disturb each other."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tts.codecs.autoencoder import MelCodec, MelCodecConfig
from tts.codecs.merging import encode_merged
from tts.codecs.rvq import ResidualVQ, RVQConfig

from tts.audio import MelRecipe
from tts.errors import SettingsError
from tts.frames import Frames


def quantizer(codes: str = "factorised") -> ResidualVQ:
    torch.manual_seed(0)
    return ResidualVQ(RVQConfig(dim=6, codebooks=3, size=16, code_dim=4, codes=codes, warmup=3)).eval()


@given(st.integers(1, 3), st.integers(0, 9), st.lists(st.integers(1, 4), max_size=3))
@settings(max_examples=40, deadline=None)
def test_codes_are_equal_within_groups_and_residuals_are_coded_frame_by_frame(B, T, merge):
    rvq = quantizer()
    z = torch.randn(B, 6, T, generator=torch.Generator().manual_seed(T))
    codes = encode_merged(rvq, z, merge)
    assert codes.shape == (B, 3, T)
    left = z.transpose(1, 2)
    for k, m in enumerate([*merge, *[1] * (3 - len(merge))]):
        for start in range(0, T, m):  # the slow definition
            group = left[:, start : start + m].mean(1, keepdim=True)
            assert torch.equal(
                codes[:, k, start : start + m], rvq.books[k].nearest(rvq.books[k].down(group)).expand(-1, min(m, T - start))
            )
        left = left - rvq.vectors(k)[codes[:, k]]


@pytest.mark.parametrize("kind", ["factorised", "ema"])
def test_groups_of_one_frame_are_no_merging(kind):
    rvq = quantizer(kind)
    z = torch.randn(2, 6, 7)
    assert torch.equal(encode_merged(rvq, z, (1, 1, 1)), rvq.encode(z))
    assert torch.equal(encode_merged(rvq, z, ()), rvq.encode(z))


def test_a_row_of_a_batch_is_the_row_alone():
    rvq, z = quantizer(), torch.randn(1, 6, 5)
    padded = torch.cat([z, torch.full((1, 6, 4), 1e3)], 2)
    both = encode_merged(rvq, torch.cat([padded, torch.randn(1, 6, 9)]), (2, 3), torch.tensor([5, 9]))
    assert torch.equal(both[:1, :, :5], encode_merged(rvq, z, (2, 3)))


def test_a_codec_merges_with_the_weights_that_it_has_and_its_codes_are_codes_of_another_kind():
    config = MelCodecConfig(
        mel=MelRecipe(bands=4), dim=16, hidden=16, encoder_layers=(1, 1), decoder_layers=(1, 1),
        rvq=RVQConfig(dim=16, codebooks=2, size=8, code_dim=4, warmup=2),
    )  # fmt: skip
    plain, merged = MelCodec(config).eval(), MelCodec(replace(config, merge=(2,))).eval()
    merged.load_state_dict(plain.state_dict())
    mel = Frames(torch.randn(1, 4, 14), torch.tensor([14]), plain.accepts)
    codes = merged.encode_frames(mel)
    assert torch.equal(codes.data[0, 0, 0:6:2], codes.data[0, 0, 1:7:2]) and codes.data.shape == (1, 2, 7)
    assert merged.embed(codes).data.shape == (1, 4, 14)
    assert merged.emits != plain.emits and replace(merged.emits, flavour=plain.emits.flavour) == plain.emits
    for wrong in ((0,), (1, 1, 1)):
        with pytest.raises(SettingsError, match="merge is a number of frames"):
            replace(config, merge=wrong)
    with pytest.raises(SettingsError, match="residual"):
        replace(config, merge=(2,), quantizer="gfsq")
