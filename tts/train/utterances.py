"""Utterances with aligned phones for a backend to learn: alone, or two of a speaker joined, one the prompt of the other."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from tts.errors import SettingsError
from tts.text.tokens import SymbolTable
from tts.train.data import Corpus, buckets

Row = tuple[int, ...]  # one utterance, or two of one speaker to be joined


@dataclass(frozen=True)
class UtteranceRecipe:
    """Which clips a backend learns from, and how they come together."""

    budget_frames: int = 4_800  # a batch: rows times the longest
    max_seconds: float = 16.0  # longer clips are left out
    join: float = 0.5  # how often a row joins two utterances of a speaker
    join_seconds: float = 14.0  # where they are this short together
    min_score: float = -2.3  # mean log-posterior of an alignment; clips below, some two in a hundred, are left out
    prompt_as_heard: float = 0.3  # how often the prompt's phones are as a recognizer reads them: no stress, no punctuation
    valid_items: int = 64
    seed: int = 0

    def usable(self, corpus: Corpus, rate: float) -> list[int]:
        """Items with a trusted alignment, not too long; rate: of the corpus's frames, in Hz."""
        if corpus.alignment is None:
            return []
        return [
            i
            for i, item in enumerate(corpus.items)
            if item.frames <= self.max_seconds * rate and len(corpus.tokens(i)) and corpus.score(i) >= self.min_score
        ]

    def chosen(self, corpus: Corpus, rate: float) -> list[int]:
        """Some usable items, spread over the corpus, the shortest first: for validation."""
        items = self.usable(corpus, rate)
        items = items[:: max(1, len(items) // self.valid_items)][: self.valid_items]
        return sorted(items, key=lambda i: corpus.item(i).frames)


class Utterances:
    """The rows of every step, as a pure function of it."""

    def __init__(self, recipe: UtteranceRecipe, corpus: Corpus, rate: float) -> None:
        """rate: of the corpus's frames, in Hz. Raises SettingsError: no clip can be used."""
        self.recipe, self.corpus, self.rate = recipe, corpus, rate
        self.usable = recipe.usable(corpus, rate)
        if not self.usable:
            raise SettingsError(f"{corpus.folder} has no aligned clip of at most {recipe.max_seconds:g} s; align it first")
        self.mates: dict[str, list[int]] = defaultdict(list)  # the clips of each speaker
        for i in self.usable:
            self.mates[corpus.item(i).speaker].append(i)
        self._epoch = -1
        self._batches: list[list[Row]] = []
        self.batches_per_epoch = len(self.epoch(0))

    def at(self, step: int) -> list[Row]:
        """The rows of a step."""
        epoch, k = divmod(step, self.batches_per_epoch)
        batches = self.epoch(epoch)
        return batches[k % len(batches)]

    def epoch(self, epoch: int) -> list[list[Row]]:
        """The batches of an epoch; the last one asked for is kept."""
        if epoch != self._epoch:
            recipe, items = self.recipe, self.corpus.items
            chance = random.Random(f"rows {recipe.seed} {epoch}")
            longest = recipe.join_seconds * self.rate
            rows: list[Row] = []
            for i in self.usable:
                mate = chance.choice(self.mates[items[i].speaker])
                fits = mate != i and items[i].frames + items[mate].frames <= longest
                rows.append((i, mate) if chance.random() < recipe.join and fits else (i,))
            lengths = [(sum(items[i].frames for i in row), sum(len(self.corpus.tokens(i)) for i in row)) for row in rows]
            weights = [items[row[0]].weight for row in rows]
            batches = buckets(lengths, weights, recipe.budget_frames, recipe.seed, epoch)
            self._epoch, self._batches = epoch, [[rows[k] for k in batch] for batch in batches]
        return self._batches


def heard_symbols(table: SymbolTable) -> Tensor:
    """Of each symbol [V] the one that a recognizer reads: phones without stress, one boundary for all."""
    return torch.tensor([1 if table.is_boundary(i) else k for i, k in enumerate(table.stress_free)])
