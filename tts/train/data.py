"""Feature shards in memory, and the order in which batches are drawn from them.

    folder/manifest.jsonl          one item a line, in the order of the shards
           shard-000.safetensors   "mel" float16 [sum T, bands], "audio" int16 [sum N] (optional)
           tables.json             symbols, identity of the symbol table, flavour of the mel
           alignment.safetensors   (optional, see `save_alignment`)

Reading needs nothing but torch and safetensors.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tts.errors import CheckpointError, OutputError

AUDIO_SCALE = 32_767.0  # int16 of a sample at full scale
UNALIGNED = -99.0  # the score of an item without alignment
KNOWN = 0.0  # that of one whose alignment is certain, since a teacher told it: a log-probability of 1
ALIKE = 0.85  # of the longest: frames that are sorted by tokens together; higher pads frames less and tokens more


@dataclass(frozen=True)
class Item:
    """One utterance. tokens is empty where no text is known; weight: expected repeats in an epoch."""

    id: str
    speaker: str
    corpus: str
    sex: str
    language: str
    seconds: float
    text: str
    frames: int  # T
    samples: int  # N
    tokens: tuple[int, ...] = ()
    weight: float = 1.0


class Corpus:
    """A folder of shards, wholly in memory in its half-size types.

    `audio=False` leaves the samples on disk (they take four times the room of the mels).
    Raises CheckpointError when the folder is no corpus, or its parts do not fit each other.
    """

    def __init__(self, folder: str | Path, audio: bool = True) -> None:
        self.folder = Path(folder)
        if not (self.folder / "manifest.jsonl").is_file():
            raise CheckpointError(f"{self.folder} holds no manifest.jsonl; make one with `mynah prepare`")
        self.tables: dict[str, Any] = json.loads((self.folder / "tables.json").read_text("utf-8"))
        self.items = _read_manifest(self.folder / "manifest.jsonl")
        self._mel: list[Tensor] = []
        self._audio: list[Tensor] = []
        self._place: list[tuple[int, int, int]] = []  # of each item: shard, first frame, first sample
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            self._read_shard(path, audio)
        if len(self._place) != len(self.items):
            raise CheckpointError(f"{self.folder}: {len(self.items)} items listed, {len(self._place)} found in the shards")
        path = self.folder / "alignment.safetensors"
        self.alignment = _read_alignment(path, self.items) if path.is_file() else None

    def _read_shard(self, path: Path, audio: bool) -> None:
        try:
            with safe_open(path, framework="pt") as shard:
                mel = shard.get_tensor("mel")
                samples = shard.get_tensor("audio") if audio and "audio" in shard.keys() else None  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        frame = sample = 0
        while frame < len(mel) and len(self._place) < len(self.items):
            item = self.items[len(self._place)]
            self._place.append((len(self._mel), frame, sample))
            frame, sample = frame + item.frames, sample + item.samples
        if frame != len(mel) or (samples is not None and sample != len(samples)):
            raise CheckpointError(f"{path} does not hold what the manifest lists: {len(mel)} frames, not {frame}")
        self._mel.append(mel)
        if samples is not None:
            self._audio.append(samples)

    def __len__(self) -> int:
        return len(self.items)

    def item(self, i: int) -> Item:
        return self.items[i]

    def mel(self, i: int) -> Tensor:
        """[bands, T] float32."""
        shard, frame, _ = self._place[i]
        return self._mel[shard][frame : frame + self.items[i].frames].T.float()

    def audio(self, i: int) -> Tensor:
        """[N] float32 in [-1, 1]. Raises CheckpointError where the shards hold no samples."""
        if not self._audio:
            raise CheckpointError(f"{self.folder} was read or prepared without audio")
        shard, _, sample = self._place[i]
        return self._audio[shard][sample : sample + self.items[i].samples].float() / AUDIO_SCALE

    def tokens(self, i: int) -> Tensor:
        """[L] int64: the aligned tokens where there is an alignment, else those of the text (`item(i).tokens`)."""
        if self.alignment is not None:
            return self.alignment.row(self.alignment.tokens, i)
        return torch.tensor(self.items[i].tokens, dtype=torch.int64)

    def token_frames(self, i: int) -> Tensor:
        """[L] int64 frames that each of `tokens(i)` lasts; their sum is T. Raises CheckpointError without alignment."""
        return self._aligned().row(self._aligned().token_frames, i)

    def score(self, i: int) -> float:
        """How sure the aligner was of item i."""
        return float(self._aligned().scores[i])

    def _aligned(self) -> Alignment:
        if self.alignment is None:
            raise CheckpointError(f"{self.folder} holds no alignment.safetensors")
        return self.alignment


@dataclass(frozen=True)
class Alignment:
    """Rows of unequal length, laid end to end: starts [items + 1], tokens and token_frames [sum L], scores [items]."""

    starts: Tensor
    tokens: Tensor
    token_frames: Tensor
    scores: Tensor

    def row(self, flat: Tensor, i: int) -> Tensor:
        return flat[int(self.starts[i]) : int(self.starts[i + 1])].long()


def save_alignment(
    folder: str | Path, tokens: Sequence[Sequence[int]], token_frames: Sequence[Sequence[int]], scores: Sequence[float]
) -> None:
    """Write alignment.safetensors beside the shards, one row an item, in the order of the manifest.

    An item without text gets the phones that were heard in it. Its frames sum to T, or its row is empty and scored UNALIGNED.
    """
    assert len(tokens) == len(token_frames) == len(scores), (len(tokens), len(token_frames), len(scores))
    flat = {
        "lengths": torch.tensor([len(row) for row in tokens], dtype=torch.int32),
        "tokens": torch.tensor([x for row in tokens for x in row], dtype=torch.int16),
        "token_frames": torch.tensor([x for row in token_frames for x in row], dtype=torch.int16),
        "scores": torch.tensor(scores, dtype=torch.float32),
    }
    partial = Path(folder) / "alignment.partial"
    save_file(flat, partial)
    partial.replace(Path(folder) / "alignment.safetensors")


def _read_alignment(path: Path, items: Sequence[Item]) -> Alignment:
    flat = load_file(path)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), flat["lengths"].long().cumsum(0)])
    if len(starts) != len(items) + 1 or int(starts[-1]) != len(flat["tokens"]):
        raise CheckpointError(f"{path} aligns {len(starts) - 1} items, the manifest lists {len(items)}; align again")
    return Alignment(starts, flat["tokens"], flat["token_frames"], flat["scores"])


class CorpusWriter:
    """Writes a corpus item by item; the folder appears, whole, when the `with` block ends without an error.

    A corpus that stood there is replaced; any other folder is refused with OutputError.

    tables: what belongs to all items, at least "symbols", "table" (identity) and "mel" (flavour).
    """

    def __init__(self, folder: str | Path, tables: Mapping[str, Any], shard_bytes: int = 60_000_000) -> None:
        self.folder, self.tables, self.shard_bytes = Path(folder), tables, shard_bytes
        self.partial = self.folder.with_name(self.folder.name + ".partial")
        self._items: list[Item] = []
        self._mel: list[Tensor] = []
        self._audio: list[Tensor] = []
        self._bytes = 0
        self._shards = 0

    def add(self, item: Item, mel: Tensor, audio: Tensor | None = None) -> None:
        """mel [bands, T] float, audio [N] float in [-1, 1] or None (for all items alike)."""
        assert mel.shape[1] == item.frames > 0, (mel.shape, item)
        assert audio is None or len(audio) == item.samples, (audio.shape, item)
        rows = [mel.T.half().contiguous()]
        if audio is not None:
            rows.append((audio.clamp(-1, 1) * AUDIO_SCALE).round().short())
            self._audio.append(rows[1])
        size = sum(row.numel() * row.element_size() for row in rows)
        self._mel.append(rows[0])
        self._items.append(item)
        self._bytes += size
        if self._bytes >= self.shard_bytes:
            self._flush()

    def _flush(self) -> None:
        tensors = {"mel": torch.cat(self._mel)}
        if self._audio:
            tensors["audio"] = torch.cat(self._audio)
        save_file(tensors, self.partial / f"shard-{self._shards:03d}.safetensors")
        self._mel, self._audio, self._bytes, self._shards = [], [], 0, self._shards + 1

    def __enter__(self) -> CorpusWriter:
        if self.folder.exists() and not (self.folder / "manifest.jsonl").is_file():
            raise OutputError(f"{self.folder} exists and is no corpus; give a new folder, or that of a corpus to replace")
        shutil.rmtree(self.partial, ignore_errors=True)
        try:
            self.partial.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"{self.partial} cannot be made: {error.strerror}; give a folder you may write to") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            shutil.rmtree(self.partial)
            return
        if self._mel:
            self._flush()
        save_manifest(self.partial, self._items, self.tables)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.partial.rename(self.folder)


def save_manifest(folder: Path, items: Sequence[Item], tables: Mapping[str, Any]) -> None:
    """Write (or replace) tables.json and manifest.jsonl; each is there whole or not at all."""
    partial = folder / "tables.partial"
    partial.write_text(json.dumps(dict(tables), ensure_ascii=False) + "\n", "utf-8")
    partial.replace(folder / "tables.json")
    partial = folder / "manifest.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items)
    partial.replace(folder / "manifest.jsonl")


def _read_manifest(path: Path) -> list[Item]:
    known = {field.name for field in fields(Item)}
    items = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        row = json.loads(line)
        if set(row) - known:
            raise CheckpointError(f"{path}:{number}: unknown {sorted(set(row) - known)}; an item has {sorted(known)}")
        items.append(Item(**{**row, "tokens": tuple(row.get("tokens", ()))}))
    return items


# --------------------------------------------------------------------------------------------------------- batches


def buckets(
    lengths: Sequence[tuple[int, int]],
    weights: Sequence[float],
    budget_frames: int,
    seed: int,
    epoch: int,
    pool: int = 4096,
) -> list[list[int]]:
    """The batches of one epoch, as lists of indices; a pure function of its arguments.

    Batches are two-dimensional buckets, made by sorting inside shuffled pools:

        longest ─────────────► shortest        frames: neighbours are alike (ALIKE)
        [ few│tokens│ many ][ few│ many ]…     tokens: sorted inside each run of like frames, then cut

    Not lhotse's DynamicBucketingSampler, the usual tool: its place in an epoch is state that a checkpoint would have to
    carry, and a machine with torch alone could not train.

    Args:
        lengths: frames and tokens of each item.
        weights: expected repeats of each item in an epoch (2.0: twice; 0.5: every other epoch; 0: never).
        budget_frames: a batch of B rows has B times its longest at most (one row may be longer, alone).
        pool: items sorted together; more pad less, fewer mix more.
    """
    draw = random.Random(f"buckets {seed} {epoch}")
    picks = [i for i, weight in enumerate(weights) for _ in range(int(weight) + (draw.random() < weight % 1))]
    draw.shuffle(picks)
    n_pools = max(1, round(len(picks) / pool))
    batches: list[list[int]] = []
    for k in range(n_pools):
        batches += _cut(picks[k::n_pools], lengths, budget_frames)
    draw.shuffle(batches)
    return batches


def _cut(picks: list[int], lengths: Sequence[tuple[int, int]], budget_frames: int) -> list[list[int]]:
    """Batches of one pool."""
    picks = sorted(picks, key=lambda i: -lengths[i][0])  # stable: the shuffle breaks ties
    batches = []
    while picks:
        longest = lengths[picks[0]][0]
        rows = max(1, budget_frames // max(1, longest))
        alike = sum(1 for i in picks if lengths[i][0] >= ALIKE * longest)
        taken = max(rows, alike // rows * rows)  # whole batches; the rest joins the next, shorter ones
        run = sorted(picks[:taken], key=lambda i: lengths[i][1])
        batches += [run[k : k + rows] for k in range(0, len(run), rows)]
        picks = picks[taken:]
    return batches


def padding(lengths: Sequence[tuple[int, int]], batches: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Shares of padded frames and of padded tokens in these batches, 0 to 1."""
    shares = []
    for axis in (0, 1):
        real = sum(lengths[i][axis] for batch in batches for i in batch)
        held = sum(len(batch) * max(lengths[i][axis] for i in batch) for batch in batches)
        shares.append(1 - real / held if held else 0.0)
    return shares[0], shares[1]


class BatchPlan:
    """From the number of a step to its batch: a pure function, so that a run resumes where it was killed.

    Every epoch counts as many batches as the first one, within which they differ by chance where weights are fractions.
    """

    def __init__(self, lengths: Sequence[tuple[int, int]], weights: Sequence[float], budget_frames: int, seed: int) -> None:
        self._arguments = (lengths, weights, budget_frames, seed)
        self._epoch = 0
        self._batches = buckets(*self._arguments, epoch=0)
        self.batches_per_epoch = len(self._batches)
        assert self.batches_per_epoch > 0, "no item has both a length and a weight"

    def at(self, step: int) -> tuple[int, list[int]]:
        """The epoch of a step, and the indices of its batch."""
        epoch, k = divmod(step, self.batches_per_epoch)
        if epoch != self._epoch:
            self._batches, self._epoch = buckets(*self._arguments, epoch=epoch), epoch
        return epoch, self._batches[k % len(self._batches)]


def pad(rows: Sequence[Tensor], value: float = 0.0) -> tuple[Tensor, Tensor]:
    """Rows [..., T_b] of unequal length to one tensor [B, ..., T] and lengths [B] int64."""
    lengths = torch.tensor([row.shape[-1] for row in rows])
    out = rows[0].new_full((len(rows), *rows[0].shape[:-1], int(lengths.max())), value)
    for b, row in enumerate(rows):
        out[b, ..., : row.shape[-1]] = row
    return out, lengths
