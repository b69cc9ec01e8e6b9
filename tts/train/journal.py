"""The curves of a training run: to logging, to metrics.jsonl (one line a time) and to TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tts.errors import TrainingError

log = logging.getLogger(__name__)


class Journal:
    """Means of the logged values since the last line.

    writer: a TensorBoard SummaryWriter, or None where TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "metrics.jsonl"
        self._forget_after(step)
        self.writer = _tensorboard(folder, step)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.since = (step, time.monotonic())

    def _forget_after(self, step: int) -> None:
        """Drop the lines of steps that will be done again, and a last line cut short by a kill."""
        if not self.path.is_file():
            return
        lines = [line for line in self.path.read_text("utf-8").splitlines(keepends=True) if line.endswith("}\n")]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(line for line in lines if json.loads(line)["step"] <= step), "utf-8")
        partial.replace(self.path)

    def collect(self, values: Mapping[str, Tensor]) -> None:
        for key, value in values.items():  # stays on the device: no waiting for it
            self.sums[key] = self.sums[key] + value.detach() if key in self.sums else value.detach().clone()
            self.counts[key] = self.counts.get(key, 0) + 1

    def write(self, step: int, elapsed: float, lr: float) -> None:
        means = {key: float(total) / self.counts[key] for key, total in self.sums.items()}
        speed = (step - self.since[0]) / max(1e-9, time.monotonic() - self.since[1])
        self.sums, self.counts, self.since = {}, {}, (step, time.monotonic())
        self._line("train", step, {**means, "lr": lr, "steps_per_second": speed, "elapsed": elapsed})
        if not math.isfinite(means.get("loss", 0.0)):
            raise TrainingError(
                f"the loss is {means['loss']} before step {step}; lower lr or clip, the last checkpoint is kept"
            )

    def validated(self, step: int, elapsed: float, scores: Mapping[str, float]) -> None:
        if scores:
            self._line("valid", step, {**scores, "elapsed": elapsed})
        self.since = (step, time.monotonic())

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _line(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        log.info("%s %d  %s", kind, step, "  ".join(f"{key} {value:.4g}" for key, value in values.items()))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self.writer is not None:
            for key, value in values.items():
                self.writer.add_scalar(f"{kind}/{key}", value, step)


def _tensorboard(folder: Path, step: int) -> Any:
    """A SummaryWriter, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("no TensorBoard curves; pip install tensorboard would draw them")
        return None
    return SummaryWriter(str(folder), purge_step=step)
