"""The adversarial game: judges tell copies from recordings, and the generator hears each loss as loudly as was asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_vocoder_training import RECIPE, Recordings, ValidRecordings
from torch import Tensor

from tts.train.adversarial import AdversarialConfig, balanced, generator_loss, judge_loss, matching_loss, play
from tts.train.discriminators import DiscriminatorConfig, Discriminators, PeriodDiscriminator, SpectrogramDiscriminator
from tts.train.loop import LoopConfig
from tts.train.vocoder import VocoderTask

JUDGES = DiscriminatorConfig(periods=(2, 3), period_channels=(2, 4), windows=(64,), window_channels=(2, 4))


def sines(hz: float) -> Tensor:
    return 0.5 * torch.sin(torch.arange(400) * hz)[None].repeat(2, 1)


@pytest.mark.parametrize("N", [400, 401, 463])
def test_every_judge_takes_any_length(N):
    for judgement in Discriminators(JUDGES)(torch.randn(3, N)):
        assert len(judgement.scores) == 3 and torch.isfinite(judgement.scores).all()
        assert len(judgement.features) == 2


def test_a_period_judge_sees_each_column_by_itself():
    judge, samples = PeriodDiscriminator(3, (2, 4)), torch.randn(1, 300)
    changed = samples.clone()
    changed[:, 1::3] += 1
    same = torch.isclose(judge(samples).scores, judge(changed).scores).all(dim=(0, 1, 2))  # [p]
    assert same.tolist() == [True, False, True]


def test_a_spectrogram_judge_hears_a_phase_that_magnitudes_hide():
    judge, samples = SpectrogramDiscriminator(64, (2, 4)), sines(0.3)
    assert not torch.allclose(judge(samples).scores, judge(-samples).scores)


def test_losses_are_zero_for_a_convinced_judge_and_for_equal_features():
    judgement = Discriminators(JUDGES)(sines(0.3))
    sure = [replace(j, scores=torch.full_like(j.scores, 2.0)) for j in judgement]
    unsure = [replace(j, scores=torch.zeros_like(j.scores)) for j in judgement]
    assert float(generator_loss(sure)) == 0
    assert float(judge_loss(sure, unsure)) == pytest.approx(1)
    assert float(judge_loss(unsure, unsure)) == pytest.approx(2)
    assert matching_loss(judgement, judgement).item() == 0
    assert matching_loss(judgement, Discriminators(JUDGES)(sines(0.7))).item() > 0.1


def test_balanced_gradients_have_the_lengths_that_were_asked_for():
    made = torch.tensor([[1.0, 2.0]], requires_grad=True)
    losses = {"loud": 1000 * made[0, 0], "soft": 0.001 * made[0, 1] ** 2}
    loss, found = balanced(losses, {"loud": 1.0, "soft": 3.0}, made)
    (gradient,) = torch.autograd.grad(loss, made)
    torch.testing.assert_close(gradient, torch.tensor([[1.0, 3.0]]))
    assert float(found["loud"]) == pytest.approx(1000) and float(found["soft"]) == pytest.approx(0.004)


def test_judges_learn_to_tell_two_sounds_apart_and_pull_the_one_towards_the_other():
    torch.manual_seed(0)
    judges, config = Discriminators(JUDGES), AdversarialConfig(JUDGES, weight=5.0, after=150)
    optimizer = torch.optim.AdamW(judges.parameters(), lr=1e-2)
    real, gain = sines(0.3), torch.tensor(0.1, requires_grad=True)

    def minimise(loss: Tensor, name: str) -> Tensor:
        assert name == "judges"
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for step in range(200):
        made = gain * real
        spectral = 0 * made.sum()
        loss, told = play(judges, config, made, real, spectral, step, minimise)
        assert ("hinge" in told) == (step >= config.after), "judges are heard too early"
        (push,) = torch.autograd.grad(loss, gain)
        if step < config.after:
            assert push == 0
    assert float(told["judges"]) < 0.5
    assert push < 0, "a copy that is too quiet should become louder"


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_vocoder_task_has_judges_only_where_they_are_heard(weight):
    recipe = replace(RECIPE, adversarial=AdversarialConfig(JUDGES, weight=weight, after=1))
    task = VocoderTask(recipe, Recordings(), ValidRecordings())  # type: ignore[arg-type]
    optimizers = task.optimizers(LoopConfig(steps=1, lr=1e-3))
    assert ("judges" in task.modules()) == ("judges" in optimizers) == bool(weight)
    told = {}
    for step in range(2):

        def minimise(loss: Tensor, name: str) -> Tensor:
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
            return loss.detach()

        before = [p.clone() for p in task.vocoder.parameters()]
        told = task.update(task.batch(step), step, minimise)
        assert any(not torch.equal(a, b) for a, b in zip(before, task.vocoder.parameters(), strict=True))
    assert ("hinge" in told) == bool(weight)
