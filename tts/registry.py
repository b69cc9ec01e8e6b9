"""The parts by role and name: literal tables, looked up lazily, so that a name chooses from here and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, get_type_hints

from tts.config import from_mapping
from tts.errors import SettingsError, nearest

PARTS: dict[str, dict[str, str]] = {
    "frontend": {
        "phones": "tts.text.phonemes:PhoneFrontEnd",
        "characters": "tts.text.phonemes:CharacterFrontEnd",
        "bytes": "tts.text.phonemes:ByteFrontEnd",
    },
    "encoder": {"mel": "tts.audio:MelEncoder"},
    "recognizer": {"ctc": "tts.asr.model:CTCRecognizer"},
    "duration": {
        "ratio": "tts.duration.rules:Ratio",
        "prompt-rate": "tts.duration.rules:PromptRate",
        "phones": "tts.duration.phones:PhoneDurations",
        "sentence": "tts.duration.totals:SentenceDurations",
        "flow": "tts.duration.flow:FlowDurations",
        "autoregressive": "tts.duration.autoregressive:AutoregressiveDurations",
        "bytes": "tts.duration.bytes:ByteDurations",
    },
    "backend": {
        "flow": "tts.backends.flow.model:FlowBackend",
        "ar": "tts.backends.ar.model:ARBackend",
        "masked": "tts.backends.masked.model:MaskedBackend",
        "mixed": "tts.mixing:MixedBackend",
    },
    "codec": {
        "mel": "tts.codecs.autoencoder:MelCodec",
        "waveform": "tts.codecs.waveform:WaveCodec",
        "encodec": "tts.codecs.encodec:EncodecCodec",
    },
    "vocoder": {
        "vocos": "tts.vocoders.istft:Vocos",
        "hifigan": "tts.vocoders.hifigan:HifiGan",
        "griffin-lim": "tts.vocoders.griffin_lim:GriffinLim",
        "waveform": "tts.codecs.waveform:WaveDecoder",
        "encodec": "tts.codecs.encodec:EncodecDecoder",
    },
}


def find(role: str, name: str) -> type:
    """The class of a part. Raises SettingsError, with the nearest legal name, for a role or name not in PARTS."""
    if role not in PARTS:
        raise SettingsError(f"unknown role {role!r}{nearest(role, list(PARTS))}; the roles are {', '.join(PARTS)}")
    table = PARTS[role]
    if name not in table:
        raise SettingsError(f"unknown {role} {name!r}{nearest(name, list(table))}; choose one of {', '.join(table)}")
    module, _, attribute = table[name].partition(":")
    part: type = getattr(import_module(module), attribute)
    return part


def build(role: str, name: str, mapping: Mapping[str, Any] | None = None) -> Any:
    """The part with the config that a mapping of plain values says (none: its defaults).

    The class is built as `cls(config)`; the annotation of that argument names the frozen dataclass. A class whose constructor
    has no `config` takes none. Raises SettingsError: as `find`, or an unknown key or a wrong type in the mapping.
    """
    cls = find(role, name)
    kind = config_type(cls)
    if kind is None:
        if mapping:
            raise SettingsError(f"{role} {name!r} takes no config, got {', '.join(map(str, mapping))}")
        return cls()
    return cls(from_mapping(kind, mapping or {}))


def config_type(cls: type) -> type | None:
    """The dataclass that configures a part, or None."""
    return get_type_hints(cls.__init__).get("config")  # type: ignore[misc]
