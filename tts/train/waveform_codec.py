"""The recipe of the codec over waveforms: both halves learn end to end, from spectral losses, judges and a reader of phones.

samples ─► encoder ─► quantizer ─┬─ 1 to K codebooks ─► decoder ─► samples     spectral losses, and judges of the copy
                                 └─ the first alone ──► reader ─► phones       QDAC's recognition loss
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from tts.audio import MelRecipe, log_mel
from tts.codecs.quantizers import Quantized
from tts.codecs.waveform import WaveCodec, WaveCodecConfig, WaveDecoder
from tts.errors import SettingsError
from tts.text.tokens import PHONES
from tts.train.adversarial import AdversarialConfig, balanced, play
from tts.train.asr import IGNORED, frame_labels
from tts.train.augment import vary
from tts.train.codec import PhoneReader, ReaderConfig
from tts.train.data import Corpus
from tts.train.discriminators import Discriminators
from tts.train.loop import LoopConfig, Minimise, Task, adamw
from tts.train.losses import SpectralLoss, SpectralLossConfig


@dataclass(frozen=True)
class WaveCodecRecipe:
    """What is trained and on what.

    The spectral loss pulls at the samples with a gradient of length 1; the weights of all else stand beside that.
    """

    model: WaveCodecConfig = field(default_factory=WaveCodecConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    loss: SpectralLossConfig = field(default_factory=SpectralLossConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)  # with weight 0 there are no judges
    mel: MelRecipe = field(default_factory=MelRecipe)  # of the corpora; their labels are of its frames
    exclude: tuple[str, ...] = ("librispeech-dev-clean",)  # corpora that are no targets: they are muffled
    batch_size: int = 12  # crops a step
    crop_frames: int = 50  # of the mel
    gain_db: float = 6.0  # the level of each crop is changed by up to this much, up or down
    lowpass_share: float = 0.1  # of the crops are low-passed, input and target alike
    lowpass_hz: tuple[float, float] = (3_000.0, 7_000.0)
    commitment: float = 1.0  # weight of the quantizer's own losses
    recognition: float = 0.2  # weight of what the reader loses; 0: no reader
    min_score: float = -2.5  # of an alignment whose frame labels are trusted
    valid_crops: int = 32
    seed: int = 0


class WaveCodecTask(Task):
    """Sound through codes and back.

    train, valid: prepared corpora with audio; alignments beside them give the reader its labels. Of valid one crop, the
    middle, is taken from each of some clips spread over the list.
    """

    def __init__(self, recipe: WaveCodecRecipe, train: Corpus, valid: Corpus) -> None:
        self.recipe, self.train = recipe, train
        self._check(train, valid)
        self.crop = recipe.crop_frames * recipe.mel.hop  # samples
        self.clips = [i for i in self._long_enough(train) if train.items[i].corpus not in recipe.exclude]
        if not self.clips:
            raise SettingsError(f"no recording outside {recipe.exclude} is as long as a crop of {self.crop} samples")
        places = [train.items[i].samples // recipe.mel.hop - recipe.crop_frames + 1 for i in self.clips]
        self.ends = np.cumsum(places)  # so that each frame of the corpus is as likely as any other to begin a crop
        torch.manual_seed(recipe.seed)
        self.codec, self.decoder = WaveCodec(recipe.model), WaveDecoder(recipe.model)
        self.books, self.labels = self.codec.emits.width, recipe.model.hop // recipe.mel.hop  # labels a code
        self.reader = PhoneReader(self.codec.quantizer.dim, self.labels, recipe.reader) if recipe.recognition else None
        self.judges = Discriminators(recipe.adversarial.judges) if recipe.adversarial.weight else None
        self.spectral = SpectralLoss(recipe.loss)
        fit = self._long_enough(valid)
        chosen = [fit[int(k)] for k in np.linspace(0, len(fit) - 1, min(recipe.valid_crops, len(fit)))]
        middles = [(valid.items[i].samples // recipe.mel.hop - recipe.crop_frames) // 2 for i in chosen]
        self.valid = [self._crop(valid, i, start) for i, start in zip(chosen, middles, strict=True)]

    def _check(self, *corpora: Corpus) -> None:
        recipe, rates = self.recipe, (self.recipe.model.sample_rate, self.recipe.loss.sample_rate)
        if set(rates) != {recipe.mel.sample_rate}:
            raise SettingsError(f"model and loss must be at the {recipe.mel.sample_rate} Hz of the mel, got {rates}")
        if recipe.recognition and recipe.model.hop % recipe.mel.hop:
            raise SettingsError(
                f"a code of {recipe.model.hop} samples has no whole number of labels, one each {recipe.mel.hop} samples; "
                "choose other strides, or recognition=0"
            )
        for corpus in corpora:
            if corpus.tables["mel"] != recipe.mel.spec.flavour:
                raise SettingsError(f"{corpus.folder} has another mel than the recipe; prepare it again")
            if recipe.recognition and corpus.tables["table"] != PHONES.identity:
                raise SettingsError(f"{corpus.folder} has other symbols than the reader; prepare it again, or recognition=0")

    def _long_enough(self, corpus: Corpus) -> list[int]:
        return [i for i in range(len(corpus.items)) if corpus.items[i].samples >= self.crop]

    def _crop(self, corpus: Corpus, i: int, start: int) -> tuple[Tensor, Tensor]:
        """Samples [N] and labels [T] of a crop of clip i from a frame on."""
        labels = frame_labels(corpus, i, self.recipe.min_score)
        return corpus.audio(i)[start * self.recipe.mel.hop :][: self.crop], labels[start:][: self.recipe.crop_frames]

    def modules(self) -> dict[str, nn.Module]:
        found = {"codec": self.codec, "vocoder": self.decoder, "reader": self.reader, "judges": self.judges}
        return {name: module for name, module in found.items() if module is not None}

    def aids(self) -> frozenset[str]:
        return frozenset({"reader", "judges"})

    def optimizers(self, config: LoopConfig) -> dict[str, Optimizer]:
        """One for the codec and its reader, one for its judges."""
        modules = self.modules()
        judges = modules.pop("judges", None)
        found = {"model": adamw([p for module in modules.values() for p in module.parameters()], config)}
        if judges is not None:
            faster = replace(config, lr=self.recipe.adversarial.lr * config.lr)
            found["judges"] = adamw(list(judges.parameters()), faster)
        return found

    def batch(self, step: int) -> dict[str, Tensor]:
        """The crops of a step, a pure function of (seed, step): samples [B, N], labels [B, T] (IGNORED: not known)."""
        recipe = self.recipe
        random = np.random.default_rng((recipe.seed, step))
        rows = []
        for place in random.integers(0, self.ends[-1], recipe.batch_size):
            k = int(np.searchsorted(self.ends, place, side="right"))
            rows.append(self._crop(self.train, self.clips[k], int(place - (self.ends[k - 1] if k else 0))))
        samples = torch.stack([samples for samples, _ in rows])  # [B, N]
        samples = vary(samples, random, recipe.gain_db, recipe.lowpass_share, recipe.lowpass_hz, recipe.mel.sample_rate)
        return {"samples": samples, "labels": torch.stack([labels for _, labels in rows])}

    def loss(self, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """Spectral losses of the copy, and what does not pass through it; "loss" is the sum, each by its own scale."""
        _, spectral, aside, terms = self._copy(batch)
        return {"loss": spectral + aside, **terms}

    def update(self, batch: Mapping[str, Tensor], step: int, minimise: Minimise) -> Mapping[str, Tensor]:
        """With judges, a turn of each side; without, the spectral losses and what stands beside them."""
        made, spectral, aside, terms = self._copy(batch)
        told: Mapping[str, Tensor] = {}
        if self.judges is None:
            pull, _ = balanced({"spectral": spectral}, {"spectral": 1.0}, made)
        else:
            pull, told = play(self.judges, self.recipe.adversarial, made, batch["samples"], spectral, step, minimise)
        norm = minimise(pull + aside, "model")
        return {"loss": (spectral + aside).detach(), **terms, **told, "grad_norm": norm}

    def _copy(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """The copy [B, N], its spectral loss, the losses aside from it (already weighted), and all terms by name.

        Some rows are decoded from fewer codebooks: the quantizer's dropout. The reader has the first of all rows.
        """
        recipe, samples = self.recipe, batch["samples"]
        made, quantized = self._through(samples)
        terms = self.spectral(made, samples)
        spectral = terms.pop("total")
        aside = made.new_zeros(()) + recipe.commitment * sum(quantized.losses.values())
        terms |= quantized.losses
        if self.reader is not None:
            labels = batch["labels"]
            logits = self._read(quantized, labels.shape[1])
            count = (labels != IGNORED).sum().clamp(min=1)
            terms["phones"] = F.cross_entropy(logits.mT, labels, ignore_index=IGNORED, reduction="sum") / count
            aside = aside + recipe.recognition * terms["phones"]
        return made, spectral, aside, terms

    def _through(self, samples: Tensor, n_codebooks: int | None = None) -> tuple[Tensor, Quantized]:
        """Samples [B, N] to their copy [B, N] and what is between; n_codebooks None: as the quantizer draws them."""
        n = None if n_codebooks is None else torch.full((len(samples),), n_codebooks, device=samples.device)
        quantized: Quantized = self.codec(samples, n_codebooks=n)
        return self.decoder(quantized.vectors)[:, : samples.shape[1]], quantized

    def _read(self, quantized: Quantized, T: int) -> Tensor:
        """What the reader says of the first codebook: logits [B, T, symbols], one row a label."""
        assert self.reader is not None
        first = quantized.first
        logits: Tensor = self.reader(first, torch.full((len(first),), first.shape[2], device=first.device))
        return logits[:, :T]

    def validate(self) -> dict[str, float]:
        """On the valid crops: the spectral losses from all codebooks; the mean absolute difference of log-mels from all and
        from one; how many of the labelled frames the reader gets right (%); perplexity of the codebooks, of the codes seen."""
        if not self.valid:
            return {}
        device = next(self.codec.parameters()).device
        samples = torch.stack([samples for samples, _ in self.valid]).to(device)
        labels = torch.stack([labels for _, labels in self.valid]).to(device)
        mel = log_mel(samples, self.recipe.mel)
        made, quantized = self._through(samples, self.books)
        scores = self.spectral(made, samples)
        scores["loss"] = scores.pop("total")
        scores["mel_l1"] = (log_mel(made, self.recipe.mel) - mel).abs().mean()
        scores["mel_l1_1"] = (log_mel(self._through(samples, 1)[0], self.recipe.mel) - mel).abs().mean()
        sizes = self.codec.emits.sizes
        seen = [torch.bincount(quantized.codes[:, k].flatten(), minlength=V) for k, V in enumerate(sizes)]
        spread = torch.stack([torch.special.entr(counts / counts.sum()).sum().exp() for counts in seen])
        scores |= {"perplexity_min": spread.min(), "perplexity_mean": spread.mean()}
        known = labels != IGNORED
        if self.reader is not None and known.any():
            right = self._read(quantized, labels.shape[1]).argmax(-1) == labels
            scores["phone_accuracy"] = 100 * right[known].float().mean()
        return {name: value.item() for name, value in scores.items()}

    def sample(self, writer: Any, step: int) -> None:
        if not self.valid:
            return
        samples = torch.stack([samples for samples, _ in self.valid[:4]]).to(next(self.codec.parameters()).device)
        copies = {"recording": samples, "copy": self._through(samples, self.books)[0], "copy_1": self._through(samples, 1)[0]}
        for name, wave in copies.items():
            writer.add_audio(name, wave.flatten().clamp(-1, 1).cpu(), step, self.recipe.mel.sample_rate)
