"""The CTC phone recognizer: mel frames to log-probabilities of phones, fifty times a second.

    mel [80, T] ─► conv, stride 2 ─► ConvNeXt blocks at 25 Hz ─► back to 50 Hz, beside the finer stem ─► phones + blank

It is small because it is asked little: to align what is known, to read a prompt, to notice a phone that was not said. Trained
with frame labels beside CTC, its posteriors last as long as the phones do, so that a Viterbi path gives durations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.audio import MelRecipe
from tts.frames import Frames, FrameSpec, check_fit, frame_mask


@dataclass(frozen=True)
class RecognizerConfig:
    """symbols: the blank first, then phones; `table` is the identity of the symbol table they were derived from."""

    symbols: tuple[str, ...] = ("<blank>",)
    table: str = ""
    mel: MelRecipe = field(default_factory=MelRecipe)
    dim: int = 256
    layers: int = 6
    kernel: int = 15  # positions of 40 ms
    expansion: int = 4
    stem: int = 96  # channels kept at 50 Hz
    dropout: float = 0.1


class Block(nn.Module):
    """ConvNeXt (Liu et al. 2022) over time: depthwise convolution, norm, two pointwise layers, residual. [B, T, D]."""

    def __init__(self, dim: int, kernel: int, expansion: int, dropout: float) -> None:
        super().__init__()
        # A convolution in two dimensions, channels last, is twice as fast on a CPU as the same one in one dimension.
        self.mix = nn.Conv2d(dim, dim, (1, kernel), padding=(0, kernel // 2), groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, expansion * dim)
        self.narrow = nn.Linear(expansion * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.mix((x * mask)[:, None].permute(0, 3, 1, 2))  # [B, D, 1, T], channels last
        y = self.norm(y.permute(0, 2, 3, 1)[:, 0])  # [B, T, D]
        return x + self.dropout(self.narrow(F.gelu(self.widen(y))))


class CTCRecognizer(nn.Module):
    """A Recognizer (tts/interfaces.py): mel frames in, log-posteriors over `symbols` out."""

    def __init__(self, config: RecognizerConfig) -> None:
        super().__init__()
        self.config = config
        self.symbols = config.symbols
        self.table = config.table
        self.accepts = config.mel.spec
        self.emits = FrameSpec("posteriors", len(config.symbols), self.accepts.rate, flavour=f"ctc {config.table}")
        bands, dim = config.mel.bands, config.dim
        self.stem = nn.Conv1d(bands, config.stem, 5, padding=2)
        self.down = nn.Conv1d(bands, dim, 6, stride=2, padding=2)
        self.blocks = nn.ModuleList(Block(dim, config.kernel, config.expansion, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * config.stem)
        self.mix = nn.Conv1d(2 * config.stem, dim, 3, padding=1)
        self.head = nn.Linear(dim, len(config.symbols))

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """mel [B, bands, T], lengths [B] -> log-probabilities [B, T, V]. Padding never reaches a real frame."""
        B, _, T = mel.shape
        mask = frame_mask(lengths, T)[:, None]  # [B, 1, T]
        # 1. every clip around its own mean, so that level and colour of a channel matter less
        count = lengths.clamp(min=1)[:, None, None]
        mean = (mel * mask).sum(2, keepdim=True) / count
        scale = (((mel - mean) * mask).square().sum((1, 2), keepdim=True) / (count * mel.shape[1])).sqrt()
        x = (mel - mean) / (scale + 1e-3) * mask
        x = F.pad(x, (0, T % 2))
        # 2. half the rate, wide view
        fine = F.gelu(self.stem(x))  # [B, stem, T]
        half = frame_mask((lengths + 1) // 2, x.shape[2] // 2)[..., None]  # [B, T / 2, 1]
        y = self.down(x).transpose(1, 2)  # [B, T / 2, D]
        for block in self.blocks:
            y = block(y, half)
        # 3. full rate again: each position of 40 ms splits into its two frames
        y = self.up(self.norm(y)).reshape(B, x.shape[2], self.config.stem).transpose(1, 2)  # [B, stem, T]
        y = torch.cat([fine, y], 1) * F.pad(mask, (0, T % 2))
        y = F.gelu(self.mix(y)).transpose(1, 2)[:, :T]  # [B, T, D]
        return self.head(y).float().log_softmax(-1)

    @torch.inference_mode()
    def posteriors(self, frames: Frames) -> Frames:
        """Mel frames to log-posteriors [B, V, T]. Raises FitError for a mel of another flavour."""
        check_fit("the mel", frames.spec, "the recognizer", self.accepts)
        return Frames(self(frames.data, frames.lengths).transpose(1, 2), frames.lengths, self.emits)
