"""What a masked backend is made of, and what a person may set when it speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tts.config import from_mapping, settle
from tts.decoding.commit import FilterConfig
from tts.decoding.schedules import Passes
from tts.errors import SettingsError, nearest
from tts.frames import FrameSpec
from tts.sampling.policy import Each, Policy


@dataclass(frozen=True)
class MaskedConfig:
    """Sizes and options of a `MaskedBackend`.

    Two layouts. "maskgct": every book sees all frames, cells are masked one by one. "magnet": books above 0 see only the frames
    around their own (`band`), cells are masked in spans. MaskGCT's two networks and MAGNeT's are expressible exactly, see
    tts/hub/maskgct.py and tts/hub/magnet.py.
    """

    layout: str = "maskgct"  # or "magnet"
    vocabulary: int = 256  # symbols of the table; 0: the text comes as `content`, vectors made elsewhere
    table: str = ""  # identity of the symbol table
    # The codes
    codebooks: int = 8
    size: int = 1024  # codes of each book
    rate: Fraction = Fraction(25)  # frames a second
    flavour: str = ""  # of the codec
    code_dim: int | None = 64  # rank of the tables of codes; None: full tables
    # The transformer
    dim: int = 320
    depth: int = 6
    heads: int = 5
    head_dim: int = 64
    ff_mult: float = 2.0
    activation: str = "gelu"  # or "relu", "silu"
    gated: bool = False  # the feed-forward network has a gate, as Llama's
    norm: str = "rms"  # or "layer"; or "time": the time of the step tells the scale, as in MaskGCT
    bias: bool = False  # of attention and feed-forward
    positions: str = "rope"  # or "sinusoidal"
    band: int | None = None  # frames to each side that books above 0 look at; None: 5 in MAGNeT's layout, else all
    dropout: float = 0.0
    context: int = 1500  # most positions: the text where it is a prefix, prompt and target
    # The text
    text: str = "aligned"  # each frame is told its token; or "prefix", "cross": the model finds out by itself
    text_dim: int = 128
    text_layers: int = 4  # 0: the table of symbols alone
    text_mult: float = 2.0
    text_network: bool = False  # two layers take the text to the transformer rather than one
    stays: int = 16  # aligned: frames up to which a frame knows how long its token has lasted, and will; 0: it does not
    # The prompt
    voice: bool = True  # a summary of the frames that are given is told to every other frame
    unguided: str = "nothing"  # what rows without condition keep: nothing, the "text" or the "prompt"
    filter: FilterConfig | None = None  # Learn2PD's, that tells which cells can be committed; trained when all else is

    def __post_init__(self) -> None:
        for name, legal in LEGAL.items():
            one_of(name, getattr(self, name), legal)
        for name in ("codebooks", "size", "dim", "depth", "heads", "head_dim", "context", "text_dim"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("vocabulary", "stays", "text_layers"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.dim % 2 or self.head_dim % 2 or self.text_dim % 2:
            got = self.dim, self.head_dim, self.text_dim
            raise SettingsError(f"dim, head_dim and text_dim must be even, got {got}")
        if self.code_dim is not None and self.code_dim < 1:
            raise SettingsError(f"code_dim must be at least 1, or None for full tables, got {self.code_dim}")
        if self.band is not None and (self.band < 0 or self.text == "prefix"):
            raise SettingsError(f"a band is a number of frames >= 0, and leaves no sight of a prefix, got {self.band}")
        if self.text == "aligned" and not self.vocabulary:
            raise SettingsError("aligned text is tokens: vocabulary must be at least 1, got 0")

    @property
    def spec(self) -> FrameSpec:
        return FrameSpec("codes", self.codebooks, self.rate, (self.size,) * self.codebooks, self.flavour)

    @property
    def reach(self) -> int | None:
        """Frames to each side that books above 0 look at; None: all."""
        if self.band is not None or self.layout == "maskgct" or self.text == "prefix":
            return self.band
        return 5  # MAGNeT (arXiv:2401.04577), section 3.2


DEFAULT_STEPS = (8, 4, 1)  # of the first book, the second, and each later one


@dataclass(frozen=True)
class MaskedSettings(Policy):
    """How to speak: how codes are drawn (see `Policy`), in how many passes, and which are kept after each.

    steps: passes of each book; of a tuple the last is for all later books, too. None: 8 for the first book, 4 for the second,
        1 for each later one, and fewer where a text is shorter than that; what a person sets is refused there.
    schedule, anneal, last_guidance: see `Passes` (tts/decoding/schedules.py). rescale: see `MaskedTask`.
    commit: what is kept: by "confidence", by "span", at "random", or what a filter has "learned" (tts/decoding/commit.py).
        None: as the layout has it, confidence in MaskGCT's and spans in MAGNeT's.
    noise: of confidence. span: frames of a span; join: "max" or "product" of their confidences. threshold: of the filter.
    tempered: see `MaskedTask`.
    given_books: so many books of the utterance's `context` are kept in all frames, and only the later ones spoken (Pheme: 1).
    """

    guidance: float = 3.0
    temperature: Each[float] = 0.5
    min_p: float | None = 0.05
    steps: Each[int] | None = None
    schedule: str = "cosine"
    anneal: str = "maskgct"
    last_guidance: float | None = None
    rescale: float = 0.0
    commit: str | None = None
    noise: float = 1.0
    span: int = 3
    join: str = "max"
    threshold: float = 0.9
    tempered: bool = False
    given_books: int = 0

    def __post_init__(self) -> None:
        settle(self)
        super().__post_init__()
        if self.commit is not None:
            one_of("commit", self.commit, ["confidence", "span", "random", "learned"])
        one_of("join", self.join, ["max", "product"])
        for name, value, legal, says in (
            ("rescale", self.rescale, 0 <= self.rescale <= 1, "in 0..1"),
            ("noise", self.noise, 0 <= self.noise <= 100, "in 0..100"),
            ("threshold", self.threshold, 0 <= self.threshold <= 1, "in 0..1"),
            ("span", self.span, self.span >= 1, "at least 1"),
            ("given_books", self.given_books, self.given_books >= 0, "at least 0"),
        ):
            if not legal:
                raise SettingsError(f"{name} must be {says}, got {value!r}")
        if self.penalises:
            raise SettingsError("codes that are said all at once have none before them; leave repetition_penalty at 1")
        _ = self.passes(1)  # checked where they are made

    @classmethod
    def of(cls, settings: MaskedSettings | Mapping[str, Any] | None) -> MaskedSettings:
        """Settings, a mapping of some of their fields, or None for the defaults. Raises SettingsError."""
        if isinstance(settings, MaskedSettings):
            return settings
        return from_mapping(cls, settings if settings is not None else {})

    def passes(self, codebooks: int) -> Passes:
        steps = self.steps if self.steps is not None else DEFAULT_STEPS[:codebooks]
        each = steps if isinstance(steps, tuple) else (steps,)
        each = (each + each[-1:] * codebooks)[: max(codebooks, len(each))]
        return Passes(each, self.schedule, self.anneal, self.last_guidance, fewer=self.steps is None)


LEGAL = {
    "layout": ["maskgct", "magnet"],
    "activation": ["gelu", "relu", "silu"],
    "norm": ["rms", "layer", "time"],
    "positions": ["rope", "sinusoidal"],
    "text": ["aligned", "prefix", "cross"],
    "unguided": ["nothing", "text", "prompt"],
}


def one_of(name: str, value: Any, legal: list[str]) -> None:
    """Raise SettingsError, with the nearest legal name, where value is none of these."""
    if value not in legal:
        raise SettingsError(f"{name} must be one of {legal}, got {value!r}{nearest(str(value), legal)}")
