"""What a training run carries from step to step: averaged weights, and checkpoints that survive a kill at any moment."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from tts.errors import CheckpointError

log = logging.getLogger(__name__)

KEPT = 2  # checkpoints


class Ema:
    """An exponential moving average of all weights and floating-point buffers of some modules.

    live: the tensors of the modules themselves; shadow: their averages; names: "module/parameter", all in one order.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        state = {k: v for k, v in named_state(modules).items() if v.is_floating_point()}
        self.names = list(state)
        self.live = [tensor.detach() for tensor in state.values()]  # share memory with the modules
        self.shadow = [tensor.clone() for tensor in self.live]

    def update(self, decay: float) -> None:
        torch._foreach_lerp_(self.shadow, self.live, 1 - decay)

    def swap(self) -> None:
        """Exchange the averages with the modules' own weights; a second call undoes it."""
        for live, shadow in zip(self.live, self.shadow, strict=True):
            kept = live.clone()
            live.copy_(shadow)
            shadow.copy_(kept)


def named_state(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All weights and buffers, "module/parameter"."""
    return {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def save_checkpoint(
    folder: Path,
    step: int,
    elapsed: float,
    modules: Mapping[str, nn.Module],
    ema: Ema,
    optimizers: Mapping[str, Optimizer],
    config: Mapping[str, Any],
) -> Path:
    """Write folder/checkpoint-<step>/ beside its place and rename it there, whole; older ones than the last two go."""
    path = folder / f"checkpoint-{step:09d}"
    partial = folder / f".{path.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = named_state(modules)
    averaged = {**state, **dict(zip(ema.names, ema.shadow, strict=True))}
    _save(state, partial / "model.safetensors")
    _save(averaged, partial / "ema.safetensors")
    _save(_flatten(optimizers), partial / "optimizer.safetensors")
    text = json.dumps({"step": step, "elapsed": elapsed, "config": dict(config)}, indent=1)
    (partial / "state.json").write_text(text + "\n", "utf-8")
    for file in partial.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    if path.exists():  # the same step once more: the same weights
        shutil.rmtree(partial)
    else:
        partial.rename(path)
    for old in _checkpoints(folder)[:-KEPT]:
        going = old.rename(folder / f".{old.name}.partial")  # so that no kill leaves half of it under its name
        shutil.rmtree(going)
    return path


def remove_partial(folder: Path) -> None:
    """Remove what a kill left half-written. Only for the one that trains: another's save may be under way."""
    for partial in folder.glob(".checkpoint-*.partial"):
        shutil.rmtree(partial)


def newest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a run, or None."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], ema: Ema, optimizers: Mapping[str, Optimizer], config: Mapping[str, Any]
) -> tuple[int, float]:
    """Fill modules, averages and optimizers; returns step and elapsed seconds. Says which config values have changed."""
    state = json.loads((path / "state.json").read_text("utf-8"))
    now = json.loads(json.dumps(dict(config)))
    changed = {k: (state["config"].get(k), v) for k, v in now.items() if state["config"].get(k) != v}
    if changed:
        log.warning("resuming with other settings than before (before, now): %s", changed)
    weights, averages = _load(path / "model.safetensors"), _load(path / "ema.safetensors")
    for name, module in modules.items():
        own = {key.removeprefix(f"{name}/"): value for key, value in weights.items() if key.startswith(f"{name}/")}
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise CheckpointError(f"{path} is of another model: {error}") from error
    for name, shadow in zip(ema.names, ema.shadow, strict=True):
        shadow.copy_(averages[name])
    _unflatten(_load(path / "optimizer.safetensors"), optimizers)
    return state["step"], state["elapsed"]


def export(folder: str | Path) -> dict[str, dict[str, Tensor]]:
    """The averaged weights of a run's newest checkpoint: {module: state_dict}. The run may still be going on."""
    path = newest_checkpoint(Path(folder))
    if path is None:
        raise CheckpointError(f"{folder} holds no checkpoint; train first")
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _load(path / "ema.safetensors").items():
        module, key = name.split("/", 1)
        modules.setdefault(module, {})[key] = tensor
    return modules


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("checkpoint-*") if (path / "state.json").is_file())


def _flatten(optimizers: Mapping[str, Optimizer]) -> dict[str, Tensor]:
    """Moments and step counts, "optimizer/parameter/key". Hyperparameters are not state: they come from the config."""
    flat: dict[str, Tensor] = {}
    for name, optimizer in optimizers.items():
        for index, entry in optimizer.state_dict()["state"].items():
            for key, value in entry.items():
                assert isinstance(value, Tensor), (name, key, type(value))
                flat[f"{name}/{index}/{key}"] = value
    return flat


def _unflatten(flat: dict[str, Tensor], optimizers: Mapping[str, Optimizer]) -> None:
    states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in optimizers}
    for path, value in flat.items():
        name, index, key = path.split("/")
        states[name].setdefault(int(index), {})[key] = value
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict({"state": states[name], "param_groups": optimizer.state_dict()["param_groups"]})


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}  # safetensors refuses shared memory
    save_file(copies, path)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
