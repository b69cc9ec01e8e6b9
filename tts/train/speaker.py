"""The recipe of the speaker encoder: crops of one speaker nearer to each other than to anyone else's (GE2E)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.checkpoint import fill
from tts.config import from_mapping
from tts.errors import CheckpointError, SettingsError
from tts.nn.speaker import SpeakerConfig, SpeakerEncoder
from tts.train.assemble import MODEL
from tts.train.data import Corpus
from tts.train.loop import Task, step_seed
from tts.train.state import export


@dataclass(frozen=True)
class SpeakerRecipe:
    """What is trained and on what: any prepared corpora, with or without texts and alignments."""

    model: SpeakerConfig = field(default_factory=SpeakerConfig)
    speakers: int = 16  # N, of a batch
    crops: int = 4  # M, of each
    scale: float = 10.0  # w of the similarity at the start
    valid_clips: int = 8  # of a speaker, at most
    seed: int = 0

    def __post_init__(self) -> None:
        if self.speakers < 2 or self.crops < 2:
            raise SettingsError(f"speakers and crops must be at least 2, got {self.speakers} and {self.crops}")


class GE2E(nn.Module):
    """Generalised end-to-end loss: a softmax over whose centroid a crop is most like.

    Source: Wan et al. 2018 (arXiv:1710.10467), equations 5, 6, 8 and 9: w * cos to the centroids, that of the crop's own
    speaker without the crop itself. The paper's b is left out: it cancels in the softmax.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale).log())  # w stays positive

    def forward(self, vectors: Tensor) -> Tensor:
        """Unit vectors [N, M, D] of N speakers' M crops to the mean loss, which is about log N where all are alike."""
        N, M, _ = vectors.shape
        total = vectors.sum(1, keepdim=True)  # [N, 1, D]
        others = F.normalize(total - vectors, dim=-1)  # [N, M, D]: the direction of the mean of the other crops
        cosines = vectors @ F.normalize(total[:, 0], dim=-1).T  # [N, M, N]
        own = torch.eye(N, dtype=torch.bool, device=vectors.device)[:, None]  # [N, 1, N]
        cosines = torch.where(own, (vectors * others).sum(-1, keepdim=True), cosines)
        speakers = torch.arange(N, device=vectors.device).repeat_interleave(M)
        return F.cross_entropy(self.log_scale.exp() * cosines.flatten(0, 1), speakers)


class SpeakerTask(Task):
    """Voices from mels. train, valid: prepared corpora of one mel; train has at least two speakers."""

    def __init__(self, recipe: SpeakerRecipe, train: Corpus, valid: Corpus) -> None:
        self.recipe, self.train, self.valid = recipe, train, valid
        self.clips = list(_by_speaker(train).values())
        if len(self.clips) < recipe.speakers:
            raise SettingsError(f"{train.folder} has {len(self.clips)} speakers, and a batch asks for {recipe.speakers}")
        # Speakers of one clip teach less: crops of one recording are alike for other reasons too.
        self.weights = torch.tensor([float(min(len(clips), recipe.crops)) for clips in self.clips])
        bands = train.mel(0).shape[0]
        torch.manual_seed(recipe.seed)
        self.encoder = SpeakerEncoder(replace(recipe.model, bands=bands))
        self.ge2e = GE2E(recipe.scale)

    def modules(self) -> dict[str, nn.Module]:
        return {"speaker": self.encoder, "ge2e": self.ge2e}

    def aids(self) -> frozenset[str]:
        return frozenset({"ge2e"})

    def batch(self, step: int) -> Tensor:
        """Windows [N * M, window, bands], speaker after speaker; of different clips where a speaker has enough of them."""
        recipe = self.recipe
        draw = torch.Generator().manual_seed(step_seed(recipe.seed, step))
        windows = []
        for speaker in torch.multinomial(self.weights, recipe.speakers, generator=draw).tolist():
            clips = self.clips[speaker]
            order = torch.randperm(len(clips), generator=draw).tolist()
            for k in range(recipe.crops):
                mel = self.train.mel(clips[order[k % len(order)]])
                start = int(torch.randint(max(1, mel.shape[1] - recipe.model.window + 1), (1,), generator=draw))
                windows.append(self.encoder.windows(mel[:, start : start + recipe.model.window]))
        return torch.cat(windows)

    def loss(self, batch: Tensor, step: int) -> dict[str, Tensor]:
        return {"loss": self.ge2e(self.encoder(batch).unflatten(0, (self.recipe.speakers, -1)))}

    def validate(self) -> dict[str, float]:
        """ "eer": the equal error rate over all pairs of valid clips; a speaker of one clip is told again by its halves."""
        mels, speakers = [], []
        for number, clips in enumerate(_by_speaker(self.valid).values()):
            own = [self.valid.mel(i) for i in clips[: self.recipe.valid_clips]]
            own = list(own[0].chunk(2, 1)) if len(own) == 1 else own
            mels += own
            speakers += [number] * len(own)
        if len(set(speakers)) < 2:
            return {}
        device = self.encoder.out.weight.device
        vectors = torch.cat([self.encoder.embed([mel.to(device) for mel in mels[k : k + 32]]) for k in range(0, len(mels), 32)])
        who = torch.tensor(speakers)
        first, second = torch.triu_indices(len(who), len(who), 1)
        return {"eer": equal_error_rate((vectors @ vectors.T).cpu()[first, second], who[first] == who[second])}


def equal_error_rate(scores: Tensor, same: Tensor) -> float:
    """Where as many pairs of one speaker are rejected as pairs of two are accepted. scores, same [P]; both kinds occur."""
    ordered = same[scores.argsort(descending=True)].double()
    missed = 1 - ordered.cumsum(0) / ordered.sum()  # with the threshold below each score
    accepted = (1 - ordered).cumsum(0) / (1 - ordered).sum()
    best = int((missed - accepted).abs().argmin())
    return float((missed[best] + accepted[best]) / 2)


def trained_speaker(run: Path) -> SpeakerEncoder:
    """The encoder of a training run, with its averaged weights. Raises CheckpointError."""
    state = export(run).get("speaker")
    if state is None or not (run / MODEL).is_file():
        raise CheckpointError(f"{run} is no run of `mynah train speaker`")
    config = from_mapping(SpeakerConfig, json.loads((run / MODEL).read_text("utf-8"))["speaker"])
    encoder = SpeakerEncoder(config)
    fill(encoder, state, f"the speaker encoder of {run}")
    return encoder


def _by_speaker(corpus: Corpus) -> dict[str, Sequence[int]]:
    clips: dict[str, list[int]] = defaultdict(list)
    for i, item in enumerate(corpus.items):
        clips[item.speaker].append(i)
    return dict(clips)
