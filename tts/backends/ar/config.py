"""What an autoregressive backend is made of, and what a person may set when it speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from tts.backends.ar.patterns import Pattern
from tts.config import from_mapping, settle
from tts.errors import SettingsError, nearest
from tts.frames import FrameSpec
from tts.nn.decoder import DecoderConfig
from tts.sampling.policy import Each, Policy


@dataclass(frozen=True)
class ARConfig:
    """Sizes and options of an `ARBackend`.

    MusicGen and AudioGen are expressible exactly, see tts/hub/audiocraft.py: sinusoidal positions, a text to attend to, full
    tables, delays (0, 1, 2, 3), no biases.
    """

    vocabulary: int = 256  # symbols of the table
    table: str = ""  # identity of the symbol table
    # The codes
    codebooks: int = 8
    size: int = 1024  # codes of each book
    rate: Fraction = Fraction(25)  # frames a second
    flavour: str = ""  # of the codec
    # The transformer
    dim: int = 256
    depth: int = 6
    heads: int = 4
    head_dim: int = 64
    kv_heads: int | None = None  # see `DecoderConfig`; 1 makes a step cost hardly more where much has been said
    ff_mult: float = 4.0
    activation: str = "gelu"  # or "relu", "silu"
    norm: str = "layer"  # or "rms"
    bias: bool = False  # of attention and feed-forward
    positions: str = "rope"  # or "sinusoidal"
    dropout: float = 0.1
    context: int = 1500  # most positions: the text where it is a prefix, prompt and target
    # The text
    text: str = "aligned"  # each frame is told its phone; or "prefix", "cross": the model finds out by itself
    text_dim: int = 192
    text_layers: int = 4  # 0: none, and no table either: the text comes as `content`, vectors made elsewhere
    text_mult: float = 2.0
    stays: int = 16  # aligned: frames up to which a frame knows how long its phone has lasted
    left: int = 0  # and those up to which it knows how long the plan lets it last on; 0: it does not
    encoder_layers: int = 0  # aligned: of a transformer that looks both ways over the frames of prompt and plan; 0: none
    # The codes in and out
    head: str = "delay"  # or "hierarchical": a small transformer over the books of a frame
    delays: tuple[int, ...] | None = None  # of a delay head; None: book k by k frames
    code_dim: int | None = 64  # rank of the tables of codes; None: full tables
    depth_dim: int = 128  # of the small transformer
    depth_layers: int = 2
    depth_heads: int = 2
    end: bool = False  # book 0 has one more code, the end of speech
    advance_weight: float = 0.1  # aligned: of the loss of moving on, beside that of the codes
    voice: bool = True  # a summary of the prompt's codes is told to every frame of the target
    unguided: str = "nothing"  # what rows without condition keep: nothing, or the "prompt"

    def __post_init__(self) -> None:
        _one_of("positions", self.positions, ["rope", "sinusoidal"])
        _one_of("text", self.text, ["aligned", "prefix", "cross"])
        _one_of("head", self.head, ["delay", "hierarchical"])
        _one_of("unguided", self.unguided, ["nothing", "prompt"])
        for name in ("vocabulary", "codebooks", "size", "text_dim", "stays", "depth_dim", "depth_layers", "depth_heads"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("left", "encoder_layers"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.encoder_layers and self.text != "aligned":
            raise SettingsError(f'an encoder looks over the frames of a plan, which needs text "aligned", got {self.text!r}')
        if self.dim % 2 or self.text_dim % 2:
            raise SettingsError(f"dim and text_dim must be even, got {self.dim} and {self.text_dim}")
        if self.depth_dim % (2 * self.depth_heads):
            raise SettingsError(f"depth_dim must be a multiple of {2 * self.depth_heads}, got {self.depth_dim}")
        if self.code_dim is not None and self.code_dim < 1:
            raise SettingsError(f"code_dim must be at least 1, or None for full tables, got {self.code_dim}")
        if self.delays is not None and (self.head != "delay" or len(self.delays) != self.codebooks):
            raise SettingsError(f"delays are {self.codebooks} numbers of a delay head, got {self.delays}")
        if self.delays is not None and self.delays[0] != 0:
            raise SettingsError(f"book 0 leads, so its delay is 0, got {self.delays}")
        if self.text == "aligned" and (self.end or not self.text_layers):
            raise SettingsError("aligned text has an encoder, and ends with its last phone: text_layers >= 1 and end False")
        _ = self.pattern, self.trunk  # checked where they are made

    @property
    def spec(self) -> FrameSpec:
        return FrameSpec("codes", self.codebooks, self.rate, (self.size,) * self.codebooks, self.flavour)

    @property
    def pattern(self) -> Pattern:
        """In which order codes are said; within a frame, a hierarchical head has its own."""
        if self.head == "hierarchical":
            return Pattern.parallel(self.codebooks)
        return Pattern.delay(self.delays if self.delays is not None else range(self.codebooks))

    @property
    def trunk(self) -> DecoderConfig:
        return DecoderConfig(
            dim=self.dim,
            depth=self.depth,
            heads=self.heads,
            head_dim=self.head_dim,
            kv_heads=self.kv_heads,
            hidden=round(self.dim * self.ff_mult),
            context=self.context,
            activation=self.activation,
            norm=self.norm,
            bias=self.bias,
            rope=self.positions == "rope",
            cross=self.text == "cross",
            dropout=self.dropout,
        )

    @property
    def encoder(self) -> DecoderConfig:
        return replace(self.trunk, depth=self.encoder_layers, kv_heads=None, causal=False)


@dataclass(frozen=True)
class ARSettings(Policy):
    """How to speak: how codes are drawn (see `Policy`), and who moves from phone to phone.

    pointer: "plan": each phone lasts as planned; "model": the model says when it has said a phone, within bounds of the plan.
    slack: those bounds, as shares of the frames planned; a phone that is planned may last one frame more.
    """

    guidance: float = 3.0
    temperature: Each[float] = 0.3
    top_k: Each[int] | None = 64
    pointer: str = "plan"
    slack: tuple[float, float] = (0.5, 1.5)

    def __post_init__(self) -> None:
        settle(self)
        super().__post_init__()
        _one_of("pointer", self.pointer, ["plan", "model"])
        if not 0 <= self.slack[0] <= 1 <= self.slack[1] <= 20:
            raise SettingsError(f"slack is a share in 0..1 and one in 1..20, got {self.slack}")

    @classmethod
    def of(cls, settings: ARSettings | Mapping[str, Any] | None) -> ARSettings:
        """Settings, a mapping of some of their fields, or None for the defaults. Raises SettingsError."""
        if isinstance(settings, ARSettings):
            return settings
        return from_mapping(cls, settings if settings is not None else {})


def _one_of(name: str, value: Any, legal: list[str]) -> None:
    if value not in legal:
        raise SettingsError(f"{name} must be one of {legal}, got {value!r}{nearest(str(value), legal)}")
