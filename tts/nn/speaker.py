"""Speaker encoder (d-vectors): who speaks in a log-mel, as a unit vector.

mel   ├────── 1.6 s ──────┤                 every window: LSTM layers ─► last state ─► linear ─► unit length
                ├────── 1.6 s ──────┤       their mean, of unit length again, is the vector of the clip
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.errors import SettingsError


@dataclass(frozen=True)
class SpeakerConfig:
    """Sizes of a `SpeakerEncoder`: 0.9 million weights as they stand. SV2TTS: 40 bands, 3 layers of 768, 256 channels out."""

    bands: int = 80
    window: int = 80  # frames: 1.6 s at 50 a second
    join: int = 2  # frames that the LSTM reads at a time; the paper reads one of 10 ms
    hidden: int = 256
    layers: int = 2
    dim: int = 192

    def __post_init__(self) -> None:
        for name in ("bands", "window", "join", "hidden", "layers", "dim"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.window % (2 * self.join):
            raise SettingsError(f"window must be a multiple of 2 * join = {2 * self.join}, got {self.window}")


class SpeakerEncoder(nn.Module):
    """Voices of people never met, learnt by telling speakers apart (GE2E).

    Source: SV2TTS, Jia et al. 2018 (arXiv:1806.04558), section 2.1; Wan et al. 2018 (arXiv:1710.10467). Changed: each window is
    brought to mean 0 and variance 1, so that neither gain nor a linear scaling of the log-mel matters.
    """

    def __init__(self, config: SpeakerConfig) -> None:
        super().__init__()
        self.config = config
        self.lstm = nn.LSTM(config.bands * config.join, config.hidden, config.layers, batch_first=True)
        self.out = nn.Linear(config.hidden, config.dim)

    def forward(self, windows: Tensor) -> Tensor:
        """Log-mel windows [n, window, bands] to unit vectors [n, dim], float32."""
        with torch.autocast(windows.device.type, enabled=False):
            x = F.layer_norm(windows.float(), windows.shape[1:])
            y, _ = self.lstm(x.unflatten(1, (-1, self.config.join)).flatten(2))  # [n, window / join, hidden]
            return F.normalize(self.out(y[:, -1]), dim=-1)

    def embed(self, mels: Sequence[Tensor]) -> Tensor:
        """Log-mels [bands, T_b] of any lengths to unit vectors [B, dim], zero where T_b is 0."""
        cut = [self.windows(mel) for mel in mels]
        vectors = self(torch.cat(cut)).split([len(windows) for windows in cut]) if cut else ()
        means = [F.normalize(rows.mean(0), dim=-1) if len(rows) else rows.new_zeros(self.config.dim) for rows in vectors]
        return torch.stack(means) if means else self.out.weight.new_zeros(0, self.config.dim)

    def windows(self, mel: Tensor) -> Tensor:
        """[bands, T] to windows [n, window, bands] that overlap by half; the last one ends with the clip. A clip that is
        shorter than a window is repeated, one of no frames has no window."""
        size, T = self.config.window, mel.shape[1]
        if T == 0:
            return mel.new_zeros(0, size, len(mel))
        frames = mel.T.repeat(-(-size // T), 1)[: max(T, size)]
        last = len(frames) - size
        starts = sorted({*range(0, last + 1, size // 2), last})
        return torch.stack([frames[start : start + size] for start in starts])
