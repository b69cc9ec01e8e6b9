"""The training loop: whole checkpoints, averages, schedule, the seam for two optimizers (kills: test_train_resume)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tts.errors import CheckpointError, SettingsError, TrainingError
from tts.train.loop import LoopConfig, Minimise, Task, adamw, fit, learning_rate, step_seed
from tts.train.state import Ema, export, newest_checkpoint

STEPS = 150


class Tiny(Task):
    """Two layers with all that makes a resume inexact: dropout, noise, a batch norm's counters, averages."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 16))
        self.seen: list[float] = []

    def modules(self) -> dict[str, nn.Module]:
        return {"net": self.net}

    def batch(self, step: int) -> Tensor:
        return torch.randn(4, 16, generator=torch.Generator().manual_seed(step))

    def loss(self, batch: Tensor, step: int) -> dict[str, Tensor]:
        return {"loss": (self.net(batch) - batch + 0.1 * torch.randn_like(batch)).square().mean()}

    def validate(self) -> dict[str, float]:
        self.seen.append(float(self.net[0].weight.detach().sum()))
        return {"weight": self.seen[-1]}


def config(**changes: Any) -> LoopConfig:
    return LoopConfig(**{"steps": STEPS, "warmup": 10, "threads": 1, "checkpoint_seconds": 60.0, "log_every": 10, **changes})


def weights(folder: Path) -> dict[str, Tensor]:
    return export(folder)["net"]


def steps_logged(folder: Path) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["kind"], line["step"]) for line in lines]


def test_two_checkpoints_are_kept_and_half_written_ones_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-000000099.partial").mkdir()
    fit(Tiny(), config(steps=5, checkpoint_seconds=0.0), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*checkpoint*")) == ["checkpoint-000000004", "checkpoint-000000005"]
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-000000005"
    assert not list(tmp_path.rglob("*.pt")) and not list(tmp_path.rglob("*.pkl"))


def test_exporting_leaves_a_save_that_is_under_way_alone(tmp_path: Path) -> None:
    fit(Tiny(), config(steps=1), tmp_path)
    under_way = tmp_path / ".checkpoint-000000002.partial"
    under_way.mkdir()
    export(tmp_path)
    assert under_way.is_dir()


def test_more_steps_continue_a_finished_run(tmp_path: Path) -> None:
    fit(Tiny(), config(steps=3, final_lr=1.0), tmp_path / "a")
    fit(Tiny(), config(steps=6, final_lr=1.0), tmp_path / "a")
    fit(Tiny(), config(steps=6, final_lr=1.0), tmp_path / "b")
    assert all(torch.equal(weights(tmp_path / "a")[name], w) for name, w in weights(tmp_path / "b").items())


def test_the_average_agrees_with_the_sum_written_out() -> None:
    module = nn.Linear(2, 2, bias=False)
    ema, history = Ema({"m": module}), [module.weight.detach().clone()]
    for step in range(5):
        with torch.no_grad():
            module.weight.add_(step + 1)
        history.append(module.weight.detach().clone())
        ema.update(0.9)
    slow = history[0]
    for weight in history[1:]:
        slow = 0.9 * slow + 0.1 * weight
    torch.testing.assert_close(ema.shadow[0], slow)
    ema.swap()
    torch.testing.assert_close(module.weight.detach(), slow)
    ema.swap()
    assert torch.equal(module.weight, history[-1])


def test_validation_sees_the_averages_that_are_exported(tmp_path: Path) -> None:
    task = Tiny()
    fit(task, config(steps=30, validate_every=10), tmp_path)
    assert len(task.seen) == 3
    assert task.seen[-1] == float(weights(tmp_path)["0.weight"].sum())
    assert task.seen[-1] != float(task.net[0].weight.detach().sum())
    assert task.net.training


def test_without_average_the_last_weights_are_exported(tmp_path: Path) -> None:
    task = Tiny()
    fit(task, config(steps=5, ema=0.0), tmp_path)
    assert all(torch.equal(value, task.net.state_dict()[name]) for name, value in weights(tmp_path).items())


def test_learning_rate_warms_up_then_decays_to_its_last_share() -> None:
    c = LoopConfig(steps=1000, warmup=10, final_lr=0.1)
    assert learning_rate(c, 0, 0.0) == pytest.approx(0.1, rel=1e-3)
    assert learning_rate(c, 9, 0.0) == pytest.approx(1.0, rel=1e-3)
    assert learning_rate(c, 500, 0.0) == pytest.approx(0.55)
    assert learning_rate(c, 1000, 0.0) == pytest.approx(0.1)
    linear = LoopConfig(steps=1000, warmup=0, final_lr=0.0, decay="linear")
    assert learning_rate(linear, 250, 0.0) == pytest.approx(0.75)


def test_a_budget_of_seconds_decays_and_ends_the_run(tmp_path: Path) -> None:
    c = config(steps=10**9, max_seconds=0.3)
    assert learning_rate(c, 100, 0.3) == pytest.approx(c.final_lr)
    fit(Tiny(), c, tmp_path)
    path = newest_checkpoint(tmp_path)
    assert path is not None
    assert 0.3 <= json.loads((path / "state.json").read_text())["elapsed"] < 60.0
    assert steps_logged(tmp_path)[-1] == ("valid", int(path.name.split("-")[1]))
    fit(Tiny(), c, tmp_path)  # already spent
    assert newest_checkpoint(tmp_path) == path


class Exploding(Tiny):
    def loss(self, batch: Tensor, step: int) -> dict[str, Tensor]:
        return {"loss": super().loss(batch, step)["loss"] * (math.nan if step >= 7 else 1.0)}


def test_a_loss_that_is_no_number_ends_the_run_and_spoils_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite|nan"):
        fit(Exploding(), config(steps=50, checkpoint_seconds=0.0), tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in weights(tmp_path).values())


class Adversaries(Task):
    """Two sides with an optimizer each, as a GAN has."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.sides = {"generator": nn.Linear(4, 4), "critic": nn.Linear(4, 1)}

    def modules(self) -> dict[str, nn.Module]:
        return dict(self.sides)

    def optimizers(self, config: LoopConfig) -> dict[str, torch.optim.Optimizer]:
        return {name: adamw(list(side.parameters()), config) for name, side in self.sides.items()}

    def batch(self, step: int) -> Tensor:
        return torch.randn(3, 4, generator=torch.Generator().manual_seed(step))

    def loss(self, batch: Tensor, step: int) -> dict[str, Tensor]:
        return {"loss": -self.sides["critic"](self.sides["generator"](batch)).mean()}

    def update(self, batch: Tensor, step: int, minimise: Minimise) -> Mapping[str, Tensor]:
        before = self.sides["generator"].weight.detach().clone()
        fake = self.sides["generator"](batch).detach()
        critic = (self.sides["critic"](fake) - self.sides["critic"](batch)).mean()
        minimise(critic, "critic")
        assert torch.equal(before, self.sides["generator"].weight)
        losses = self.loss(batch, step)
        minimise(losses["loss"], "generator")
        return {"critic": critic, **losses}


def test_two_sides_train_with_an_optimizer_each_and_resume_exactly(tmp_path: Path) -> None:
    fit(Adversaries(), config(steps=8, final_lr=1.0), tmp_path / "whole")
    fit(Adversaries(), config(steps=3, final_lr=1.0), tmp_path / "halves")
    fit(Adversaries(), config(steps=8, final_lr=1.0), tmp_path / "halves")
    whole, halves = export(tmp_path / "whole"), export(tmp_path / "halves")
    assert set(whole) == {"generator", "critic"}
    assert all(torch.equal(whole[side][name], halves[side][name]) for side in whole for name in whole[side])


def test_bf16_computes_in_bf16_and_keeps_the_weights_in_fp32(tmp_path: Path) -> None:
    dtypes = []

    class Halves(Tiny):
        def loss(self, batch: Tensor, step: int) -> dict[str, Tensor]:
            dtypes.append(self.net[0](batch).dtype)
            return super().loss(batch, step)

    task = Halves()
    fit(task, config(steps=2, precision="bf16"), tmp_path)
    assert dtypes == [torch.bfloat16, torch.bfloat16]
    assert task.net[0].weight.dtype == torch.float32


def test_only_matrices_decay() -> None:
    net = nn.Linear(3, 3)
    groups = adamw(list(net.parameters()), config(weight_decay=0.1)).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.1, 1), (0.0, 1)]
    assert groups[0]["params"][0] is net.weight


def test_steps_have_seeds_of_their_own() -> None:
    assert len({step_seed(seed, step) for seed in range(10) for step in range(100)}) == 1000
    assert step_seed(1, 2) == step_seed(1, 2) < 2**63


def test_threads_are_as_before_after_training(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    fit(Tiny(), config(steps=1, threads=before + 1), tmp_path)
    assert torch.get_num_threads() == before


def test_impossible_settings_are_named() -> None:
    with pytest.raises(SettingsError, match="'fp8'"):
        LoopConfig(steps=1, precision="fp8")
    with pytest.raises(SettingsError, match="steps must be at least 1"):
        LoopConfig(steps=0)
    with pytest.raises(SettingsError, match="'cosine' or 'linear'"):
        LoopConfig(steps=1, decay="step")


def test_a_folder_without_checkpoint_and_a_truncated_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        export(tmp_path)
    fit(Tiny(), config(steps=1), tmp_path)
    path = newest_checkpoint(tmp_path)
    assert path is not None
    (path / "ema.safetensors").write_bytes((path / "ema.safetensors").read_bytes()[:40])
    with pytest.raises(CheckpointError, match="cannot be read"):
        export(tmp_path)


def test_tensorboard_gets_the_curves_and_samples(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class Sounding(Tiny):
        def sample(self, writer: Any, step: int) -> None:
            writer.add_audio("said", torch.zeros(1, 800), step, sample_rate=16_000)

    fit(Sounding(), config(steps=20, validate_every=20), tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert "train/loss" in events.Tags()["scalars"] and "valid/weight" in events.Tags()["scalars"]
    assert events.Tags()["audio"] == ["said"]
