"""Mel to waveform by ConvNeXt blocks that predict a spectrogram, and one inverse STFT: the Vocos generator.

    mel [B, bands, T] ─► conv 7 ─► N x (depthwise conv 7 ─► norm ─► expand ─► GELU ─► shrink ─► scale, +) ─► norm
        ─► linear ─► log magnitude, phase [B, T, n_fft + 2] ─► irfft, window, overlap-add ─► samples [B, N]

Everything runs at the rate of the frames; only the overlap-add makes samples, which is why it is fast on a CPU.
Source: Siuzdak 2023, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders" (arXiv:2306.00814).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.audio import MelRecipe, mel_filters
from tts.frames import Frames, Wave, check_fit, frame_mask
from tts.nn.phase import agree, magnitudes
from tts.nn.stft import edge, inverse_stft, reach, stft

KERNEL = 7  # frames, of every convolution (section 3.1)
MAX_MAGNITUDE = 1e2  # bounds exp() when a mel is far from any heard in training


@dataclass(frozen=True)
class VocosConfig:
    """The generator's sizes; the default is base-en's. hop and sample rate are the mel's.

    padding is that of the inverse STFT: "same" makes T * hop samples of T frames, "center" (T - 1) * hop.
    """

    mel: MelRecipe = field(default_factory=MelRecipe)
    dim: int = 256
    intermediate: int = 768
    layers: int = 8
    n_fft: int = 1280  # also the window, in samples
    padding: str = "same"
    refine: int = 0  # iterations by which phases are made to agree with the mel's own magnitudes, after the network
    layer_scale: float | None = None  # initial gain of each block; None: 1 / layers

    def __post_init__(self) -> None:
        edge(self.n_fft, self.mel.hop, self.padding)  # raises for a grid that does not exist


class ConvNeXtBlock(nn.Module):
    """One residual block: mix over time a channel at a time, then over channels a frame at a time."""

    def __init__(self, dim: int, intermediate: int, layer_scale: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, intermediate)
        self.shrink = nn.Linear(intermediate, dim)
        self.scale = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]; padded frames must come in as zeros."""
        # in two dimensions, channels last, a depthwise convolution is twice as fast on a CPU
        wide = x[:, None].permute(0, 3, 1, 2)  # [B, D, 1, T]
        y = F.conv2d(wide, self.conv.weight[:, :, None], self.conv.bias, padding=(0, KERNEL // 2), groups=x.shape[-1])
        y = self.shrink(F.gelu(self.expand(self.norm(y.permute(0, 2, 3, 1)[:, 0]))))  # [B, T, D]
        return x + self.scale * y


class Vocos(nn.Module):
    """A Vocoder: log-mel frames to a wave of exactly hop samples a frame."""

    window: Tensor  # [n_fft]

    def __init__(self, config: VocosConfig = VocosConfig()) -> None:
        super().__init__()
        self.config = config
        self.hop = config.mel.hop
        self.sample_rate = config.mel.sample_rate
        self.accepts = config.mel.spec
        convolutions = (1 + config.layers) * (KERNEL // 2)
        left, right = reach(config.n_fft, self.hop, config.padding)
        # an iteration of the refinement carries a phase to every frame whose window overlaps its own
        spread = config.refine * (-(-config.mel.win_length // config.mel.hop) - 1)
        self.context = (convolutions + left + spread, convolutions + right + spread)
        scale = config.layer_scale if config.layer_scale is not None else 1 / config.layers
        self.embed = nn.Conv1d(config.mel.bands, config.dim, KERNEL, padding=KERNEL // 2)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.blocks = nn.ModuleList(ConvNeXtBlock(config.dim, config.intermediate, scale) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.out = nn.Linear(config.dim, config.n_fft + 2)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Log-mel [B, bands, T] and lengths [B] in frames (None: all of T) to samples [B, N], zero beyond a row's end.

        N is T * hop ("same") or (T - 1) * hop ("center"). A padded row equals the row alone: every convolution and the
        overlap-add see zeros where the row has ended.
        """
        B, _, T = mel.shape
        if T == 0:
            return mel.new_zeros(B, 0)
        real = None if lengths is None else frame_mask(lengths, T)  # [B, T]
        x = self.embed(mel if real is None else mel * real[:, None]).transpose(1, 2)  # [B, T, D]
        x = self.norm(x)
        for block in self.blocks:
            x = block(x if real is None else x * real[..., None])
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round a phase of 8 to 0.03 radians
            x = self.out(self.final_norm(x.to(self.out.weight.dtype)))
        log_magnitude, phase = x.chunk(2, dim=-1)  # [B, T, n_fft / 2 + 1] each
        spectrum = torch.polar(log_magnitude.exp().clamp(max=MAX_MAGNITUDE), phase)
        return inverse_stft(spectrum, self.window, self.hop, self.config.padding, real)

    def decode(self, frames: Frames) -> Wave:
        """Frames of `accepts` to a wave of exactly lengths * hop samples a row ("center": (lengths - 1) * hop).

        Raises FitError for frames of another spec.
        """
        check_fit("these frames", frames.spec, "the vocoder", self.accepts)
        T = frames.data.shape[-1]
        ragged = bool((frames.lengths != T).any())
        with torch.no_grad():
            samples = self(frames.data, frames.lengths if ragged else None)
            if self.config.refine:
                samples = torch.stack(
                    [self._refined(*row) for row in zip(frames.data, samples, frames.lengths.tolist(), strict=True)]
                )
        intervals = frames.lengths if self.config.padding == "same" else (frames.lengths - 1).clamp(min=0)
        return Wave(samples.clamp(-1, 1), intervals * self.hop, self.sample_rate)

    def _refined(self, mel: Tensor, samples: Tensor, T: int) -> Tensor:
        """One row: the network's phases, some steps of Griffin-Lim towards the magnitudes that its mel [bands, T] implies.

        A network trained by spectral losses alone gets magnitudes roughly and phases well; the mel knows the magnitudes.
        """
        recipe = self.config.mel
        N = (T if recipe.padding == "same" else T - 1) * recipe.hop
        if N <= 0:
            return torch.zeros_like(samples)
        window = mel_filters(recipe)[0].to(samples.device)
        phase = stft(samples[None, :N], window, recipe.hop, recipe.padding, recipe.n_fft)[0]
        refined = agree(magnitudes(mel[:, :T], recipe), phase, recipe, self.config.refine)
        return F.pad(refined, (0, len(samples) - N))
