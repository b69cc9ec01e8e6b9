"""k-SEQ says what the target says, whatever was drafted."""

import math

import pytest
import torch

from tts.errors import ShapeError
from tts.sampling import speculative
from tts.sampling.speculative import residual, spec_verify, strictness

N = 120_000
GENERATOR = torch.Generator()
TARGET = torch.tensor([0.42, 0.05, 0.0, 0.23, 0.2, 0.1], dtype=torch.float64)
DRAFT = torch.tensor([0.1, 0.3, 0.15, 0.15, 0.0, 0.3], dtype=torch.float64)


def deviations(k: int, target: torch.Tensor = TARGET, draft: torch.Tensor = DRAFT) -> float:
    """Pearson's statistic of what is said against the target, in standard deviations from its mean."""
    GENERATOR.manual_seed(k)
    drafts = torch.multinomial(draft, N * k, replacement=True, generator=GENERATOR).view(N, k)
    uniforms = (torch.randint(0, 2**23, (N, k + 1), generator=GENERATOR) + 0.5) / 2**23
    said, _ = spec_verify(target.expand(N, -1), draft.expand(N, -1), drafts, uniforms)
    counts = torch.bincount(said, minlength=len(target)).double()
    possible = target > 0
    assert counts[~possible].sum() == 0
    expected, freedom = N * target[possible], int(possible.sum()) - 1
    return float(((counts[possible] - expected).square() / expected).sum() - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_what_is_said_follows_the_law_of_the_target(k):
    assert abs(deviations(k)) < 4


def test_the_residual_of_one_draft_is_not_that_of_two(monkeypatch):
    """A mutation that the test above must catch: (p - q)+, right for one draft, is wrong for more."""
    monkeypatch.setattr(speculative, "residual", lambda p, q, g, k: (p - q).clamp(min=0))
    assert abs(deviations(1)) < 4
    assert deviations(2) > 20
    assert deviations(4) > 20


def test_the_share_of_drafts_that_pass_is_that_of_the_theorem_and_grows_with_their_number():
    GENERATOR.manual_seed(0)
    shares = []
    for k in (1, 2, 4):
        p, q = TARGET.expand(N, -1), DRAFT.expand(N, -1)
        drafts = torch.multinomial(DRAFT, N * k, replacement=True, generator=GENERATOR).view(N, k)
        _, which = spec_verify(p, q, drafts, torch.rand(N, k + 1, generator=GENERATOR).clamp(min=1e-7))
        g = strictness(p[:1], q[:1], k)
        beta = torch.minimum(DRAFT, TARGET / g[0]).sum()
        share = float((which < k).double().mean())
        assert share == pytest.approx(float(1 - (1 - beta) ** k), abs=0.005)
        shares.append(share)
    assert shares == sorted(shares)


def test_strictness_leaves_nothing_negative_and_no_less_would_do():
    GENERATOR.manual_seed(1)
    p, q = (torch.rand(500, 7, generator=GENERATOR, dtype=torch.float64).pow(4) for _ in range(2))
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    for k in (1, 2, 5):
        g = strictness(p, q, k)
        assert ((g >= 1) & (g <= k)).all()
        beta = torch.minimum(q, p / g).sum(1, keepdim=True)
        passed = 1 - (1 - beta) ** k
        assert (passed <= g * beta + 1e-9).all()
        assert torch.allclose(passed, g * beta, atol=1e-6)
        rest = p - torch.minimum(q, p / g) * passed / beta
        assert (rest >= -1e-9).all()
        assert torch.allclose(residual(p, q, g, k), rest.clamp(min=0))


def test_a_draft_that_is_the_target_always_passes():
    p = TARGET.expand(1000, -1)
    drafts = torch.multinomial(TARGET, 3000, replacement=True).view(1000, 3)
    said, which = spec_verify(p, p, drafts, torch.rand(1000, 4).clamp(1e-7, 1 - 1e-7))
    assert (which == 0).all()
    assert torch.equal(said, drafts[:, 0])


def test_a_draft_with_nothing_in_common_never_passes():
    p, q = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    said, which = spec_verify(p, q, torch.tensor([[2, 2]]), torch.tensor([[0.1, 0.1, 0.6]]))
    assert (said.item(), which.item()) == (1, 2)


def test_wrong_shapes_are_typed_errors():
    p = torch.full((2, 3), 1 / 3)
    with pytest.raises(ShapeError, match=r"uniforms \[N, k \+ 1\]"):
        spec_verify(p, p, torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), 0.5))
