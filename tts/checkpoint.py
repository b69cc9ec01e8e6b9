"""A checkpoint is a folder: config.yaml says what a system is made of, one safetensors file a part holds its weights.

    base-en/
      config.yaml                  name, version, languages, sample_rate, parts, tables, extra, format: 1
      flow-3f9a61c2.safetensors    named after its SHA-256, which is the part's identity
      …

A file's name changes with its content, and a new config.yaml is moved into place last: that moment turns an old checkpoint into
a new one, and a process killed before it leaves the old one whole. The format stands at the end of config.yaml, so that a
truncated one is noticed. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tts import registry
from tts.config import from_mapping, to_mapping
from tts.errors import CheckpointError, OutputError, SettingsError
from tts.files import write_whole

FORMAT = 1
CONFIG = "config.yaml"
INT8 = "int8"  # the dtype of a part whose matrices are stored in eight bits
GROUP = 64  # of their weights share a scale
SCALES = "|scales"  # after a matrix's name: the scales of its groups, in the order of its flattened weights


@dataclass(frozen=True)
class Part:
    """One part: its name in the registry, its config, and its weights where it has any."""

    type: str
    config: Mapping[str, Any] = field(default_factory=dict)
    file: str | None = None  # in the checkpoint's folder
    sha256: str | None = None  # of the file: the identity of the part
    dtype: str | None = None  # in which floating-point weights are stored, "int8" too; they are loaded as float32


@dataclass(frozen=True)
class System:
    """What config.yaml holds."""

    name: str
    version: str
    languages: tuple[str, ...]
    sample_rate: int  # Hz
    parts: Mapping[str, Part]  # by role; of one role there may be several, with names: "backend.flow", "backend.ar"
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # symbols in the order of their ids
    extra: Mapping[str, Any] = field(default_factory=dict)  # facts of the model card, default durations, …
    format: int = FORMAT  # last, see above


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose config and files have been verified; weights are read when a part is built."""

    folder: Path
    system: System

    def build(self, role: str) -> Any:
        """The part of a role with its weights, float32 on the CPU, in evaluation mode.

        Raises CheckpointError: the checkpoint has no such part, its config does not suit it, or weights do not fit.
        """
        if role not in self.system.parts:
            raise CheckpointError(f"{self.folder} has no {role}; it has {', '.join(self.system.parts)}")
        part = self.system.parts[role]
        try:
            made = registry.build(role.partition(".")[0], part.type, part.config)
        except SettingsError as error:
            raise CheckpointError(f"{self.folder / CONFIG}: {role}: {error}") from error
        if isinstance(made, nn.Module):
            fill(made, self.state(role), f"{role} of {self.folder}")
        return made

    def state(self, role: str) -> dict[str, Tensor]:
        """The weights of a part by name, floating-point ones as float32; {} for a part without weights."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        part = self.system.parts[role]
        if part.file is None:
            return {}
        try:
            tensors = load_file(self.folder / part.file)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.folder / part.file} cannot be read ({error}); get the checkpoint again") from error
        scales = {name.removesuffix(SCALES): tensors.pop(name) for name in list(tensors) if name.endswith(SCALES)}
        whole = {name: _unpacked(x, scales[name]) if name in scales else x for name, x in tensors.items()}
        return {name: x.float() if x.is_floating_point() else x for name, x in whole.items()}


def load(folder: str | PathLike[str]) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: the folder, its config or a part's file is missing, truncated or changed, or the format is another one.
    """
    folder, system = Path(folder), read_system(folder)
    for role, part in system.parts.items():
        if part.file is not None:
            _verify(folder, role, part.file, part.sha256)
    return Checkpoint(folder, system)


def read_system(folder: str | PathLike[str]) -> System:
    """What a checkpoint is made of; its weights are not looked at. Raises CheckpointError."""
    import yaml

    folder = Path(folder)
    path = folder / CONFIG
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} holds no {CONFIG}; give the folder of a checkpoint") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())  # YAML draws where it stumbled, over several lines
        raise CheckpointError(f"{path} cannot be read ({why}); get the checkpoint again") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found is None:
        raise CheckpointError(
            f"{path} is truncated or not the config of a checkpoint: it has no format; get the checkpoint again"
        )
    if found != FORMAT:
        raise CheckpointError(f"{path} is of format {found}, and this version reads format {FORMAT}; update mynah-tts")
    try:
        return from_mapping(System, values)
    except SettingsError as error:
        raise CheckpointError(f"{path}: {error}") from error


def save(
    folder: str | PathLike[str],
    system: System,
    states: Mapping[str, Mapping[str, Tensor]],
    dtype: torch.dtype = torch.float16,
) -> System:
    """Write a checkpoint, or new weights for some parts of one that is already there.

    Args:
        system: its parts get the names and identities of the files written; those of other parts stay.
        states: weights by role; floating-point ones are stored as `dtype`, or where their part says int8, matrices in eight
            bits and the rest as float16.
    Returns:
        The system as it stands in config.yaml.
    Raises:
        OutputError: the folder cannot be written. ValueError: a weight is not finite as `dtype`.
    """
    import yaml
    from safetensors.torch import save as to_bytes

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror})") from error
    parts = dict(system.parts)
    for role, state in states.items():
        small = parts[role].dtype == INT8
        stored = {name: _stored(f"{role}: {name}", x, torch.float16 if small else dtype) for name, x in state.items()}
        if small:
            for name, x in state.items():
                if x.is_floating_point() and x.dim() > 1:
                    stored[name], stored[name + SCALES] = _packed(x)
        data = to_bytes(stored)
        digest = hashlib.sha256(data).hexdigest()
        file = f"{role}-{digest[:8]}.safetensors"
        write_whole(folder / file, data)
        kept_as = INT8 if small else str(dtype).removeprefix("torch.")
        parts[role] = replace(parts[role], file=file, sha256=digest, dtype=kept_as)
    system = replace(system, parts=parts)
    text = yaml.safe_dump(to_mapping(system), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    write_whole(folder / CONFIG, text.encode())
    kept = {part.file for part in parts.values()}
    for old in folder.glob("*.safetensors"):
        if old.name not in kept:
            old.unlink()
    return system


def fill(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Put weights into a module and set it to evaluation. Raises CheckpointError, naming the tensor that does not fit."""
    wanted = module.state_dict()
    advice = "config and weights belong to different models; get the checkpoint again"
    for key, x in wanted.items():
        if key not in state:
            raise CheckpointError(f"{name} lacks the tensor {key!r}; {advice}")
        if state[key].shape != x.shape:
            got, want = tuple(state[key].shape), tuple(x.shape)
            raise CheckpointError(f"{name}: tensor {key!r} has shape {got} and its config asks for {want}; {advice}")
    for key in state:
        if key not in wanted:
            raise CheckpointError(f"{name} has a tensor {key!r} that its config does not ask for; {advice}")
    module.load_state_dict(dict(state))
    module.eval()


def _verify(folder: Path, role: str, file: str, sha256: str | None) -> None:
    path = folder / file
    if path.name != file:
        raise CheckpointError(f"{folder / CONFIG}: the file of {role} must lie in the same folder, got {file!r}")
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}, the weights of {role}, cannot be read ({error.strerror}); get it again") from error
    if found != sha256:
        raise CheckpointError(f"{path}, the weights of {role}, is truncated or changed (SHA-256 {found[:8]}…); get it again")


def _stored(name: str, x: Tensor, dtype: torch.dtype) -> Tensor:
    wanted = dtype if x.is_floating_point() else x.dtype
    stored = x.detach().to("cpu", wanted, copy=True).contiguous()  # a copy, since safetensors refuses shared memory
    if not stored.isfinite().all():
        raise ValueError(f"{name} is not finite as {dtype}")
    return stored


def _packed(x: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix in int8, and a scale for each group of its weights, float32: the largest of them is 127 scales."""
    flat = torch.nn.functional.pad(x.detach().float().cpu().flatten(), (0, -x.numel() % GROUP)).view(-1, GROUP)
    scales = (flat.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    packed = (flat / scales[:, None]).round().to(torch.int8)
    return packed.flatten()[: x.numel()].view(x.shape).contiguous(), scales


def _unpacked(packed: Tensor, scales: Tensor) -> Tensor:
    each = scales.repeat_interleave(GROUP)[: packed.numel()]
    return packed.float() * each.view(packed.shape)
