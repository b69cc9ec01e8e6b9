"""The recipe of the recognizer: CTC beside frame labels, over mels that are masked, warped and veiled with noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.asr.align import phones_of, read
from tts.asr.check import edits
from tts.asr.model import CTCRecognizer, RecognizerConfig
from tts.errors import SettingsError
from tts.text.tokens import PHONES
from tts.train.augment import add_noise, chance, muffle, spec_augment, stretch
from tts.train.data import BatchPlan, Corpus, pad
from tts.train.loop import Task

IGNORED = -100  # a frame label that is not known
ROOM = 1.25  # frames a phone; CTC needs one, also at the fastest tempo, and one more between two of a kind


@dataclass(frozen=True)
class RecognizerRecipe:
    """What is trained and on what; base-en's values stand in configs/train/asr.yaml."""

    model: RecognizerConfig = field(default_factory=RecognizerConfig)
    budget_frames: int = 6_400  # a batch: rows times the longest, 128 s
    max_seconds: float = 20.0
    ctc_weight: float = 1.0  # 0 for the first minutes: CTC alone settles on silence before it finds the phones
    frame_weight: float = 1.0  # of the cross-entropy of frame labels, where an alignment is known
    aligned_only: bool = False  # leave out clips without frame labels
    min_score: float = -3.0  # of an alignment whose frame labels are trusted
    heard: bool = False  # train on what an earlier recognizer heard in clips without a text (noisy student)
    heard_score: float = -0.35  # where its log-confidence (the alignment's score) is at least this
    splice: float = 0.0  # of the clips go on, from some word on, with the end of another: few texts are soon known by heart
    warp: float = 0.12  # the frequency axis is stretched by up to this share (length of the vocal tract)
    tempo: float = 0.15  # and time by up to this
    time_masks: int = 2
    time_mask_seconds: float = 0.4
    band_masks: int = 2
    band_mask: int = 14  # bands
    noise_share: float = 0.4  # of the clips are veiled with noise
    lowpass_share: float = 0.25  # of the clips lose their upper bands
    valid_items: int = 120  # at least, of those there are; spread over the list
    seed: int = 0


class RecognizerTask(Task):
    """Phones from mels. train, valid: prepared corpora with tokens; an alignment beside train adds frame labels.

    With `heard`, a noisy student (Xie et al. 2020): clips without a text have for their text the phones that a teacher, the
    recognizer that aligned them, heard in the clean sound; the student hears it masked, warped and veiled like any other.
    """

    def __init__(self, recipe: RecognizerRecipe, train: Corpus, valid: Corpus) -> None:
        self.recipe, self.train, self.valid = recipe, train, valid
        longest = recipe.max_seconds * float(recipe.model.mel.spec.rate)
        lengths = [(item.frames, len(self._tokens(i))) for i, item in enumerate(train.items)]
        weights = [item.weight * self._usable(i, longest) for i, item in enumerate(train.items)]
        if not any(weights):
            needed = "aligned clip" if recipe.aligned_only else "clip"
            raise SettingsError(
                f"{train.folder} has no {needed} with a text that fits and of at most {recipe.max_seconds:g} s; "
                "a recognizer needs transcripts"
            )
        self.plan = BatchPlan(lengths, weights, recipe.budget_frames, recipe.seed)
        self.endings = [i for i, weight in enumerate(weights) if weight and aligned(train, i, self._trusted(i))]
        torch.manual_seed(recipe.seed)
        self.recognizer = CTCRecognizer(recipe.model)
        known = [i for i, item in enumerate(valid.items) if item.tokens and item.frames <= longest]
        self.valid_items = known[:: max(1, len(known) // recipe.valid_items)]

    def modules(self) -> dict[str, nn.Module]:
        return {"recognizer": self.recognizer}

    def batch(self, step: int) -> dict[str, Tensor]:
        """mel [B, bands, T], lengths [B], targets [sum L], target_lengths [B], labels [B, T] (IGNORED: not known)."""
        recipe = self.recipe
        _, rows = self.plan.at(step)
        draw = torch.Generator().manual_seed(step * 1_000_003 + recipe.seed)
        mels, targets, labels = [], [], []
        for i in rows:
            mel, label, phones = self._clip(i, draw)
            mel, label = self._augmented(mel, label, draw)
            mels.append(mel)
            labels.append(label)
            targets.append(torch.tensor(phones, dtype=torch.int64))
        mel, lengths = pad(mels)
        return {
            "mel": mel,
            "lengths": lengths,
            "targets": torch.cat(targets),
            "target_lengths": torch.tensor([len(t) for t in targets]),
            "labels": pad(labels, IGNORED)[0],
        }

    def _clip(self, i: int, draw: torch.Generator) -> tuple[Tensor, Tensor, list[int]]:
        """Item i: mel [bands, T], labels [T], phones; or `splice` of the time its beginning, and the end of another.

        Source: aligned data augmentation, Lam et al. 2021 (arXiv:2104.01393). Changed: one cut a clip, between words.
        """
        mel, labels = self.train.mel(i), frame_labels(self.train, i, self._trusted(i))
        if not (self.recipe.splice and self.endings) or chance(draw) >= self.recipe.splice:
            return mel, labels, phones_of(self._tokens(i))
        j = self.endings[int(chance(draw) * len(self.endings))]
        here = words(self.train, i) if aligned(self.train, i, self._trusted(i)) else []
        there = words(self.train, j)
        if not here or not there:
            return mel, labels, phones_of(self._tokens(i))
        token, cut = here[int(chance(draw) * len(here))]
        other, last = self.train.mel(j), mel.shape[1] - cut
        after, start = min(there, key=lambda word: abs(other.shape[1] - word[1] - last))  # about as long as what it replaces
        colour = mel.mean(1, keepdim=True) - other.mean(1, keepdim=True)  # one channel throughout
        ends = frame_labels(self.train, j, self._trusted(j))
        phones = phones_of(self.train.tokens(i)[:token].tolist() + self.train.tokens(j)[after:].tolist())
        return torch.cat([mel[:, :cut], other[:, start:] + colour], 1), torch.cat([labels[:cut], ends[start:]]), phones

    def _usable(self, i: int, longest: float) -> bool:
        """Whether item i of train has a text with ROOM for its phones, and at most `longest` frames."""
        tokens = self._tokens(i)
        fits = ROOM * len(phones_of(tokens)) <= self.train.item(i).frames <= longest
        return bool(tokens) and fits and (not self.recipe.aligned_only or aligned(self.train, i, self._trusted(i)))

    def _tokens(self, i: int) -> Sequence[int]:
        """The tokens item i of train is taught: its text's, else with `heard` those that were surely heard, else none."""
        item = self.train.item(i)
        if item.tokens or not self.recipe.heard or not aligned(self.train, i, self.recipe.heard_score):
            return item.tokens
        return self.train.tokens(i).tolist()

    def _trusted(self, i: int) -> float:
        """The score from which item i's frame labels are trusted: a reading must be surer than the alignment of a text."""
        return self.recipe.min_score if self.train.item(i).tokens else self.recipe.heard_score

    def _augmented(self, mel: Tensor, labels: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Another voice in another room: mel [bands, T] and labels [T] to the same of another T."""
        recipe = self.recipe
        mel, labels = stretch(mel, labels, recipe.tempo, recipe.warp, draw)
        if chance(draw) < recipe.lowpass_share:
            mel = muffle(mel, draw)
        if chance(draw) < recipe.noise_share:
            mel = add_noise(mel, draw)
        longest = recipe.time_mask_seconds * float(recipe.model.mel.spec.rate)
        return spec_augment(mel, recipe.time_masks, longest, recipe.band_masks, recipe.band_mask, draw), labels

    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """CTC (Graves et al. 2006) per phone, and cross-entropy per labelled frame."""
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
        device = next(self.recognizer.parameters()).device
        errors: dict[str, list[int]] = {}
        for i in self.valid_items:
            mel, item = self.valid.mel(i)[None].to(device), self.valid.item(i)
            log_probs = self.recognizer(mel, torch.tensor([mel.shape[2]], device=device))[0].cpu()
            said = phones_of(item.tokens)
            wrong = sum(not step.same for step in edits(said, phones_of(read(log_probs).tokens)))
            for name in ("all", item.corpus):
                row = errors.setdefault(name, [0, 0])
                row[0] += wrong
                row[1] += len(said)
        return {f"per_{name}": 100 * wrong / max(1, n) for name, (wrong, n) in errors.items()}


def frame_labels(corpus: Corpus, i: int, min_score: float) -> Tensor:
    """[T] recognizer index of every frame, 0 in silence; IGNORED throughout without an alignment to be trusted."""
    if not aligned(corpus, i, min_score):
        return torch.full((corpus.item(i).frames,), IGNORED)
    index = torch.tensor(PHONES.to_recognizer)[corpus.tokens(i)]
    return torch.repeat_interleave(index, corpus.token_frames(i)).clamp(min=0)


def words(corpus: Corpus, i: int) -> list[tuple[int, int]]:
    """Where words begin in an aligned item, but for the first: token and frame."""
    tokens, begins = corpus.tokens(i).tolist(), corpus.token_frames(i).cumsum(0).tolist()
    return [(n, begins[n - 1]) for n in range(2, len(tokens)) if PHONES.to_recognizer[tokens[n]] <= 0 < begins[n - 1]]


def aligned(corpus: Corpus, i: int, min_score: float) -> bool:
    """Whether item i has an alignment that scores at least min_score."""
    return corpus.alignment is not None and corpus.score(i) >= min_score and len(corpus.tokens(i)) > 0
