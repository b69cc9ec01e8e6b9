"""The parts of a system that speaks: built from a checkpoint, put on a device, and seen to fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from tts.checkpoint import Checkpoint
from tts.errors import FitError, SettingsError, nearest
from tts.frames import Frames, FrameSpec, check_fit
from tts.interfaces import Backend, Codec, Duration, Encoder, FrameCodec, FrontEnd, Recognizer, Vocoder
from tts.text.tokens import SymbolTable

# Bits of the weights that backends multiply by; "auto": as each backend finds fastest on this machine.
PRECISIONS: dict[str, int | None] = {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4, "auto": None}
ROLES = ("frontend", "encoder", "recognizer", "duration", "vocoder")


@dataclass(frozen=True)
class Parts:
    """One part of each role, the backends by name ("flow"), and a codec where the system has one."""

    front_end: FrontEnd
    encoder: Encoder
    recognizer: Recognizer
    duration: Duration
    vocoder: Vocoder
    backends: Mapping[str, Backend]
    device: torch.device
    codec: Codec | None = None
    bits: Mapping[str, int] = field(default_factory=dict)  # of the weights of backends that can be made smaller

    @property
    def prompt_codec(self) -> FrameCodec | None:
        """What makes codes of a prompt's mel, where a backend reads them."""
        reads = any("codes" in backend.needs for backend in self.backends.values())
        return self.codec if reads and isinstance(self.codec, FrameCodec) else None

    def restored(self, frames: Frames) -> Frames:
        """Frames of a backend as vocoder and recognizer take them: codes go through the codec."""
        if frames.spec.kind != "codes":
            return frames
        assert self.codec is not None
        return self.codec.embed(frames)


@runtime_checkable
class Joined(Protocol):
    """A part made of other parts of its system."""

    def join(self, parts: Parts) -> None:
        """Told of all parts when they are built. Raises FitError."""
        ...


@runtime_checkable
class Shrinking(Protocol):
    """A backend whose products can be made of smaller weights, for a CPU."""

    def shrink(self, bits: int | None) -> int:
        """Keep weights in 32, 16, 8 or 4 bits, or None: as is fastest here. Returns the bits that they have now."""
        ...


def build_parts(loaded: Checkpoint, device: str | torch.device = "cpu", precision: str = "fp32") -> Parts:
    """Build everything that a checkpoint lists, the backends with weights of a precision, see PRECISIONS.

    Raises:
        CheckpointError: a part is missing or its weights are not what its config asks for; FitError: two parts do not fit.
        SettingsError: the device does not exist, or the precision does not, or not there.
    """
    device = find_device(device)
    if precision not in PRECISIONS:
        legal = list(PRECISIONS)
        raise SettingsError(f"precision must be one of {', '.join(legal)}, got {precision!r}{nearest(precision, legal)}")
    if device.type != "cpu" and precision not in ("fp32", "auto"):
        raise SettingsError(f"{precision} is for weights on a CPU; on {device.type} give fp32 or auto, which is the same there")
    built = {name: _placed(loaded.build(name), device) for name in loaded.system.parts}
    backends = {
        name.partition(".")[2] or loaded.system.parts[name].type: part
        for name, part in built.items()
        if name.partition(".")[0] == "backend"
    }
    wanted = PRECISIONS[precision] if device.type == "cpu" else 32
    bits = {name: backend.shrink(wanted) for name, backend in backends.items() if isinstance(backend, Shrinking)}
    for role in ROLES:
        if role not in built:
            raise FitError(f"{loaded.folder} has no {role}; a system that speaks needs {', '.join(ROLES)} and a backend")
    if not backends:
        raise FitError(f"{loaded.folder} has no backend; a system that speaks needs one")
    front_end, encoder, recognizer, duration, vocoder = (built[role] for role in ROLES)
    parts = Parts(front_end, encoder, recognizer, duration, vocoder, backends, device, built.get("codec"), bits)
    for backend in backends.values():
        if isinstance(backend, Joined):
            backend.join(parts)
    _check_frames(parts)
    _check_symbols(parts, loaded)
    for role, part in (("vocoder", parts.vocoder), ("codec", parts.codec)):
        if part is not None and part.sample_rate != loaded.system.sample_rate:
            rates = f"{part.sample_rate} Hz, and the system says {loaded.system.sample_rate} Hz"
            raise FitError(f"the {role} of {loaded.folder} is one for {rates}")
    return parts


def find_device(name: str | torch.device) -> torch.device:
    """A device by its name. Raises SettingsError where there is none."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch without CUDA
        raise SettingsError(f"the device {str(name)!r} cannot be used here; give cpu, or cuda with an NVIDIA GPU") from error
    return device


def _check_frames(parts: Parts) -> None:
    mel = parts.encoder.emits
    check_fit("the encoder", mel, "the recognizer", parts.recognizer.accepts)
    for name, backend in parts.backends.items():
        for kind, needed in backend.needs.items():
            if kind == "codes":
                _check_codes(f"what the backend {name} reads of a prompt", needed, parts)
            else:
                check_fit("the encoder", mel, f"the prompt's {kind} of the backend {name}", needed)
        given = backend.emits
        if given.kind == "codes":
            given = _check_codes(f"the backend {name}", given, parts)
        check_fit(f"the backend {name}", given, "the vocoder", parts.vocoder.accepts)
        check_fit(f"the backend {name}", given, "the recognizer", parts.recognizer.accepts)
    if parts.codec is not None:
        restored = parts.codec.embeds
        check_fit("the codec", restored, "the vocoder", parts.vocoder.accepts)
        if restored.kind == mel.kind:
            check_fit("the encoder", mel, "the codec", restored)


def _check_codes(what: str, codes: FrameSpec, parts: Parts) -> FrameSpec:
    """What the codec makes of codes. Raises FitError where there is none over the encoder's frames, or its codes are others."""
    codec = parts.codec
    if not isinstance(codec, FrameCodec):
        raise FitError(f"{what} is codes, and the system has no codec over mels; add the one that they are of")
    check_fit(what, codes, "the codec", codec.emits)
    check_fit("the encoder", parts.encoder.emits, "the codec", codec.accepts)
    return codec.embeds


def _check_symbols(parts: Parts, loaded: Checkpoint) -> None:
    table = parts.front_end.table
    for name, symbols in loaded.system.tables.items():
        if SymbolTable(tuple(symbols)).identity != table:
            raise FitError(
                f"the table {name!r} of {loaded.folder} differs from this version's; use the mynah-tts it was made by"
            )
    readers: dict[str, Recognizer | Duration | Backend] = {"recognizer": parts.recognizer, "duration": parts.duration}
    readers |= {f"backend {name}": backend for name, backend in parts.backends.items()}
    for name, part in readers.items():
        if part.table != table:
            raise FitError(f"the {name} of {loaded.folder} reads the symbol table {part.table}, the front end writes {table}")


def _placed(part: Any, device: torch.device) -> Any:
    return part.to(device) if isinstance(part, nn.Module) else part
