"""A loop that waits for nothing says what the decoder says; on a GPU it is one graph, whose noise is never the same twice."""

import pytest
import torch
from torch import Tensor

from tts.decoding.autoregressive import Task, decode, gather
from tts.decoding.captured import run
from tts.decoding.guidance import stack_groups
from tts.decoding.scores import Scores
from tts.sampling.policy import Policy
from tts.sampling.steps import Steps

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]),
]
K, V, D, ROWS = 3, 7, 16, 60


class Toy:
    """Scores depend, row by row, on the vectors of all steps so far and on the position."""

    depth, sizes = None, (V,) * K

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.table, self.places = torch.randn(K * (V + 1), D), torch.randn(ROWS, D)
        self.out = torch.randn(D, K * (V + 1))
        self.table, self.places, self.out = (x.to(device, dtype) for x in (self.table, self.places, self.out))

    def begin(self, R: int) -> tuple[Tensor, Tensor]:
        """The state, and the scores of step 0."""
        state = torch.arange(R, device=self.out.device)[:, None] * torch.ones(D, device=self.out.device, dtype=self.out.dtype)
        return state, self.scores(state)

    def scores(self, state: Tensor) -> Tensor:
        x = (state.sin() @ self.out).view(len(state), K, V + 1).float()
        ends = torch.arange(K, device=x.device)[:, None] == 0
        return torch.cat((x[..., :V], (x[..., V:] - 12).where(ends, -torch.inf)), -1)

    def read(self, state: Tensor, x: Tensor, where: Tensor) -> Tensor:
        state.mul_(0.5).add_(x).add_(self.places[where.clamp(max=ROWS - 1)])
        return self.scores(state)

    def step(self, codes: Tensor, text: Tensor | None, cache: list) -> Scores:
        rows = self.table[codes + torch.arange(K, device=codes.device) * (V + 1)]
        cache[1] += 1
        where = torch.full((len(codes),), cache[1], device=codes.device)
        return Scores(codes, self.read(cache[0], rows.float().sum(-2).to(rows.dtype), where))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_it_says_what_the_decoder_says(device, dtype, guidance):
    toy, B, delays = Toy(device, dtype), 4, (0, 1, 2)
    policy = Policy(guidance=guidance, repetition_penalty=1.3, repetition_window=4, temperature=0.9, top_k=6)
    seeds, most = torch.arange(B, device=device) + 5, torch.tensor([33, 20, 0, 7], device=device)
    rows = stack_groups(torch.arange(B), guidance)
    state, scores = toy.begin(len(rows))
    want = gather(decode(toy, Scores(scores, scores), [state, -1], Task(seeds, most, policy, delays)), B, K, V, device)
    state, scores = toy.begin(len(rows))
    begun = Steps.start(seeds, most, delays, V, policy.repetition_window)
    where = torch.zeros(len(rows), dtype=torch.int64, device=device)
    codes, lengths = run(lambda x, at: toy.read(state, x, at), scores, where, toy.table, begun, policy)
    assert torch.equal(lengths, want[1])
    assert torch.equal(codes, want[0])
    assert int(lengths.max()) > 16  # more than one look


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_that_is_repeated_does_not_repeat_its_noise(device):
    B, T = 2, 64
    flat = torch.zeros(B, K, V, device=device)
    begun = Steps.start(torch.arange(B, device=device), torch.full((B,), T, device=device), (0,) * K, V)
    where, table = torch.zeros(B, dtype=torch.int64, device=device), torch.zeros(K * (V + 1), D, device=device)
    codes, _ = run(lambda x, at: flat, flat, where, table, begun, Policy())
    assert codes.shape == (B, K, T)
    columns = codes.flatten(0, 1).T  # [T, B K]
    assert len(columns.unique(dim=0)) > T // 2
