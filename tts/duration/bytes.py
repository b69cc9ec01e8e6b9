"""A sentence's length by the bytes of its text: a small convolutional encoder, or ByT5 where its weights are there.

    tokens ─► symbols ─► UTF-8 ─► bytes + 3, end ─► encoder ─► …          (the ids of ByT5's tokenizer)

A plan is made of tokens, so the text is what their symbols spell: the text itself where the front end reads bytes or
characters, IPA where it reads phones.
Source: SimpleSpeech 2 (arXiv:2408.13893), whose text encoder is a frozen ByT5 (Xue et al. 2022, arXiv:2105.13626).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tts.duration.totals import TotalConfig, TotalDurations
from tts.duration.voice import Convolutions
from tts.errors import CheckpointError, MissingPackageError
from tts.frames import Tokens

FIRST_BYTE = 3  # ids 0, 1, 2: padding, end, unknown
END = 1
IDS = 384  # of ByT5: 256 bytes, 3 special ones, and some that no text has
_WRITTEN_BYTE = re.compile(r"<([0-9a-f]{2})>")  # how the byte front end names its symbols


@dataclass(frozen=True)
class ByT5Config:
    """The encoder's shape, in the words of transformers' T5Config; byt5-small by default."""

    d_model: int = 1472
    d_kv: int = 64
    d_ff: int = 3584
    num_layers: int = 12
    num_heads: int = 6
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    feed_forward_proj: str = "gated-gelu"
    layer_norm_epsilon: float = 1e-6
    vocab_size: int = IDS


@dataclass(frozen=True)
class ByteDurationConfig(TotalConfig):
    """symbols: of the tokens' table, in the order of their ids. byt5: None for our own convolutions, of `dim` and `layers`."""

    symbols: tuple[str, ...] = ()
    byt5: ByT5Config | None = None


class ByteDurations(TotalDurations):
    """A Duration (tts/interfaces.py). Raises MissingPackageError where ByT5 is asked for without transformers."""

    config: ByteDurationConfig

    def __init__(self, config: ByteDurationConfig) -> None:
        super().__init__(config, config.dim if config.byt5 is None else config.byt5.d_model)
        self.spelling = [spell(symbol) if i else b"" for i, symbol in enumerate(config.symbols)]
        if config.byt5 is not None:
            self.encoder: nn.Module = byt5(config.byt5)
            return
        self.encoder = nn.Embedding(IDS, config.dim)
        self.convolutions = Convolutions(config.dim, config.layers, config.kernel, config.dropout)

    def read(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Ids as ByT5's tokenizer gives them: each byte + 3, and an end."""
        lines = [
            [FIRST_BYTE + byte for i in ids[:L] for byte in self.spelling[i]] + [END]
            for ids, L in zip(tokens.ids.tolist(), tokens.lengths.tolist(), strict=True)
        ]
        spelled = Tokens.of(lines, tokens.table)
        return spelled.ids, spelled.lengths

    def encode(self, symbols: Tensor, mask: Tensor) -> Tensor:
        if isinstance(self.encoder, nn.Embedding):
            return self.convolutions(self.encoder(symbols), mask)  # [B, N, D]
        with torch.no_grad():  # it is frozen
            hidden: Tensor = self.encoder(input_ids=symbols, attention_mask=mask.long()).last_hidden_state
        return hidden

    def train(self, mode: bool = True) -> ByteDurations:
        """A frozen encoder stays in evaluation."""
        super().train(mode)
        if self.config.byt5 is not None:
            self.encoder.eval()
        return self

    def load_byt5(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a ByT5 as its authors name them; those of a decoder are left out.

        Raises CheckpointError: they are of another shape.
        """
        wanted = self.encoder.state_dict()
        if "shared.weight" in state:  # a file may name tied weights once
            state = {"encoder.embed_tokens.weight": state["shared.weight"], **state}
        missing = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
        if self.config.byt5 is None or missing:
            why = f"their {missing[0]} is missing or of another shape" if missing else "this one has its own encoder"
            raise CheckpointError(f"these weights of ByT5 do not fit ({why}); give its shape as the config's byt5")
        self.encoder.load_state_dict({name: state[name] for name in wanted})


def spell(symbol: str) -> bytes:
    """The bytes of a symbol: "<61>" of the byte front end is that byte, anything else its UTF-8."""
    written = _WRITTEN_BYTE.fullmatch(symbol)
    return bytes.fromhex(written[1]) if written else symbol.encode()


def byt5(config: ByT5Config) -> Any:
    """transformers' encoder of that shape, frozen. Raises MissingPackageError."""
    try:
        from transformers import T5Config, T5EncoderModel
    except ImportError as error:
        raise MissingPackageError("ByT5 as a text encoder needs: pip install transformers") from error
    encoder = T5EncoderModel(T5Config(**asdict(config), is_encoder_decoder=False, use_cache=False, dropout_rate=0.0))
    return encoder.eval().requires_grad_(False)
