"""The recipe of the flow backend: utterances with aligned phones, alone or two of a speaker joined, to be filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tts.backends.flow.config import FlowConfig, FlowSettings
from tts.backends.flow.model import FlowBackend
from tts.backends.flow.path import FlowDraw, FlowDrawConfig, draw
from tts.errors import SettingsError
from tts.frames import Frames, Plan, Tokens, Utterance, frame_mask
from tts.text.tokens import SymbolTable
from tts.train.augment import NOISES, chance, make_noise, veil
from tts.train.data import Corpus, pad
from tts.train.loop import Task, mean_losses, step_seed
from tts.train.speaker import trained_speaker
from tts.train.utterances import Row, UtteranceRecipe, Utterances, heard_symbols


@dataclass(frozen=True)
class BackendRecipe(UtteranceRecipe):
    """What is trained and on what; base-en's values stand in configs/train/backend.yaml.

    The vocabulary, its table and, with `normalise`, mel_mean and mel_std of the model are those of the training corpus.
    """

    model: FlowConfig = field(default_factory=FlowConfig)
    draw: FlowDrawConfig = field(default_factory=FlowDrawConfig)
    normalise: bool = True
    speaker_start: Path | None = None  # a run of `mynah train speaker`, whose encoder becomes the model's
    noisy_prompt: float = 0.0  # how often the prompt is heard under noise of some kind, while the target stays clean
    noisy_prompt_snr: tuple[float, float] = (-5.0, 20.0)  # dB, uniform, as AudioGen's mixing


class BackendTask(Task):
    """Mel from phones and a prompt. train, valid: prepared corpora of one symbol table, with alignments."""

    def __init__(self, recipe: BackendRecipe, train: Corpus, valid: Corpus) -> None:
        self.recipe, self.train, self.valid = recipe, train, valid
        table = SymbolTable(tuple(train.tables["symbols"]))
        model = replace(recipe.model, vocabulary=len(table), table=table.identity)
        for corpus in (train, valid):
            if corpus.tables["table"] != table.identity or corpus.tables["mel"] != model.mel.spec.flavour:
                raise SettingsError(f"{corpus.folder} has other symbols or another mel than the recipe; prepare it again")
        self.rows = Utterances(recipe, train, float(model.mel.spec.rate))
        if recipe.normalise:
            mean, deviation = _statistics(train, self.rows.usable)
            model = replace(model, mel_mean=mean, mel_std=deviation)
        encoder = trained_speaker(recipe.speaker_start) if recipe.speaker_start is not None else None
        if encoder is not None:
            model = replace(model, speaker=encoder.config)
        elif model.speaker is not None:
            raise SettingsError("a flow with a speaker encoder needs recipe.speaker_start, a run of `mynah train speaker`")
        self.as_heard = heard_symbols(table)
        torch.manual_seed(recipe.seed)
        self.backend = FlowBackend(model)
        if encoder is not None and self.backend.speaker is not None:
            self.backend.speaker.encoder.load_state_dict(encoder.state_dict())
        self.valid_batches = self._validation()

    def modules(self) -> dict[str, nn.Module]:
        return {"flow": self.backend}

    def batch(self, step: int) -> dict[str, Tensor]:
        """The rows of a step and everything random about them: a pure function of (recipe, step)."""
        generator = torch.Generator().manual_seed(step_seed(self.recipe.seed, step))
        rows = self.rows.at(step)
        batch = self._collate(self.train, rows, self.recipe.draw, generator)
        if self.recipe.noisy_prompt:
            batch["prompt_mel"] = self._veil_prompts(batch, rows, generator)
        return batch

    def loss(self, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        device = next(self.backend.parameters()).device
        given = {name: tensor.to(device) for name, tensor in batch.items()}
        spec = self.backend.emits
        rate = float(spec.rate)
        plan = Plan(given["lengths"].double() / rate, given["token_frames"].double() / rate)
        tokens = Tokens(given["ids"], given["token_lengths"], self.backend.table)
        utterance = Utterance(tokens, torch.zeros_like(given["lengths"]), plan=plan)
        noise = FlowDraw(**{f.name: given[f.name] for f in fields(FlowDraw) if f.name in given})
        return self.backend.loss(utterance, Frames(given["mel"], given["lengths"], spec), noise)

    def validate(self) -> dict[str, float]:
        """The losses on fixed clips with fixed noise, times and spans: each row one utterance, its prompt first."""
        return mean_losses(self.loss, self.valid_batches, "masked")

    def sample(self, writer: Any, step: int) -> None:
        """A picture: the mel of a valid clip above what the flow makes of its phones without any prompt."""
        if not self.valid_batches:
            return
        batch = {name: tensor[:1] for name, tensor in self.valid_batches[0].items()}
        rate = float(self.backend.emits.rate)
        plan = Plan(batch["lengths"].double() / rate, batch["token_frames"].double() / rate)
        tokens = Tokens(batch["ids"], batch["token_lengths"], self.backend.table)
        made = self.backend.generate(Utterance(tokens, torch.zeros(1).long(), plan=plan), FlowSettings()).data[0].cpu()
        real = batch["mel"][0, :, : made.shape[1]]
        picture = torch.cat((real, made)).flip(0)
        writer.add_image("mel", ((picture + 11) / 14).clamp(0, 1)[None], step)

    # --------------------------------------------------------------------------------------------------- data

    def _collate(
        self, corpus: Corpus, rows: Sequence[Row], config: FlowDrawConfig, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """mel [B, bands, T], lengths [B]; ids, token_frames [B, L], token_lengths [B]; and the fields of FlowDraw."""
        mel, lengths = pad([torch.cat([corpus.mel(i) for i in row], 1) for row in rows])
        ids, token_lengths = pad([torch.cat([corpus.tokens(i) for i in row]) for row in rows])
        token_frames, _ = pad([torch.cat([corpus.token_frames(i) for i in row]) for row in rows])
        joins = torch.tensor([corpus.item(row[0]).frames if len(row) > 1 else 0 for row in rows])
        noise = draw(lengths, mel.shape[1], config, generator, joins, float(self.recipe.model.mel.spec.rate))
        starts = (token_frames.cumsum(1) - token_frames).clamp(max=mel.shape[2] - 1)  # first frame of each token
        heard = torch.rand(len(rows), 1, generator=generator) < self.recipe.prompt_as_heard
        heard = heard & ~noise.masked.gather(1, starts)
        ids = torch.where(heard, self.as_heard[ids], ids)
        tensors = {"mel": mel, "lengths": lengths, "ids": ids, "token_lengths": token_lengths, "token_frames": token_frames}
        return {**tensors, **{name: tensor for name, tensor in vars(noise).items() if tensor is not None}}

    def _veil_prompts(self, batch: Mapping[str, Tensor], rows: Sequence[Row], generator: torch.Generator) -> Tensor:
        """The rows' mels [B, bands, T], some with noise over the frames that are not masked."""
        mels, recipe = batch["mel"].clone(), self.recipe.model.mel
        known = frame_mask(batch["lengths"], mels.shape[2]) & ~batch["masked"]
        low, high = self.recipe.noisy_prompt_snr
        for b, row in enumerate(rows):
            frames = known[b]
            if chance(generator) >= self.recipe.noisy_prompt or not frames.any():
                continue
            kind = NOISES[int(chance(generator) * len(NOISES))]
            voices = self._others(row, generator) if kind == "babble" else ()
            noise = make_noise(kind, int(frames.sum()), recipe, generator, voices)
            mels[b][:, frames] = veil(mels[b][:, frames], noise, low + (high - low) * chance(generator), recipe)
        return mels

    def _others(self, row: Row, generator: torch.Generator, count: int = 4) -> list[Tensor]:
        """Mels of clips of other speakers than the row's, as long as there are others."""
        mates = self.rows.mates
        speakers = [name for name in mates if name != self.train.item(row[0]).speaker] or list(mates)
        chosen = [mates[speakers[int(chance(generator) * len(speakers))]] for _ in range(count)]
        return [self.train.mel(clips[int(chance(generator) * len(clips))]) for clips in chosen]

    def _validation(self) -> list[dict[str, Tensor]]:
        items = self.recipe.chosen(self.valid, self.rows.rate)
        generator = torch.Generator().manual_seed(0)
        config = FlowDrawConfig(span_to_end=1.0, drop_prompt=0.0, drop_all=0.0, hide_prompt_phones=0.0)
        rows: list[Row] = [(i,) for i in items]
        return [self._collate(self.valid, rows[k : k + 16], config, generator) for k in range(0, len(rows), 16)]


def _statistics(corpus: Corpus, items: Sequence[int], most: int = 256) -> tuple[float, float]:
    """Mean and standard deviation of all mel values of some clips spread over the corpus."""
    values = torch.cat([corpus.mel(i).flatten() for i in items[:: max(1, len(items) // most)]])
    return round(float(values.mean()), 3), round(float(values.std()), 3)
