"""The rows of one generation: prompt and target end to end, then side by side in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tts.backends.flow.config import FlowConfig
from tts.backends.flow.text import TextLayout, lay_aligned, lay_plain
from tts.frames import Plan, Prompt, Utterance
from tts.sampling.philox import PhiloxNoise, Purpose

TARGET, PROMPT = 0, 1  # the "step" of a frame's noise; positions count away from the border between prompt and target


@dataclass(frozen=True)
class Row:
    """One utterance of T frames without padding, mels normalised. Without in-filling it has no prompt frames."""

    cond: Tensor  # [bands, T], zero where nothing is given
    given: Tensor  # [T] bool: the prompt, and frames to keep
    text: TextLayout  # [1, T], or [1, N] when plain
    noise: Tensor  # [bands, T]
    n_prompt: int
    heard: Tensor  # [bands, P]: the prompt's mel

    @property
    def n_frames(self) -> int:
        return self.noise.shape[-1]


@dataclass(frozen=True)
class Batch:
    """Rows padded with zeros and fillers: cond, noise [B, bands, T], given [B, T], text of B rows, lengths [B];
    heard [B, bands, P], heard_known [B, P] bool."""

    cond: Tensor
    given: Tensor
    text: TextLayout
    noise: Tensor
    lengths: Tensor
    heard: Tensor
    heard_known: Tensor


def normalise(mel: Tensor, config: FlowConfig) -> Tensor:
    """Log-mel to what the network sees, float32."""
    return (mel.float() - config.mel_mean) / config.mel_std


def make_row(config: FlowConfig, utterance: Utterance, b: int, noise: PhiloxNoise, device: torch.device) -> Row:
    """Row b of an utterance that the backend has checked.

    The noise of frame t and band c of the target depends on (seed, FLOW, 0, t, c) alone: on no prompt, batch or padding.
    """
    assert utterance.plan is not None
    ids = utterance.tokens.ids[b : b + 1, : int(utterance.tokens.lengths[b])].to(device)  # [1, L]
    n_target = int(utterance.plan.frames(config.mel.spec.rate)[b])
    # 1. what is given
    mel, prompt_ids, prompt_frames = _prompt(utterance.prompt, b, config.mel.bands, device)
    heard = normalise(mel, config)
    if not config.infill:
        mel, prompt_ids, prompt_frames = _prompt(None, b, config.mel.bands, device)
    n_prompt = mel.shape[1]
    T = n_prompt + n_target
    cond = F.pad(normalise(mel, config), (0, n_target))
    given = torch.arange(T, device=device) < n_prompt
    if utterance.context is not None and utterance.keep is not None:
        kept = utterance.keep[b, :n_target].to(device)
        given[n_prompt:] = kept
        cond[:, n_prompt:] = normalise(utterance.context.data[b, :, :n_target].to(device), config) * kept
    # 2. the text
    if config.aligned:
        before = lay_aligned(prompt_ids[:, : prompt_frames.shape[1]], prompt_frames, n_prompt)
        text = _join(before, lay_aligned(ids, _token_frames(utterance.plan, b, ids, config), n_target))
    else:
        string = torch.cat((prompt_ids, ids), 1)
        text = lay_plain(string, torch.tensor([string.shape[1]], device=device), -(-T // config.patch))
    # 3. the noise
    seed = utterance.seeds[b].to(device)
    band = torch.arange(config.mel.bands, device=device)[:, None]
    back = torch.arange(n_prompt, device=device).flip(0)  # the prompt's last frame is 0
    draws = (
        noise.normal(seed, Purpose.FLOW, PROMPT, back, band),
        noise.normal(seed, Purpose.FLOW, TARGET, torch.arange(n_target, device=device), band),
    )
    return Row(cond, given, text, torch.cat(draws, 1), n_prompt, heard)


def stack_rows(rows: Sequence[Row]) -> Batch:
    """Rows of unequal length to one batch."""
    lengths = torch.tensor([row.n_frames for row in rows], device=rows[0].noise.device)
    texts = [row.text for row in rows]
    aligned = texts[0].inside is not None and texts[0].log_frames is not None
    text = TextLayout(
        _stack([t.rows[0] for t in texts]),
        _stack([t.inside[0] for t in texts if t.inside is not None]) if aligned else None,
        _stack([t.log_frames[0] for t in texts if t.log_frames is not None]) if aligned else None,
    )
    cond, given, noise = (_stack(parts) for parts in zip(*((r.cond, r.given, r.noise) for r in rows), strict=True))
    heard = [row.heard for row in rows]
    known = [torch.ones(mel.shape[1], dtype=torch.bool, device=mel.device) for mel in heard]
    return Batch(cond, given, text, noise, lengths, _stack(heard), _stack(known))


def _prompt(prompt: Prompt | None, b: int, bands: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Its mel [bands, T], token ids [1, L] and the frames of each [1, L] ([1, 0] where no alignment is known)."""
    none = torch.zeros(1, 0, dtype=torch.int64, device=device)
    if prompt is None:
        return torch.zeros(bands, 0, device=device), none, none
    frames = prompt.frames["mel"]
    mel = frames.data[b, :, : int(frames.lengths[b])].to(device)
    L = int(prompt.tokens.lengths[b])
    token_frames = none if prompt.token_frames is None else prompt.token_frames[b : b + 1, :L].to(device)
    return mel, prompt.tokens.ids[b : b + 1, :L].to(device), token_frames


def _token_frames(plan: Plan, b: int, ids: Tensor, config: FlowConfig) -> Tensor:
    """[1, L]: of this row alone, since the rounding of a padded row would end in its padding."""
    if ids.shape[1] == 0:
        return torch.zeros_like(ids)
    token_seconds = None if plan.token_seconds is None else plan.token_seconds[b : b + 1, : ids.shape[1]]
    return Plan(plan.seconds[b : b + 1], token_seconds).token_frames(config.mel.spec.rate).to(ids.device)


def _join(first: TextLayout, second: TextLayout) -> TextLayout:
    assert first.inside is not None and second.inside is not None
    assert first.log_frames is not None and second.log_frames is not None
    return TextLayout(
        torch.cat((first.rows, second.rows), 1),
        torch.cat((first.inside, second.inside), 1),
        torch.cat((first.log_frames, second.log_frames), 1),
    )


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """[..., T_b] each to [B, ..., T], padded with zeros (fillers)."""
    T = max(part.shape[-1] for part in parts)
    return torch.stack([F.pad(part, (0, T - part.shape[-1])) for part in parts])
