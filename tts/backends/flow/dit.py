"""The network of a flow: a transformer whose every layer is modulated by the flow time (DiT).

x ‖ cond ‖ text ‖ mu ─► linear ─► + conv positions ─► blocks ─► adaptive norm ─► linear ─► velocity
                                                        ▲             ▲
                                        time (+ voice) ─┴─────────────┘
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.backends.flow.config import FlowConfig
from tts.nn.attention import SelfAttention
from tts.nn.conv import ConvPositionEmbedding, blank
from tts.nn.norm import modulated_norm
from tts.nn.rope import rotary_table
from tts.nn.time_embedding import TimeEmbedding


class TimeExperts(nn.Module):
    """Feed-forward networks of which a row uses one, by its flow time: expert e of n is for t in [e / n, (e + 1) / n).

    Early steps decide what is said and late ones how it sounds; each gets weights of its own at the cost of one network.
    Source: SimpleSpeech 2, Yang et al. 2024 (arXiv:2408.13893), 4 experts.
    """

    def __init__(self, experts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def forward(self, x: Tensor, expert: Tensor) -> Tensor:
        """x [B, N, D], expert [B] int64 to [B, N, D]; an expert without rows is not run."""
        used = expert.unique().tolist()
        if len(used) == 1:
            return self.experts[used[0]](x)
        y = torch.cat([self.experts[e](x[expert == e]) for e in used])  # rows in the order of their experts
        return y[expert.argsort(stable=True).argsort()]


@dataclass(frozen=True)
class Modulation:
    """What the time (and the voice) do to each layer: a function of t and the voice alone, so that a solver asks for all
    its times at once, before it begins."""

    blocks: Tensor  # [depth, B, 6 D]: shift, scale, gate of the attention, then of the feed-forward network
    out: Tensor  # [B, 2 D]: scale, shift
    expert: Tensor | None  # [B] int64; None: there is but one

    def split(self, B: int) -> list[Modulation]:
        """Of S * B rows, B at each of S times, those of each time."""
        experts = [None] * (len(self.out) // B) if self.expert is None else self.expert.split(B)
        return [Modulation(*each) for each in zip(self.blocks.split(B, 1), self.out.split(B), experts, strict=True)]


class DiTBlock(nn.Module):
    """Attention, then a feed-forward network, each shifted, scaled and gated by the time (adaLN-zero).

    Source: Peebles & Xie 2022 (arXiv:2212.09748). With shared modulation, of which a block owns a bias alone: PixArt-alpha's
    adaLN-single, Chen et al. 2023 (arXiv:2310.00426), section 2.3; a quarter of the weights fewer.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, round(config.dim * config.ff_mult)
        if config.modulation == "block":
            self.modulation = nn.Linear(dim, 6 * dim)
        else:
            self.bias = nn.Parameter(torch.zeros(6 * dim))
        self.attention = SelfAttention(dim, config.heads, config.head_dim, config.rope_heads, config.qk_norm, config.dropout)

        def network() -> nn.Module:
            return nn.Sequential(
                nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Dropout(config.dropout), nn.Linear(hidden, dim)
            )

        n = config.time_experts
        self.feed_forward = network() if n == 1 else TimeExperts(network() for _ in range(n))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        table: tuple[Tensor, Tensor],
        mask: Tensor | None,
        expert: Tensor | None,
    ) -> Tensor:
        """x [B, N, D], modulation [B, 6 D], mask [B, N], expert [B] or None to [B, N, D]."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation[:, None].chunk(6, -1)
        x = x + gate_a * self.attention(modulated_norm(x, shift_a, scale_a), table, mask)
        y = modulated_norm(x, shift_f, scale_f)
        return x + gate_f * (self.feed_forward(y) if expert is None else self.feed_forward(y, expert))


class InputLayer(nn.Linear):
    """A linear layer whose first inputs change at every step, while what the others give stays: so it is asked in two parts.

    It is a kind of its own, since `quantize` (tts/nn/quantize.py) replaces plain linear layers, which are asked whole.
    """

    def given(self, others: Tensor) -> Tensor:
        """What the other inputs, and the bias, give."""
        return F.linear(others, self.weight[:, -others.shape[-1] :], self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """What the first inputs add to that."""
        return F.linear(x, self.weight[:, : x.shape[-1]])


class DiT(nn.Module):
    """Velocity at each position; what does not depend on x or t comes in as one tensor from `condition`."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        dim, width = config.dim, config.width
        self.config = config
        self.time = TimeEmbedding(dim)
        self.input = InputLayer((3 if config.prior else 2) * width + config.text_dim, dim)  # order: x, cond, text, mu
        self.position = ConvPositionEmbedding(dim)
        if config.modulation == "shared":
            self.modulation = nn.Linear(dim, 6 * dim)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        if config.long_skip:
            self.long_skip = nn.Linear(2 * dim, dim, bias=False)
        self.out_modulation = nn.Linear(dim, 2 * dim)  # order: scale, shift
        self.out = nn.Linear(dim, width)
        if config.zero_init:
            zeroed = [self.out_modulation, self.out, *(m for name, m in self.named_modules() if name.endswith("modulation"))]
            for layer in zeroed:
                assert isinstance(layer, nn.Linear)
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def condition(self, cond: Tensor, text: Tensor, mu: Tensor | None) -> Tensor:
        """The part of the input layer that stays the same over all steps: cond [B, N, W], text [B, N, C], mu [B, N, W] or
        None to [B, N, D]."""
        return self.input.given(torch.cat((cond, text) if mu is None else (cond, text, mu), -1))

    def modulate(self, t: Tensor, voice: Tensor | None = None) -> Modulation:
        """At times t [B], with a voice [B, D] added to the time's embedding."""
        n = self.config.time_experts
        expert = None if n == 1 else (t * n).long().clamp(0, n - 1)
        time = self.time(t)
        time = F.silu(time if voice is None else time + voice)
        if self.config.modulation == "shared":
            biases: list[Tensor] = [block.get_parameter("bias") for block in self.blocks]
            blocks = self.modulation(time) + torch.stack(biases)[:, None]
        else:
            blocks = torch.stack([block.get_submodule("modulation")(time) for block in self.blocks])
        return Modulation(blocks, self.out_modulation(time), expert)

    def forward(self, x: Tensor, modulation: Modulation, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, N, W], what `modulate` gave for its times, `condition` [B, N, D], mask [B, N] bool (None: all positions are
        real) to velocities [B, N, W], zero where the mask is False."""
        table = rotary_table(x.shape[1], self.config.head_dim, device=x.device)
        x = self.input(x) + condition
        x = first = x + self.position(x, mask)
        for block, given in zip(self.blocks, modulation.blocks, strict=True):
            x = block(x, given, table, mask, modulation.expert)
        if self.config.long_skip:
            x = self.long_skip(torch.cat((x, first), -1))
        scale, shift = modulation.out[:, None].chunk(2, -1)
        return blank(self.out(modulated_norm(x, shift, scale)), mask)
