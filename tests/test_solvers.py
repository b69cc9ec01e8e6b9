"""Solvers and guidance, on flows whose exact law is known."""

import pytest
import torch
from torch import Tensor

from tts.decoding.guidance import guide, merge_groups, stack_groups
from tts.decoding.solvers import PRUNED, SOLVERS, euler, midpoint, pruned_grid, sway, uniform_grid, visited_times


def gaussian(std: float) -> object:
    """The exact velocity field from N(0, 1) to N(0, std^2): v = x (t s^2 - (1 - t)) / (t^2 s^2 + (1 - t)^2)."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        t = t.double()[:, None]
        return x * (t * std**2 - (1 - t)) / (t**2 * std**2 + (1 - t) ** 2)

    return field


@pytest.mark.parametrize(("steps", "expected"), [(16, 0.4557), (64, 0.4886)])
def test_euler_reaches_the_known_deviation_of_a_gaussian(steps: int, expected: float) -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    assert float(euler(gaussian(0.5), one, uniform_grid(steps))) == pytest.approx(expected, abs=1e-4)  # type: ignore[arg-type]


def test_midpoint_errs_less_than_euler_with_as_many_calls() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    errors = [abs(float(s(gaussian(0.5), one, uniform_grid(n))) - 0.5) for s, n in ((euler, 32), (midpoint, 16))]  # type: ignore[arg-type]
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize("name", SOLVERS)
def test_a_constant_field_moves_by_itself(name: str) -> None:
    x = torch.randn(2, 3)
    moved = SOLVERS[name](lambda x, t: torch.ones_like(x), x, pruned_grid(7))
    assert torch.allclose(moved, x + 1, atol=1e-6)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_field_is_asked_at_each_rows_time(name: str) -> None:
    seen: list[Tensor] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return x

    SOLVERS[name](field, torch.zeros(3, 2), uniform_grid(4))
    assert all(t.shape == (3,) for t in seen)
    assert len(seen) == (4 if name == "euler" else 8)
    assert float(seen[-1][0]) == (0.75 if name == "euler" else 0.875)


def test_pruned_grids_have_the_published_steps() -> None:
    assert set(PRUNED) == {5, 6, 7, 10, 12, 16}
    for steps, grid in PRUNED.items():
        assert len(grid) == steps + 1 and grid[0] == 0 and grid[-1] == 32
    assert [round(float(t) * 32) for t in pruned_grid(7)] == [0, 2, 4, 6, 8, 16, 24, 32]
    assert torch.equal(pruned_grid(9), uniform_grid(9))


def test_sway_keeps_ends_and_order_and_zero_changes_nothing() -> None:
    t = uniform_grid(50)
    for s in (-1.0, -0.4, 0.7, 1.0):
        swayed = sway(t, s)
        assert abs(float(swayed[0])) < 1e-12 and abs(float(swayed[-1]) - 1) < 1e-12
        assert bool((swayed.diff() > 0).all())
    assert torch.equal(sway(t, 0.0), t)
    assert torch.allclose(sway(t, -1.0), 1 - torch.cos(torch.pi / 2 * t))


def test_the_times_a_solver_visits_are_known_before_it_runs() -> None:
    for solver in SOLVERS.values():
        asked: list[float] = []

        def field(x: Tensor, t: Tensor, asked: list[float] = asked) -> Tensor:
            asked.append(float(t[0]))
            return torch.sin(x)

        solver(field, torch.randn(2, 3), pruned_grid(7))
        assert visited_times(solver, pruned_grid(7)).tolist() == asked


def test_scale_one_is_the_condition_and_f5s_two_is_our_three() -> None:
    c, u = torch.randn(2, 4), torch.randn(2, 4)
    assert torch.allclose(guide(c, u, 1.0), c, atol=1e-6)
    assert torch.allclose(guide(c, u, 3.0), c + 2 * (c - u), atol=1e-6)
    assert torch.equal(guide(c, u, 0.0), u)


def test_groups_are_stacked_conditional_first_and_merged_again() -> None:
    x = torch.randn(3, 2)
    stacked = stack_groups(x, 2.0)
    assert stacked.shape == (6, 2)
    assert torch.equal(merge_groups(torch.cat((x, 0 * x)), 2.0), 2 * x)
    assert stack_groups(x, 1.0) is x and merge_groups(x, 1.0) is x
