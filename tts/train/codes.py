"""What recipes of backends that speak codes share: codes of utterances with aligned phones, made once by a frozen codec.

mel ─► frozen codec ─► codes [K, T] of every clip, once, kept in memory and beside the run
rows: a clip, or two of a speaker joined ─► codes, tokens and the frames of each, and everything random about them
"""

from __future__ import annotations

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from tts.errors import SettingsError
from tts.files import write_whole
from tts.frames import Frames, Plan, Tokens, Utterance
from tts.interfaces import FrameCodec
from tts.text.tokens import SymbolTable
from tts.train.assemble import find_part
from tts.train.data import Corpus, pad
from tts.train.loop import Task, mean_losses, step_seed
from tts.train.utterances import Row, UtteranceRecipe, Utterances, heard_symbols

log = logging.getLogger(__name__)

CODED_FRAMES = 4_000  # of a batch of clips that are coded together
VALID_ROWS = 16  # a batch of validation


@dataclass(frozen=True)
class CodeRecipe(UtteranceRecipe):
    """What is trained and on what; a recipe adds its `model` and how it draws.

    The vocabulary and its table are those of the training corpus, codebooks, size, rate and flavour those of the codec.
    """

    codec: str = "base-en"  # a system, by name or folder, or the folder of a codec's training run
    adopt: bool = True  # begin with the codec's own vectors of its codes


class CodeTask(Task):
    """Codes from phones and a prompt. train, valid: prepared corpora of one symbol table, with alignments.

    cache: a folder where the codes are kept for the next start of the run; None: nowhere.
    """

    name: str  # of the backend
    recipe: CodeRecipe

    def __init__(self, recipe: Any, train: Corpus, valid: Corpus, cache: Path | None = None) -> None:
        self.recipe, self.train, self.valid = recipe, train, valid
        self.codec: FrameCodec = find_part("codec", "mel", recipe.codec).eval()
        codes, rate = self.codec.emits, float(self.codec.accepts.rate)
        if len(set(codes.sizes)) != 1:
            raise SettingsError(f"the codebooks of {recipe.codec} must be of one size, got {codes.sizes}")
        table = SymbolTable(tuple(train.tables["symbols"]))
        for corpus in (train, valid):
            if corpus.tables["table"] != table.identity or corpus.tables["mel"] != self.codec.accepts.flavour:
                raise SettingsError(f"{corpus.folder} has other symbols, or another mel than the codec; prepare it again")
        self.rows = Utterances(recipe, train, rate)
        self.codes = code_clips(self.codec, train, self.rows.usable, cache and cache / "codes-train.safetensors")
        chosen = recipe.chosen(valid, rate)
        self.valid_codes = code_clips(self.codec, valid, chosen, cache and cache / "codes-valid.safetensors")
        self.as_heard = heard_symbols(table)
        own = {"codebooks": codes.width, "size": codes.sizes[0], "rate": codes.rate, "flavour": codes.flavour}
        torch.manual_seed(recipe.seed)
        self.backend = self.build({"vocabulary": len(table), "table": table.identity, **own})
        if recipe.adopt:
            self.backend.network.adopt([self.codec.vectors(k).detach() for k in range(codes.width)])
        self.valid_batches = self._validation(chosen)

    @abstractmethod
    def build(self, own: Mapping[str, Any]) -> Any:
        """The backend; own: the fields of its config that corpus and codec decide."""

    @abstractmethod
    def draw(self, lengths: Tensor, joins: Tensor, generator: Generator, plain: bool) -> dict[str, Tensor]:
        """Everything random about rows of codes, by name. plain: for validation, with nothing left out.

        lengths: [B] codes. joins: [B], the first code of the second clip of a row that joins two, else 0.
        """

    @abstractmethod
    def given(self, drawn: Mapping[str, Tensor], frames: Tensor) -> Tensor:
        """Whether frames [B, L] of the rows are given as a prompt is, [B, L] bool."""

    @abstractmethod
    def score(self, utterance: Utterance, target: Frames, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses of a batch, which holds what `draw` gave."""

    def modules(self) -> dict[str, nn.Module]:
        return {self.name: self.backend}

    def batch(self, step: int) -> dict[str, Tensor]:
        """The rows of a step and everything random about them: a pure function of (recipe, step)."""
        generator = Generator().manual_seed(step_seed(self.recipe.seed, step))
        return self._collate(self.train, self.codes, self.rows.at(step), generator)

    def loss(self, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        device = next(self.backend.parameters()).device
        given = {name: tensor.to(device) for name, tensor in batch.items()}
        return self.score(self._utterance(given), Frames(given["codes"], given["lengths"], self.backend.emits), given)

    def validate(self) -> dict[str, float]:
        """The losses on fixed clips, each with frames of its own as the prompt; no condition is left out."""
        return mean_losses(self.loss, self.valid_batches, "lengths")

    def sample(self, writer: Any, step: int) -> None:
        """A picture: the mel of a valid clip's codes above those that are made of its phones without any prompt."""
        if not self.valid_batches:
            return
        batch = {name: tensor[:1] for name, tensor in self.valid_batches[0].items()}
        real = Frames(batch["codes"], batch["lengths"], self.backend.emits)
        made = self.backend.generate(self._utterance(batch), self.backend.settings_type())
        mels = [self.codec.embed(replace(codes, data=codes.data.cpu(), lengths=codes.lengths.cpu())) for codes in (real, made)]
        T = min(mel.data.shape[2] for mel in mels)
        picture = torch.cat([mel.data[0, :, :T] for mel in mels]).flip(0)
        writer.add_image("mel", ((picture + 11) / 14).clamp(0, 1)[None], step)

    # --------------------------------------------------------------------------------------------------- data

    def _utterance(self, given: Mapping[str, Tensor]) -> Utterance:
        rate = float(self.backend.emits.rate)
        plan = Plan(given["lengths"].double() / rate, given["token_frames"].double() / rate)
        tokens = Tokens(given["ids"], given["token_lengths"], self.backend.table)
        return Utterance(tokens, torch.zeros_like(given["lengths"]), plan=plan)

    def _collate(
        self, corpus: Corpus, coded: Mapping[int, Tensor], rows: Sequence[Row], generator: Generator, plain: bool = False
    ) -> dict[str, Tensor]:
        """codes [B, K, T], lengths [B]; ids, token_frames [B, L] (of codes), token_lengths [B]; and what `draw` gives."""
        codes, lengths = pad([torch.cat([coded[i] for i in row], 1).long() for row in rows])
        ids, token_lengths = pad([torch.cat([corpus.tokens(i) for i in row]) for row in rows])
        token_frames, _ = pad(
            [torch.cat([code_frames(corpus.token_frames(i), coded[i].shape[1]) for i in row]) for row in rows]
        )
        joins = torch.tensor([coded[row[0]].shape[1] if len(row) > 1 else 0 for row in rows])
        drawn = self.draw(lengths, joins, generator, plain)
        begins = token_frames.cumsum(1) - token_frames
        heard = torch.rand(len(rows), 1, generator=generator) < self.recipe.prompt_as_heard
        ids = torch.where(heard & self.given(drawn, begins), self.as_heard[ids], ids)
        tensors = {"codes": codes, "lengths": lengths, "ids": ids, "token_lengths": token_lengths, "token_frames": token_frames}
        return {**tensors, **drawn}

    def _validation(self, items: Sequence[int]) -> list[dict[str, Tensor]]:
        generator = Generator().manual_seed(0)
        rows: list[Row] = [(i,) for i in items]
        return [
            self._collate(self.valid, self.valid_codes, rows[k : k + VALID_ROWS], generator, plain=True)
            for k in range(0, len(rows), VALID_ROWS)
        ]


def code_frames(token_frames: Tensor, T: int) -> Tensor:
    """Mel frames that each token lasts [L] to codes [L] that sum to T: the ends are rounded, not the lengths."""
    ends = token_frames.cumsum(0)
    ends = (ends.double() * (T / max(1, int(ends[-1])))).round().long()
    return torch.diff(ends, prepend=ends.new_zeros(1))


@torch.no_grad()
def code_clips(codec: FrameCodec, corpus: Corpus, items: Sequence[int], path: Path | None = None) -> dict[int, Tensor]:
    """Codes [K, T] int16 of clips by their number in the corpus; read from `path` where they were written by the same codec."""
    from safetensors import safe_open
    from safetensors.torch import save

    digest = hashlib.sha256(repr((codec.emits, [(corpus.item(i).id, corpus.item(i).frames) for i in items])).encode())
    for k in range(codec.emits.width):
        digest.update(codec.vectors(k).numpy().tobytes())
    key = digest.hexdigest()
    if path is not None and path.is_file():
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") == key:
                flat, lengths = file.get_tensor("codes"), file.get_tensor("lengths")
                return dict(zip(items, flat.split(lengths.tolist(), 1), strict=True))
    log.info("coding %d clips of %s", len(items), corpus.folder)
    coded: dict[int, Tensor] = {}
    order = sorted(items, key=lambda i: corpus.item(i).frames)
    while order:
        rows = max(1, CODED_FRAMES // corpus.item(order[-1]).frames)
        taken, order = order[-rows:], order[:-rows]
        mel, lengths = pad([corpus.mel(i) for i in taken])
        codes = codec.encode_frames(Frames(mel, lengths, codec.accepts))
        coded |= {i: codes.data[b, :, : int(codes.lengths[b])].short() for b, i in enumerate(taken)}
    if path is not None and items:
        kept = {"codes": torch.cat([coded[i] for i in items], 1), "lengths": torch.tensor([coded[i].shape[1] for i in items])}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(kept, {"key": key}))
    return coded
