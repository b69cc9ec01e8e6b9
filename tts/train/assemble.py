"""Trained parts become a system that speaks: a checkpoint folder, proven to fit before anyone uses it.

configs/base-en.yaml ─► complete (symbols, vocabulary, phone lengths) ─┐
runs/asr, runs/flow, runs/vocoder ─► averaged weights, configs ────────┴─► folder
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tts import registry, weights
from tts.asr.phone_lm import FILE, PhoneLm
from tts.checkpoint import System, fill, load, save
from tts.config import to_mapping
from tts.duration.rules import RuleConfig
from tts.errors import SettingsError
from tts.files import write_whole
from tts.parts import build_parts
from tts.train.state import export

MODEL = "model.json"  # in the folder of a run: the config of each module that it trains


def note_configs(run: str | PathLike[str], modules: Mapping[str, nn.Module]) -> None:
    """Write into a run's folder what its modules are made of, for `assemble`. Raises OutputError."""
    configs = {name: to_mapping(module.config) for name, module in modules.items() if hasattr(module, "config")}
    Path(run).mkdir(parents=True, exist_ok=True)
    write_whole(Path(run) / MODEL, json.dumps(configs, indent=1).encode())


def complete(system: System, durations: RuleConfig | None = None) -> System:
    """The system with everything that follows from the symbols of its front end, and the phone lengths of its duration rule.

    Configs get `table`, `vocabulary` and `symbols` where they have such fields and do not say otherwise.
    """
    front_end = registry.build("frontend", system.parts["frontend"].type, system.parts["frontend"].config)
    symbols = front_end.symbols
    derived: dict[str, Any] = {"table": symbols.identity, "vocabulary": len(symbols), "symbols": symbols.recognizer_symbols}
    parts = {}
    for role, part in system.parts.items():
        kind = registry.config_type(registry.find(role.partition(".")[0], part.type))
        own = {field.name for field in fields(kind)} if kind is not None else set()  # type: ignore[arg-type]
        given = dict(part.config)
        if role == "duration" and durations is not None:
            given |= {"rule": to_mapping(durations)} if "rule" in own else to_mapping(durations)
        parts[role] = replace(part, config={name: value for name, value in derived.items() if name in own} | given)
    return replace(system, parts=parts, tables={"phones": symbols.symbols})


def assemble(
    folder: str | PathLike[str],
    system: System,
    runs: Mapping[str, str | PathLike[str]],
    durations: RuleConfig | None = None,
    dtype: torch.dtype = torch.float16,
    phone_lm: PhoneLm | None = None,
) -> System:
    """Write a checkpoint of training runs.

    Args:
        system: names, languages and parts; the configs of trained parts are those of their runs. Of its backends those
            without a run are left out, where there is one for another.
        runs: for each trained part ("recognizer", "vocoder", "backend.flow") the folder of its run.
        durations: see `tts.train.alignment.typical_durations`.
        phone_lm: what reads prompts without a text beside the recognizer, see `tts.train.alignment.count_phones`.
    Raises:
        CheckpointError: a run has no weights, or the parts do not fit. SettingsError: a part that the system does not list, or
        one that has weights and no run.
    """
    parts, states = dict(system.parts), {}
    trained = [role for role, part in parts.items() if issubclass(registry.find(role.partition(".")[0], part.type), nn.Module)]
    if any(role.startswith("backend.") for role in runs):
        for role in [role for role in trained if role.startswith("backend.") and role not in runs]:
            trained.remove(role)
            del parts[role]
    missing = [f"{role}=FOLDER" for role in trained if role not in runs]
    if missing:
        raise SettingsError(f"{system.name} has parts whose run was not given; add {' '.join(missing)}")
    for role, run in runs.items():
        if role not in parts:
            raise SettingsError(f"{system.name} has no part {role!r}; it has {', '.join(parts)}")
        module = role.rpartition(".")[2]
        modules = export(Path(run))
        if module not in modules:
            raise SettingsError(f"{run} trained {', '.join(modules)}, not {module}")
        states[role] = modules[module]
        noted = Path(run) / MODEL
        if noted.is_file():
            parts[role] = replace(parts[role], config=json.loads(noted.read_text("utf-8"))[module])
    system = put_together(folder, complete(replace(system, parts=parts), durations), states, dtype)
    if phone_lm is not None:
        phone_lm.save(Path(folder) / FILE)
    return system


def put_together(
    folder: str | PathLike[str],
    system: System,
    states: Mapping[str, Mapping[str, Tensor]],
    dtype: torch.dtype = torch.float16,
) -> System:
    """Write a complete system with its weights by part, and see that its parts fit. Raises CheckpointError if not."""
    system = save(folder, system, states, dtype)
    build_parts(load(folder))
    return system


def find_part(role: str, kind: str, source: str | PathLike[str]) -> Any:
    """A part of a system (a name or a folder), or, as registry's `kind`, that of a training run. Raises CheckpointError.

    role: "codec", or with its name "backend.masked", where a run calls it "masked".
    """
    if not (Path(source) / MODEL).is_file():
        return load(weights.find(source)).build(role)
    module = role.rpartition(".")[2]
    config = json.loads((Path(source) / MODEL).read_text("utf-8"))[module]
    part = registry.build(role.partition(".")[0], kind, config)
    fill(part, export(Path(source))[module], f"the {role} of {source}")
    return part
