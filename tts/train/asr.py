"""The recipe of the recognizer: CTC beside frame labels, over mels that are masked, warped and veiled with noise."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.asr.align import phones_of, read
from tts.asr.model import CTCRecognizer, RecognizerConfig
from tts.errors import SettingsError
from tts.text.tokens import PHONES
from tts.train.data import BatchPlan, Corpus, pad
from tts.train.loop import Task

IGNORED = -100  # a frame label that is not known


@dataclass(frozen=True)
class RecognizerRecipe:
    """What is trained and on what; the defaults made base-en's recognizer."""

    model: RecognizerConfig = field(default_factory=RecognizerConfig)
    budget_frames: int = 6_400  # a batch: rows times the longest, 128 s
    max_seconds: float = 20.0
    ctc_weight: float = 1.0  # 0 for the first minutes: CTC alone settles on silence before it finds the phones
    frame_weight: float = 1.0  # of the cross-entropy of frame labels, where an alignment is known
    aligned_only: bool = False  # leave out clips without frame labels
    min_score: float = -3.0  # of an alignment whose frame labels are trusted
    warp: float = 0.12  # the frequency axis is stretched by up to this share (length of the vocal tract)
    tempo: float = 0.15  # and time by up to this
    time_masks: int = 2
    time_mask_seconds: float = 0.4
    band_masks: int = 2
    band_mask: int = 14  # bands
    noise_share: float = 0.4  # of the clips are veiled with noise
    lowpass_share: float = 0.25  # of the clips lose their upper bands
    valid_items: int = 120
    seed: int = 0


class RecognizerTask(Task):
    """Phones from mels. train, valid: prepared corpora with tokens; an alignment beside train adds frame labels."""

    def __init__(self, recipe: RecognizerRecipe, train: Corpus, valid: Corpus) -> None:
        self.recipe, self.train, self.valid = recipe, train, valid
        longest = recipe.max_seconds * float(recipe.model.mel.spec.rate)
        fits = [2 * len(phones_of(item.tokens)) <= item.frames * 1.6 and item.frames <= longest for item in train.items]
        lengths = [(item.frames, len(item.tokens)) for item in train.items]
        usable = [bool(item.tokens) and fit for item, fit in zip(train.items, fits, strict=True)]
        if recipe.aligned_only:
            usable = [use and self._aligned(i) for i, use in enumerate(usable)]
        weights = [item.weight * use for item, use in zip(train.items, usable, strict=True)]
        if not any(weights):
            raise SettingsError("no clip of the training corpus has a text; a recognizer needs transcripts")
        self.plan = BatchPlan(lengths, weights, recipe.budget_frames, recipe.seed)
        torch.manual_seed(recipe.seed)
        self.recognizer = CTCRecognizer(recipe.model)
        known = [i for i, item in enumerate(valid.items) if item.tokens and item.frames <= longest]
        self.valid_items = known[:: max(1, len(known) // recipe.valid_items)]

    def modules(self) -> dict[str, nn.Module]:
        return {"recognizer": self.recognizer}

    def batch(self, step: int) -> dict[str, Tensor]:
        """mel [B, bands, T], lengths [B], targets [sum L], target_lengths [B], labels [B, T] (IGNORED: not known)."""
        _, rows = self.plan.at(step)
        draw = torch.Generator().manual_seed(step * 1_000_003 + self.recipe.seed)
        mels, targets, labels = [], [], []
        for i in rows:
            mel, label = self._stretch(self.train.mel(i), self._labels(i), draw)
            mels.append(self._veil(mel, draw))
            labels.append(label)
            targets.append(torch.tensor(phones_of(self.train.item(i).tokens)))
        mel, lengths = pad(mels)
        return {
            "mel": mel,
            "lengths": lengths,
            "targets": torch.cat(targets),
            "target_lengths": torch.tensor([len(t) for t in targets]),
            "labels": pad(labels, IGNORED)[0],
        }

    def _labels(self, i: int) -> Tensor:
        """[T] recognizer index of every frame."""
        if not self._aligned(i):
            return torch.full((self.train.item(i).frames,), IGNORED)
        index = torch.tensor(PHONES.to_recognizer)[self.train.tokens(i)]
        return torch.repeat_interleave(index, self.train.token_frames(i)).clamp(min=0)

    def _aligned(self, i: int) -> bool:
        """Whether item i has an alignment to be trusted."""
        train = self.train
        return train.alignment is not None and train.score(i) >= self.recipe.min_score and len(train.tokens(i)) > 0

    def _stretch(self, mel: Tensor, labels: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Another tempo and another throat: both axes of the picture are stretched a little."""
        recipe = self.recipe
        one, two = (2 * torch.rand(2, generator=draw) - 1).tolist()
        T = max(1, round(mel.shape[1] * (1 + recipe.tempo * one)))
        bands = mel.shape[0]
        height = round(bands * (1 + recipe.warp * two))
        picture = F.interpolate(mel[None, None], (height, T), mode="bilinear", align_corners=False)[0, 0]
        picture = picture[:bands]
        if height < bands:
            picture = torch.cat([picture, picture[-1:].expand(bands - height, T)])
        index = (torch.arange(T) * labels.shape[0] // T).clamp(max=labels.shape[0] - 1)
        return picture, labels[index]

    def _veil(self, mel: Tensor, draw: torch.Generator) -> Tensor:
        """Noise and a lost upper band, then SpecAugment (Park et al. 2019): stripes set to the mean."""
        recipe = self.recipe
        bands, T = mel.shape

        def chance() -> float:
            return float(torch.rand((), generator=draw))

        if chance() < recipe.lowpass_share:
            edge = int(bands * (0.55 + 0.4 * chance()))
            mel = torch.cat([mel[:edge], mel[edge:] - 3 - 4 * chance()])
        if chance() < recipe.noise_share:
            colour = (torch.linspace(0, 1, bands) * (4 * chance() - 3))[:, None]
            level = mel.mean() + 3 - 7 * chance()
            noise = level + colour + 0.6 * torch.randn(bands, T, generator=draw)
            mel = torch.logaddexp(mel, noise)
        mean = mel.mean()
        mel = mel.clone()
        rate = float(recipe.model.mel.spec.rate)
        for _ in range(recipe.time_masks):
            width = min(T // 6, int(chance() * recipe.time_mask_seconds * rate))
            start = int(chance() * (T - width))
            mel[:, start : start + width] = mean
        for _ in range(recipe.band_masks):
            width = int(chance() * recipe.band_mask)
            start = int(chance() * (bands - width))
            mel[start : start + width] = mean
        return mel

    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """CTC (Graves et al. 2006) per phone, and cross-entropy per labelled frame."""
        device = next(self.recognizer.parameters()).device
        batch = {name: value.to(device) for name, value in batch.items()}
        log_probs = self.recognizer(batch["mel"], batch["lengths"])  # [B, T, V]
        ctc = F.ctc_loss(
            log_probs.transpose(0, 1),
            batch["targets"],
            batch["lengths"],
            batch["target_lengths"],
            reduction="sum",
            zero_infinity=True,
        ) / batch["target_lengths"].sum().clamp(min=1)
        labelled = (batch["labels"] != IGNORED).sum().clamp(min=1)
        frames = F.nll_loss(log_probs.transpose(1, 2), batch["labels"], ignore_index=IGNORED, reduction="sum") / labelled
        return {"loss": self.recipe.ctc_weight * ctc + self.recipe.frame_weight * frames, "ctc": ctc, "frames": frames}

    def validate(self) -> dict[str, float]:
        """Phone error rate (%) of greedy reading, by corpus and in all."""
        from torchaudio.functional import edit_distance

        device = next(self.recognizer.parameters()).device
        errors: dict[str, list[int]] = {}
        for i in self.valid_items:
            mel, item = self.valid.mel(i)[None].to(device), self.valid.item(i)
            log_probs = self.recognizer(mel, torch.tensor([mel.shape[2]], device=device))[0].cpu()
            heard, said = phones_of(read(log_probs).tokens), phones_of(item.tokens)
            for name in ("all", item.corpus):
                row = errors.setdefault(name, [0, 0])
                row[0] += edit_distance(heard, said)
                row[1] += len(said)
        return {f"per_{name}": 100 * wrong / max(1, n) for name, (wrong, n) in errors.items()}
