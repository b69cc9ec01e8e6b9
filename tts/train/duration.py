"""The recipe of the durations, of whichever kind: how long the aligner found each phone, told another clip of the speaker.

phones, total: rule   Huber of log1p(frames), told the clip's own rate: only the phones' shares are used
phones, total: sum    Poisson likelihood of frames, which is least where the network says their mean
sentence, bytes       L1 of log seconds, which is least at the median; and the phones' shares as above
flow                  conditional flow matching of log seconds; and the phones' shares as above
autoregressive        cross-entropy of each phone's frames, after the prompt's and those before
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from tts import registry
from tts.config import from_mapping
from tts.duration.autoregressive import CLASSES, join
from tts.duration.rules import PromptRate
from tts.errors import SettingsError
from tts.frames import Prompt, Tokens, frame_mask
from tts.interfaces import Duration
from tts.text.tokens import SymbolTable
from tts.train.alignment import typical_durations
from tts.train.assemble import find_part
from tts.train.augment import chance
from tts.train.clips import Prompts, Spoken
from tts.train.data import BatchPlan, Corpus, pad
from tts.train.loop import Task

ERROR = 0.25  # log1p(frames): below it an error counts as its square, beyond in proportion (Huber)


@dataclass(frozen=True)
class DurationRecipe:
    """What is trained and on what. The vocabulary, its table and the rule are those of the training corpus."""

    type: str = "phones"  # of a learned duration in tts/registry.py
    model: Mapping[str, Any] = field(default_factory=dict)  # its config
    budget_tokens: int = 4_000  # a batch: rows times the longest
    min_score: float = -2.3  # of an alignment; clips below are left out
    rate_noise: float = (
        0.1  # deviation of the log rate that is told, where it is the clip's own: a prompt tells it only roughly
    )
    commas: float = 0.5  # of the clips that keep the commas found in their silences; texts without punctuation have none
    heard: float = 0.5  # of the prompts whose phones are as a recognizer hears them: no stress, no words
    unknown: float = 0.1  # of the clips without a prompt
    valid_items: int = 200
    seed: int = 0


class DurationTask(Task):
    """Durations from tokens. train, valid: prepared corpora of one symbol table, with alignments."""

    def __init__(self, recipe: DurationRecipe, train: Corpus, valid: Corpus) -> None:
        self.recipe, self.train, self.valid = recipe, train, valid
        if recipe.type not in LOSSES:
            raise SettingsError(f"recipe.type must be one of {', '.join(LOSSES)}, got {recipe.type!r}")
        table = SymbolTable(tuple(train.tables["symbols"]))
        rule = typical_durations(train.folder, recipe.min_score, table=table)
        usable = self._usable(train)
        if not usable:
            raise SettingsError(f"{train.folder} has no aligned clip with a text; align it first")
        cls = registry.find("duration", recipe.type)
        kind = registry.config_type(cls)
        assert kind is not None
        config: Any = from_mapping(kind, recipe.model, "recipe.model.")
        known = {"vocabulary": len(table), "table": table.identity, "rule": rule, "symbols": table.symbols}
        known = {own.name: known[own.name] for own in fields(config) if own.name in known}
        torch.manual_seed(recipe.seed)
        self.durations: Any = cls(replace(config, **known))
        # Shares are learned from the clip's own rate. A network that says how long the whole takes would read it off that.
        self.told_own = recipe.type == "phones" and self.durations.config.total == "rule"
        self.rule = PromptRate(rule)
        self.prompts = {corpus: Prompts(corpus, recipe.min_score, table) for corpus in (train, valid)}
        lengths = [(len(train.tokens(i)), 1) for i in range(len(train))]
        chosen = set(usable)
        weights = [item.weight if i in chosen else 0.0 for i, item in enumerate(train.items)]
        self.plan = BatchPlan(lengths, weights, recipe.budget_tokens, recipe.seed)
        held = self._usable(valid)
        self.held = held[:: max(1, len(held) // recipe.valid_items)]

    def _usable(self, corpus: Corpus) -> list[int]:
        if corpus.alignment is None:
            return []
        return [i for i, item in enumerate(corpus.items) if item.tokens and corpus.score(i) >= self.recipe.min_score]

    def modules(self) -> dict[str, nn.Module]:
        return {"duration": self.durations}

    def batch(self, step: int) -> dict[str, Any]:
        """ids, frames [B, L], lengths, seconds [B], and `told`: what the network takes."""
        _, rows = self.plan.at(step)
        draw = Generator().manual_seed(step * 1_000_003 + self.recipe.seed)
        batch = self._collate(self.train, rows, draw)
        if self.told_own:
            noise = self.recipe.rate_noise * torch.randn(len(rows), generator=draw)
            batch["told"]["log_rate"] = batch["told"]["log_rate"] + noise
        return batch

    def _collate(self, corpus: Corpus, rows: list[int], draw: Generator | None) -> dict[str, Any]:
        tokens, prompt, frames = self._spoken(corpus, rows, draw)
        L = frames.shape[1]
        inner = frame_mask(tokens.lengths - 1, L)
        inner[:, 0] = False  # the margins are the clip's
        config = self.durations.config
        batch = {
            "ids": tokens.ids,
            "lengths": tokens.lengths,
            "frames": frames,
            "inner": inner,
            "seconds": (frames * inner).sum(1) / config.frame_rate + config.closing,
            "told": self.durations.features(tokens, prompt),
        }
        if hasattr(self.durations, "shares"):
            batch["told_shares"] = self.durations.shares.features(tokens, prompt)
        return batch

    def _spoken(self, corpus: Corpus, rows: list[int], draw: Generator | None) -> tuple[Tokens, Prompt, Tensor]:
        """What is said, after which prompt, and its frames [B, L]; as in use, and always the same, where draw is None."""
        frames, lengths = pad([corpus.token_frames(i) for i in rows])
        seen, table = [], self.durations.table
        for i in rows:
            plain = not self.told_own and (draw is None or chance(draw) >= self.recipe.commas)
            seen.append(torch.tensor(corpus.item(i).tokens) if plain else corpus.tokens(i))
        tokens = Tokens(pad(seen)[0], lengths, table)
        rate = self.durations.config.frame_rate
        if self.told_own:
            return tokens, Prompt({}, tokens, frames.sum(1) / rate, frames), frames
        given = [self._prompt(corpus, i, draw) for i in rows]
        prompt_frames, _ = pad([torch.tensor(prompt.frames, dtype=torch.int64) for prompt in given])
        said = Tokens.of([prompt.tokens for prompt in given], table)
        return tokens, Prompt({}, said, prompt_frames.sum(1) / rate, prompt_frames), frames

    def _prompt(self, corpus: Corpus, i: int, draw: Generator | None) -> Spoken:
        prompts = self.prompts[corpus]
        if draw is None:
            return prompts.next(i)
        if chance(draw) < self.recipe.unknown:
            return Spoken()
        found = prompts.draw(i, chance(draw))
        return prompts.as_heard(found, self.durations.config.frame_rate) if chance(draw) < self.recipe.heard else found

    def loss(self, batch: dict[str, Any], step: int) -> dict[str, Tensor]:
        """By the kind of network, see above; margins of the clips left out."""
        device = next(self.durations.parameters()).device
        moved = {
            name: {k: x.to(device) for k, x in v.items()} if isinstance(v, dict) else v.to(device) for name, v in batch.items()
        }
        return LOSSES[self.recipe.type](self.durations, moved)

    def validate(self) -> dict[str, float]:
        """The loss; the mean error of a phone (ms) and the median error of the whole (%), by the network and by the rule."""
        losses: list[float] = []
        errors: dict[str, list[float]] = {f"{who}{what}": [] for who in ("", "rule_") for what in ("phone_ms", "total_percent")}
        for k in range(0, len(self.held), 32):
            rows = self.held[k : k + 32]
            batch = self._collate(self.valid, rows, None)
            losses.append(float(self.loss(batch, 0)["loss"]))
            tokens, prompt, frames = self._spoken(self.valid, rows, None)
            spoken = ~self.rule.silent[tokens.ids] & frame_mask(tokens.lengths, tokens.ids.shape[1])
            seconds = frames / self.durations.config.frame_rate
            for who, part in (("", self.durations), ("rule_", self.rule)):
                plan = part.plan(tokens, prompt)
                errors[who + "phone_ms"] += (
                    1000 * ((plan.token_seconds - seconds).abs() * spoken).sum(1) / spoken.sum(1)
                ).tolist()
                errors[who + "total_percent"] += (100 * (plan.seconds / batch["seconds"] - 1).abs()).tolist()
        means = {name: sum(x) / max(1, len(x)) for name, x in errors.items() if name.endswith("phone_ms")}
        medians = {name: float(torch.tensor(x).median()) for name, x in errors.items() if x and name not in means}
        return {"loss": sum(losses) / max(1, len(losses)), **means, **medians}


def find_durations(names: Sequence[str], own: Any) -> dict[str, Duration]:
    """Predictors by name, for `tts.eval.durations`.

    Args:
        names: "system", or "KIND=RUN" for that of a training run, or KIND for a rule of the system's typical lengths.
        own: the system's Duration.
    Raises:
        SettingsError: an unknown kind, or one that has weights and no run. CheckpointError.
    """
    found: dict[str, Duration] = {}
    for name in names:
        kind, sign, run = name.partition("=")
        if name == "system":
            found[name] = own
        elif sign:
            found[f"{kind} ({Path(run).name})"] = find_part("duration", kind, run)
        elif issubclass(registry.find("duration", kind), nn.Module):
            raise SettingsError(f"{kind} has weights; give the folder of its training run, {kind}=RUN")
        else:
            found[name] = registry.find("duration", kind)(getattr(own.config, "rule", own.config))
    return found


def phone_loss(durations: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of PhoneDurations; their mean where they shall sum up to the whole."""
    if durations.config.total == "rule":
        return {"loss": share_loss(durations(**batch["told"]), batch)}
    said = durations(**batch["told"]).float()  # log1p of the mean frames
    # exp(a) - y a is least at exp(a) = E[y]; y is frames + 1
    likelihood = said.exp() - (batch["frames"] + 1) * said
    return {"loss": (likelihood * batch["inner"]).sum() / batch["inner"].sum().clamp(min=1)}


def share_loss(said: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """Huber loss of log1p(frames)."""
    inner, frames = batch["inner"], batch["frames"]
    error = nn.functional.huber_loss(said.float(), frames.float().log1p(), reduction="none", delta=ERROR) / ERROR
    return (error * inner).sum() / inner.sum().clamp(min=1)


def total_loss(durations: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of TotalDurations."""
    total = (durations(**batch["told"]).float() - batch["seconds"].log()).abs().mean()
    shares = share_loss(durations.shares(**batch["told_shares"]), batch)
    return {"loss": total + shares, "total": total, "shares": shares}


def flow_loss(durations: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of FlowDurations: how far its velocity is from that of the straight path, noise to length; and the phones' shares.

    While it is validated each row has its own fixed point of that path.
    """
    told = batch["told"]
    end = durations.residual(batch["seconds"].float(), told["said"])
    B = len(end)
    if durations.training:
        start, t = torch.randn(B, device=end.device), torch.rand(B, device=end.device)
    else:
        even = (torch.arange(B, dtype=torch.float64) + 0.5) / B
        start = torch.special.ndtri((even * 0.618034 * B) % 1).to(end)  # of a golden ratio apart, so not in step with the times
        t = even.to(end)
    guess = durations.velocity(start + t * (end - start), t, durations.condition(**told)).float()
    flow = (guess - (end - start)).square().mean()
    shares = share_loss(durations.shares(**batch["told_shares"]), batch)
    return {"loss": flow + shares, "flow": flow, "shares": shares}


def class_loss(durations: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of AutoregressiveDurations: phones of the prompt count as those of the text do."""
    told, config = batch["told"], durations.config
    lengths = batch["lengths"]
    last = torch.zeros_like(batch["inner"]).scatter(1, lengths[:, None] - 1, True)
    text = torch.where(last, config.closing * config.frame_rate, (batch["frames"] * batch["inner"]).float())
    frames, _ = join(told["prompt_frames"], told["prompt_lengths"], text, lengths)
    inside = frame_mask(told["prompt_lengths"] - 1, told["prompt_ids"].shape[1])
    inside[:, :1] = False
    scored, _ = join(inside, told["prompt_lengths"], batch["inner"], lengths)
    phones, _, _ = durations.encode(**told)
    logits = durations(phones, frames).float()  # [B, S, CLASSES]
    classes = frames.round().long().clamp(max=CLASSES - 1)
    return {"loss": nn.functional.cross_entropy(logits[scored], classes[scored])}


LOSSES: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Tensor]]] = {
    "phones": phone_loss,
    "sentence": total_loss,
    "flow": flow_loss,
    "bytes": total_loss,
    "autoregressive": class_loss,
}
