"""The rows of one generation: what each item has read before its first frame, then side by side in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tts.backends.ar.config import ARConfig, ARSettings
from tts.backends.ar.network import ARNetwork, Text
from tts.decoding.autoregressive import Task
from tts.decoding.constraints import Loops, MonotonicPointer, Position
from tts.decoding.scores import DepthScorer, Scores, Stepping
from tts.errors import PromptError, TextError
from tts.frames import Plan, Utterance, frame_mask
from tts.interfaces import Noise
from tts.nn.conv import blank
from tts.nn.kv_cache import KVCache
from tts.nn.text import lay, left_of, read_prompt

CAP = 1.5  # a model that ends by itself may take this much longer than planned
MULTIPLE = 16  # of positions in a cache: masks of other widths are padded anew in every layer, where attention is on a GPU


@dataclass(frozen=True)
class Row:
    """One item without padding. P frames of prompt, L tokens: the prompt's n_before, then the target's."""

    codes: Tensor  # [K, P]
    ids: Tensor  # [L], or vectors [L, C] made elsewhere
    n_before: int
    token: Tensor  # [P] the token of each frame of the prompt, L where it is not known (aligned)
    stays: Tensor  # [P] frames it has lasted (aligned)
    left: Tensor  # [P] frames it will last on, -1 where that is not known (aligned)
    planned: Tensor  # [L - n_before] frames of each token of the target (aligned), else [0]
    frames: int  # planned, of the target
    seed: Tensor  # []


@dataclass(frozen=True)
class Told:
    """A scorer that is told the same at every step: told [R, D]."""

    network: ARNetwork
    told: Tensor

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.network.sizes

    @property
    def depth(self) -> DepthScorer | None:
        return self.network.depth

    def step(self, codes: Tensor, text: Tensor | None, cache: KVCache) -> Scores:
        return self.network.step(codes, self.told, cache)

    def stepping(self, cache: KVCache) -> Stepping:
        steps = self.network.stepping(cache)
        return replace(steps, step=lambda x, where: steps.step(x + self.told, where))


def make_row(config: ARConfig, utterance: Utterance, b: int, device: torch.device) -> Row:
    """Row b of an utterance that the backend has checked."""
    assert utterance.plan is not None
    if utterance.content is not None:
        ids = utterance.content.data[b, :, : int(utterance.content.lengths[b])].T.to(device)
    else:
        ids = utterance.tokens.ids[b, : int(utterance.tokens.lengths[b])].to(device)
    codes, before, before_frames = read_prompt(utterance.prompt, b, config.codebooks, config.text == "aligned", device)
    plan = Plan(utterance.plan.seconds[b : b + 1], None)
    planned = ids.new_zeros(0, dtype=torch.int64)
    if config.text == "aligned":
        if utterance.plan.token_seconds is not None:  # of this row alone: the rounding of a padded one ends in its padding
            plan = Plan(plan.seconds, utterance.plan.token_seconds[b : b + 1, : len(ids)])
        planned = plan.token_frames(config.rate)[0].to(device)
    if utterance.content is None:
        ids = torch.cat((before, ids))
    P, L = codes.shape[1], len(ids)
    token, stays = lay(before_frames[None], P)
    left = left_of(before_frames[None], token, stays)[0]
    token = torch.where(token[0] < len(before_frames), token[0], L)
    frames, seed = int(plan.frames(config.rate)[0]), utterance.seeds[b].to(device)
    return Row(codes, ids, len(before), token, stays[0], left, planned, frames, seed)


def begin(
    network: ARNetwork, rows: Sequence[Row], settings: ARSettings, noise: Noise
) -> tuple[ARNetwork | Told, Scores, KVCache, Task]:
    """Read what goes before the first frame: the arguments of `decode`. Raises PromptError, TextError: beyond the context.

    With guidance, the rows come again without text and voice, and without the prompt unless they are to keep it.
    """
    config, device = network.config, rows[0].codes.device
    V, K, B, late = config.size, config.codebooks, len(rows), config.pattern.waits
    # 1. texts and voices
    known = _stack([torch.ones(len(row.ids), device=device) for row in rows]).bool()
    given = torch.nn.utils.rnn.pad_sequence([row.ids for row in rows], batch_first=True)
    text = network.read(given, known) if given.dim() == 2 else network.read_vectors(given, known)
    L = known.shape[1]
    prompts = torch.tensor([row.codes.shape[1] for row in rows], device=device)
    P = int(prompts.max())
    is_prompt = torch.arange(P, device=device) < prompts[:, None]
    voice = network.hear(_stack([row.codes for row in rows]), is_prompt)
    # 2. where the text is, and how long it may take
    pointer, most = _bounds(config, rows, settings)
    prefix = known.sum(1) if config.text == "prefix" else torch.zeros_like(prompts)
    needed = prefix + prompts + 1 + most + late
    _check_room(config, needed, prompts)
    before = torch.tensor([row.n_before for row in rows], device=device)
    planned = _stack([row.planned for row in rows])  # [B, L] where text is aligned
    frames = (prompts + planned.sum(1)).tolist()
    laid = [_lay(network, row, text.row(b), voice[b], frames[b], settings.pointer == "plan") for b, row in enumerate(rows)]
    ahead = _encode(network, rows, laid) if network.encoder is not None else None
    begins = prompts[:, None] + planned.cumsum(1) - planned

    def place(position: Position) -> Tensor:
        """What is told at positions [B] or [B, N], of twice the rows with guidance."""
        phone, stayed, done = (x.view(B, -1) for x in (position.phone, position.stayed, position.done))
        token = torch.where(done, L, before[:, None] + phone)
        left = None
        if settings.pointer == "plan":
            left = (planned.gather(1, phone) - 1 - stayed).masked_fill(done, -1)
        told = voice[:, None] + network.place_text(text, token, stayed, left)
        if ahead is not None:  # a phone that lasts longer than planned is told what its last frame is
            frame = begins.gather(1, phone) + torch.minimum(stayed, (planned.gather(1, phone) - 1).clamp(min=0))
            told = told + blank(ahead[torch.arange(B, device=device)[:, None], frame.clamp(max=ahead.shape[1] - 1)], ~done)
        told = told.view(*position.phone.shape, -1)
        return told if settings.guidance == 1 else torch.cat((told, torch.zeros_like(told)))

    # 3. the steps of the prompts, and the one that asks for the first frame
    read = max(int((prefix + prompts).max()), (L if config.text == "prefix" else 0) + P) + 1  # with padding
    capacity = read + int(most.max()) + late  # all rows step on until the last has ended
    capacity += -capacity % MULTIPLE
    codes = torch.full((B, K, P + 1), V, device=device)
    told = torch.zeros(B, P + 1, config.dim, device=device)
    for b, row in enumerate(rows):
        n = row.codes.shape[1]
        codes[b, :, 1 : n + 1] = config.pattern.build(row.codes[None], V)[0, :, :n]
        told[b, :n] = laid[b][:n] if ahead is None else laid[b][:n] + ahead[b, :n]
    first = voice if pointer is None else place(pointer.start())[:B]
    told[torch.arange(B, device=device), prompts] = first
    if settings.guidance != 1:
        keeps = config.unguided == "prompt"
        codes = torch.cat((codes, codes if keeps else torch.full_like(codes, V)))
        told = torch.cat((told, torch.zeros_like(told)))
        text = Text(*(torch.cat((x, torch.zeros_like(x))) for x in (text.vectors, text.known)))
        prompts = torch.cat((prompts, prompts if keeps else torch.zeros_like(prompts)))
    scores, cache = network.start(codes, prompts + 1, told, text, capacity)
    # 4. the task
    task = Task(
        seeds=torch.stack([row.seed for row in rows]),
        most=most,
        policy=settings,
        delays=config.pattern.shifts,
        before=torch.stack([F.pad(row.codes, (max(P, late) - row.codes.shape[1], 0), value=V) for row in rows]),
        constraint=pointer,
        text=place if pointer is not None else None,
        loops=Loops() if (config.end if pointer is None else settings.pointer == "model") else None,
        noise=noise,
    )
    if pointer is not None:
        return network, scores, cache, task
    constant = voice if settings.guidance == 1 else torch.cat((voice, torch.zeros_like(voice)))
    return Told(network, constant), scores, cache, task


def whole(network: ARNetwork, row: Row, codes: Tensor) -> tuple[Tensor, Tensor]:
    """A row that is known to its end, codes [K, T] after its prompt: hidden states [S, D], and the codes asked for [S, K]."""
    config, V = network.config, network.config.size
    P = row.codes.shape[1]
    known = torch.ones(1, len(row.ids), dtype=torch.bool, device=codes.device)
    text = network.read(row.ids[None], known) if row.ids.dim() == 1 else network.read_vectors(row.ids[None], known)
    steps = config.pattern.build(torch.cat((row.codes, codes), 1)[None], V)  # [1, K, S]
    S = steps.shape[2]
    N = P + int(row.planned.sum())  # the encoder sees all of the plan, whatever has been said of it
    needed = torch.tensor([max(S, N) + (len(row.ids) if config.text == "prefix" else 0)])
    _check_room(config, needed, torch.tensor([P]))
    voice = network.hear(row.codes[None], torch.ones(1, P, dtype=torch.bool, device=codes.device))[0]
    told = _lay(network, row, text, voice, max(S, N))
    if network.encoder is not None:
        told[:N] += _encode(network, [row], [told[:N]])[0]
    hidden = network(F.pad(steps, (1, -1), value=V), told[None, :S], text)
    return hidden[0], steps[0].T


def _lay(network: ARNetwork, row: Row, text: Text, voice: Tensor, S: int, as_planned: bool = True) -> Tensor:
    """What S frames, the prompt's and then the target's, are told of their phones and of the voice [D]: [S, D].

    text: of this row alone. as_planned: frames know how long their phone will last on, or in training none does.
    """
    P, none = row.codes.shape[1], text.known.shape[1] - 1
    told = voice * (torch.arange(S, device=voice.device) >= P)[:, None]
    if network.config.text != "aligned":
        return told
    token, stays = lay(row.planned[None], S - P)
    left = torch.cat((row.left[None], left_of(row.planned[None], token, stays)), 1)
    token = torch.where(token < len(row.planned), row.n_before + token, none)
    before = torch.where(row.token < len(row.ids), row.token, none)
    token, stays = (torch.cat((prompt[None], target), 1) for prompt, target in ((before, token), (row.stays, stays)))
    return told + network.place_text(text, token, stays, left if as_planned else None)[0]


def _encode(network: ARNetwork, rows: Sequence[Row], laid: Sequence[Tensor]) -> Tensor:
    """What the encoder tells the frames of prompts and plans, which are told laid [N_b, D]: [B, N, D], zero beyond N_b."""
    told = torch.nn.utils.rnn.pad_sequence(list(laid), batch_first=True)
    lengths = torch.tensor([len(frames) for frames in laid], device=told.device)
    codes = torch.stack([F.pad(row.codes, (0, told.shape[1] - row.codes.shape[1]), value=network.config.size) for row in rows])
    return network.encode(codes, told, frame_mask(lengths, told.shape[1]))


def _bounds(config: ARConfig, rows: Sequence[Row], settings: ARSettings) -> tuple[MonotonicPointer | None, Tensor]:
    """The pointer, where text is aligned, and the most frames of each row [B]."""
    device = rows[0].codes.device
    if config.text != "aligned":
        return None, torch.tensor([round(row.frames * (CAP if config.end else 1)) for row in rows], device=device)
    planned, lengths = _stack([row.planned for row in rows]), torch.tensor([len(row.planned) for row in rows], device=device)
    if settings.pointer == "plan":
        pointer = MonotonicPointer.planned(planned, lengths)
    else:
        least = (planned * settings.slack[0]).long()
        most = ((planned * settings.slack[1]).long() + 1).masked_fill(planned == 0, 0)
        pointer = MonotonicPointer(least, most, lengths)
    return pointer, pointer.cap


def _check_room(config: ARConfig, needed: Tensor, prompts: Tensor) -> None:
    if int(needed.max()) <= config.context:
        return
    row = int(needed.argmax())
    rate, prompt = float(config.rate), int(prompts[row])
    says = f"of the {config.context / rate:g} s that this model can look back on"
    if 2 * prompt > config.context:
        raise PromptError(f"the prompt takes {prompt / rate:g} s {says}; give a shorter one")
    raise TextError(f"prompt and text take {int(needed[row]) / rate:g} s {says}; give the text in shorter sentences")


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """[..., N_b] each to [B, ..., N], padded with zeros."""
    N = max(part.shape[-1] for part in parts)
    return torch.stack([F.pad(part, (0, N - part.shape[-1])) for part in parts])
