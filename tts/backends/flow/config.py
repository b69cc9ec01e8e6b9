"""What a flow backend is made of, and what a person may set when it speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tts.audio import MelRecipe
from tts.config import from_mapping
from tts.decoding.solvers import SOLVERS
from tts.errors import SettingsError, nearest
from tts.nn.speaker import SpeakerConfig


@dataclass(frozen=True)
class FlowConfig:
    """Sizes and options of a `FlowBackend`. The defaults are F5-TTS v1 Base but for the mel.

    F5-TTS: mel 24 kHz, n_fft 1024, hop 256, 100 bands to 12 kHz, padding "center". Its first version (v0) had
    rope_heads 1 and mask_fillers False, its small ones dim 768, depth 18, heads 12.
    """

    vocabulary: int = 2545  # symbols of the table
    table: str = ""  # identity of the symbol table
    mel: MelRecipe = field(default_factory=MelRecipe)
    # The transformer
    dim: int = 1024
    depth: int = 22
    heads: int = 16
    head_dim: int = 64
    ff_mult: float = 2.0
    rope_heads: int | None = None  # leading heads with rotary positions; None: all
    qk_norm: bool = False
    long_skip: bool = False
    dropout: float = 0.1
    zero_init: bool = True  # modulations and output start at zero, so that each block starts as the identity
    modulation: str = "block"  # or "shared": one layer for all blocks and a bias for each
    patch: int = 1  # frames a position
    time_experts: int = 1  # feed-forward networks of a block, each for an equal part of the flow times
    # The text
    expansion: str = "plain"  # or "aligned": each token on the frames it lasts
    text_dim: int = 512
    text_layers: int = 4
    text_mult: float = 2.0
    mask_fillers: bool = True  # plain texts: fillers stay zero throughout the text encoder
    # Beyond F5-TTS
    prompt_statistics: bool = False  # mean and deviation of the prompt's bands join the time embedding
    speaker: SpeakerConfig | None = None  # so does the vector of a speaker encoder, which is learnt by itself
    infill: bool = True  # the prompt's mel stands before the target; False: only its voice is known, by the two above
    prior: bool = False  # the text encoder predicts the mel itself, and the transformer sees its guess
    prior_weight: float = 1.0
    mel_mean: float = 0.0  # mels are normalised by these inside
    mel_std: float = 1.0

    def __post_init__(self) -> None:
        _one_of("modulation", self.modulation, ["block", "shared"])
        _one_of("expansion", self.expansion, ["plain", "aligned"])
        for name in ("vocabulary", "dim", "depth", "heads", "head_dim", "patch", "time_experts", "text_dim"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.dim % 16:
            raise SettingsError(f"dim must be a multiple of 16 (groups of the position convolution), got {self.dim}")
        if self.head_dim % 2 or self.text_dim % 2:
            raise SettingsError(f"head_dim and text_dim must be even, got {self.head_dim} and {self.text_dim}")
        if self.rope_heads is not None and not 0 <= self.rope_heads <= self.heads:
            raise SettingsError(f"rope_heads must be 0..{self.heads} or None, got {self.rope_heads}")
        if self.speaker is not None and self.speaker.bands != self.mel.bands:
            raise SettingsError(f"speaker.bands must be those of the mel, {self.mel.bands}, got {self.speaker.bands}")
        if self.mel_std <= 0:
            raise SettingsError(f"mel_std must be positive, got {self.mel_std}")

    @property
    def aligned(self) -> bool:
        return self.expansion == "aligned"

    @property
    def width(self) -> int:
        """Channels of one position: the bands of `patch` frames."""
        return self.mel.bands * self.patch


@dataclass(frozen=True)
class FlowSettings:
    """How to speak.

    steps: of the solver; 5, 6, 7, 10, 12 and 16 use the pruned grids of EPSS, others a uniform one. sway in [-1, 1]: below 0
    the early steps are smaller. guidance: u + guidance * (c - u), 1 is unguided (F5-TTS's default of 2 would be 3 here).
    temperature: of the noise at the start; below 1 the voice is calmer and clearer, and one seed more like another
    (Grad-TTS, arXiv:2105.06337, section 3.4).
    """

    steps: int = 7
    solver: str = "euler"
    sway: float = -1.0
    guidance: float = 2.5
    temperature: float = 0.7

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or not 1 <= self.steps <= 1000:
            raise SettingsError(f"steps must be a whole number in 1..1000, got {self.steps!r}")
        _one_of("solver", self.solver, list(SOLVERS))
        _within("sway", self.sway, -1.0, 1.0)
        _within("guidance", self.guidance, 0.0, 20.0)
        _within("temperature", self.temperature, 0.0, 2.0)

    @classmethod
    def of(cls, settings: FlowSettings | Mapping[str, Any] | None) -> FlowSettings:
        """Settings, a mapping of some of their fields, or None for the defaults. Raises SettingsError."""
        if isinstance(settings, FlowSettings):
            return settings
        return from_mapping(cls, settings if settings is not None else {})


def _one_of(name: str, value: Any, legal: list[str]) -> None:
    if value not in legal:
        raise SettingsError(f"{name} must be one of {legal}, got {value!r}{nearest(str(value), legal)}")


def _within(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise SettingsError(f"{name} must be a number in {low:g}..{high:g}, got {value!r}")
