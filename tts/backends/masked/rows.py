"""The rows of one generation: what each item is told and which of its cells are known, then side by side in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tts.backends.masked.config import MaskedConfig
from tts.backends.masked.network import Given, MaskedNetwork
from tts.errors import PromptError, ShapeError, TextError
from tts.frames import Plan, Utterance
from tts.nn.text import read_prompt


@dataclass(frozen=True)
class Row:
    """One item without padding: P frames of prompt, T of target, L tokens."""

    prompt: Tensor  # [K, P]
    cells: Tensor  # [K, T], V where masked
    kept: Tensor  # [T] bool, frames all of whose books are kept
    ids: Tensor  # [L], or vectors [L, C] made elsewhere
    known: Tensor  # [L] bool
    token_frames: Tensor  # [L] frames of each token from the prompt's first on (aligned)
    seed: Tensor  # []


def make_row(config: MaskedConfig, utterance: Utterance, b: int, given_books: int, device: torch.device) -> Row:
    """Row b of an utterance that the backend has checked. Raises PromptError, TextError: beyond the context."""
    assert utterance.plan is not None
    plan = Plan(utterance.plan.seconds[b : b + 1])
    T = int(plan.frames(config.rate)[0])
    prompt, before, before_frames = read_prompt(utterance.prompt, b, config.codebooks, config.text == "aligned", device)
    P = prompt.shape[1]
    if utterance.content is not None:
        ids = utterance.content.data[b, :, : int(utterance.content.lengths[b])].T.to(device)
        cells = _cells(config, utterance, b, T, given_books, device)
        row = Row(prompt, *cells, ids, _all(ids), _none(device), _seed(utterance, b).to(device))
        _check_room(config, row)
        return row
    ids = utterance.tokens.ids[b, : int(utterance.tokens.lengths[b])].to(device)
    token_frames = _none(device)
    if config.text == "aligned":
        assert utterance.plan.token_seconds is not None
        # of this row alone: the rounding of a padded one ends in its padding
        plan = Plan(plan.seconds, utterance.plan.token_seconds[b : b + 1, : len(ids)])
        token_frames = plan.token_frames(config.rate)[0].to(device)
        if P and not len(before):  # frames whose tokens are not known
            before, before_frames = ids.new_zeros(1), ids.new_full((1,), P)
            known = F.pad(_all(ids), (1, 0))
        else:
            known = _all(torch.cat((before, ids)))
        token_frames = torch.cat((before_frames, token_frames))
    else:
        known = _all(torch.cat((before, ids)))
    row = Row(
        prompt,
        *_cells(config, utterance, b, T, given_books, device),
        torch.cat((before, ids)),
        known,
        token_frames,
        _seed(utterance, b).to(device),
    )
    _check_room(config, row)
    return row


def give(network: MaskedNetwork, rows: Sequence[Row], guided: bool) -> tuple[Tensor, Tensor, Given]:
    """Rows side by side: cells [B, K, T], lengths [B], and what the network is told; guided: for twice the rows, the second
    time without condition."""
    config, device = network.config, rows[0].cells.device
    V, B = config.size, len(rows)
    prompts = torch.tensor([row.prompt.shape[1] for row in rows], device=device)
    lengths = torch.tensor([row.cells.shape[1] for row in rows], device=device)
    P, T = int(prompts.max()), int(lengths.max())
    cells = torch.stack([F.pad(row.cells, (0, T - row.cells.shape[1]), value=V) for row in rows])
    # 1. prompts stand right before their targets, so that frames lie side by side
    prompt = torch.stack([F.pad(row.prompt, (P - row.prompt.shape[1], 0), value=V) for row in rows])
    begin = (P - prompts)[:, None]
    frames = torch.arange(P + T, device=device)
    real = (frames >= begin) & (frames < P + lengths[:, None])
    kept = torch.stack([F.pad(row.kept, (0, T - len(row.kept))) for row in rows])
    known = real & torch.cat((torch.ones(B, P, dtype=torch.bool, device=device), kept), 1)
    voice = network.hear(torch.cat((prompt, cells), 2), known)
    # 2. text
    ids = torch.nn.utils.rnn.pad_sequence([row.ids for row in rows], batch_first=True)
    seen = torch.nn.utils.rnn.pad_sequence([row.known for row in rows], batch_first=True)
    text = network.read(ids, seen)
    placed, prefix, memory = None, None, None
    if config.text == "aligned":
        token_frames = torch.nn.utils.rnn.pad_sequence([row.token_frames for row in rows], batch_first=True)
        placed = torch.stack([
            F.pad(network.place_text(text.row(b), token_frames[b : b + 1], P + T - int(begin[b]))[0], (0, 0, int(begin[b]), 0))
            for b in range(B)
        ])  # fmt: skip
    elif config.text == "prefix":
        prefix = network.lead(text)
    else:
        memory = network.remember(text.twice(config.unguided == "text") if guided else text)
    # 3. the same rows without condition
    if guided:
        keeps_prompt, keeps_text = config.unguided == "prompt", config.unguided == "text"
        prompt = torch.cat((prompt, prompt if keeps_prompt else torch.full_like(prompt, V)))
        real = torch.cat((real, real if keeps_prompt else real & (frames >= P)))
        voice = None if voice is None else torch.cat((voice, voice * keeps_prompt))
        placed = None if placed is None else torch.cat((placed, placed * keeps_text))
        prefix = None if prefix is None else prefix.twice(keeps_text)
    return cells, lengths, Given(prompt, real, placed, voice, prefix, memory)


def _cells(
    config: MaskedConfig, utterance: Utterance, b: int, T: int, given_books: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """[K, T], V where masked, and the frames that are kept whole [T]."""
    cells = torch.full((config.codebooks, T), config.size, dtype=torch.int64, device=device)
    kept = torch.zeros(T, dtype=torch.bool, device=device)
    if utterance.context is None:
        return cells, kept
    context = utterance.context
    length = min(int(context.lengths[b]), T)
    codes = context.data[b, :, :length].to(device)
    if utterance.keep is not None:
        keep = utterance.keep[b].to(device)
        if bool(keep[length:].any()):
            raise ShapeError(f"frames to keep lie beyond the {length} that are there to be kept, of {T} planned")
        kept[:length] = keep[:length]
    if given_books and length < T:
        raise ShapeError(f"given books must last as long as planned, {T} frames, got {length}")
    cells[:, :length] = torch.where(kept[:length], codes, cells[:, :length])
    cells[:given_books, :length] = codes[:given_books]
    return cells, kept


def _check_room(config: MaskedConfig, row: Row) -> None:
    P, T, L = row.prompt.shape[1], row.cells.shape[1], len(row.ids) if config.text == "prefix" else 0
    needed = L + P + T
    if needed <= config.context:
        return
    rate = float(config.rate)
    says = f"of the {config.context / rate:g} s that this model can look at"
    most = config.context // 2
    if most < P:
        raise PromptError(f"the prompt takes {P / rate:g} s {says}; give a shorter one")
    raise TextError(f"prompt and text take {needed / rate:g} s {says}; give the text in shorter sentences")


def _all(ids: Tensor) -> Tensor:
    return torch.ones(len(ids), dtype=torch.bool, device=ids.device)


def _none(device: torch.device) -> Tensor:
    return torch.zeros(0, dtype=torch.int64, device=device)


def _seed(utterance: Utterance, b: int) -> Tensor:
    return utterance.seeds[b]
