"""How long a whole sentence takes, as a distribution: a flow from noise to lengths, of which a quantile is the plan.

    x = 0, the middle of the noise ─── 4 midpoint steps, told text, voice and the rule's length ───► log of seconds / the rule's

In one dimension a flow keeps order, so what starts at a quantile of the noise ends at that quantile of the lengths: 0.5 is the
median, which plans without a draw. Source: MaskGCT's total-duration model (Wang et al. 2024, arXiv:2409.00750), a flow-matching
transformer that draws the length of the whole. Changed: text and voice are read as in tts/duration/totals.py, the rule is
corrected rather than replaced, and the length is that of a quantile.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts.decoding.solvers import midpoint, uniform_grid
from tts.duration.totals import SentenceDurations, TotalConfig
from tts.errors import SettingsError
from tts.nn.time_embedding import TimeEmbedding


@dataclass(frozen=True)
class FlowDurationConfig(TotalConfig):
    steps: int = 4  # of the solver
    quantile: float = 0.5  # of the lengths that the flow thinks possible
    scale: float = 0.2  # of log seconds over the rule's, about its standard deviation

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.quantile < 1 or self.scale <= 0:
            got = self.steps, self.quantile, self.scale
            raise SettingsError(f"steps must be at least 1, quantile between 0 and 1, scale above 0; got {got}")


class FlowDurations(SentenceDurations):
    """A Duration (tts/interfaces.py)."""

    config: FlowDurationConfig

    def __init__(self, config: FlowDurationConfig) -> None:
        super().__init__(config)
        self.time = TimeEmbedding(config.dim, waves=32)
        self.place = nn.Linear(1, config.dim)
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(config.dim, config.dim), nn.SiLU())

    def velocity(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """dx/dt [B] at x [B] and times t [B], 0 noise to 1 data; condition: what `condition` gave, [B, D]. Zero at first."""
        return self.out(self.mix(condition + self.place(x[:, None]) + self.time(t)))[:, 0]

    def residual(self, seconds: Tensor, said: Tensor) -> Tensor:
        """Seconds [B] as the data of the flow; said: log seconds by the rule."""
        return (seconds.log() - said) / self.config.scale

    def correct(self, condition: Tensor) -> Tensor:
        start = torch.special.ndtri(torch.tensor(self.config.quantile, dtype=torch.float64)).to(condition)
        grid = uniform_grid(self.config.steps)
        end = midpoint(lambda x, t: self.velocity(x, t, condition), start.expand(len(condition)), grid)
        return end * self.config.scale
