"""Graphs of functions: one for each set of shapes, filled anew each time; on a CPU the function itself stands in for one."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tts.decoding import graphs
from tts.decoding.graphs import BUCKET, Graphs, fill_up


@dataclass(frozen=True)
class Pair:
    a: Tensor
    b: Tensor | None = None


class Summing:
    """x + a, and b where there is one, times a number; counts for which memory it has been asked."""

    def __init__(self) -> None:
        self.memory: list[int] = []

    def __call__(self, x: Tensor, pair: Pair, more: tuple[Tensor, ...], times: float) -> Tensor:
        self.memory.append(x.data_ptr())
        return (x + pair.a + (0 if pair.b is None else pair.b) + sum(more)) * times


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape)


def test_it_says_what_the_function_says_in_memory_that_stays():
    work = Summing()
    held = Graphs(work)
    first = held(ones(2), Pair(ones(2)), (), 2.0)
    second = held(5 * ones(2), Pair(ones(2)), (), 2.0)
    assert first.tolist() == [4, 4] and second.tolist() == [12, 12]  # the first is not written over
    assert len(held.held) == 1 and len(set(work.memory)) == 1
    assert held(ones(2), Pair(ones(2), ones(2)), (ones(2), ones(2)), 3.0).tolist() == [15, 15]


@pytest.mark.parametrize(
    "other",
    [
        (ones(3), Pair(ones(3)), (), 2.0),
        (ones(2), Pair(ones(2).double()), (), 2.0),
        (ones(2), Pair(ones(2), ones(2)), (), 2.0),
        (ones(2), Pair(ones(2)), (ones(2),), 2.0),
        (ones(2), Pair(ones(2)), (), 3.0),
    ],
)
def test_other_shapes_types_and_settings_have_graphs_of_their_own(other):
    held = Graphs(Summing())
    held(ones(2), Pair(ones(2)), (), 2.0)
    held(*other)
    assert len(held.held) == 2


def test_the_longest_unused_is_forgotten():
    work = Summing()
    held = Graphs(work, most=2)
    for n in (1, 2, 1, 3):
        held(ones(n), Pair(ones(n)), (), 1.0)
    assert [key[0][0] for key in held.held] == [(1,), (3,)]


def test_what_is_given_is_not_changed_by_what_the_function_writes():
    held = Graphs(lambda x: x.mul_(2))
    given = ones(2)
    assert held(given).tolist() == [2, 2] and held(given).tolist() == [2, 2]
    assert given.tolist() == [1, 1]


def test_a_copy_of_a_model_has_graphs_of_its_own_weights():
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)
            self.graphs = Graphs(self.layer)

    model = Model()
    model.graphs(ones(1, 2))
    other = copy.deepcopy(model)
    assert other.graphs.function is other.layer and not other.graphs.held


def test_a_graph_is_captured_once_and_replayed(monkeypatch):
    """As a GPU has it: what is replayed reads its own memory, and says its own memory."""
    captured = []

    def capture(work, device, pool):
        captured.append(device)
        out = work()

        def replay():
            out.copy_(work())
            return out

        return replay

    monkeypatch.setattr(graphs, "capture", capture)
    held = Graphs(Summing())
    said = [held(x * ones(2), Pair(ones(2)), (), 1.0) for x in (1, 2, 3)]
    assert [x.tolist() for x in said] == [[2, 2], [3, 3], [4, 4]]
    assert captured == [torch.device("cpu")]


def test_filling_up_ends_at_the_bucket_and_leaves_what_is_there():
    x = torch.arange(6).view(2, 3)
    filled = fill_up(x, 1, 9)
    assert filled.shape == (2, BUCKET) and torch.equal(filled[:, :3], x) and (filled[:, 3:] == 9).all()
    assert fill_up(x, 0).shape == (BUCKET, 3)
    assert fill_up(filled, 1).shape == filled.shape
    assert not fill_up(torch.ones(1, 1, dtype=torch.bool), -1)[0, 1:].any()
