"""The recipe of the codec over mels: random crops, coded and restored, while a small reader listens to the first codebook.

mel ─► encoder ─► quantizer ─┬─ 1 to K codebooks ─► decoder ─► mel     L1 + MSE of frames, L1 of their differences in time
                             └─ the first alone ──► reader ─► phones   QDAC's recognition loss: what is said comes first
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tts.asr.model import Block
from tts.codecs.autoencoder import MelCodec, MelCodecConfig
from tts.errors import SettingsError
from tts.frames import frame_mask
from tts.text.tokens import PHONES
from tts.train.asr import IGNORED, frame_labels
from tts.train.augment import chance, muffle
from tts.train.data import Corpus, pad
from tts.train.loop import Task, step_seed

Batch = Mapping[str, Tensor]
VALID_ROWS = 16  # a batch of validation


@dataclass(frozen=True)
class ReaderConfig:
    """A reader of codes: kept small, so that the phones must lie open in the codebook."""

    dim: int = 192
    layers: int = 2
    kernel: int = 5  # codes
    expansion: int = 2


@dataclass(frozen=True)
class CodecRecipe:
    """What is trained and on what. With `normalise`, mel_mean and mel_std of the model are those of the training corpus."""

    model: MelCodecConfig = field(default_factory=MelCodecConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    normalise: bool = True
    batch_size: int = 24  # crops a step
    crop_frames: int = 150
    gain_db: float = 6.0  # the level of each crop is changed by up to this much, up or down
    lowpass_share: float = 0.1  # of the crops lose their upper bands, input and target alike
    mse: float = 1.0  # weight of the squared error, beside the absolute one
    delta: float = 0.25  # weight of the absolute error of differences between neighbouring frames
    recognition: float = 0.2  # weight of what the reader loses; 0: no reader
    ctc: float = 0.0  # weight, within it, of CTC beside the cross-entropy of frame labels
    min_score: float = -2.5  # of an alignment whose frame labels are trusted
    valid_items: int = 64
    seed: int = 0


class PhoneReader(nn.Module):
    """Phones of every mel frame from the vectors of one codebook; `stride` mel frames a code."""

    def __init__(self, width: int, stride: int, config: ReaderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.take = nn.Linear(width, dim)
        self.blocks = nn.ModuleList(Block(dim, config.kernel, config.expansion, 0.0) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, stride * len(PHONES.recognizer_symbols))

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """vectors [B, C, T] of codes, lengths [B] in codes -> logits [B, stride * T, symbols of a recognizer]."""
        mask = frame_mask(lengths, vectors.shape[2])[..., None]  # [B, T, 1]
        x = self.take(vectors.transpose(1, 2))  # [B, T, D]
        for block in self.blocks:
            x = block(x, mask)
        logits: Tensor = self.head(self.norm(x))  # [B, T, stride * V]
        return logits.reshape(len(x), -1, len(PHONES.recognizer_symbols)).float()


class CodecTask(Task):
    """Mels through codes and back. train, valid: prepared corpora; alignments beside them give the reader its labels.

    Of valid one crop, the middle, is taken from each of some clips spread over the list. A clip shorter than a crop is
    taken whole, and its padding counts nowhere.
    """

    def __init__(self, recipe: CodecRecipe, train: Corpus, valid: Corpus) -> None:
        self.recipe, self.train = recipe, train
        model = recipe.model
        for corpus in (train, valid):
            if corpus.tables["mel"] != model.mel.spec.flavour:
                raise SettingsError(f"{corpus.folder} has another mel than the recipe; prepare it again")
            if recipe.recognition and corpus.tables["table"] != PHONES.identity:
                raise SettingsError(f"{corpus.folder} has other symbols than the reader; prepare it again, or recognition=0")
        frames = torch.tensor([item.frames * item.weight for item in train.items], dtype=torch.float64)
        self.ends = frames.cumsum(0)  # so that each frame is as likely as its weight says
        if not len(train) or not self.ends[-1]:
            raise SettingsError(f"{train.folder} has no clip with a weight")
        if recipe.normalise:
            mean, deviation = _statistics(train)
            model = replace(model, mel_mean=mean, mel_std=deviation)
        torch.manual_seed(recipe.seed)
        self.codec = MelCodec(model)
        self.books = self.codec.emits.width
        self.reader = PhoneReader(self.codec.quantizer.dim, model.stride, recipe.reader) if recipe.recognition else None
        self.floor, self.gain = math.log(model.mel.floor), model.mel.power * math.log(10) / 20  # of a log-mel, per dB
        chosen = torch.linspace(0, max(0, len(valid) - 1), min(recipe.valid_items, len(valid))).long().tolist()
        rows = [self._crop(valid, i, 0.5) for i in chosen]
        self.valid = [self._collate(rows[k : k + VALID_ROWS]) for k in range(0, len(rows), VALID_ROWS)]

    def modules(self) -> dict[str, nn.Module]:
        return {"codec": self.codec, **({"reader": self.reader} if self.reader is not None else {})}

    def aids(self) -> frozenset[str]:
        return frozenset({"reader"})

    # ------------------------------------------------------------------------------------------------ batches

    def batch(self, step: int) -> dict[str, Tensor]:
        """The crops of a step: mel [B, bands, T], lengths [B], labels [B, T] (IGNORED: not known)."""
        recipe = self.recipe
        draw = Generator().manual_seed(step_seed(recipe.seed, step))
        places = torch.rand(recipe.batch_size, generator=draw, dtype=torch.float64) * self.ends[-1]
        rows = []
        for i in torch.searchsorted(self.ends, places, right=True).clamp(max=len(self.ends) - 1).tolist():
            mel, labels = self._crop(self.train, i, chance(draw))
            if chance(draw) < recipe.lowpass_share:
                mel = muffle(mel, draw)
            rows.append((self._louder(mel, recipe.gain_db * (2 * chance(draw) - 1)), labels))
        return self._collate(rows)

    def _crop(self, corpus: Corpus, i: int, place: float) -> tuple[Tensor, Tensor]:
        """Mel [bands, T] and labels [T] of a crop; place: 0 the first, 1 the last that clip i has."""
        spare = max(0, corpus.item(i).frames - self.recipe.crop_frames)
        start = min(spare, int(place * (spare + 1)))
        part = slice(start, start + self.recipe.crop_frames)
        return corpus.mel(i)[:, part], frame_labels(corpus, i, self.recipe.min_score)[part]

    def _louder(self, mel: Tensor, gain_db: float) -> Tensor:
        """A log-mel at another level; what was at the floor stays there, nothing falls below it."""
        silent = mel <= self.floor + 0.01  # as half floats tell the floor
        return torch.where(silent, self.floor, mel + self.gain * gain_db).clamp(min=self.floor)

    @staticmethod
    def _collate(rows: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        mel, lengths = pad([mel for mel, _ in rows])
        return {"mel": mel, "lengths": lengths, "labels": pad([labels for _, labels in rows], IGNORED)[0]}

    # ------------------------------------------------------------------------------------------------- losses

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Errors of the restored mel in its standard deviations, the quantizer's own losses, and the reader's.

        Some rows are restored from fewer codebooks: the quantizer's dropout. The reader has the first of all rows.
        """
        recipe, mel, lengths = self.recipe, batch["mel"], batch["lengths"]
        restored, quantized = self.codec(mel, lengths)
        mask = frame_mask(lengths, mel.shape[2])[:, None]  # [B, 1, T]
        error = (restored.float() - mel) / self.codec.config.mel_std * mask  # [B, bands, T]
        values = mask.sum() * mel.shape[1]
        terms = {
            "l1": error.abs().sum() / values,
            "mse": error.square().sum() / values,
            "delta": (error.diff(dim=2) * mask[..., 1:]).abs().sum() / values,
        }
        loss = terms["l1"] + recipe.mse * terms["mse"] + recipe.delta * terms["delta"] + sum(quantized.losses.values())
        if self.reader is not None:
            reading = self._reading(self.reader(quantized.first, self.codec.codes_of(lengths)), batch)
            loss = loss + recipe.recognition * (reading["phones"] + recipe.ctc * reading.get("ctc", 0.0))
            terms |= reading
        return {"loss": loss, **terms, **quantized.losses}

    def _reading(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the reader loses: nats a labelled frame ("phones"), and, where it counts, nats a phone by CTC ("ctc")."""
        labels = batch["labels"]  # [B, T]
        logits = logits[:, : labels.shape[1]]  # the last code may reach beyond the last frame
        count = (labels != IGNORED).sum().clamp(min=1)
        frames = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="sum") / count
        if not self.recipe.ctc:
            return {"phones": frames}
        said = [row.unique_consecutive() for row in labels]
        said = [row[row > 0] for row in said]  # the phones of each crop; none where they are not known
        counts = torch.tensor([len(row) for row in said], device=labels.device)
        log_probs = logits.log_softmax(-1).transpose(0, 1)  # [T, B, V]
        ctc = F.ctc_loss(log_probs, torch.cat(said), batch["lengths"], counts, reduction="none", zero_infinity=True)
        return {"phones": frames, "ctc": ctc[counts > 0].sum() / counts.sum().clamp(min=1)}

    # --------------------------------------------------------------------------------------------- validation

    def validate(self) -> dict[str, float]:
        """On the valid crops: mean absolute error of the log-mel from all codebooks, 4 and 1; how many of the labelled frames
        the reader gets right (%); perplexity of the codebooks, which the number of codes seen keeps below the true one."""
        if not self.valid:
            return {}
        device = next(self.codec.parameters()).device
        kept = {**{f"mel_l1_{n}": n for n in (1, 4) if n < self.books}, "mel_l1": self.books}
        errors, values = dict.fromkeys(kept, 0.0), 0
        right = labelled = 0
        seen = [torch.zeros(size) for size in self.codec.emits.sizes]
        for batch in self.valid:
            mel, lengths, labels = (batch[name].to(device) for name in ("mel", "lengths", "labels"))
            mask = frame_mask(lengths, mel.shape[2])[:, None]  # [B, 1, T]
            values += int(mask.sum()) * mel.shape[1]
            for name, n in kept.items():  # the last with all codebooks
                restored, quantized = self.codec(mel, lengths, torch.full_like(lengths, n))
                errors[name] += ((restored - mel) * mask).abs().sum().item()
            real = frame_mask(self.codec.codes_of(lengths), quantized.codes.shape[2])  # [B, codes]
            for k, counts in enumerate(seen):
                counts += torch.bincount(quantized.codes[:, k][real].cpu(), minlength=len(counts))
            if self.reader is not None:
                read = self.reader(quantized.first, self.codec.codes_of(lengths)).argmax(-1)[:, : labels.shape[1]]
                right += int((read == labels).sum())
                labelled += int((labels != IGNORED).sum())
        spread = [float(torch.special.entr(counts / counts.sum()).sum().exp()) for counts in seen]
        scores = {name: error / values for name, error in errors.items()}
        scores |= {"perplexity_min": min(spread), "perplexity_mean": sum(spread) / len(spread)}
        return scores | ({"phone_accuracy": 100 * right / labelled} if labelled else {})

    def sample(self, writer: Any, step: int) -> None:
        """A picture: a valid mel, above it restored from all codebooks and from the first alone."""
        if not self.valid:
            return
        device = next(self.codec.parameters()).device
        mel, lengths = (self.valid[0][name][:1].to(device) for name in ("mel", "lengths"))
        copies = [self.codec(mel, lengths, torch.full_like(lengths, n))[0][0] for n in (self.books, 1)]
        picture = torch.cat([mel[0], *copies]).flip(0).cpu()
        writer.add_image("mel", ((picture + 11) / 14).clamp(0, 1)[None], step)


def _statistics(corpus: Corpus, most: int = 256) -> tuple[float, float]:
    """Mean and standard deviation of all mel values of some clips spread over the corpus."""
    values = torch.cat([corpus.mel(i).flatten() for i in range(0, len(corpus), max(1, len(corpus) // most))])
    return round(float(values.mean()), 3), round(float(values.std()), 3)
