"""The recipe of the phone durations: how long the aligner found each phone, told the utterance's own speaking rate."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from tts.duration.phones import PhoneDurationConfig, PhoneDurations
from tts.errors import SettingsError
from tts.frames import Prompt, Tokens, frame_mask
from tts.text.tokens import SymbolTable
from tts.train.alignment import typical_durations
from tts.train.data import BatchPlan, Corpus, pad
from tts.train.loop import Task

ERROR = 0.25  # log1p(frames): below it an error counts as its square, beyond in proportion (Huber)


@dataclass(frozen=True)
class DurationRecipe:
    """What is trained and on what. The vocabulary, its table and the rule are those of the training corpus."""

    model: PhoneDurationConfig = field(default_factory=PhoneDurationConfig)
    budget_tokens: int = 4_000  # a batch: rows times the longest
    min_score: float = -2.3  # of an alignment; clips below are left out
    rate_noise: float = 0.1  # deviation of the log rate that is told: a prompt tells it only roughly
    valid_items: int = 200
    seed: int = 0


class DurationTask(Task):
    """Durations from tokens. train, valid: prepared corpora of one symbol table, with alignments."""

    def __init__(self, recipe: DurationRecipe, train: Corpus, valid: Corpus) -> None:
        self.recipe, self.train, self.valid = recipe, train, valid
        table = SymbolTable(tuple(train.tables["symbols"]))
        rule = typical_durations(train.folder, recipe.min_score, table=table)
        rows = self._usable(train)
        if not rows:
            raise SettingsError(f"{train.folder} has no aligned clip with a text; align it first")
        config = replace(recipe.model, vocabulary=len(table), table=table.identity, rule=rule)
        torch.manual_seed(recipe.seed)
        self.durations = PhoneDurations(config)
        lengths = [(len(train.tokens(i)), 1) for i in range(len(train))]
        usable = set(rows)
        weights = [item.weight if i in usable else 0.0 for i, item in enumerate(train.items)]
        self.plan = BatchPlan(lengths, weights, recipe.budget_tokens, recipe.seed)
        held = self._usable(valid)
        self.held = held[:: max(1, len(held) // recipe.valid_items)]

    def _usable(self, corpus: Corpus) -> list[int]:
        if corpus.alignment is None:
            return []
        return [i for i, item in enumerate(corpus.items) if item.tokens and corpus.score(i) >= self.recipe.min_score]

    def modules(self) -> dict[str, nn.Module]:
        return {"duration": self.durations}

    def batch(self, step: int) -> dict[str, Tensor]:
        """ids, frames [B, L], lengths, log_rate [B]."""
        _, rows = self.plan.at(step)
        draw = torch.Generator().manual_seed(step * 1_000_003 + self.recipe.seed)
        batch = self._collate(self.train, rows)
        batch["log_rate"] = batch["log_rate"] + self.recipe.rate_noise * torch.randn(len(rows), generator=draw)
        return batch

    def _collate(self, corpus: Corpus, rows: list[int]) -> dict[str, Tensor]:
        ids, lengths = pad([corpus.tokens(i) for i in rows])
        frames, _ = pad([corpus.token_frames(i) for i in rows])
        tokens = Tokens(ids, lengths, self.durations.table)
        seconds = frames.sum(1) / self.recipe.model.frame_rate
        rate = self.durations.rule.rate(tokens, Prompt({}, tokens, seconds, frames))
        return {"ids": ids, "lengths": lengths, "frames": frames, "log_rate": rate.log().float()}

    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Huber loss of log1p(frames), margins of the clips left out."""
        device = self.durations.out.weight.device
        batch = {name: value.to(device) for name, value in batch.items()}
        said = self.durations(batch["ids"], batch["lengths"], batch["log_rate"]).float()
        position = torch.arange(said.shape[1], device=device)[None]
        inner = (position > 0) & (position < batch["lengths"][:, None] - 1)
        error = nn.functional.huber_loss(said, batch["frames"].float().log1p(), reduction="none", delta=ERROR) / ERROR
        return {"loss": (error * inner).sum() / inner.sum().clamp(min=1)}

    def validate(self) -> dict[str, float]:
        """The loss, and the mean error of a phone (ms) by the network and by the rule, told the rate of the utterance."""
        losses, errors = [], {"phone_ms": 0.0, "rule_phone_ms": 0.0}
        for k in range(0, len(self.held), 32):
            batch = self._collate(self.valid, self.held[k : k + 32])
            losses.append(float(self.loss(batch, 0)["loss"]))
            ids, lengths, frames = batch["ids"], batch["lengths"], batch["frames"]
            tokens = Tokens(ids, lengths, self.durations.table)
            spoken = ~self.durations.rule.silent[ids] & frame_mask(lengths, ids.shape[1])
            seconds = frames / self.recipe.model.frame_rate
            prompt = Prompt({}, tokens, seconds.sum(1), frames)
            for name, part in (("phone_ms", self.durations), ("rule_phone_ms", self.durations.rule)):
                made = part.plan(tokens, prompt).token_seconds
                assert made is not None
                errors[name] += 1000 * float((((made - seconds).abs() * spoken).sum(1) / spoken.sum(1)).sum())
        return {"loss": sum(losses) / max(1, len(losses)), **{name: x / max(1, len(self.held)) for name, x in errors.items()}}
