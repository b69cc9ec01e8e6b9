"""The codec over mels: a convolutional autoencoder whose middle is quantized. What all codes of base-en are.

    mel [B, bands, T] ─► conv 7 ─► blocks ─► stride s ─► blocks ─► linear ─► quantizer ─► codes [B, K, T / s]
    mel [B, bands, T] ◄─ conv 7 ◄─ blocks ◄─ stride s ◄─ blocks ◄─ linear ◄─ sum of the first n codebooks

Blocks are ConvNeXt's (Liu et al. 2022, arXiv:2201.03545) over time. Nothing is normalised over time, so a frame depends on a
few neighbours only, and a padded row equals the row alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tts.codecs.checks import check_codes, check_wave
from tts.codecs.choice import QuantizerChoice, make_quantizer
from tts.codecs.merging import check_merge, encode_merged
from tts.codecs.quantizers import Quantized
from tts.codecs.rvq import ResidualVQ

from tts.audio import MelEncoder, MelRecipe
from tts.errors import InputError, SettingsError
from tts.frames import Frames, FrameSpec, Wave, check_fit, frame_mask

KERNEL = 7  # frames, of every convolution over time


@dataclass(frozen=True)
class MelCodecConfig(QuantizerChoice):
    """The codec's sizes, beside the choice of its quantizer."""

    mel: MelRecipe = field(default_factory=MelRecipe)
    mel_mean: float = 0.0  # mels are normalised by these inside
    mel_std: float = 1.0
    stride: int = 2  # mel frames a code
    dim: int = 256
    hidden: int = 768
    encoder_layers: tuple[int, int] = (1, 4)  # blocks at the rate of the mel, blocks at the rate of the codes
    decoder_layers: tuple[int, int] = (2, 4)  # the same
    merge: tuple[int, ...] = ()  # codes of the first codebooks that this many frames share, see tts/codecs/merging.py

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride < 1:
            raise SettingsError(f"stride must be at least 1, got {self.stride}")
        if self.merge and self.quantizer != "rvq":
            raise SettingsError(f"codes are merged of residual quantizers, rvq, got {self.quantizer!r}")
        if wrong := check_merge(self.merge, self.rvq.codebooks):
            raise SettingsError(wrong)


class Block(nn.Module):
    """Mix over time a channel at a time, then over channels a frame at a time; residual."""

    def __init__(self, dim: int, hidden: int, scale: float) -> None:
        super().__init__()
        # A convolution in two dimensions, channels last, is twice as fast on a CPU as the same one in one dimension.
        self.mix = nn.Conv2d(dim, dim, (1, KERNEL), padding=(0, KERNEL // 2), groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, hidden)
        self.narrow = nn.Linear(hidden, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [B, T, D], mask [B, T, 1] to [B, T, D]; what comes out beyond the mask means nothing."""
        y = self.mix((x * mask)[:, None].permute(0, 3, 1, 2))  # [B, D, 1, T], channels last
        y = self.norm(y.permute(0, 2, 3, 1)[:, 0])  # [B, T, D]
        return x + self.scale * self.narrow(F.gelu(self.widen(y)))


class MelCodec(nn.Module):
    """A Codec (tts/interfaces.py): sound or mels to codes, codes to mels."""

    def __init__(self, config: MelCodecConfig = MelCodecConfig()) -> None:
        super().__init__()
        self.config = config
        self.stride = config.stride
        self.sample_rate = config.mel.sample_rate
        self.quantizer = make_quantizer(config)
        self.accepts = self.embeds = mel = config.mel.spec
        sizes = self.quantizer.sizes
        flavour = f"mel codec, {config.quantizer}, {config.stride} frames a code, of {mel.flavour}"
        if config.merge:
            flavour += f", merged {config.merge}"
        self.emits = FrameSpec("codes", len(sizes), mel.rate / config.stride, sizes, flavour)
        fine, coarse = config.decoder_layers
        reach = coarse * (KERNEL // 2) + math.ceil((fine + 1) * (KERNEL // 2) / config.stride)  # codes, to either side
        self.context = (reach * config.stride, reach * config.stride)
        dim, wide = config.dim, config.stride * config.dim

        def blocks(count: int, of: tuple[int, int]) -> nn.ModuleList:
            return nn.ModuleList(Block(dim, config.hidden, 1 / max(1, sum(of))) for _ in range(count))

        self.take = nn.Conv1d(config.mel.bands, dim, KERNEL, padding=KERNEL // 2)
        self.fine_encoder = blocks(config.encoder_layers[0], config.encoder_layers)
        self.down = nn.Linear(wide, dim)  # a convolution whose kernel is its stride
        self.encoder = blocks(config.encoder_layers[1], config.encoder_layers)
        self.encoder_norm = nn.LayerNorm(dim)
        self.enter = nn.Linear(dim, self.quantizer.dim)
        self.leave = nn.Linear(self.quantizer.dim, dim)
        self.decoder = blocks(coarse, config.decoder_layers)
        self.up = nn.Linear(dim, wide)
        self.fine_decoder = blocks(fine, config.decoder_layers)
        self.decoder_norm = nn.LayerNorm(dim)
        self.give = nn.Conv1d(dim, config.mel.bands, KERNEL, padding=KERNEL // 2)

    def forward(self, mel: Tensor, lengths: Tensor, n_codebooks: Tensor | None = None) -> tuple[Tensor, Quantized]:
        """For training: mel [B, bands, T], lengths [B], codebooks to read [B] -> the restored mel [B, bands, T] and its codes.

        A row whose length is no multiple of the stride is filled with zeros (after normalisation), here as in `encode`.
        """
        codes = self.codes_of(lengths)
        quantized = self.quantizer(self.analyse(mel, lengths), codes, n_codebooks)
        return self.restore(quantized.vectors, codes)[..., : mel.shape[-1]], quantized

    def codes_of(self, lengths: Tensor) -> Tensor:
        """Mel frames to codes [B]."""
        return (lengths + self.stride - 1) // self.stride

    def analyse(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """mel [B, bands, T], lengths [B] to what is quantized [B, C, ceil(T / stride)]."""
        mel = F.pad((mel - self.config.mel_mean) / self.config.mel_std, (0, -mel.shape[-1] % self.stride))
        mask = frame_mask(lengths, mel.shape[-1])[..., None]  # [B, T, 1]
        x = self.take(mel * mask.mT).transpose(1, 2)  # [B, T, D]
        for block in self.fine_encoder:
            x = block(x, mask)
        x = self.down((x * mask).unflatten(1, (-1, self.stride)).flatten(2))  # [B, T / stride, D]
        mask = frame_mask(self.codes_of(lengths), x.shape[1])[..., None]
        for block in self.encoder:
            x = block(x, mask)
        z: Tensor = self.enter(self.encoder_norm(x)).transpose(1, 2)  # [B, C, T / stride]
        return z

    def restore(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """vectors [B, C, T], lengths [B] in codes to the mel [B, bands, stride * T]."""
        mask = frame_mask(lengths, vectors.shape[-1])[..., None]  # [B, T, 1]
        x = self.leave(vectors.transpose(1, 2))  # [B, T, D]
        for block in self.decoder:
            x = block(x, mask)
        x = self.up(x).unflatten(2, (self.stride, -1)).flatten(1, 2)  # [B, stride * T, D]
        mask = mask.repeat_interleave(self.stride, 1)
        for block in self.fine_decoder:
            x = block(x, mask)
        mel: Tensor = self.give((self.decoder_norm(x) * mask).transpose(1, 2))
        return mel.float() * self.config.mel_std + self.config.mel_mean

    def encode(self, wave: Wave) -> Frames:
        """Sound to codes. Raises FitError for a wave of another rate, InputError for one without samples."""
        check_wave(wave, self.sample_rate)
        return self.encode_frames(MelEncoder(self.config.mel).encode(wave))

    @torch.no_grad()
    def encode_frames(self, frames: Frames) -> Frames:
        """Mel frames to codes, ceil(frames / stride) a row. FitError: another mel. InputError: a row without frames."""
        check_fit("the mel", frames.spec, "the codec", self.accepts)
        if not len(frames.lengths) or int(frames.lengths.min()) < 1:
            raise InputError(f"a codec needs at least one frame in every row, got {frames.lengths.tolist()}")
        z, lengths = self.analyse(frames.data, frames.lengths), self.codes_of(frames.lengths)
        if self.config.merge:
            assert isinstance(self.quantizer, ResidualVQ)
            codes = encode_merged(self.quantizer, z, self.config.merge, lengths)  # [B, K, T]
        else:
            codes = self.quantizer.encode(z)
        return Frames(codes * frame_mask(lengths, codes.shape[-1])[:, None], lengths, self.emits)

    @torch.no_grad()
    def embed(self, codes: Frames, n_codebooks: int | None = None) -> Frames:
        """Codes to the mel that their first n_codebooks (None: all) say, stride frames a code.

        Raises:
            FitError: codes of another K, V, rate or flavour. SettingsError: n_codebooks outside 1..K.
            InputError: a row without frames, or a code that no codebook has.
        """
        vectors = self.quantizer.embed(check_codes(codes, self.emits, n_codebooks))
        return Frames(self.restore(vectors, codes.lengths), codes.lengths * self.stride, self.embeds)

    def vectors(self, k: int) -> Tensor:
        """Codebook k as [V, C]; the vectors of a frame's codes add up to what is decoded."""
        return self.quantizer.vectors(k)
