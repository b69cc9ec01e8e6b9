"""k-SEQ, the choice among k drafted codes that leaves the target's law as it is, in plain torch: the definition.

    drafts x_1 … x_k ~ q ─► the first that passes: u_i * g * q(x_i) < p(x_i) ─► said
                       └──► none passes ─► a code of the residual

With beta = sum min(q, p / g), a draft passes with probability beta, so one of the k does with 1 - (1 - beta)^k, and what is
then said has the law min(q, p / g) / beta. The residual is what is missing to p. That leaves nothing negative if
1 - (1 - beta)^k <= g * beta: g is the least such number in [1, k]. One draft has g = 1 and the known residual (p - q)+; with
more it would be wrong. Source: Sun et al. 2023, "SpecTr" (arXiv:2310.15141), algorithm 3 and theorem 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tts.errors import ShapeError

ROUNDS = 40  # of bisection: g to within k / 2**40


def spec_verify(target: Tensor, draft: Tensor, drafts: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """One code for each row, by the law of the target whatever the draft's is.

    Args:
        target, draft: [N, V] probabilities, each row summing to 1, after temperature and filters.
        drafts: [N, k] int64, drawn independently from `draft`.
        uniforms: [N, k + 1] in (0, 1): one for each draft, the last for the residual.
    Returns: codes [N] int64, and which draft it is [N] int64, k where none passed.
    """
    check_shapes(target, draft, drafts, uniforms)
    p, q, k = target.double(), draft.double(), drafts.shape[1]
    g = strictness(p, q, k)
    passed = uniforms[:, :k].double() * g * q.gather(1, drafts) < p.gather(1, drafts)
    which = torch.where(passed.any(1), passed.int().argmax(1), k)
    rest = residual(p, q, g, k)
    rest = torch.where(rest.sum(1, keepdim=True) > 0, rest, p)
    sums = rest.cumsum(1)
    other = torch.searchsorted(sums, uniforms[:, k:].double() * sums[:, -1:], right=True)[:, 0]
    said = drafts.gather(1, which.clamp(max=k - 1)[:, None])[:, 0]
    return torch.where(which < k, said, other), which


def strictness(p: Tensor, q: Tensor, k: int) -> Tensor:
    """g [N, 1] in [1, k]: the least with 1 - (1 - beta(g))^k <= g * beta(g), from above."""
    low, high = torch.ones_like(p[:, :1]), torch.full_like(p[:, :1], k)
    for _ in range(ROUNDS):
        g = (low + high) / 2
        beta = torch.minimum(q, p / g).sum(1, keepdim=True)
        enough = 1 - (1 - beta) ** k <= g * beta
        low, high = torch.where(enough, low, g), torch.where(enough, g, high)
    return high


def residual(p: Tensor, q: Tensor, g: Tensor, k: int) -> Tensor:
    """[N, V], not normed: what the accepted drafts leave of p."""
    shared = torch.minimum(q, p / g)
    beta = shared.sum(1, keepdim=True)
    return (p - shared * ((1 - (1 - beta) ** k) / beta.clamp(min=1e-30))).clamp(min=0)


def check_shapes(target: Tensor, draft: Tensor, drafts: Tensor, uniforms: Tensor) -> None:
    """Raise ShapeError where they are not as `spec_verify` says."""
    N, k = drafts.shape
    if target.shape != draft.shape or len(target) != N or k < 1 or uniforms.shape != (N, k + 1):
        shapes = [tuple(x.shape) for x in (target, draft, drafts, uniforms)]
        raise ShapeError(f"target and draft must be [N, V], drafts [N, k], uniforms [N, k + 1]; got {shapes}")
