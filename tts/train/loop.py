"""The training loop that every recipe shares: schedule, precision, EMA, checkpoints, exact resume, curves.

    for step in …:   seed(step) ─► task.batch(step) ─► task.update ─► minimise: backward, clip, optimizer ─► EMA

Batches, dropout and noise are pure functions of the step, so a run that is killed at any moment and started again ends in
the same weights as one that was left alone (same machine, same threads, fp32; not where `max_seconds` drives the decay).
Needs torch, numpy and safetensors; Lightning Fabric enters with more than one device, TensorBoard where it is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from tts.errors import MissingPackageError, SettingsError, TrainingError
from tts.train.journal import Journal
from tts.train.state import Ema, load_checkpoint, newest_checkpoint, remove_partial, save_checkpoint

log = logging.getLogger(__name__)

Minimise = Callable[[Tensor, str], Tensor]


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast, how carefully.

    max_seconds: a budget of wall time (summed over resumes). The learning rate then decays with the larger of
    step / steps and elapsed / max_seconds, and training ends at whichever comes first; an exact resume is not promised.
    """

    steps: int
    lr: float = 1e-3
    warmup: int = 200  # steps
    final_lr: float = 0.05  # of lr, at the end
    decay: str = "cosine"  # or "linear"
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01  # on matrices only
    clip: float = 1.0  # norm of the gradient
    ema: float = 0.999  # warmed up as min(ema, (1 + s) / (10 + s)); 0: the last weights
    precision: str = "fp32"  # or "bf16" (autocast; weights stay fp32)
    device: str = "cpu"  # or "cuda"
    devices: int = 1  # above 1: data parallel, by Lightning Fabric
    seed: int = 0
    threads: int | None = None  # of torch on the CPU; None leaves them as they are
    max_seconds: float | None = None
    checkpoint_seconds: float = 300.0
    validate_every: int = 1000  # steps
    log_every: int = 20  # steps

    def __post_init__(self) -> None:
        if self.decay not in ("cosine", "linear"):
            raise SettingsError(f"decay must be 'cosine' or 'linear', got {self.decay!r}")
        if self.precision not in ("fp32", "bf16"):
            raise SettingsError(f"precision must be 'fp32' or 'bf16', got {self.precision!r}")
        if self.steps < 1:
            raise SettingsError(f"steps must be at least 1, got {self.steps}")


class Task(ABC):
    """What is trained: a recipe fills in modules, batch and loss, and whatever else differs from the defaults."""

    @abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """The trained modules by name; the same objects, and initial weights, at every call and in every run."""

    @abstractmethod
    def batch(self, step: int) -> Any:
        """The batch of a step, as a pure function of it. With W devices, rank r is asked for step * W + r.

        Tensors in it, also within mappings, lists and tuples, are moved to the device."""

    @abstractmethod
    def loss(self, batch: Any, step: int) -> Mapping[str, Tensor]:
        """Scalars: "loss" is minimised, the others are logged. torch's generator is seeded by the step."""

    def aids(self) -> frozenset[str]:
        """Names of modules that only the training needs (discriminators); a start may come without them."""
        return frozenset()

    def validate(self) -> Mapping[str, float]:
        """Scores to log. The modules hold their EMA weights meanwhile, in eval mode, without gradients."""
        return {}

    def sample(self, writer: Any, step: int) -> None:
        """Add audio or images to a TensorBoard SummaryWriter, after each validation; EMA weights as there."""
        return None

    def optimizers(self, config: LoopConfig) -> Mapping[str, Optimizer]:
        """Optimizers by name; the schedule scales the learning rates they come with. Default: "model", AdamW over all."""
        parameters = [p for module in self.modules().values() for p in module.parameters() if p.requires_grad]
        return {"model": adamw(parameters, config)}

    def update(self, batch: Any, step: int, minimise: Minimise) -> Mapping[str, Tensor]:
        """One step; returns what to log. An adversarial recipe overrides this and calls minimise once for each side.

        minimise(loss, name): backward, average over devices, clip and step of the optimizer of that name; gives the norm.
        """
        losses = self.loss(batch, step)
        return {**losses, "grad_norm": minimise(losses["loss"], "model")}


def adamw(parameters: list[nn.Parameter], config: LoopConfig) -> Optimizer:
    """Fused AdamW that decays matrices only (not biases, norms or scales)."""
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, fused=True)


def mean_losses(
    loss: Callable[[Mapping[str, Tensor], int], dict[str, Tensor]], batches: Sequence[Mapping[str, Tensor]], weight: str
) -> dict[str, float]:
    """A task's losses on fixed batches, each of which weighs as much as its tensor of that name sums up to."""
    sums: dict[str, float] = defaultdict(float)
    whole = 0
    for batch in batches:
        count = int(batch[weight].sum())
        for name, value in loss(batch, 0).items():
            sums[name] += float(value.detach()) * count
        whole += count
    return {name: total / whole for name, total in sums.items()}


def step_seed(seed: int, step: int) -> int:
    """A seed of 63 bits that differs for every (seed, step)."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest(), "little") >> 1


def learning_rate(config: LoopConfig, step: int, elapsed: float) -> float:
    """The share of the full learning rate at a step (0-based) after so many seconds: warm-up, then decay."""
    progress = step / config.steps
    if config.max_seconds is not None:
        progress = max(progress, elapsed / config.max_seconds)
    fall = min(progress, 1.0)
    left = 0.5 * (1 + math.cos(math.pi * fall)) if config.decay == "cosine" else 1 - fall
    return min(1.0, (step + 1) / max(1, config.warmup)) * (config.final_lr + (1 - config.final_lr) * left)


def fit(task: Task, config: LoopConfig, folder: str | Path) -> None:
    """Train until config.steps (or max_seconds), resuming from the newest checkpoint in folder where there is one.

    Writes folder/checkpoint-…/ (the last two), metrics.jsonl and TensorBoard curves.
    Raises TrainingError when the loss is no longer finite; the checkpoints before that stay.
    """
    threads = torch.get_num_threads()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    # on a CPU the fused kernel's backward takes longer than the products it saves
    plain = sdpa_kernel(SDPBackend.MATH) if config.device == "cpu" else contextlib.nullcontext()
    try:
        with plain:
            _Run(task, config, Path(folder)).run()
    finally:
        torch.set_num_threads(threads)


class _Run:
    """One call of `fit`."""

    def __init__(self, task: Task, config: LoopConfig, folder: Path) -> None:
        self.task, self.config, self.folder = task, config, folder
        self.fabric = _fabric(config) if config.devices > 1 else None
        self.rank = self.fabric.global_rank if self.fabric else 0
        self.device = self.fabric.device if self.fabric else torch.device(config.device)
        self.modules = task.modules()
        for module in self.modules.values():
            module.to(self.device)
        self.optimizers = task.optimizers(config)
        self.full_lr = {name: [g["lr"] for g in o.param_groups] for name, o in self.optimizers.items()}
        self.ema = Ema(self.modules)
        self.step, self.elapsed = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if self.rank == 0:
            remove_partial(folder)
        path = newest_checkpoint(folder)
        if path is not None:
            self.step, self.elapsed = load_checkpoint(path, self.modules, self.ema, self.optimizers, asdict(config))
            log.info("resumed from %s", path)
        if self.fabric:
            for tensor in self.ema.live + self.ema.shadow:
                tensor.copy_(self.fabric.broadcast(tensor))

    def run(self) -> None:
        config, task = self.config, self.task
        for module in self.modules.values():
            module.train()
        journal = Journal(self.folder, self.step) if self.rank == 0 else None
        started = time.monotonic() - self.elapsed
        saved = time.monotonic() if self.step else -math.inf  # first weights are pinned at once
        world = self.fabric.world_size if self.fabric else 1
        while not self.done():
            if self.rank == 0 and time.monotonic() - saved >= config.checkpoint_seconds:
                self.save()
                saved = time.monotonic()

            # 1. learning rate
            factor = learning_rate(config, self.step, self.elapsed)
            for name, optimizer in self.optimizers.items():
                for group, full in zip(optimizer.param_groups, self.full_lr[name], strict=True):
                    group["lr"] = full * factor

            # 2. update
            number = self.step * world + self.rank
            torch.manual_seed(step_seed(config.seed, number))
            batch = _move(task.batch(number), self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                values = task.update(batch, self.step, self.minimise)
            self.ema.update(min(config.ema, (1 + self.step) / (10 + self.step)))
            self.step += 1
            self.elapsed = time.monotonic() - started
            if self.fabric and config.max_seconds:
                self.elapsed = self.fabric.broadcast(self.elapsed)  # all ranks must agree when to stop

            # 3. look
            if journal is None:
                continue
            journal.collect(values)
            if self.step % config.log_every == 0 or self.done():
                journal.write(self.step, self.elapsed, config.lr * factor)
            if self.step % config.validate_every == 0 or self.done():
                with self.evaluating():
                    journal.validated(self.step, self.elapsed, task.validate())
                    if journal.writer is not None:
                        task.sample(journal.writer, self.step)
        if journal is not None:
            self.save()
            journal.close()

    def done(self) -> bool:
        spent = self.config.max_seconds is not None and self.elapsed >= self.config.max_seconds
        return spent or self.step >= self.config.steps

    def minimise(self, loss: Tensor, name: str) -> Tensor:
        optimizer = self.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        with torch.autocast(self.device.type, enabled=False):
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.fabric:  # not DDP's wrapper: tasks hold their modules themselves, and may have two losses
                for p in parameters:
                    p.grad = self.fabric.all_reduce(torch.zeros_like(p) if p.grad is None else p.grad)
            norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
            optimizer.step()
        torch.clear_autocast_cache()  # it holds bf16 copies of the weights as they were
        return norm

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """EMA weights, eval mode, no gradients; all back afterwards."""
        modes = {name: module.training for name, module in self.modules.items()}
        self.ema.swap()
        for module in self.modules.values():
            module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.ema.swap()
            for name, module in self.modules.items():
                module.train(modes[name])

    def save(self) -> None:
        if not all(bool(torch.isfinite(t).all()) for t in self.ema.live):
            raise TrainingError(f"weights are not finite at step {self.step}; lower lr or clip, the last checkpoint is kept")
        save_checkpoint(self.folder, self.step, self.elapsed, self.modules, self.ema, self.optimizers, asdict(self.config))


def _move(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: _move(value, device) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(_move(value, device) for value in batch)
    return batch


def _fabric(config: LoopConfig) -> Any:
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingPackageError("training on several devices needs: pip install lightning-fabric") from error
    fabric = Fabric(accelerator=config.device, devices=config.devices, strategy="ddp")
    fabric.launch()
    return fabric
