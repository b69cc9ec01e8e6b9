"""The recipe of the autoregressive backend: codes of utterances with aligned phones, each to be guessed from those before it.

rows (tts/train/codes.py) ─► some frames masked on the way in (MEAP), some prompts and texts left out (guidance)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import Generator, Tensor

from tts.backends.ar.config import ARConfig
from tts.backends.ar.draw import ARDraw, ARDrawConfig, draw
from tts.backends.ar.model import ARBackend
from tts.frames import Frames, Utterance
from tts.train.borrow import borrow_masked, find_lender
from tts.train.codes import CodeRecipe, CodeTask
from tts.train.data import Corpus


@dataclass(frozen=True)
class ARRecipe(CodeRecipe):
    """base-en's values stand in configs/train/ar.yaml. draw.mask is MEAP's: 0 is the plain model."""

    model: ARConfig = field(default_factory=ARConfig)
    draw: ARDrawConfig = field(default_factory=ARDrawConfig)
    borrow: str = ""  # a system or a run whose masked backend lends its weights, see tts/train/borrow.py


class ARTask(CodeTask):
    name = "ar"
    recipe: ARRecipe

    def __init__(self, recipe: ARRecipe, train: Corpus, valid: Corpus, cache: Path | None = None) -> None:
        super().__init__(recipe, train, valid, cache)
        if recipe.borrow:
            borrow_masked(self.backend, find_lender("masked", recipe.borrow, self.backend))

    def build(self, own: Mapping[str, Any]) -> ARBackend:
        return ARBackend(replace(self.recipe.model, **own))

    def draw(self, lengths: Tensor, joins: Tensor, generator: Generator, plain: bool) -> dict[str, Tensor]:
        config = (
            ARDrawConfig(drop_prompt=0.0, drop_all=0.0, hide_prompt_phones=0.0, mask=0.0, hide_plan=0.0)
            if plain
            else self.recipe.draw
        )
        drawn = draw(lengths, config, generator, joins)
        return {name: tensor for name, tensor in vars(drawn).items() if tensor is not None}

    def given(self, drawn: Mapping[str, Tensor], frames: Tensor) -> Tensor:
        return frames < drawn["prompt"][:, None]

    def score(self, utterance: Utterance, target: Frames, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        noise = ARDraw(**{f.name: batch[f.name] for f in fields(ARDraw) if f.name in batch})
        return self.backend.loss(utterance, target, noise)
