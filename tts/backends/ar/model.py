"""The autoregressive backend: phones, a prompt's codes and a plan in, the codes of the target out, one frame after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.backends.ar.config import ARConfig, ARSettings
from tts.backends.ar.draw import ARDraw
from tts.backends.ar.heads import DepthHead
from tts.backends.ar.network import ARNetwork, Text
from tts.backends.ar.rows import begin, make_row, whole
from tts.decoding.autoregressive import gather
from tts.decoding.captured import decode
from tts.errors import FitError
from tts.frames import Frames, Utterance, check_fit, check_utterance, frame_mask
from tts.nn.quantize import quantize
from tts.nn.text import lay, left_of
from tts.sampling.philox import PhiloxNoise

IGNORED = -100  # a target that is not judged


class ARBackend(nn.Module):
    """A language model over the codes of a codec, with one of two heads: QTTS's delayed books, or books one by one."""

    settings_type = ARSettings
    prompt_seconds = (0.5, 12.0)

    def __init__(self, config: ARConfig, noise: PhiloxNoise | None = None) -> None:
        super().__init__()
        self.config = config
        self.emits = config.spec
        self.needs = {"codes": config.spec}
        self.table = config.table
        self.plans = "exact" if config.text == "aligned" else "cap"
        self.noise = noise if noise is not None else PhiloxNoise()
        self.pattern = config.pattern
        self.network = ARNetwork(config)

    # ------------------------------------------------------------------------------------------------- training

    def loss(self, utterance: Utterance, target: Frames, noise: ARDraw) -> dict[str, Tensor]:
        """How surprising the codes are.

        Args:
            utterance: tokens of the whole row and, when aligned, a plan with their seconds; `content` where the model has no
                text layers. No prompt: the first frames of the row, as many as the draw says, play its part.
            target: codes [B, K, T] of the whole row, anything beyond its length. noise: from `draw.draw`, on the same device.
        Returns:
            "codes": mean cross-entropy in nats of all codes of real frames, the prompt's too, unless an encoder has seen them;
            "book0": that of book 0; "advance": of moving on to the next phone, where text is aligned; "loss": codes +
            advance_weight * advance.
        """
        check_fit("the target", target.spec, "the autoregressive backend", self.emits)
        assert utterance.prompt is None, "in training the prompt is the beginning of the target"
        V = self.config.size
        T = target.data.shape[-1]
        real = frame_mask(target.lengths, T)
        codes = target.data.masked_fill(~real[:, None], V)
        is_prompt = torch.arange(T, device=real.device) < noise.prompt[:, None]
        # 1. what is read, what is asked for: not the prompt of an encoder, which has seen it
        asked = codes if self.network.encoder is None else codes.masked_fill(is_prompt[:, None], V)
        said, wanted = self._steps(codes.masked_fill(noise.masked[:, None], V)), self._steps(asked)
        S = wanted.shape[2]
        wanted = wanted.masked_fill(wanted == V, IGNORED)
        if self.config.end:
            wanted[:, 0].scatter_(1, target.lengths[:, None], V)
        # 2. what is told
        voice = self.network.hear(target.data.masked_fill(~real[:, None], 0), is_prompt & real)
        told = voice[:, None] * (torch.arange(S, device=real.device) >= noise.prompt[:, None])[..., None]
        text, token_frames = self._text(utterance, noise)
        if token_frames is not None:
            token, stays = lay(token_frames, S)
            left = left_of(token_frames, token, stays)
            if noise.hide_plan is not None:
                left = left.masked_fill(noise.hide_plan[:, None], -1)
            told = told + self.network.place_text(text, token, stays, left)
            if self.network.encoder is not None:
                seen = codes.masked_fill(~is_prompt[:, None], V)
                ahead = self.network.encode(seen, told[:, :T], real)
                told = told + F.pad(ahead.masked_fill(noise.drop_text[:, None, None], 0), (0, 0, 0, S - T))
        # 3. what the model says
        hidden = self.network(F.pad(said, (1, -1), value=V), told, text)
        losses = self._surprise(hidden, wanted)
        losses["loss"] = losses["codes"]
        if token_frames is not None:
            assert self.network.advance is not None
            moves = (F.pad(token, (0, 1), value=-1).diff(dim=1) != 0)[:, :T].float()
            judged = text.known.gather(1, token)[:, :T] & real
            energy = self.network.advance(hidden[:, :T])[..., 0].float()
            surprise = F.binary_cross_entropy_with_logits(energy, moves, reduction="none")
            losses["advance"] = surprise.masked_fill(~judged, 0).sum() / judged.sum().clamp(min=1)
            losses["loss"] = losses["loss"] + self.config.advance_weight * losses["advance"]
        return losses

    # ------------------------------------------------------------------------------------------------ inference

    def generate(self, utterance: Utterance, settings: ARSettings | Mapping[str, Any] | None = None) -> Frames:
        """The target's codes: as many frames as planned where the pointer is the plan's, else as many as the model says.

        On the CPU row after row, since sums of floats depend on the shape of a batch: the same codes alone and in company.

        Raises:
            SettingsError: settings that do not exist. FitError: tokens of another table, a prompt of another codec, no plan.
            PromptError, TextError: they are longer than the model's context.
        """
        steps = self._speak(utterance, ARSettings.of(settings))
        device = self.network.codes.table.weight.device
        data, lengths = gather(steps, len(utterance.seeds), self.config.codebooks, self.config.size, device)
        return Frames(data, lengths, self.emits)

    def stream(self, utterance: Utterance, settings: ARSettings | Mapping[str, Any] | None = None) -> Iterator[Frames]:
        """The frames of `generate`, each as soon as all its codes are known: lengths 1, or 0 for rows that have ended.

        Closing the iterator frees all that it holds. Raises as `generate`: SettingsError and FitError at once.
        """
        settings = ARSettings.of(settings)
        self._check(utterance)
        return self._stream(utterance, settings)

    def _stream(self, utterance: Utterance, settings: ARSettings) -> Iterator[Frames]:
        for codes in self._speak(utterance, settings):
            real = codes[:, 0] != self.config.size  # [B]
            yield Frames(codes.masked_fill(~real[:, None], 0)[..., None], real.long(), self.emits)

    @torch.no_grad()
    def log_probs(self, utterance: Utterance, codes: Frames) -> Tensor:
        """How likely codes are that another model proposes, each given those said before it.

        codes: [B, K, T], V where a cell is not known (its book is read as missing).
        Returns: [B, K, T]; those of unknown cells mean nothing. Raises as `generate`.
        """
        self._check(utterance)
        check_fit("the codes", codes.spec, "the autoregressive backend", self.emits)
        B, K, T = codes.data.shape
        out = torch.zeros(B, K, T, device=codes.data.device)
        for b, n in enumerate(codes.lengths.tolist()):
            if not n:
                continue
            row = make_row(self.config, utterance, b, codes.data.device)
            target = codes.data[b, :, :n]
            hidden, wanted = whole(self.network, row, target)
            head, seen = self.network.head, wanted.clamp(max=self.config.size - 1)
            logits = head(hidden, seen) if isinstance(head, DepthHead) else head(hidden)  # [S, K, W]
            said = logits.float().log_softmax(-1).gather(2, seen[..., None])[..., 0]
            out[b, :, :n] = self.pattern.revert(said.T[None])[0, :, -n:]
        return out

    @torch.no_grad()
    def _speak(self, utterance: Utterance, settings: ARSettings) -> Iterator[Tensor]:
        """Frame after frame [B, K], V for rows that have ended."""
        self._check(utterance)
        device = self.network.codes.table.weight.device
        rows = [make_row(self.config, utterance, b, device) for b in range(len(utterance.seeds))]
        batches = [[row] for row in rows] if device.type == "cpu" else [rows]
        speaking = [decode(*begin(self.network, batch, settings, self.noise)) for batch in batches if batch]
        nothing = torch.full((1, self.config.codebooks), self.config.size, device=device)
        for frames in zip_longest(*speaking, fillvalue=nothing):
            yield torch.cat(frames)

    def shrink(self, bits: int | None) -> int:
        """Weights of a step's products in so many bits, for inference on a CPU; None: eight. Returns the bits they have now."""
        bits = 8 if bits is None else bits
        if bits != 32:
            quantize(self.network.trunk, bits)
            quantize(self.network.head, bits)
        return bits

    def _check(self, utterance: Utterance) -> None:
        check_utterance(utterance, "the autoregressive backend", self.table, self.emits)
        if utterance.context is not None or utterance.keep is not None:
            raise FitError("the autoregressive backend speaks from the beginning on; it cannot keep frames")
        if (utterance.content is None) != (self.network.text is not None):
            says = "tokens" if self.network.text is not None else "content made elsewhere"
            raise FitError(f"this autoregressive backend reads {says}, and was given something else")

    # -------------------------------------------------------------------------------------------------- shared

    def _steps(self, codes: Tensor) -> Tensor:
        """Codes [B, K, T] as the pattern lays them, [B, K, S]; with a step for the end of the longest row."""
        steps = self.pattern.build(codes, self.config.size)
        missing = 1 + codes.shape[2] - steps.shape[2] if self.config.end else 0
        return F.pad(steps, (0, max(0, missing)), value=self.config.size)

    def _text(self, utterance: Utterance, noise: ARDraw) -> tuple[Text, Tensor | None]:
        """The text of whole rows as far as it may be seen, and the frames of its tokens where they are told."""
        if utterance.content is not None:
            content = utterance.content
            known = frame_mask(content.lengths, content.data.shape[2]) & ~noise.drop_text[:, None]
            return self.network.read_vectors(content.data.transpose(1, 2), known), None
        tokens = utterance.tokens
        known = frame_mask(tokens.lengths, tokens.ids.shape[1]) & ~noise.drop_text[:, None]
        if self.config.text != "aligned":
            return self.network.read(tokens.ids, known), None
        if utterance.plan is None:
            raise FitError("an autoregressive backend with aligned text is trained with a plan that gives each token's seconds")
        token_frames = utterance.plan.token_frames(self.emits.rate)
        begins = token_frames.cumsum(1) - token_frames
        known = known & ~(noise.hide_phones[:, None] & (begins < noise.prompt[:, None]))
        return self.network.read(tokens.ids, known), token_frames

    def _surprise(self, hidden: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """hidden [B, S, D] and the codes asked for [B, K, S] to mean cross-entropies, positions without any left out."""
        wanted = wanted.transpose(1, 2).flatten(0, 1)  # [B S, K]
        asked = (wanted != IGNORED).any(1).nonzero()[:, 0]
        wanted, hidden = wanted[asked], hidden.flatten(0, 1)[asked]
        head = self.network.head
        if isinstance(head, DepthHead):
            seen = wanted.clamp(min=0, max=self.config.size - 1)  # after an end there are no more books
            logits = head(hidden, seen)
        else:
            logits = head(hidden)
        logits = logits.float()
        surprise = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none")
        surprise = surprise.view_as(wanted)
        count = (wanted != IGNORED).sum(0).clamp(min=1)  # of each book
        return {"codes": surprise.sum() / count.sum(), "book0": surprise[:, 0].sum() / count[0]}
