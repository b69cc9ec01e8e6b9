"""A loop that waits for nothing says what the decoder says; on a GPU it is one graph, whose noise is never the same twice."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tts.decoding import autoregressive, captured
from tts.decoding.autoregressive import Task, gather
from tts.decoding.constraints import Loops, MonotonicPointer, Position
from tts.decoding.guidance import stack_groups
from tts.decoding.scores import Scores, Stepping
from tts.sampling.policy import Policy

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]),
]
everywhere = pytest.mark.parametrize("device", DEVICES)
K, V, D, ROWS = 3, 7, 16, 60


class Toy:
    """Scores depend, row by row, on the vectors of all steps so far, on the position and on what is told."""

    sizes = (V,) * K

    def __init__(self, device: str, dtype: torch.dtype = torch.float32, depth: bool = False, ends: float = -12.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ends = ends

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(device, dtype)

        self.table, self.places, self.out = random(K * (V + 1), D), random(ROWS, D), random(D, K * (V + 1))
        self.depth = SimpleNamespace(begin=lambda hidden: hidden, book=self.book) if depth else None

    def begin(self, R: int) -> tuple[list, Scores]:
        """The cache, whose rows stand at different positions, and the scores of step 0."""
        device, dtype = self.out.device, self.out.dtype
        state = torch.arange(R, device=device)[:, None] * torch.ones(D, device=device, dtype=dtype)
        return [state, torch.arange(R, device=device) % 2], Scores(state, self.scores(state))

    def scores(self, state: Tensor) -> Tensor:
        x = (state.sin() @ self.out).view(len(state), K, V + 1).float()
        first = torch.arange(K, device=x.device)[:, None] == 0
        return torch.cat((x[..., :V], (x[..., V:] + self.ends).where(first, -torch.inf)), -1)

    def book(self, k: int, previous: Tensor | None, state: Tensor) -> Tensor:
        """Book k depends on the one before."""
        return self.scores(state if previous is None else state + self.table[previous + (k - 1) * (V + 1)])[:, k]

    def read(self, state: Tensor, x: Tensor, where: Tensor) -> None:
        state.mul_(0.5).add_(x).add_(self.places[where.clamp(max=ROWS - 1)])

    def step(self, codes: Tensor, text: Tensor | None, cache: list) -> Scores:
        x = self.table[codes + torch.arange(K, device=codes.device) * (V + 1)].float().sum(-2).to(self.table.dtype)
        self.read(cache[0], x if text is None else x + text, cache[1])
        cache[1] += 1
        return Scores(cache[0], self.scores(cache[0]))

    def stepping(self, cache: list) -> Stepping:
        def step(x: Tensor, where: Tensor) -> Tensor:
            self.read(cache[0], x, where)
            return cache[0] if self.depth is not None else self.scores(cache[0])

        return Stepping(step, cache[1], self.table)


def tell(toy: Toy, guidance: float, position: Position) -> Tensor:
    at = (position.phone + 3 * position.stayed).masked_fill(position.done, ROWS - 1)
    return stack_groups(toy.places[at], guidance)


def both(toy: Toy, task: Task) -> list[tuple[Tensor, Tensor]]:
    """Codes and lengths of the decoder, and of the captured steps."""
    B, device = len(task.seeds), task.seeds.device
    assert captured.can(toy, task)
    said = []
    for decode in (autoregressive.decode, captured.run):
        cache, scores = toy.begin(len(stack_groups(task.seeds, task.policy.guidance)))
        said.append(gather(decode(toy, scores, cache, task), B, K, V, device))
    return said


def same(toy: Toy, task: Task) -> tuple[Tensor, Tensor]:
    want, got = both(toy, task)
    assert torch.equal(got[1], want[1])
    assert torch.equal(got[0], want[0])
    return got


def numbers(device: str, *n: int) -> Tensor:
    return torch.tensor(n, device=device)


POLICY = Policy(repetition_penalty=1.3, repetition_window=4, temperature=(0.9, 0.7, 1.1), top_k=6)


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("depth", [False, True])
def test_it_says_what_the_decoder_says(device, dtype, guidance, depth):
    policy, delays = replace(POLICY, guidance=guidance), (0, 0, 0) if depth else (0, 1, 2)
    task = Task(numbers(device, 5, 6, -7, 2**40), numbers(device, 33, 20, 0, 7), policy, delays)
    _, lengths = same(Toy(device, dtype, depth), task)
    assert int(lengths.max()) > captured.LOOK  # more than one look


@everywhere
@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("depth", [False, True])
def test_a_plan_is_told_step_by_step_as_the_decoder_tells_it(device, guidance, depth):
    toy, delays = Toy(device, depth=depth, ends=3.0), (0, 0, 0) if depth else (0, 1, 2)
    frames = torch.tensor([[3, 0, 4, 0], [0, 9, 1, 9], [0, 0, 0, 0]], device=device)
    plan = MonotonicPointer.planned(frames, numbers(device, 4, 4, 2))
    before = torch.randint(0, V, (3, K, 5), generator=torch.Generator().manual_seed(1)).to(device)
    policy = replace(POLICY, guidance=guidance)
    task = Task(
        numbers(device, 1, 2, 3), plan.cap, policy, delays, before, plan, lambda position: tell(toy, guidance, position)
    )
    _, lengths = same(toy, task)
    assert lengths.tolist() == [7, 19, 0]  # although the scores would rather end


@everywhere
def test_what_is_caught_in_a_loop_is_ended(device):
    toy, loops = Toy(device), Loops(longest=3, repeats=2, frames=4)
    liked = torch.zeros(3, K, V, device=device)
    liked[0, 0, 2] = 50.0  # this item says nothing else in book 0
    toy.scores = lambda state: liked
    task = Task(numbers(device, 1, 2, 3), numbers(device, 40, 40, 3), Policy(), (0, 1, 1), loops=loops)
    _, lengths = same(toy, task)
    assert lengths.tolist() == [5, 40, 3]


@everywhere
def test_a_step_that_is_repeated_does_not_repeat_its_noise(device):
    B, T, toy = 2, 64, Toy(device)
    flat = torch.zeros(B, K, V, device=device)
    toy.scores = lambda state: flat
    cache, _ = toy.begin(B)
    task = Task(torch.arange(B, device=device), torch.full((B,), T, device=device), Policy(), (0,) * K)
    codes, _ = gather(captured.run(toy, Scores(flat, flat), cache, task), B, K, V, device)
    assert codes.shape == (B, K, T)
    columns = codes.flatten(0, 1).T  # [T, B K]
    assert len(columns.unique(dim=0)) > T // 2


def test_a_plan_knows_all_its_positions():
    frames, lengths = torch.tensor([[2, 0, 3], [0, 1, 9], [0, 0, 0]]), torch.tensor([3, 2, 3])
    plan = MonotonicPointer.planned(frames, lengths)
    position, T = plan.start(), 7
    ahead = plan.ahead(T)
    for t in range(T):
        done = position.done
        assert torch.equal(ahead.done[:, t], done)
        assert torch.equal(ahead.phone[:, t], position.phone)
        assert torch.equal(ahead.stayed[:, t], position.stayed)
        position = plan.follow(position, None, torch.full((3,), 0.5), torch.ones(3, dtype=torch.bool))


def test_what_the_model_has_a_say_in_is_left_to_the_decoder():
    one = torch.ones(1, dtype=torch.int64)
    free = Task(one, one, Policy(), (0, 0, 0), constraint=MonotonicPointer(one[None], 2 * one[None], one))
    assert not captured.can(Toy("cpu"), free)
    assert not captured.can(Toy("cpu", depth=True), Task(one, one, Policy(), (0, 1, 2)))
    assert captured.can(Toy("cpu"), Task(one, one, Policy(), (0, 1, 2)))


class Unwaiting(TorchDispatchMode):
    """Fails where the host asks for a number, or makes a tensor of what it knows: a graph that is captured can do neither."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.lift_fresh.default), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("depth", [False, True])
def test_a_step_asks_for_no_number(depth, monkeypatch):
    """All of it but the kernels, whose plain definitions do ask; theirs are tested in tests/test_sampling_fused.py."""
    toy, at = Toy("cpu", depth=depth), torch.ones(1, dtype=torch.int64)
    plan = MonotonicPointer.planned(20 * at[None], at)
    looking, count = captured.capture, []

    def strictly(step, device):
        def work():
            with Unwaiting():
                step()
            count.append(1)

        return looking(work, device)

    def let(function):
        def kernel(*args, **options):
            with torch.utils._python_dispatch._disable_current_modes():
                return function(*args, **options)

        return kernel

    monkeypatch.setattr(captured, "capture", strictly)
    for name in ("sample_step", "embed_step"):
        monkeypatch.setattr(captured.steps, name, let(getattr(captured.steps, name)))
    tasks = [
        Task(at, plan.cap, POLICY, (0, 0, 0), constraint=plan, text=lambda position: tell(toy, 1.0, position)),
        Task(at, plan.cap, POLICY, (0, 0, 0), loops=Loops()),
    ]
    for task in tasks:
        cache, scores = toy.begin(1)
        assert len(list(captured.run(toy, scores, cache, task))) == 20
    assert len(count) == 4 * captured.LOOK
    with pytest.raises(AssertionError), Unwaiting():
        bool(at)
