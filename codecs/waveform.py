"""A codec over waveforms, trained end to end: convolutions down to a few frames a second, a quantizer, convolutions up again.

    samples [B, N] ─► conv 7 ─► s x (residual units ─► stride) ─► units ─► conv 3 ─► quantizer ─► codes [B, K, T]
    samples [B, N] ◄─ conv 7 ◄─ s x (residual units ◄─ stride) ◄─ units ◄─ conv 7 ◄─ latents [B, C, T]: the codes' vectors

The halves are two parts, a Codec and a Vocoder, built from one config; the latents are what passes between them. Nothing is
normalised over time, so every half has a finite view and a padded row equals the row alone.
Sources: Défossez et al. 2022, "EnCodec" (arXiv:2210.13438), section 3.1, and Kumar et al. 2023, "DAC" (arXiv:2306.06546).
Changed: convolutions are centred, not causal; units at the rate of the codes stand where EnCodec has an LSTM, whose view to the
left would have no end; weights are plain, not normalised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tts.codecs.checks import check_codes, check_wave
from tts.codecs.choice import QuantizerChoice, make_quantizer, quantizer_dim
from tts.codecs.quantizers import Quantized

from tts.errors import SettingsError
from tts.frames import Frames, FrameSpec, Wave, check_fit, frame_mask

KERNEL = 7  # samples or frames, of the first and the last convolution of a half
# Inside, x is [B, C, 1, T] with the channels last in memory: few channels at the rate of samples are then convolved several
# times as fast on a CPU as in one dimension.


@dataclass(frozen=True)
class WaveCodecConfig(QuantizerChoice):
    """Both halves; what the decoder needs beside the latents' width is `strides` and its own channels."""

    sample_rate: int = 16_000  # Hz
    strides: tuple[int, ...] = (2, 4, 5, 8)  # from the samples down: 320 samples a frame, 50 Hz
    channels: int = 16  # of the encoder at the rate of the samples; each stride doubles them
    decoder_channels: int = 24
    dilations: tuple[int, ...] = (1, 3)  # of the residual units of each stage
    kernel: int = 3  # of their first convolution
    units: int = 2  # residual units at the rate of the codes
    activation: str = "elu"  # EnCodec's; "snake", DAC's, is periodic: pitch comes easier, a step takes longer

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ("elu", "snake"):
            raise SettingsError(f"activation must be 'elu' or 'snake', got {self.activation!r}")
        if not self.strides or min(self.strides) < 2:
            raise SettingsError(f"strides must be at least 2 each, got {self.strides}")
        if self.kernel % 2 == 0:
            raise SettingsError(f"kernel must be odd, got {self.kernel}")

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return math.prod(self.strides)

    @property
    def latents(self) -> FrameSpec:
        """What the encoder's half gives to the decoder's."""
        strides = "x".join(map(str, self.strides))
        flavour = f"waveform codec, {self.sample_rate} Hz, strides {strides}, {self.quantizer}"
        return FrameSpec("latents", quantizer_dim(self), Fraction(self.sample_rate, self.hop), flavour=flavour)


def convolution(channels: int, out: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """[B, channels, 1, T] to [B, out, 1, T / stride]; the kernel is odd, or twice the stride."""
    padding = dilation * (kernel // 2) if stride == 1 else (stride + 1) // 2
    return nn.Conv2d(channels, out, (1, kernel), (1, stride), (0, padding), (1, dilation))


class Snake(nn.Module):
    """x + sin²(a x) / a, with a of its own for each channel (Ziyin et al. 2020, arXiv:2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_a = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, 1, T] to the same."""
        a = self.log_a.exp()[:, None, None]
        return x + (a * x).sin().square() / a


def activate(name: str, channels: int) -> nn.Module:
    """The activation of a name; both leave zero at zero, so that what is masked stays so."""
    return Snake(channels) if name == "snake" else nn.ELU()


class Unit(nn.Module):
    """A residual unit: a dilated convolution to half of the channels, and one of a single frame back."""

    def __init__(self, channels: int, dilation: int, config: WaveCodecConfig) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.look = convolution(channels, half, config.kernel, dilation=dilation)
        self.give = convolution(half, channels, 1)
        self.first, self.second = activate(config.activation, channels), activate(config.activation, half)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, C, 1, T] to the same; beyond the mask [B, 1, 1, T] (None: all is real) the result means nothing."""
        return x + self.give(self.second(self.look(self.first(_blank(x, mask)))))


class Down(nn.Module):
    """A stage of the encoder: units, then a convolution of twice its stride that doubles the channels."""

    def __init__(self, channels: int, stride: int, config: WaveCodecConfig) -> None:
        super().__init__()
        self.units = nn.ModuleList(Unit(channels, d, config) for d in config.dilations)
        self.activation = activate(config.activation, channels)
        self.conv = convolution(channels, 2 * channels, 2 * stride, stride)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, C, 1, T] to [B, 2 C, 1, T / stride]; mask [B, 1, 1, T]."""
        for unit in self.units:
            x = unit(x, mask)
        y: Tensor = self.conv(self.activation(_blank(x, mask)))
        return y


class Up(nn.Module):
    """A stage of the decoder: the mirror of `Down`."""

    def __init__(self, channels: int, stride: int, config: WaveCodecConfig) -> None:
        super().__init__()
        self.activation = activate(config.activation, 2 * channels)
        kernel, padding, more = (1, 2 * stride), (0, (stride + 1) // 2), (0, stride % 2)
        self.conv = nn.ConvTranspose2d(2 * channels, channels, kernel, (1, stride), padding, more)
        self.units = nn.ModuleList(Unit(channels, d, config) for d in config.dilations)

    def forward(self, x: Tensor, mask: Tensor | None, finer: Tensor | None) -> Tensor:
        """[B, 2 C, 1, T] to [B, C, 1, stride * T]; mask [B, 1, 1, T], finer [B, 1, 1, stride * T]."""
        x = self.conv(self.activation(_blank(x, mask)))
        for unit in self.units:
            x = unit(x, finer)
        return x


class WaveCodec(nn.Module):
    """A Codec (tts/interfaces.py): sound to codes, codes to latents."""

    def __init__(self, config: WaveCodecConfig = WaveCodecConfig()) -> None:
        super().__init__()
        self.config = config
        self.sample_rate, self.hop = config.sample_rate, config.hop
        self.quantizer = make_quantizer(config)
        self.embeds = config.latents
        sizes = self.quantizer.sizes
        self.emits = FrameSpec("codes", len(sizes), self.embeds.rate, sizes, self.embeds.flavour)
        self.context = (0, 0)  # a latent is the sum of its own codes' vectors
        C, wide = config.channels, config.channels * 2 ** len(config.strides)
        self.take = convolution(1, C, KERNEL)
        self.stages = nn.ModuleList(Down(C * 2**i, stride, config) for i, stride in enumerate(config.strides))
        self.units = nn.ModuleList(Unit(wide, 1, config) for _ in range(config.units))
        self.activation = activate(config.activation, wide)
        self.enter = convolution(wide, self.quantizer.dim, 3)

    def forward(self, samples: Tensor, lengths: Tensor | None = None, n_codebooks: Tensor | None = None) -> Quantized:
        """For training: samples [B, N], lengths [B] in samples (None: all of N), codebooks to read [B] (None: as the
        quantizer draws them) to codes and to vectors [B, C, ceil(N / hop)], which are the latents."""
        frames = None if lengths is None else self.frames_of(lengths)
        return self.quantizer(self.analyse(samples, lengths), frames, n_codebooks)

    def frames_of(self, lengths: Tensor) -> Tensor:
        """Samples to codes [B]."""
        return (lengths + self.hop - 1) // self.hop

    def analyse(self, samples: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Samples [B, N], lengths [B] to what is quantized [B, C, ceil(N / hop)]. Rows are filled up with zeros."""
        if lengths is not None:
            samples = samples * frame_mask(lengths, samples.shape[1])
        x = F.pad(samples, (0, -samples.shape[1] % self.hop))[:, None, None]  # [B, 1, 1, T * hop]
        real = None if lengths is None else frame_mask(self.frames_of(lengths), x.shape[3] // self.hop)  # [B, T]
        x, per = self.take(x).contiguous(memory_format=torch.channels_last), self.hop
        for stage, stride in zip(self.stages, self.config.strides, strict=True):
            x = stage(x, _spread(real, per))
            per //= stride
        for unit in self.units:
            x = unit(x, _spread(real, 1))
        z: Tensor = self.enter(self.activation(_blank(x, _spread(real, 1))))
        return z[:, :, 0]

    @torch.no_grad()
    def encode(self, wave: Wave) -> Frames:
        """Sound to codes, ceil(N / hop) a row. Raises FitError for another sample rate, InputError for no samples."""
        check_wave(wave, self.sample_rate)
        ragged = bool((wave.lengths != wave.samples.shape[1]).any())
        codes = self.quantizer.encode(self.analyse(wave.samples, wave.lengths if ragged else None))  # [B, K, T]
        lengths = self.frames_of(wave.lengths)
        return Frames(codes * frame_mask(lengths, codes.shape[-1])[:, None], lengths, self.emits)

    @torch.no_grad()
    def embed(self, codes: Frames, n_codebooks: int | None = None) -> Frames:
        """Codes to latents: the sum of the vectors of the first n_codebooks (None: all). Raises as `check_codes`."""
        return Frames(self.quantizer.embed(check_codes(codes, self.emits, n_codebooks)), codes.lengths, self.embeds)

    def vectors(self, k: int) -> Tensor:
        """Codebook k as [V, C]."""
        return self.quantizer.vectors(k)


class WaveDecoder(nn.Module):
    """A Vocoder: latents of the codec of the same config to a wave of exactly hop samples a frame."""

    def __init__(self, config: WaveCodecConfig = WaveCodecConfig()) -> None:
        super().__init__()
        self.config = config
        self.sample_rate, self.hop = config.sample_rate, config.hop
        self.accepts = config.latents
        self.context = _context(config)
        C, up = config.decoder_channels, config.strides[::-1]
        wide = C * 2 ** len(up)
        self.take = convolution(self.accepts.width, wide, KERNEL)
        self.units = nn.ModuleList(Unit(wide, 1, config) for _ in range(config.units))
        self.stages = nn.ModuleList(Up(wide // 2 ** (i + 1), stride, config) for i, stride in enumerate(up))
        self.activation = activate(config.activation, C)
        self.give = convolution(C, 1, KERNEL)

    def forward(self, latents: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Latents [B, C, T], lengths [B] in frames (None: all of T) to samples [B, T * hop], zero beyond a row's end."""
        B, _, T = latents.shape
        if T == 0:
            return latents.new_zeros(B, 0)
        real = None if lengths is None else frame_mask(lengths, T)
        mask, per = _spread(real, 1), 1
        x = self.take(_blank(latents[:, :, None].contiguous(memory_format=torch.channels_last), mask))
        for unit in self.units:
            x = unit(x, mask)
        for stage, stride in zip(self.stages, self.config.strides[::-1], strict=True):
            per *= stride
            finer = _spread(real, per)
            x, mask = stage(x, mask, finer), finer
        x = self.give(self.activation(_blank(x, mask)))
        return _blank(x, mask)[:, 0, 0].float()

    @torch.no_grad()
    def decode(self, frames: Frames) -> Wave:
        """Frames of `accepts` to a wave of exactly lengths * hop samples a row. Raises FitError for frames of another spec."""
        check_fit("these frames", frames.spec, "the vocoder", self.accepts)
        ragged = bool((frames.lengths != frames.data.shape[-1]).any())
        samples = self(frames.data, frames.lengths if ragged else None)
        return Wave(samples.clamp(-1, 1), frames.lengths * self.hop, self.sample_rate)


def _blank(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def _spread(real: Tensor | None, per: int) -> Tensor | None:
    """Which frames are real, [B, T], as a mask [B, 1, 1, T * per]."""
    return None if real is None else real.repeat_interleave(per, 1)[:, None, None]


def _context(config: WaveCodecConfig) -> tuple[int, int]:
    """Frames to the left and right that the samples of one frame depend on, found by going back from those samples."""
    first, last = 0, config.hop - 1  # of the frame, at the rate of the samples
    units = sum(d * (config.kernel // 2) for d in config.dilations)
    first, last = first - KERNEL // 2, last + KERNEL // 2
    for stride in config.strides:
        first, last = first - units, last + units
        padding = (stride + 1) // 2  # position i of the coarser rate reaches 2 * stride positions, from i * stride - padding on
        first, last = -((2 * stride - 1 - padding - first) // stride), (last + padding) // stride
    view = config.units * (config.kernel // 2) + KERNEL // 2
    return view - first, view + last
