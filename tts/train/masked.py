"""The recipe of the masked backend, in either layout: codes of utterances with aligned phones, some masked, to be filled in.

rows (tts/train/codes.py) ─► one book a row, some of its frames masked, a prompt or all around a gap given (draw.py beside the
backend): cells by themselves for MaskGCT's layout, spans for MAGNeT's, the same frames in all books (Lumos-1's tubes)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from tts.backends.masked.config import MaskedConfig
from tts.backends.masked.draw import MaskedDraw, MaskedDrawConfig, draw
from tts.backends.masked.model import MaskedBackend
from tts.frames import Frames, Utterance
from tts.train.borrow import borrow_causal, find_lender
from tts.train.codes import CodeRecipe, CodeTask
from tts.train.data import Corpus


@dataclass(frozen=True)
class MaskedRecipe(CodeRecipe):
    """base-en's values stand in configs/train/masked.yaml. A filter is trained after it, see tts/train/filter.py."""

    model: MaskedConfig = field(default_factory=MaskedConfig)
    draw: MaskedDrawConfig = field(default_factory=MaskedDrawConfig)
    borrow: str = ""  # a system or a run whose autoregressive backend lends its weights, see tts/train/borrow.py


class MaskedBackendTask(CodeTask):
    name = "masked"
    recipe: MaskedRecipe

    def __init__(self, recipe: MaskedRecipe, train: Corpus, valid: Corpus, cache: Path | None = None) -> None:
        super().__init__(recipe, train, valid, cache)
        if recipe.borrow:
            borrow_causal(self.backend, find_lender("ar", recipe.borrow, self.backend))

    def build(self, own: Mapping[str, Any]) -> MaskedBackend:
        return MaskedBackend(replace(self.recipe.model, **own))

    def draw(self, lengths: Tensor, joins: Tensor, generator: Generator, plain: bool) -> dict[str, Tensor]:
        config = self.recipe.draw
        if plain:
            config = replace(config, tube=0.0, infill=0.0, drop_prompt=0.0, drop_all=0.0, hide_prompt_phones=0.0)
        drawn = draw(lengths, self.codec.emits.width, config, generator, joins)
        return {f.name: getattr(drawn, f.name) for f in fields(MaskedDraw)}

    def given(self, drawn: Mapping[str, Tensor], frames: Tensor) -> Tensor:
        given = drawn["given"]
        if not given.shape[1]:
            return torch.zeros_like(frames, dtype=torch.bool)
        return given.gather(1, frames.clamp(max=given.shape[1] - 1))

    def score(self, utterance: Utterance, target: Frames, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.backend.loss(utterance, target, MaskedDraw(**{f.name: batch[f.name] for f in fields(MaskedDraw)}))
