"""The masked backend: phones, a prompt's codes and a plan in, the target's codes out, all frames at once in a few passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tts.backends.masked.config import MaskedConfig, MaskedSettings
from tts.backends.masked.draw import MaskedDraw
from tts.backends.masked.graphed import Graphed, fill
from tts.backends.masked.network import Given, MaskedNetwork, Text
from tts.backends.masked.rows import Row, give, make_row
from tts.decoding.commit import AtRandom, ByConfidence, BySpan, Candidates, CommitFilter, CommitPolicy, Learned
from tts.decoding.graphs import Graphs
from tts.decoding.masked import Decoded, MaskedTask, Rescoring, decode_masked
from tts.errors import FitError, SettingsError
from tts.frames import Frames, Utterance, check_fit, check_utterance, frame_mask
from tts.nn.quantize import has_bfloat16, quantize
from tts.sampling.paths import path_for
from tts.sampling.philox import PhiloxNoise


class MaskedBackend(nn.Module):
    """A bidirectional model of masked codes, in MaskGCT's layout or MAGNeT's."""

    settings_type = MaskedSettings
    plans = "exact"
    prompt_seconds = (0.5, 12.0)

    def __init__(self, config: MaskedConfig, noise: PhiloxNoise | None = None) -> None:
        super().__init__()
        self.config = config
        self.emits = config.spec
        self.needs = {"codes": config.spec}
        self.table = config.table
        self.noise = noise if noise is not None else PhiloxNoise()
        self.network = MaskedNetwork(config)
        self.filter = CommitFilter(config.filter) if config.filter is not None else None
        self.graphs = Graphs(self.network.look)

    # ------------------------------------------------------------------------------------------------- training

    def loss(self, utterance: Utterance, target: Frames, noise: MaskedDraw) -> dict[str, Tensor]:
        """How surprising the masked codes are.

        Args:
            utterance: tokens of the whole row and, when aligned, a plan with their seconds; `content` where the model has no
                table of symbols. No prompt: the frames of the row that the draw gives play its part.
            target: codes [B, K, T] of the whole row, anything beyond its length. noise: from `draw.draw`, on the same device.
        Returns:
            "loss": mean cross-entropy in nats of all masked cells; "book0" and "others": the same of rows that are asked for
            book 0 and for a later one, each where there are such rows.
        """
        check_fit("the target", target.spec, "the masked backend", self.emits)
        assert utterance.prompt is None, "in training the prompt is a part of the target"
        V, (B, K, T) = self.config.size, target.data.shape
        real = frame_mask(target.lengths, T)
        masked = noise.masked & real
        # 1. what is known: frames that are given, books before the one asked for, some of its cells
        books = torch.arange(K, device=real.device)[:, None]  # [K, 1]
        asked = noise.book[:, None, None]
        known = noise.given[:, None] | (books < asked) | ((books == asked) & ~masked[:, None])  # [B, K, T]
        tube = noise.tube[:, None]
        given = torch.where(tube, ~masked, noise.given) & real
        known = torch.where(tube[..., None], given[:, None], known) & real[:, None]
        codes = target.data.masked_fill(~known, V)
        # 2. what is told
        nothing = codes.new_zeros(B, K, 0)
        voice = self.network.hear(target.data.masked_fill(~real[:, None], 0), given)
        told = Given(nothing, real, voice=voice, **self._text(utterance, noise, given, T))
        # 3. what the model says
        hidden = self.network(codes, noise.book, noise.t, told)
        b, t = masked.nonzero(as_tuple=True)
        book = noise.book[b]
        hidden, wanted = hidden[b, t], target.data[b, book, t]
        surprise = torch.zeros(len(b), device=hidden.device)
        for k in book.unique().tolist():
            of = (book == k).nonzero()[:, 0]
            each = F.cross_entropy(self.network.logits(hidden[of], k), wanted[of], reduction="none")
            surprise = surprise.index_put((of,), each)
        losses = {"loss": surprise.sum() / max(1, len(b))}
        for name, which in (("book0", book == 0), ("others", book > 0)):
            if bool(which.any()):
                losses[name] = surprise[which].mean()
        return losses

    # ------------------------------------------------------------------------------------------------ inference

    def generate(self, utterance: Utterance, settings: MaskedSettings | Mapping[str, Any] | None = None) -> Frames:
        """The target's codes, exactly as many frames as planned; what `context` and `keep` say is kept as it is.

        On the CPU row after row, since sums of floats depend on the shape of a batch: the same codes alone and in company.

        Raises:
            SettingsError: settings that do not exist, or more steps than frames. FitError: tokens of another table, a prompt of
            another codec, no plan. PromptError, TextError: they are longer than the model's context.
        """
        return Frames(*self.decode(utterance, settings)[:2], self.emits)

    def rescored(self, utterance: Utterance, settings: MaskedSettings | Mapping[str, Any] | None, judge: Rescoring) -> Frames:
        """As `generate`, with another model's opinion on what is sure; the judge is asked of one row, or of all on a GPU."""
        return Frames(*self.decode(utterance, settings, judge)[:2], self.emits)

    @torch.no_grad()
    def decode(
        self,
        utterance: Utterance,
        settings: MaskedSettings | Mapping[str, Any] | None = None,
        rescoring: Rescoring | None = None,
        watch: Callable[[Candidates, Tensor], None] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `generate`: codes [B, K, T], lengths [B], and how many passes each item took [B]. watch: see `MaskedTask`."""
        settings = MaskedSettings.of(settings)
        self._check(utterance, settings)
        device = self.network.codes.table.weight.device
        B, K = len(utterance.seeds), self.config.codebooks
        rows = [make_row(self.config, utterance, b, settings.given_books, device) for b in range(B)]
        lengths = torch.tensor([row.cells.shape[1] for row in rows], dtype=torch.int64, device=device)
        batches = [[row] for row in rows] if device.type == "cpu" else [rows]
        spoken = [self._speak(batch, settings, rescoring, watch) for batch in batches if batch]
        T = int(lengths.max()) if B else 0
        codes = [F.pad(part.codes, (0, T - part.codes.shape[2])) for part in spoken]
        empty = torch.zeros(0, K, 0, dtype=torch.int64, device=device)
        return torch.cat(codes) if codes else empty, lengths, torch.cat([part.passes for part in spoken] or [lengths])

    def _speak(
        self,
        rows: list[Row],
        settings: MaskedSettings,
        rescoring: Rescoring | None,
        watch: Callable[[Candidates, Tensor], None] | None,
    ) -> Decoded:
        passes = settings.passes(self.config.codebooks)
        guided = settings.guidance != 1 or passes.last_guidance not in (None, 1)
        cells, lengths, given = give(self.network, rows, guided)
        task = MaskedTask(
            seeds=torch.stack([row.seed for row in rows]),
            codes=cells,
            lengths=lengths,
            policy=settings,
            passes=passes,
            commit=self._commit(settings),
            rescale=settings.rescale,
            tempered=settings.tempered,
            rescoring=rescoring,
            watch=watch,
            noise=self.noise,
        )
        if path_for(cells.device) == "graph":
            return decode_masked(Graphed(self.network, self.graphs, given.prompt), fill(given), task)
        return decode_masked(self.network, given, task)

    def _commit(self, settings: MaskedSettings) -> CommitPolicy:
        policies: dict[str, CommitPolicy] = {
            "confidence": ByConfidence(settings.noise),
            "span": BySpan(settings.span, settings.join),
            "random": AtRandom(),
        }
        own = policies["span" if self.config.layout == "magnet" else "confidence"]
        if settings.commit != "learned":
            return policies.get(settings.commit or "", own)
        if self.filter is None:
            raise SettingsError('this model has no filter to commit by what is "learned"; choose "confidence" or "span"')
        return Learned(self.filter, self.filter.config.block, settings.threshold, own)

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
            quantize(self.network.transformer, 16)
        return bits

    def _check(self, utterance: Utterance, settings: MaskedSettings) -> None:
        check_utterance(utterance, "the masked backend", self.table, self.emits)
        assert utterance.plan is not None
        if self.config.text == "aligned" and utterance.plan.token_seconds is None:
            raise FitError("this masked backend needs the seconds of each token; plan with a Duration that gives them")
        if (utterance.content is None) != (self.network.text is not None):
            says = "tokens" if self.network.text is not None else "content made elsewhere"
            raise FitError(f"this masked backend reads {says}, and was given something else")
        if (utterance.keep is not None or settings.given_books) and utterance.context is None:
            raise FitError("what is to be kept must be in the utterance's context; it was given none")
        if settings.given_books > self.config.codebooks:
            raise SettingsError(f"given_books must be 0..{self.config.codebooks}, got {settings.given_books}")
        settings.check_books(self.config.codebooks)

    # -------------------------------------------------------------------------------------------------- shared

    def _text(self, utterance: Utterance, noise: MaskedDraw, given: Tensor, T: int) -> dict[str, Any]:
        """The text of whole rows as far as it may be seen, as a field of `Given`."""
        ids, lengths = utterance.tokens.ids, utterance.tokens.lengths
        if utterance.content is not None:
            ids, lengths = utterance.content.data.transpose(1, 2), utterance.content.lengths
        known = frame_mask(lengths, ids.shape[1]) & ~noise.drop_text[:, None]
        if self.config.text == "prefix":
            return {"prefix": self.network.lead(self.network.read(ids, known))}
        if self.config.text == "cross":
            return {"memory": self.network.remember(self.network.read(ids, known))}
        if utterance.plan is None:
            raise FitError("a masked backend with aligned text is trained with a plan that gives each token's seconds")
        token_frames = utterance.plan.token_frames(self.emits.rate)
        begins = (token_frames.cumsum(1) - token_frames).clamp(max=max(0, T - 1))
        if T:
            known = known & ~(noise.hide_phones[:, None] & given.gather(1, begins))
        text: Text = self.network.read(ids, known)
        return {"text": self.network.place_text(text, token_frames, T)}
