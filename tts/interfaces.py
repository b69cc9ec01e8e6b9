"""The small protocols by which the parts meet; none of them knows another's class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from tts.frames import Frames, FrameSpec, Plan, Prompt, Tokens, Utterance, Wave


class Noise(Protocol):
    """Counter-based randomness: a pure function of its arguments (see tts/sampling/philox.py)."""

    def uniform(self, seeds: Tensor, purpose: int, step: int, position: Tensor, channel: Tensor) -> Tensor:
        """Uniform draws in (0, 1); the arguments broadcast against each other, float32."""
        ...


@runtime_checkable
class FrontEnd(Protocol):
    """Text to token ids and pauses."""

    table: str  # identity of the symbol table
    languages: tuple[str, ...]

    def encode(self, text: str, language: str) -> list[Any]:
        """Token ids (int) and `Pause` objects, in the order of the text. Raises TextError, LanguageError."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Sound to frames: a mel, a semantic tokenizer, the encoder of a codec."""

    emits: FrameSpec

    def encode(self, wave: Wave) -> Frames: ...


@runtime_checkable
class Codec(Encoder, Protocol):
    """An Encoder to codes, and the way back to what its vocoder takes."""

    embeds: FrameSpec
    context: tuple[int, int]  # frames of `embeds` to the left and right of a code's own that are read with it
    sample_rate: int  # of the waves that `encode` takes

    def embed(self, codes: Frames, n_codebooks: int | None = None) -> Frames:
        """Codes to frames, from the first n_codebooks (None: all)."""
        ...

    def vectors(self, k: int) -> Tensor:
        """Codebook k as [V, C]."""
        ...


@runtime_checkable
class FrameCodec(Codec, Protocol):
    """A Codec that takes frames as well, such as a mel."""

    accepts: FrameSpec

    def encode_frames(self, frames: Frames) -> Frames: ...


@runtime_checkable
class Vocoder(Protocol):
    """Frames to sound, each frame exactly sample_rate / rate samples."""

    accepts: FrameSpec
    context: tuple[int, int]  # frames to the left and right that one output frame depends on
    sample_rate: int

    def decode(self, frames: Frames) -> Wave: ...


@runtime_checkable
class Duration(Protocol):
    """How long a text takes in the voice of a prompt."""

    table: str  # identity of the symbol table

    def plan(self, tokens: Tokens, prompt: Prompt | None) -> Plan: ...


@runtime_checkable
class Recognizer(Protocol):
    """An Encoder of phone posteriors; alignment, prompt phones and the check are built on it (tts/asr/)."""

    accepts: FrameSpec  # the frames it reads
    emits: FrameSpec  # kind "posteriors": log-probabilities over its symbols, blank first
    symbols: tuple[str, ...]
    table: str  # identity of the symbol table those are of

    def posteriors(self, frames: Frames) -> Frames: ...


@runtime_checkable
class Backend(Protocol):
    """Tokens, a prompt and a plan to frames: the target only, never the prompt."""

    needs: Mapping[str, FrameSpec]  # the frames of the prompt it reads, by name
    emits: FrameSpec
    table: str
    settings_type: type
    plans: str  # "exact" | "cap" | "none": what it does with a plan
    prompt_seconds: tuple[float, float]

    def generate(self, utterance: Utterance, settings: Any) -> Frames: ...


@runtime_checkable
class Streaming(Protocol):
    """A backend that can hand out frames as they are made."""

    def stream(self, utterance: Utterance, settings: Any) -> Iterator[Frames]: ...


@runtime_checkable
class Trainable(Protocol):
    """A part that can say how wrong it is; `noise` makes the loss a pure function of its arguments."""

    def loss(self, utterance: Utterance, target: Frames, noise: Any) -> dict[str, Tensor]: ...


class VelocityField(Protocol):
    """dx/dt of a flow at time t (0 noise, 1 data), for the stacked rows of one guidance group after another."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor: ...


def samples_per_frame(sample_rate: int, rate: Fraction) -> int:
    """Samples of one frame. Raises ValueError when a frame is not a whole number of samples."""
    hop = Fraction(sample_rate) / rate
    if hop.denominator != 1:
        raise ValueError(f"{sample_rate} Hz at {rate} frames a second is {hop} samples a frame, not a whole number")
    return int(hop)
