"""The pointer visits every phone once, in order, within its bounds; a loop is what is said to be one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.decoding.constraints import Loops, MonotonicPointer
from tts.errors import SettingsError, ShapeError

bounds = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda b: (min(b), max(b))), min_size=1, max_size=5),
    min_size=1,
    max_size=3,
)


def pointer_of(rows: list[list[tuple[int, int]]]) -> MonotonicPointer:
    L = max(map(len, rows)) + 1
    padded = torch.tensor([row + [(0, 9)] * (L - len(row)) for row in rows])
    return MonotonicPointer(padded[..., 0], padded[..., 1], torch.tensor([len(row) for row in rows]))


def path(pointer: MonotonicPointer, seed: int, push: float = 0.1) -> tuple[list[list[int]], list[list[bool]]]:
    """The phone of each frame, and whether the item might have ended before it, of each item under random scores."""
    generator = torch.Generator().manual_seed(seed)
    position, B = pointer.start(), len(pointer.lengths)
    phones: list[list[int]] = [[] for _ in range(B)]
    endings: list[list[bool]] = [[] for _ in range(B)]
    for _ in range(100):
        may_end = pointer.may_end(position)
        for b in range(B):
            if not position.done[b]:
                phones[b].append(int(position.phone[b]))
                endings[b].append(bool(may_end[b]))
        odds, u, pushed = 3 * torch.randn(B, generator=generator), *torch.rand(2, B, generator=generator)
        position = pointer.follow(position, odds, u, pushed < push)
    assert position.done.all()
    return phones, endings


@settings(deadline=None, max_examples=40)
@given(bounds, st.integers(0, 10**6))
def test_every_phone_is_visited_once_in_order_and_within_its_bounds(rows, seed):
    pointer = pointer_of(rows)
    phones, endings = path(pointer, seed)
    for b, row in enumerate(rows):
        spoken = [i for i, (_, most) in enumerate(row) if most > 0]
        assert phones[b] == sorted(phones[b])
        assert sorted(set(phones[b])) == spoken
        for i in spoken:
            assert max(1, row[i][0]) <= phones[b].count(i) <= row[i][1]
        assert len(phones[b]) <= pointer.cap[b]
        for t, may_end in enumerate(endings[b]):  # only where all phones have been said, the last one for its least
            said = phones[b][:t].count(spoken[-1])
            assert may_end == (said >= max(1, row[spoken[-1]][0]) and phones[b][t] == spoken[-1])


def test_a_planned_pointer_keeps_to_its_plan_whatever_the_scores_say():
    frames = torch.tensor([[2, 0, 1, 3], [1, 1, 0, 0]])
    pointer = MonotonicPointer.planned(frames, torch.tensor([4, 2]))
    for seed in range(5):
        assert path(pointer, seed, push=0.5)[0] == [[0, 0, 2, 3, 3, 3], [0, 1]]
    assert pointer.cap.tolist() == [6, 2]


def test_it_advances_with_the_probability_of_its_odds():
    N = 20_000
    pointer = MonotonicPointer(torch.ones(1, 2).long(), torch.full((1, 2), 99), torch.tensor([2]))
    many = MonotonicPointer(pointer.least.expand(N, 2), pointer.most.expand(N, 2), pointer.lengths.expand(N))
    u = torch.rand(N, generator=torch.Generator().manual_seed(0))
    moved = many.follow(many.start(), torch.full((N,), -1.0), u, torch.zeros(N, dtype=torch.bool)).phone.double().mean()
    assert moved.item() == pytest.approx(torch.sigmoid(torch.tensor(-1.0)).item(), abs=0.015)


def test_without_odds_it_moves_only_at_its_bounds():
    pointer = pointer_of([[(1, 3), (1, 2)]])
    position, phones = pointer.start(), []
    while not position.done:
        phones.append(position.phone.item())
        position = pointer.follow(position, None, torch.tensor([0.0]), torch.tensor([False]))
    assert phones == [0, 0, 0, 1, 1]
    assert position.phone.tolist() == [1]  # still a phone that has a text


def test_the_state_given_is_not_changed():
    pointer = pointer_of([[(1, 1), (1, 1)]])
    start = pointer.start()
    pointer.follow(start, None, torch.tensor([0.5]), torch.tensor([True]))
    assert (start.phone.item(), start.stayed.item(), start.done.item()) == (0, 0, False)


def test_an_item_without_phones_is_done_before_it_begins():
    pointer = MonotonicPointer.planned(torch.zeros(2, 1, dtype=torch.int64), torch.tensor([1, 0]))
    assert pointer.start().done.tolist() == [True, True]
    assert pointer.start().phone.tolist() == [0, 0]


def test_bounds_that_cannot_be_are_typed_errors():
    one = torch.ones(1, 2, dtype=torch.int64)
    with pytest.raises(SettingsError, match="least exceeds most"):
        MonotonicPointer(one + 1, one, torch.tensor([2]))
    with pytest.raises(ShapeError, match="least and most"):
        MonotonicPointer(one, one[:, :1], torch.tensor([2]))
    with pytest.raises(SettingsError, match="repeats of loops"):
        Loops(repeats=0)


def first_loop(codes: list[int], loops: Loops) -> int | None:
    """After how many codes a loop closes."""
    said = [-1] * loops.longest + codes
    runs = loops.start(1, torch.device("cpu"))
    for t, code in enumerate(codes):
        runs, looped = loops.follow(runs, torch.tensor([code]), torch.tensor([said[t : t + loops.longest]]))
        if looped:
            return t + 1
    return None


def first_loop_slowly(codes: list[int], loops: Loops) -> int | None:
    for end in range(1, len(codes) + 1):
        for n in range(1, loops.longest + 1):
            again = max(loops.frames, n * loops.repeats)
            if end >= again + n and all(codes[i] == codes[i - n] for i in range(end - again, end)):
                return end
    return None


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 1), max_size=14), st.integers(1, 3), st.integers(1, 3), st.integers(1, 5))
def test_a_loop_is_found_as_soon_as_it_closes(codes, longest, repeats, frames):
    loops = Loops(longest, repeats, frames)
    assert first_loop(codes, loops) == first_loop_slowly(codes, loops)


def test_the_examples_of_the_docstring():
    loops = Loops(longest=3, repeats=2, frames=4)
    assert first_loop([1, 2, 1, 2, 1, 2], loops) == 6
    assert first_loop([7, 7, 7], loops) is None
    assert first_loop([7, 7, 7, 7, 7], loops) == 5
