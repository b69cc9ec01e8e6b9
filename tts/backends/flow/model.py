"""The flow backend: phones, a prompt's mel and a plan in, the mel of the target out.

    frames    prompt prompt prompt │ target target target target
    text      phones on their frames (aligned), or one string (plain)
    cond      the prompt's mel     │ 0      0      0      0
    x         noise at t = 0 ───────────── solver ─────────────► mel at t = 1; the target is cut out

With `patch` p, each position of the network is p frames; what is left of the last patch is zero throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.backends.flow.config import FlowConfig, FlowSettings
from tts.backends.flow.dit import DiT, Modulation
from tts.backends.flow.path import FlowDraw, point, velocity
from tts.backends.flow.rows import Row, make_row, normalise, stack_rows
from tts.backends.flow.text import TextEncoder, TextLayout, lay_aligned, lay_plain
from tts.decoding.graphs import Graphs, fill_up
from tts.decoding.guidance import merge_groups, stack_groups
from tts.decoding.solvers import SOLVERS, guided_euler, pruned_grid, sway, visited_times
from tts.errors import FitError
from tts.frames import Frames, Utterance, check_fit, check_utterance, frame_mask
from tts.nn.conv import ConvNeXtV2Block, blank
from tts.nn.quantize import has_bfloat16, quantize
from tts.nn.speaker import SpeakerConfig, SpeakerEncoder
from tts.sampling import fused, paths
from tts.sampling.philox import PhiloxNoise


class PromptStatistics(nn.Module):
    """Mean and standard deviation of each mel band over the prompt as one vector: a voice in a nutshell.

    Where there is no prompt the vector is zero. It serves short prompts, whose frames alone attention finds late in training.
    """

    def __init__(self, bands: int, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * bands, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, mel: Tensor, known: Tensor) -> Tensor:
        """mel [B, bands, T], known [B, T] bool (the prompt's frames) to [B, dim]."""
        share = known.float()[:, None] / known.sum(1).clamp(min=1)[:, None, None]  # [B, 1, T]
        mean = (mel * share).sum(-1)
        deviation = ((mel - mean[..., None]).square() * share).sum(-1).clamp(min=1e-6).sqrt()
        return self.mlp(torch.cat((mean, deviation), -1)) * known.any(1)[:, None]


class SpeakerVoice(nn.Module):
    """The prompt's voice by a speaker encoder, whose weights stay as its own training (tts/train/speaker.py) left them."""

    def __init__(self, config: SpeakerConfig, dim: int) -> None:
        super().__init__()
        self.encoder = SpeakerEncoder(config).requires_grad_(False)
        self.mlp = nn.Sequential(nn.Linear(config.dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, mel: Tensor, known: Tensor) -> Tensor:
        """As `PromptStatistics`: mel [B, bands, T], known [B, T] bool to [B, dim], zero where nothing is known."""
        vectors = self.encoder.embed([row[:, frames] for row, frames in zip(mel, known, strict=True)])
        return self.mlp(vectors) * known.any(1)[:, None]


class Prior(nn.Module):
    """A first guess of the mel from the encoded text and the voice, learnt by plain regression.

    It gives the text encoder a gradient without the noise of the flow, which then only adds what the mean leaves out.
    Source: the prior loss of Grad-TTS, Popov et al. 2021 (arXiv:2105.06337), section 3.3. Changed: L1, a layer that mixes
    voice and neighbours, and the guess is a condition of the flow, not the place where it starts.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.voice = nn.Linear(config.dim, config.text_dim)
        self.block = ConvNeXtV2Block(config.text_dim, round(config.text_dim * config.text_mult))
        self.out = nn.Linear(config.text_dim, config.width)

    def forward(self, text: Tensor, voice: Tensor | None, mask: Tensor) -> Tensor:
        """text [B, N, C], voice [B, D] or None, mask [B, N] bool to normalised mel [B, N, width]."""
        x = text if voice is None else text + self.voice(voice)[:, None]
        return blank(self.out(self.block(blank(x, mask), mask)), mask)


@dataclass(frozen=True)
class Given:
    """What a velocity is conditioned on, the same at all times: computed once, used at every step."""

    condition: Tensor  # [B, N, D]
    voice: Tensor | None  # [B, D]
    mask: Tensor | None  # [B, N]; None: every position is real
    mu: Tensor | None  # [B, N, width]


class FlowBackend(nn.Module):
    """Conditional flow matching with a diffusion transformer: F5-TTS (arXiv:2410.06885), or with `expansion="aligned"`,
    `prior` and `prompt_statistics` a relative of it that learns from hours of speech instead of years."""

    settings_type = FlowSettings
    plans = "exact"
    prompt_seconds = (0.5, 12.0)

    def __init__(self, config: FlowConfig, noise: PhiloxNoise | None = None) -> None:
        super().__init__()
        self.config = config
        self.emits = config.mel.spec
        self.needs = {"mel": config.mel.spec}
        self.table = config.table
        self.noise = noise if noise is not None else PhiloxNoise()
        self.text = TextEncoder(config)
        self.dit = DiT(config)
        self.statistics = PromptStatistics(config.mel.bands, config.dim) if config.prompt_statistics else None
        self.speaker = SpeakerVoice(config.speaker, config.dim) if config.speaker is not None else None
        self.prior = Prior(config) if config.prior else None
        self.graphs = Graphs(self.dit)

    # ------------------------------------------------------------------------------------------------- training

    def loss(self, utterance: Utterance, target: Frames, noise: FlowDraw) -> dict[str, Tensor]:
        """How far the velocity is from the path's at the masked frames; without in-filling, at all frames.

        Args:
            utterance: tokens and, when aligned, a plan with their seconds, of the whole row; no prompt: what is not masked
                plays its part.
            target: mel [B, bands, T] of the whole row. noise: from `path.draw`, on the same device.
        Returns:
            "flow": mean squared error; "prior" (where there is one): mean absolute error in units of mel_std;
            "loss": their weighted sum, to minimise.
        """
        check_fit("the target", target.spec, "the flow backend", self.emits)
        assert utterance.prompt is None, "in training the prompt is the part of the target that is not masked"
        T = target.data.shape[-1]
        real = frame_mask(target.lengths, T)
        mel = self._normalise(target.data).masked_fill(~real[:, None], 0)
        heard = mel  # at the masked frames the target, elsewhere the prompt: the condition and, where it is in-filled, x
        if noise.prompt_mel is not None:
            prompt = self._normalise(noise.prompt_mel).masked_fill(~real[:, None], 0)
            heard = torch.where(noise.masked[:, None], mel, prompt)
        text = self._lay(utterance, target.lengths, T)
        if self.config.aligned and self.config.infill:
            text = text.without(noise.hide_phones)
        given_frames = real & ~noise.masked & ~noise.drop_prompt[:, None]
        voice = self._voice(heard, given_frames)
        seen = given_frames if self.config.infill else torch.zeros_like(given_frames)
        given = self._given(heard, seen, voice, text, target.lengths, noise.drop_text)
        t = noise.t.to(mel.dtype)
        x0 = noise.noise.masked_fill(~real[:, None], 0)
        x = point(x0, heard if self.config.infill else mel, t)
        guess = self.dit(self._fold(x), self.dit.modulate(t, given.voice), given.condition, given.mask)
        # Without in-filling there is no prompt among the frames: at inference a row is its target alone.
        judged = (real & noise.masked if self.config.infill else real)[:, None]  # [B, 1, T]
        count = judged.sum().clamp(min=1) * mel.shape[1]
        error = (self._unfold(guess, T).float() - velocity(x0, mel)).square()
        losses = {"flow": error.masked_fill(~judged, 0).sum() / count}
        losses["loss"] = losses["flow"]
        if given.mu is not None:
            judged = judged & ~noise.drop_text[:, None, None]
            count = judged.sum().clamp(min=1) * mel.shape[1]
            error = (self._unfold(given.mu, T).float() - mel).abs()
            losses["prior"] = error.masked_fill(~judged, 0).sum() / count
            losses["loss"] = losses["flow"] + self.config.prior_weight * losses["prior"]
        return losses

    # ------------------------------------------------------------------------------------------------ inference

    @torch.inference_mode()
    def generate(self, utterance: Utterance, settings: FlowSettings | Mapping[str, Any] | None = None) -> Frames:
        """The target's mel, exactly as many frames as the plan says.

        On the CPU row after row, since sums of floats depend on the shape of a batch: the same bits alone and in company.

        Raises:
            SettingsError: settings that do not exist. FitError: tokens of another table, a prompt of another mel, no plan.
        """
        settings = FlowSettings.of(settings)
        self._check(utterance)
        assert utterance.plan is not None
        device = self.text.table.weight.device
        rows = [make_row(self.config, utterance, b, self.noise, device) for b in range(len(utterance.seeds))]
        batches = [[row] for row in rows] if device.type == "cpu" else [rows]
        mels = [mel for batch in batches for mel in self._solve(batch, settings)]
        lengths = torch.tensor([mel.shape[-1] for mel in mels])
        data = torch.zeros(len(mels), self.config.mel.bands, int(lengths.max()) if len(mels) else 0, device=device)
        for b, mel in enumerate(mels):
            data[b, :, : mel.shape[-1]] = mel
        return Frames(data, lengths.to(device), self.emits)

    def _apply(self, *given: Any, **options: Any) -> Any:
        self.graphs.clear()  # weights that are moved leave them behind
        return super()._apply(*given, **options)

    def shrink(self, bits: int | None) -> int:
        """Weights of the transformer's products in 16 or 32 bits, for inference on a CPU; returns which.

        None, and fewer bits, which would not pay where a row is hundreds of frames: 16 where the CPU has bfloat16, else 32.
        """
        if bits is None or bits < 16:
            bits = 16 if has_bfloat16() else 32
        if bits == 16:
            quantize(self.dit.blocks, 16)
        return bits

    def _check(self, utterance: Utterance) -> None:
        if utterance.content is not None or (utterance.context is None) != (utterance.keep is None):
            raise FitError("the flow backend speaks tokens; it edits when context and keep are given together")
        if utterance.context is not None and not self.config.infill:
            raise FitError("this flow backend was trained without in-filling; it cannot edit")
        check_utterance(utterance, "the flow backend", self.table, self.emits)

    def _solve(self, rows: list[Row], settings: FlowSettings) -> list[Tensor]:
        """Target mels [bands, T_b], the rows padded to one batch; positions of padding are masked everywhere."""
        batch = stack_rows(rows)
        cond, noise, known, lengths, text = batch.cond, batch.noise, batch.given, batch.lengths, batch.text
        B, T = known.shape
        # 1. what all steps share: text, prior, voice, for both groups of guidance
        scale = settings.guidance
        rows_of = partial(stack_groups, scale=scale)
        dropped = torch.arange(len(rows_of(lengths)), device=lengths.device) >= B
        seen = rows_of(known) & ~dropped[:, None]
        if self.config.infill:
            voice = self._voice(rows_of(cond), seen)
        else:
            voice = self._voice(rows_of(batch.heard), rows_of(batch.heard_known) & ~dropped[:, None])
        given = self._given(rows_of(cond), seen, voice, text.map(rows_of), rows_of(lengths), dropped)
        inside = self._fold(frame_mask(lengths, T)[:, None].expand_as(noise).to(noise.dtype))

        # 2. from noise to mel
        x = self._fold(noise) * settings.temperature
        solve, grid = SOLVERS[settings.solver], sway(pruned_grid(settings.steps), settings.sway)
        modulations = iter(self._modulations(visited_times(solve, grid).to(x.device), given.voice))

        network = self._network(given, x.shape[1])

        def field(x: Tensor, t: Tensor) -> Tensor:
            return merge_groups(network(rows_of(x), next(modulations)), scale) * inside  # zero in padding, as in training

        def both(x: Tensor, t: Tensor) -> Tensor:
            return network(rows_of(x), next(modulations)) * rows_of(inside)

        if settings.solver == "euler" and paths.fused(x.device):
            x = guided_euler(both, x, grid, scale, fused.flow_step)
        else:
            x = solve(field, x, grid)
        mel = torch.where(known[:, None], cond, self._unfold(x, T))  # frames that were given stay as they were
        # 3. the target alone
        mel = mel * self.config.mel_std + self.config.mel_mean
        return [mel[b, :, row.n_prompt : row.n_frames] for b, row in enumerate(rows)]

    def _network(self, given: Given, N: int) -> Callable[[Tensor, Modulation], Tensor]:
        """Velocities of x [B, N, width]: by the transformer as it is, or where the path says so by a graph of N's bucket.

        Time experts ask which of them are needed, which a graph cannot.
        """
        condition, mask = given.condition, given.mask
        if paths.path_for(condition.device) != "graph" or self.config.time_experts != 1:
            return lambda x, modulation: self.dit(x, modulation, condition, mask)
        if mask is None:
            mask = torch.ones(condition.shape[:2], dtype=torch.bool, device=condition.device)
        condition, mask = fill_up(condition, 1), fill_up(mask, 1)
        return lambda x, modulation: self.graphs(fill_up(x, 1), modulation, condition, mask)[:, :N]

    def _modulations(self, times: Tensor, voice: Tensor | None) -> list[Modulation]:
        """Those of each of the times [S], all at once; without a voice, one row serves every row."""
        if voice is None:
            return self.dit.modulate(times).split(1)
        B, S = len(voice), len(times)
        return self.dit.modulate(times.repeat_interleave(B), voice.repeat(S, 1)).split(B)

    # -------------------------------------------------------------------------------------------------- shared

    def _voice(self, mel: Tensor, known: Tensor) -> Tensor | None:
        """The voice heard in the known frames [B, T] of mels [B, bands, T], by each way that the config names: [B, D]."""
        voices = [read(mel, known) for read in (self.statistics, self.speaker) if read is not None]
        return sum(voices[1:], voices[0]) if voices else None

    def _given(
        self, mel: Tensor, known: Tensor, voice: Tensor | None, text: TextLayout, lengths: Tensor, drop_text: Tensor
    ) -> Given:
        """Everything that does not depend on x or t. mel [B, bands, T], normalised; known [B, T]: the frames to see."""
        p, T = self.config.patch, mel.shape[-1]
        N = -(-T // p)
        real = frame_mask(-(-lengths // p), N)
        mask = None if bool(real.all()) else real
        if self.config.aligned and T % p:
            text = text.map(lambda x: F.pad(x, (0, N * p - T)))
        encoded = self.text(text, real, drop_text)
        mu = None if self.prior is None else self.prior(encoded, voice, real)
        cond = self._fold(mel.masked_fill(~known[:, None], 0))
        return Given(self.dit.condition(cond, encoded, mu), voice, mask, mu)

    def _lay(self, utterance: Utterance, lengths: Tensor, T: int) -> TextLayout:
        """The text of whole rows of training."""
        tokens = utterance.tokens
        if not self.config.aligned:
            return lay_plain(tokens.ids, tokens.lengths, -(-T // self.config.patch))
        if utterance.plan is None:
            raise FitError("an aligned flow is trained with a plan that gives the seconds of each token")
        return lay_aligned(tokens.ids, utterance.plan.token_frames(self.emits.rate), T)

    def _normalise(self, mel: Tensor) -> Tensor:
        return normalise(mel, self.config)

    def _fold(self, x: Tensor) -> Tensor:
        """[B, bands, T] to positions [B, N, patch * bands], frame after frame, the last patch filled with zeros."""
        p = self.config.patch
        return F.pad(x, (0, -x.shape[-1] % p)).transpose(1, 2).unflatten(1, (-1, p)).flatten(2)

    def _unfold(self, x: Tensor, T: int) -> Tensor:
        """The inverse of `_fold`: [B, N, patch * bands] to [B, bands, T]."""
        return x.unflatten(2, (self.config.patch, -1)).flatten(1, 2)[:, :T].transpose(1, 2)
