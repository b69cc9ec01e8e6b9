"""The recipe of Learn2PD's filter: which codes that a masked model draws early are those it would end with.

clips ─► the trained model says them in all its passes ─► of every pass: confidences, and which cells had their last code
      ─► a small network learns to tell these cells from the others, by binary cross-entropy

Source: Learn2PD (arXiv:2509.25188). The model itself stays as it is; the run's weights are the model's with the filter.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tts.backends.masked.config import MaskedSettings
from tts.backends.masked.model import MaskedBackend
from tts.config import from_mapping
from tts.decoding.commit import Candidates, CommitFilter, FilterConfig, in_blocks
from tts.errors import SettingsError
from tts.frames import Frames, Plan, Prompt, Tokens, Utterance
from tts.interfaces import FrameCodec
from tts.train.assemble import find_part
from tts.train.codes import code_clips, code_frames
from tts.train.data import Corpus
from tts.train.loop import Task, step_seed
from tts.train.utterances import Row, UtteranceRecipe, Utterances

log = logging.getLogger(__name__)

Blocks = tuple[Tensor, Tensor, Tensor]  # confidence [N, block], whether the code is the last one, whether it is masked


@dataclass(frozen=True)
class FilterRecipe(UtteranceRecipe):
    """The model, how it speaks while it is watched, and how many clips of it are said."""

    masked: str = "runs/masked"  # the folder of its training run, or a system that has it as backend.masked
    codec: str = "base-en"  # a system, or the folder of a codec's training run
    filter: FilterConfig = field(default_factory=FilterConfig)
    settings: dict[str, Any] = field(default_factory=dict)  # of the masked backend; its steps are those to be cut down
    clips: int = 200
    valid_clips: int = 20
    blocks: int = 256  # a batch
    join: float = 1.0  # one clip of a speaker as the prompt, another to be said


class FilterTask(Task):
    """The filter of a trained backend. train, valid: prepared corpora with alignments."""

    def __init__(self, recipe: FilterRecipe, train: Corpus, valid: Corpus) -> None:
        self.recipe = recipe
        self.backend: MaskedBackend = find_part("backend.masked", "masked", recipe.masked).eval().requires_grad_(False)
        self.codec: FrameCodec = find_part("codec", "mel", recipe.codec).eval()
        if self.codec.emits != self.backend.emits:
            raise SettingsError(f"{recipe.masked} speaks other codes than {recipe.codec} has; give the codec it learned from")
        # by confidence alone: what the filter shall need fewer passes for
        chosen = {**recipe.settings, "commit": "confidence"}
        self.settings = from_mapping(MaskedSettings, chosen, "recipe.settings.")
        torch.manual_seed(recipe.seed)
        self.backend.filter = CommitFilter(recipe.filter)
        self.backend.config = replace(self.backend.config, filter=recipe.filter)
        self.known = self._watch(train, recipe.clips)
        self.held = self._watch(valid, recipe.valid_clips)

    def modules(self) -> dict[str, nn.Module]:
        return {"masked": self.backend}

    def batch(self, step: int) -> Blocks:
        generator = Generator().manual_seed(step_seed(self.recipe.seed, step))
        rows = torch.randint(len(self.known[0]), (self.recipe.blocks,), generator=generator)
        confidence, last, masked = (x[rows] for x in self.known)
        return confidence, last, masked

    def loss(self, batch: Blocks, step: int) -> dict[str, Tensor]:
        confidence, last, masked = batch
        assert self.backend.filter is not None
        device = next(self.backend.filter.parameters()).device
        logits = self.backend.filter(confidence.to(device))[masked]
        return {"loss": F.binary_cross_entropy_with_logits(logits, last[masked].to(logits))}

    def validate(self) -> dict[str, float]:
        """The loss; of held-out cells the share that the filter would commit, and the share of these that is wrong."""
        confidence, last, masked = self.held
        assert self.backend.filter is not None
        loss = self.loss(self.held, 0)["loss"].detach()
        device = next(self.backend.filter.parameters()).device
        sure = (self.backend.filter(confidence.to(device)).sigmoid() > self.settings.threshold).cpu()[masked]
        wrong = (sure & ~last[masked]).sum() / sure.sum().clamp(min=1)
        return {"loss": float(loss), "committed": float(sure.float().mean()), "wrong": float(wrong)}

    # --------------------------------------------------------------------------------------------------- data

    def _watch(self, corpus: Corpus, clips: int) -> Blocks:
        """The blocks of every pass over some clips, as the model draws them."""
        rate = float(self.codec.accepts.rate)
        rows = [row for batch in Utterances(self.recipe, corpus, rate).epoch(0) for row in batch][:clips]
        codes = code_clips(self.codec, corpus, sorted({i for row in rows for i in row}))
        log.info("watching %d clips of %s being said", len(rows), corpus.folder)
        seen = [self._say(corpus, row, codes, number) for number, row in enumerate(rows)]
        confidence, last, masked = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return confidence, last, masked

    def _say(self, corpus: Corpus, row: Row, codes: Mapping[int, Tensor], number: int) -> Blocks:
        """The blocks [N, block] of one row: its last clip is said in the voice of its first, where it has two."""
        passes: list[Candidates] = []
        utterance = _utterance(corpus, row, codes, self.backend, step_seed(self.recipe.seed, number))
        said, _, _ = self.backend.decode(utterance, self.settings, watch=lambda seen, kept: passes.append(seen))
        block = self.recipe.filter.block
        return (
            torch.cat([in_blocks(seen.confidence, block, 1.0)[0] for seen in passes]),
            torch.cat([in_blocks(seen.codes == said[:, seen.book], block, True)[0] for seen in passes]),
            torch.cat([in_blocks(seen.masked, block, False)[0] for seen in passes]),
        )


def _utterance(corpus: Corpus, row: Row, codes: Mapping[int, Tensor], backend: MaskedBackend, seed: int) -> Utterance:
    rate = float(backend.emits.rate)

    def tokens(i: int) -> Tokens:
        return Tokens(corpus.tokens(i)[None], torch.tensor([len(corpus.tokens(i))]), backend.table)

    i, T = row[-1], codes[row[-1]].shape[1]
    lasts = code_frames(corpus.token_frames(i), T)[None].double() / rate
    prompt = None
    if len(row) > 1:
        own = Frames(codes[row[0]][None].long(), torch.tensor([codes[row[0]].shape[1]]), backend.emits)
        lengths = corpus.token_frames(row[0])[None]
        prompt = Prompt({"codes": own}, tokens(row[0]), own.lengths / rate, lengths)
    plan = Plan(torch.tensor([T / rate], dtype=torch.float64), lasts)
    return Utterance(tokens(i), torch.tensor([seed % 2**63]), prompt, plan)
