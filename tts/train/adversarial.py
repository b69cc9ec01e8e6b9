"""The game between a generator of sound and its judges: hinge losses, feature matching, and a balance with other losses.

step:   judges learn    to tell recordings from copies
        generator learns    from the gradient at its samples:  spectral, at length 1  +  judges', at length `weight`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from tts.train.discriminators import DiscriminatorConfig, Discriminators, Judgement


@dataclass(frozen=True)
class AdversarialConfig:
    """How much the judges are heard."""

    judges: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    weight: float = 0.02  # length of the judges' gradient beside the spectral loss's of 1; 0: there are no judges
    lr: float = 2.0  # of the judges, times the loop's
    matching: float = 2.0  # of feature matching beside the hinge, within the judges' gradient
    after: int = 200  # steps in which the judges learn and are not heard yet


def judge_loss(real: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """What the judges minimise: mean over judges of relu(1 - D(real)) + relu(1 + D(made)) (Lim & Ye 2017, arXiv:1705.02894)."""
    terms = [F.relu(1 - r.scores).mean() + F.relu(1 + m.scores).mean() for r, m in zip(real, made, strict=True)]
    return torch.stack(terms).mean()


def generator_loss(made: Sequence[Judgement]) -> Tensor:
    """What the generator minimises: mean over judges of relu(1 - D(made)); a judge that is already convinced is silent."""
    return torch.stack([F.relu(1 - m.scores).mean() for m in made]).mean()


def matching_loss(real: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """Mean over all layers of |f(real) - f(made)| over mean |f(real)| (EnCodec, arXiv:2210.13438, equation 2)."""
    terms = []
    for r, m in zip(real, made, strict=True):
        for target, guess in zip(r.features, m.features, strict=True):
            terms.append((target.float() - guess.float()).abs().mean() / target.float().abs().mean().clamp(min=1e-4))
    return torch.stack(terms).mean()


def balanced(losses: Mapping[str, Tensor], weights: Mapping[str, float], made: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """One loss whose gradient at `made` is the sum of each loss's own, stretched to the length weights[name].

    So a weight says how loud a loss is, whatever its scale. Source: EnCodec, section 3.4, "balancer"; changed: lengths are
    those of the batch, not a running mean, so that there is no state.
    Args:
        losses: scalars computed from `made` [B, N], the generator's samples.
    Returns:
        the loss to minimise (its value means nothing) and the lengths found, by name.
    """
    total, found = torch.zeros_like(made), {}
    for name, loss in losses.items():
        (gradient,) = torch.autograd.grad(loss, made, retain_graph=True)
        found[name] = gradient.norm()
        total += gradient * (weights[name] / found[name].clamp(min=1e-12))
    return (made * total).sum(), found


def play(
    judges: Discriminators,
    config: AdversarialConfig,
    made: Tensor,
    real: Tensor,
    spectral: Tensor,
    step: int,
    minimise: Callable[[Tensor, str], Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The judges' turn, then the generator's loss.

    Args:
        made: [B, N] samples with the generator's graph. real: [B, N]. spectral: a scalar computed from `made`.
        minimise: as in `Task.update`; called once, for the optimizer "judges".
    Returns:
        the loss for the generator's optimizer, of which parts that do not pass through `made` may be added, and what to log.
    """
    judging = judge_loss(judges(real), judges(made.detach()))
    log = {"judges": judging.detach(), "judges_norm": minimise(judging, "judges")}
    if step < config.after:
        return balanced({"spectral": spectral}, {"spectral": 1.0}, made)[0], log
    with torch.no_grad():
        truth = judges(real)
    opinion = judges(made)
    hinge, matching = generator_loss(opinion), matching_loss(truth, opinion)
    losses = {"spectral": spectral, "judges": hinge + config.matching * matching}
    loss, lengths = balanced(losses, {"spectral": 1.0, "judges": config.weight}, made)
    return loss, {**log, "hinge": hinge.detach(), "matching": matching.detach()} | {
        f"gradient_{name}": length for name, length in lengths.items()
    }
