"""The recipe of the vocoder: random crops of recordings, their mel, spectral losses between sound and copy, and judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tts.audio import log_mel
from tts.codecs.autoencoder import MelCodec
from tts.errors import SettingsError
from tts.frames import Frames, check_fit
from tts.train.adversarial import AdversarialConfig, play
from tts.train.assemble import find_part
from tts.train.augment import vary
from tts.train.data import Corpus
from tts.train.discriminators import Discriminators
from tts.train.loop import LoopConfig, Minimise, Task, adamw
from tts.train.losses import SpectralLoss, SpectralLossConfig
from tts.vocoders.hifigan import HifiGan, HifiGanConfig
from tts.vocoders.istft import Vocos, VocosConfig


@dataclass(frozen=True)
class VocoderRecipe:
    """What is trained and on what; base-en's values stand in configs/train/vocoder.yaml.

    Corpora in `exclude` are no targets: what came through a low-pass would teach that speech is muffled.
    """

    generator: str = "vocos"  # or "hifigan"; of the two configs the one that it names is used
    model: VocosConfig = field(default_factory=VocosConfig)
    hifigan: HifiGanConfig = field(default_factory=HifiGanConfig)
    loss: SpectralLossConfig = field(default_factory=SpectralLossConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    exclude: tuple[str, ...] = ("librispeech-dev-clean",)
    batch_size: int = 16  # crops a step
    crop_frames: int = 50
    margin_frames: int = 0  # at both ends of a crop, which the generator sees and no loss hears: they lack their neighbours
    gain_db: float = 6.0  # the level of each crop is changed by up to this much, up or down
    lowpass_share: float = 0.1  # of the crops are low-passed, input and target alike
    lowpass_hz: tuple[float, float] = (3_000.0, 7_000.0)
    codec: Path | None = None  # a codec's run or a system: some crops are heard as it restores their mels
    codec_share: float = 0.5  # of the crops, each with 1 to all codebooks
    valid_crops: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.generator not in ("vocos", "hifigan"):
            raise SettingsError(f"generator must be 'vocos' or 'hifigan', got {self.generator!r}")
        if 2 * self.margin_frames >= self.crop_frames:
            raise SettingsError(f"margins of {self.margin_frames} frames leave nothing of a crop of {self.crop_frames}")


class VocoderTask(Task):
    """Copy synthesis: the mel of a crop in, the crop out.

    train, valid: prepared corpora with audio at the mel's sample rate. Of valid one crop, the middle, is taken from each of
    some clips spread over the list.
    """

    def __init__(self, recipe: VocoderRecipe, train: Corpus, valid: Corpus) -> None:
        self.recipe, self.train = recipe, train
        self.mel = recipe.model.mel if recipe.generator == "vocos" else recipe.hifigan.mel
        self.crop = recipe.crop_frames * self.mel.hop  # samples
        self.clips = [i for i in self._long_enough(train) if train.items[i].corpus not in recipe.exclude]
        if not self.clips:
            raise SettingsError(f"no recording outside {recipe.exclude} is as long as a crop of {self.crop} samples")
        places = [train.items[i].samples - self.crop + 1 for i in self.clips]
        self.ends = np.cumsum(places)  # so that each place in the corpus is as likely as any other
        torch.manual_seed(recipe.seed)
        self.vocoder = Vocos(recipe.model) if recipe.generator == "vocos" else HifiGan(recipe.hifigan)
        self.spectral = SpectralLoss(recipe.loss)
        self.codec: MelCodec | None = None if recipe.codec is None else find_part("codec", "mel", recipe.codec)
        if self.codec is not None:
            check_fit("the codec", self.codec.embeds, "the vocoder", self.mel.spec)
        self.judges = Discriminators(recipe.adversarial.judges) if recipe.adversarial.weight else None
        fit = self._long_enough(valid)
        chosen = [fit[int(k)] for k in np.linspace(0, len(fit) - 1, min(recipe.valid_crops, len(fit)))]
        self.valid = [valid.audio(i)[(valid.items[i].samples - self.crop) // 2 :][: self.crop] for i in chosen]

    def _long_enough(self, corpus: Corpus) -> list[int]:
        return [i for i in range(len(corpus.items)) if corpus.items[i].samples >= self.crop]

    def modules(self) -> dict[str, nn.Module]:
        return {"vocoder": self.vocoder} | ({} if self.judges is None else {"judges": self.judges})

    def aids(self) -> frozenset[str]:
        return frozenset({"judges"})

    def optimizers(self, config: LoopConfig) -> dict[str, Optimizer]:
        """One for the generator, one for its judges."""
        found = {"model": adamw(list(self.vocoder.parameters()), config)}
        if self.judges is not None:
            faster = replace(config, lr=self.recipe.adversarial.lr * config.lr)
            found["judges"] = adamw(list(self.judges.parameters()), faster)
        return found

    def batch(self, step: int) -> dict[str, Tensor]:
        """The crops of a step, a pure function of (seed, step): samples [B, N] and their mel [B, bands, T]."""
        recipe = self.recipe
        random = np.random.default_rng((recipe.seed, step))
        rows = []
        for place in random.integers(0, self.ends[-1], recipe.batch_size):
            k = int(np.searchsorted(self.ends, place, side="right"))
            start = int(place - (self.ends[k - 1] if k else 0))
            rows.append(self.train.audio(self.clips[k])[start : start + self.crop])
        samples = torch.stack(rows)  # [B, N]
        samples = vary(samples, random, recipe.gain_db, recipe.lowpass_share, recipe.lowpass_hz, self.mel.sample_rate)
        mel = log_mel(samples, self.mel)
        if self.codec is not None:
            K = self.codec.emits.width
            books = np.where(random.random(len(rows)) < recipe.codec_share, random.integers(1, K + 1, len(rows)), 0)
            for n in np.unique(books[books > 0]).tolist():
                mel[books == n] = copied(self.codec, mel[books == n], n)
        return {"samples": samples, "mel": mel}

    def inner(self, samples: Tensor) -> Tensor:
        """Samples [B, N] of a crop without its margins."""
        margin = self.recipe.margin_frames * self.mel.hop
        return samples[:, margin : samples.shape[1] - margin]

    def loss(self, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """Spectral losses of the copy; "loss" is the one to minimise."""
        device = next(self.vocoder.parameters()).device
        made, real = self.inner(self.vocoder(batch["mel"].to(device))), self.inner(batch["samples"].to(device))
        terms = self.spectral(made, real)
        return {"loss": terms.pop("total"), **terms}

    def update(self, batch: Mapping[str, Tensor], step: int, minimise: Minimise) -> Mapping[str, Tensor]:
        """With judges, a turn of each side; without, the spectral loss alone."""
        if self.judges is None:
            return super().update(batch, step, minimise)
        made, real = self.inner(self.vocoder(batch["mel"])), self.inner(batch["samples"])
        terms = self.spectral(made, real)
        spectral = terms.pop("total")
        loss, told = play(self.judges, self.recipe.adversarial, made, real, spectral, step, minimise)
        norm = minimise(loss, "model")
        return {"loss": spectral.detach(), **terms, **told, "grad_norm": norm}

    def validate(self) -> dict[str, float]:
        """The same losses, and the mean absolute difference of the log-mels, on fixed crops from the middles of clips."""
        if not self.valid:
            return {}
        samples, mel, copy = self._copies()
        terms = self.spectral(copy, samples)
        terms["loss"] = terms.pop("total")
        terms["mel_l1"] = (log_mel(copy, self.mel) - mel).abs().mean()
        return {name: value.item() for name, value in terms.items()}

    def sample(self, writer: Any, step: int) -> None:
        samples, _, copy = self._copies()
        for name, wave in (("recording", samples), ("copy", copy)):
            writer.add_audio(name, wave[:4].flatten().clamp(-1, 1).cpu(), step, self.mel.sample_rate)

    def _copies(self) -> tuple[Tensor, Tensor, Tensor]:
        samples = torch.stack(self.valid).to(next(self.vocoder.parameters()).device)
        mel = log_mel(samples, self.mel)
        return samples, mel, self.vocoder(mel)


def copied(codec: MelCodec, mel: Tensor, n_codebooks: int) -> Tensor:
    """Mels [B, bands, T] as a codec restores them."""
    frames = Frames(mel, torch.full((len(mel),), mel.shape[2]), codec.accepts)
    return codec.embed(codec.encode_frames(frames), n_codebooks).data[..., : mel.shape[2]]
