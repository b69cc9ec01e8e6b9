"""Mel to waveform by transposed convolutions, from the rate of the frames up to that of the samples: the HiFi-GAN generator.

    mel [B, bands, T] ─► conv 7 ─► N x (transposed conv: u times the rate, half the channels ─► mean of residual blocks)
        ─► conv 7 ─► tanh ─► samples [B, N], N = T * (product of all u)

The residual blocks of a stage have kernels of several sizes, to hear several spans of time ("multi-receptive field fusion").
Most of the work is done at high rates, so on a CPU it is some ten times slower than Vocos (vocoders/istft.py) of the same size.
Source: Kong, Kim & Bae 2020, "HiFi-GAN" (arXiv:2010.05646), section 2.2 and appendix A.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.audio import MelRecipe
from tts.errors import CheckpointError, SettingsError
from tts.frames import Frames, Wave, check_fit, frame_mask
from tts.nn.weight_norm import add_weight_norm, fold_weight_norm, remove_weight_norm

KERNEL = 7  # of the first and the last convolution
LAST_SLOPE = 0.01  # of the last leaky ReLU, which the original left at torch's default


@dataclass(frozen=True)
class HifiGanConfig:
    """The generator's sizes, in the paper's terms; the default is V1 at half its width, which is as large as Vocos.

    A mel that MelRecipe cannot say (SpeechT5's is a log10, the original's filters are scaled to equal areas) is named by
    `flavour`, so that no other is taken for it.
    """

    mel: MelRecipe = field(default_factory=MelRecipe)
    flavour: str | None = None  # of the frames it accepts; None: that of `mel`
    channels: int = 256  # before the first stage; each stage halves them
    upsample_rates: tuple[int, ...] = (4, 4, 4, 5)  # u of each stage; their product is the mel's hop
    upsample_kernels: tuple[int, ...] = (8, 8, 8, 15)  # multiples of u, so that each sample hears as many taps
    resblock: int = 1  # the paper's type: 1 has a second convolution after each dilated one, 2 has not
    resblock_kernels: tuple[int, ...] = (3, 7, 11)  # one residual block each, in every stage
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))  # of the layers of each block
    leaky_slope: float = 0.1

    def __post_init__(self) -> None:
        if prod(self.upsample_rates) != self.mel.hop:
            raise SettingsError(f"upsample_rates {self.upsample_rates} must multiply to the mel's hop, {self.mel.hop}")
        if len(self.upsample_kernels) != len(self.upsample_rates):
            raise SettingsError(f"upsample_kernels must be one for each of {self.upsample_rates}, got {self.upsample_kernels}")
        for rate, kernel in zip(self.upsample_rates, self.upsample_kernels, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise SettingsError(f"the kernel of upsample rate {rate} must be {rate} or an even number more, got {kernel}")
        if self.resblock not in (1, 2):
            raise SettingsError(f"resblock must be 1 or 2, got {self.resblock}")
        if not self.resblock_kernels or len(self.resblock_dilations) != len(self.resblock_kernels):
            raise SettingsError(f"resblock_dilations must be a tuple for each of {self.resblock_kernels}")
        if any(kernel % 2 == 0 for kernel in self.resblock_kernels):
            raise SettingsError(f"resblock_kernels must be odd, got {self.resblock_kernels}")
        if self.channels < 2 ** len(self.upsample_rates):
            raise SettingsError(f"{self.channels} channels cannot be halved {len(self.upsample_rates)} times")


class ResidualBlock(nn.Module):
    """ResBlock1 (depth 2) or ResBlock2 (depth 1): for each dilation d, x + convolutions of dilations (d, 1) or (d)."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], depth: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.layers = nn.ModuleList(
            nn.ModuleList(_conv(channels, kernel, d) for d in (dilation, 1)[:depth]) for dilation in dilations
        )

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        """[B, C, N] to [B, C, N]; where real [B, 1, N] is given, what lies beyond it is not heard."""
        for convolutions in self.layers:
            y = x
            for conv in convolutions:  # type: ignore[attr-defined]
                y = conv(_only(F.leaky_relu(y, self.slope), real))
            x = x + y
        return x


class Stage(nn.Module):
    """A step up in rate, and the mean of the residual blocks that hear it."""

    def __init__(self, config: HifiGanConfig, index: int) -> None:
        super().__init__()
        self.slope, self.rate = config.leaky_slope, config.upsample_rates[index]
        wide, narrow = config.channels // 2**index, config.channels // 2 ** (index + 1)
        kernel = config.upsample_kernels[index]
        self.up = nn.ConvTranspose1d(wide, narrow, kernel, self.rate, padding=(kernel - self.rate) // 2)
        depth = 2 if config.resblock == 1 else 1
        self.blocks = nn.ModuleList(
            ResidualBlock(narrow, size, dilations, depth, config.leaky_slope)
            for size, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
        )

    def forward(self, x: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """[B, C, N] to [B, C / 2, N * rate]; with them goes the mask of what is real, [B, 1, N] to [B, 1, N * rate]."""
        x = self.up(_only(F.leaky_relu(x, self.slope), real))
        real = None if real is None else real.repeat_interleave(self.rate, dim=2)
        return sum((block(x, real) for block in self.blocks), torch.zeros_like(x)) / len(self.blocks), real


class HifiGan(nn.Module):
    """A Vocoder: log-mel frames to a wave of exactly hop samples a frame."""

    mean: Tensor  # [bands], of the mel
    scale: Tensor  # [bands]

    def __init__(self, config: HifiGanConfig = HifiGanConfig()) -> None:
        super().__init__()
        self.config = config
        self.hop = config.mel.hop
        self.sample_rate = config.mel.sample_rate
        spec = config.mel.spec
        self.accepts = spec if config.flavour is None else replace(spec, flavour=config.flavour)
        self.register_buffer("mean", torch.zeros(config.mel.bands))
        self.register_buffer("scale", torch.ones(config.mel.bands))
        self.first = nn.Conv1d(config.mel.bands, config.channels, KERNEL, padding=KERNEL // 2)
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(config.upsample_rates)))
        self.last = nn.Conv1d(config.channels // 2 ** len(self.stages), 1, KERNEL, padding=KERNEL // 2)
        self.context = context(config)

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Log-mel [B, bands, T] and lengths [B] in frames (None: all of T) to samples [B, T * hop], zero beyond a row's end.

        A padded row equals the row alone: every convolution sees zeros where the row has ended.
        """
        B, _, T = mel.shape
        if T == 0:
            return mel.new_zeros(B, 0)
        real = None if lengths is None else frame_mask(lengths, T)[:, None]  # [B, 1, T]
        x = self.first(_only((mel - self.mean[:, None]) / self.scale[:, None], real))
        for stage in self.stages:
            x, real = stage(x, real)
        x = _only(F.leaky_relu(x, LAST_SLOPE), real)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round samples to 8 bits
            samples = torch.tanh(self.last(x.to(self.last.weight.dtype)))
        return _only(samples, real)[:, 0]

    def decode(self, frames: Frames) -> Wave:
        """Frames of `accepts` to a wave of exactly lengths * hop samples a row. Raises FitError for frames of another spec."""
        check_fit("these frames", frames.spec, "the vocoder", self.accepts)
        ragged = bool((frames.lengths != frames.data.shape[-1]).any())
        with torch.no_grad():
            samples = self(frames.data, frames.lengths if ragged else None)
        return Wave(samples, frames.lengths * self.hop, self.sample_rate)

    def add_weight_norm(self) -> None:
        """For training; a checkpoint holds plain weights (`tts.nn.weight_norm.fold_weight_norm`)."""
        add_weight_norm(self)

    def remove_weight_norm(self) -> None:
        """Plain weights again, the same output."""
        remove_weight_norm(self)


def context(config: HifiGanConfig) -> tuple[int, int]:
    """Frames left and right of frame 0 that its samples depend on."""
    again = config.resblock == 1  # a second convolution, of dilation 1
    reach = max(
        sum(dilation + again for dilation in dilations) * (kernel // 2)
        for kernel, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
    )
    first, last = -(KERNEL // 2), config.mel.hop - 1 + KERNEL // 2  # from the samples of frame 0 down, layer by layer
    for rate, kernel in reversed(list(zip(config.upsample_rates, config.upsample_kernels, strict=True))):
        # position n of a transposed convolution hears position m below it where 0 <= n + padding - m * rate < kernel
        padding = (kernel - rate) // 2
        first = -((kernel - 1 - padding - (first - reach)) // rate)
        last = (last + reach + padding) // rate
    return KERNEL // 2 - first, last + KERNEL // 2


def load_original_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the original repository's generator, types V1 to V3, as one of HifiGan.

    With or without weight norm; of a checkpoint "g_…" it is the part "generator".
    Raises CheckpointError for tensors that no such generator has.
    """
    folded = fold_weight_norm(state)
    stages, blocks = _count(folded, r"(?:ups|upsampler)\.(\d+)"), _count(folded, r"resblocks\.(\d+)")
    if "conv_pre.weight" not in folded or not stages or not blocks or blocks % stages:
        raise CheckpointError(f"this is no HiFi-GAN generator: {stages} upsamplings, {blocks} residual blocks")
    bands = folded["conv_pre.weight"].shape[1]
    renamed = {_renamed(key, blocks // stages): value for key, value in folded.items()}
    return {"mean": torch.zeros(bands), "scale": torch.ones(bands), **renamed}


def load_transformers_state(state: Mapping[str, Tensor], normalize_before: bool = True) -> dict[str, Tensor]:
    """The state dict of transformers' SpeechT5HifiGan as one of HifiGan; normalize_before as in its config.

    With or without weight norm. Raises CheckpointError as `load_original_state`.
    """
    unused = () if normalize_before else ("mean", "scale")
    return load_original_state({key: value for key, value in state.items() if key not in unused})


def _renamed(key: str, blocks_a_stage: int) -> str:
    """A name of the original or of transformers as ours."""
    if key in ("mean", "scale"):
        return key
    if match := re.fullmatch(r"conv_(pre|post)\.(\w+)", key):
        return f"{'first' if match[1] == 'pre' else 'last'}.{match[2]}"
    if match := re.fullmatch(r"(?:ups|upsampler)\.(\d+)\.(\w+)", key):
        return f"stages.{match[1]}.up.{match[2]}"
    if match := re.fullmatch(r"resblocks\.(\d+)\.convs([12]?)\.(\d+)\.(\w+)", key):
        stage, block = divmod(int(match[1]), blocks_a_stage)  # convs1 (in type 2: convs) are the dilated ones, convs2 follow
        return f"stages.{stage}.blocks.{block}.layers.{match[3]}.{int(match[2] == '2')}.{match[4]}"
    raise CheckpointError(f"{key!r} is no tensor of a HiFi-GAN generator")


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _conv(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel // 2))


def _only(x: Tensor, real: Tensor | None) -> Tensor:
    return x if real is None else x * real
