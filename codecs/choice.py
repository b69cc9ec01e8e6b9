"""Which quantizer a codec has: the part of a codec's config that all codecs share."""

from __future__ import annotations

from dataclasses import dataclass, field

from tts.codecs.quantizers import (
    FSQ,
    FSQConfig,
    GroupedFSQ,
    GroupedFSQConfig,
    Quantizer,
    ScalarConfig,
    ScalarQuantizer,
)
from tts.codecs.rvq import ResidualVQ, RVQConfig

from tts.errors import SettingsError

QUANTIZERS = ("rvq", "gfsq", "fsq", "scalar")


@dataclass(frozen=True)
class QuantizerChoice:
    """Of the quantizers' configs the one that `quantizer` names is used."""

    quantizer: str = "rvq"  # or "gfsq", "fsq", "scalar"
    rvq: RVQConfig = field(default_factory=RVQConfig)
    gfsq: GroupedFSQConfig = field(default_factory=GroupedFSQConfig)
    fsq: FSQConfig = field(default_factory=FSQConfig)
    scalar: ScalarConfig = field(default_factory=ScalarConfig)

    def __post_init__(self) -> None:
        if self.quantizer not in QUANTIZERS:
            raise SettingsError(f"quantizer must be one of {', '.join(QUANTIZERS)}, got {self.quantizer!r}")


def make_quantizer(config: QuantizerChoice) -> Quantizer:
    """The quantizer that a config names."""
    match config.quantizer:
        case "rvq":
            return ResidualVQ(config.rvq)
        case "gfsq":
            return GroupedFSQ(config.gfsq)
        case "fsq":
            return FSQ(config.fsq)
        case _:
            return ScalarQuantizer(config.scalar)


def quantizer_dim(config: QuantizerChoice) -> int:
    """C of the quantizer that a config names, without making it."""
    match config.quantizer:
        case "rvq":
            return config.rvq.dim
        case "gfsq":
            return len(config.gfsq.levels) * config.gfsq.groups
        case "fsq":
            return len(config.fsq.levels)
        case _:
            return config.scalar.dim
