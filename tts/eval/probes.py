"""Probes of a codec's codes: how evenly they are used, how well phones are read from them, how well they are foretold.

    perplexity       codes that a codebook would have, were all used alike
    phone_probe      codebook 0, or mel ─► convolutions ─► phones         errors: words that backends must find elsewhere
    language_probe   codes so far ─► GRU ─► next codes, one by one        bits: what backends must learn to draw

Probes are small, and trained anew for every codec with the same data, steps and seed: only compare one with another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.asr.check import edits
from tts.errors import InputError

UNKNOWN = -100  # the phone of a frame that counts in no loss and no error


def perplexity(codes: Tensor, sizes: Sequence[int]) -> Tensor:
    """exp(entropy) of how often each code is used: codes [K, T] int64 to [K], each 1 to V.

    Raises InputError where there is no frame.
    """
    if not codes.shape[1]:
        raise InputError("perplexity needs at least one frame, got none")
    found = []
    for row, size in zip(codes, sizes, strict=True):
        share = torch.bincount(row, minlength=size).double() / len(row)
        found.append(torch.special.entr(share).sum().exp())
    return torch.stack(found)


# ---------------------------------------------------------------------------------------------------------- phones


@dataclass(frozen=True)
class PhoneProbeConfig:
    """The same for all that is compared. A crop lasts so many phone labels, whatever the frames' rate."""

    width: int = 128  # channels
    layers: int = 3  # residual convolutions
    kernel: int = 5  # frames
    dropout: float = 0.1
    steps: int = 800
    rows: int = 16  # crops a step
    crop: int = 200  # labels, at 50 Hz four seconds
    lr: float = 4e-3
    seed: int = 0


@dataclass(frozen=True)
class Spoken:
    """One clip. frames: [T] int64 codes, or [C, T] float; phones [T, S] int64: what is said in the S parts of each frame.

    Phone 0 is silence, UNKNOWN is not known.
    """

    frames: Tensor
    phones: Tensor


@dataclass(frozen=True)
class PhoneErrors:
    """Shares of what was said: of frames (labels), silence included; of phones, silence left out and runs counted once."""

    frames: float
    phones: float


def stack(mel: Tensor, S: int) -> Tensor:
    """S frames become one: mel [C, T] to [C S, ceil(T / S)]; what lacks at the end is its last frame once more."""
    mel = torch.cat([mel, mel[:, -1:].expand(-1, -mel.shape[1] % S)], 1)
    return mel.unflatten(1, (-1, S)).permute(0, 2, 1).flatten(0, 1)


def label(phones: Tensor, S: int) -> Tensor:
    """Phones of frames [T] to those of stacked frames [ceil(T / S), S]; what lacks at the end is UNKNOWN."""
    return F.pad(phones, (0, -len(phones) % S), value=UNKNOWN).unflatten(0, (-1, S))


def phone_probe(
    train: Sequence[Spoken], valid: Sequence[Spoken], size: int, n_phones: int, config: PhoneProbeConfig | None = None
) -> PhoneErrors:
    """Train a small classifier of frames on some clips and count its errors on others.

    Args:
        size: codes of the codebook, or channels C where frames are floats (which are normalised by those of `train`).
        n_phones: labels are in [0, n_phones).
    Raises:
        InputError: there is nothing to train on, or nothing to count.
    """
    config = config if config is not None else PhoneProbeConfig()
    if not any(len(clip.phones) for clip in train) or not any(len(clip.phones) for clip in valid):
        raise InputError("a probe of phones needs clips with frames, to train on and to count errors in")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(config.seed)
        net = _PhoneNet(train, size, n_phones, config)
        # Laid end to end: crops run over the seams of clips, which lie in silence.
        frames = torch.cat([clip.frames for clip in train], -1)
        phones = torch.cat([clip.phones for clip in train])  # [T, S]
        crops = _crops(len(phones), config.crop // phones.shape[1], config.rows, config.steps, config.seed)
        losses = (net.loss(frames[..., crop].movedim(-2, 0), phones[crop]) for crop in crops)
        _minimise(net, losses, config.steps, config.lr)
    return _count(net.eval(), valid, _moves(train, n_phones))


def _count(net: nn.Module, valid: Sequence[Spoken], moves: Tensor) -> PhoneErrors:
    wrong_frames = n_frames = wrong_phones = n_phones = 0
    for clip in valid:
        if not len(clip.phones):
            continue
        said = clip.phones.flatten()
        known = said != UNKNOWN
        with torch.inference_mode():
            scores = net(clip.frames[None])[0].flatten(0, 1).log_softmax(1)[known]  # [T S, P]
        said = said[known]
        wrong_frames += int((scores.argmax(1) != said).sum())
        n_frames += len(said)
        asked = _runs(said)
        wrong_phones += sum(not step.same for step in edits(asked, _runs(best_path(scores, moves))))
        n_phones += len(asked)
    return PhoneErrors(wrong_frames / max(1, n_frames), wrong_phones / max(1, n_phones))


def _moves(clips: Sequence[Spoken], n_phones: int) -> Tensor:
    """What a path gains by going from label to label [P, P]: half of log p(next | label) / p(next), as counted.

    The other half is in the posteriors already, whose net has seen the neighbours; half measures best on mels.
    """
    labels = torch.cat([clip.phones.flatten() for clip in clips])
    labels = labels[labels != UNKNOWN]
    pairs = torch.bincount(labels[:-1] * n_phones + labels[1:], minlength=n_phones**2).view(n_phones, -1) + 0.5
    return 0.5 * ((pairs / pairs.sum(1, keepdim=True)) / (pairs.sum(0) / pairs.sum())).log()


def best_path(scores: Tensor, moves: Tensor) -> Tensor:
    """The labels [T] with the highest sum of scores [T, P] along them and of moves [P, P] between them (Viterbi)."""
    total, came = scores[:1], []
    for score in scores[1:]:
        total, best = (total.T + moves).max(0)  # of [from, to], over from
        came.append(best)
        total = (total + score)[None]
    path = [total.argmax(1)[0]] if len(scores) else []
    for best in reversed(came):
        path.append(best[path[-1]])
    return torch.tensor([int(label) for label in reversed(path)], dtype=torch.int64)


def _runs(phones: Tensor) -> list[int]:
    """[T] labels to the phones they spell: each run once, no silence."""
    return [phone for phone in torch.unique_consecutive(phones).tolist() if phone]


class _PhoneNet(nn.Module):
    """[B, T] codes or [B, C, T] floats to [B, T, S, P] logits."""

    def __init__(self, train: Sequence[Spoken], size: int, n_phones: int, config: PhoneProbeConfig) -> None:
        super().__init__()
        self.parts = train[0].phones.shape[1]
        self.codes = train[0].frames.dim() == 1
        self.enter: nn.Module = nn.Embedding(size, config.width) if self.codes else nn.Linear(size, config.width)
        self.mean, self.scale = torch.zeros(()), torch.ones(())
        if not self.codes:
            frames = torch.cat([clip.frames for clip in train], 1)
            self.mean, self.scale = frames.mean(1), 1 / frames.std(1).clamp(min=1e-5)  # [C]
        D, kernel = config.width, config.kernel
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(config.layers))
        self.convs = nn.ModuleList(nn.Conv1d(D, D, kernel, padding=kernel // 2) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.exit = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, self.parts * n_phones))

    def forward(self, frames: Tensor) -> Tensor:
        x = self.enter(frames if self.codes else (frames.transpose(1, 2) - self.mean) * self.scale)  # [B, T, D]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + self.dropout(F.relu(conv(norm(x).transpose(1, 2))).transpose(1, 2))
        logits: Tensor = self.exit(x)  # [B, T, S P]
        return logits.unflatten(2, (self.parts, -1))

    def loss(self, frames: Tensor, phones: Tensor) -> Tensor:
        """Mean cross-entropy of the labels [B, T, S] that are known; 0 where none is."""
        nats = F.cross_entropy(self(frames).flatten(0, 2), phones.flatten(), ignore_index=UNKNOWN, reduction="sum")
        return nats / (phones != UNKNOWN).sum().clamp(min=1)


# ----------------------------------------------------------------------------------------------------------- codes


@dataclass(frozen=True)
class LanguageProbeConfig:
    """The same for all that is compared. A crop lasts so many seconds, whatever the codes' rate."""

    width: int = 128  # channels
    steps: int = 300
    rows: int = 16  # crops a step
    seconds: float = 4.0  # of a crop
    lr: float = 1e-2
    seed: int = 0


@dataclass(frozen=True)
class Bits:
    """What a probe could not foretell: `bits` a second of speech, by codebook; `nominal`: were all codes alike, in all."""

    bits: tuple[float, ...]
    nominal: float

    @property
    def total(self) -> float:
        """Bits a second of all codebooks."""
        return sum(self.bits)

    @property
    def share(self) -> float:
        """Of the nominal bitrate; 1 where nothing can be foretold, above 1 where the probe learnt what does not hold."""
        return self.total / self.nominal


def language_probe(
    train: Sequence[Tensor],
    valid: Sequence[Tensor],
    sizes: Sequence[int],
    rate: float,
    config: LanguageProbeConfig | None = None,
) -> Bits:
    """Train a small language model on the codes of some clips and count the bits it needs for others.

    Args:
        train, valid: codes [K, T] int64 of each clip, codebook k in [0, sizes[k]). rate: frames a second.
    Raises:
        InputError: there is nothing to train on, or nothing to count.
    """
    config = config if config is not None else LanguageProbeConfig()
    frames = sum(codes.shape[1] for codes in valid)
    if not any(codes.shape[1] for codes in train) or not frames:
        raise InputError("a probe of codes needs clips with frames, to train on and to count bits in")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(config.seed)
        net = _LanguageModel(sizes, config.width)
        codes = torch.cat(list(train), 1)  # [K, T], end to end
        crops = _crops(codes.shape[1], round(config.seconds * rate), config.rows, config.steps, config.seed)
        losses = (net(codes[:, crop].movedim(0, 1)).sum(1).mean() for crop in crops)
        _minimise(net, losses, config.steps, config.lr)
    nats = torch.zeros(len(sizes), dtype=torch.float64)
    with torch.inference_mode():
        for clip in valid:
            if clip.shape[1]:
                nats += net(clip[None]).double().sum((0, 2))
    bits = nats / math.log(2) / frames * rate
    return Bits(tuple(bits.tolist()), rate * sum(math.log2(size) for size in sizes))


class _LanguageModel(nn.Module):
    """Codes [B, K, T] to -log p of each, [B, K, T], given all frames before it and the codebooks before it in its frame.

    The frames go through a GRU; within a frame each codebook adds to what the next ones are drawn from, as in NADE
    (Larochelle & Murray 2011). An untrained one holds all codes for alike.
    """

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.first = torch.tensor([0, *sizes[:-1]]).cumsum(0)[:, None]  # [K, 1]: of each codebook, in the tables below
        self.past = nn.Embedding(sum(sizes), width)
        self.here = nn.Embedding(sum(sizes), width)
        for table in (self.past, self.here):
            nn.init.normal_(table.weight, std=0.1)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.state = nn.Linear(width, width)
        self.place = nn.Parameter(torch.zeros(len(sizes), 1, width))
        self.exit = nn.Linear(width, sum(sizes))
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)

    def forward(self, codes: Tensor) -> Tensor:
        ids = codes + self.first
        past = F.pad(self.past(ids).sum(1)[:, :-1], (0, 0, 1, 0))  # [B, T, D]: frame t sees t - 1
        here = self.here(ids)  # [B, K, T, D]
        here = here.cumsum(1) - here  # of the codebooks before
        x = F.gelu(self.state(self.gru(past)[0])[:, None] + here + self.place)
        weights, biases = self.exit.weight.split(self.sizes), self.exit.bias.split(self.sizes)
        nats = [
            F.cross_entropy(F.linear(x[:, k], weight, bias).flatten(0, 1), codes[:, k].flatten(), reduction="none")
            for k, (weight, bias) in enumerate(zip(weights, biases, strict=True))
        ]
        return torch.stack(nats, 1).unflatten(0, (len(codes), -1)).transpose(1, 2)


# -------------------------------------------------------------------------------------------------------- training


def _crops(T: int, crop: int, rows: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Indices [rows, min(crop, T)] into T frames, `steps` times."""
    draw = torch.Generator().manual_seed(seed)
    crop = min(max(1, crop), T)
    for _ in range(steps):
        yield torch.randint(T - crop + 1, (rows, 1), generator=draw) + torch.arange(crop)


def _minimise(net: nn.Module, losses: Iterator[Tensor], steps: int, lr: float) -> None:
    """A step down each of `steps` losses; the learning rate rises over the first tenth and then falls to nothing."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1, pct_start=0.1)
    for loss in losses:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
